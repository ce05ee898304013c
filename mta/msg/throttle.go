package msg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Gate says whether new mail is taken. It outlives the modules, so that one that is started again
// goes on as before. The zero Gate is open.
type Gate struct{ reason atomic.Pointer[string] }

// Close has new sessions and transactions refused with 421.
func (g *Gate) Close(reason string) { g.reason.Store(&reason) }

// Open ends that.
func (g *Gate) Open() { g.reason.Store(nil) }

// Closed reports whether it is closed, and why.
func (g *Gate) Closed() (reason string, closed bool) {
	if r := g.reason.Load(); r != nil {
		return *r, true
	}
	return "", false
}

// ThrottleKind says what a limit is on.
type ThrottleKind string

// The kinds of limits that an operator may set while meta1 runs.
const (
	ThrottleInOpen  ThrottleKind = "in_open"  // open connections of one client address
	ThrottleInRate  ThrottleKind = "in_rate"  // new connections of one client address within a minute
	ThrottleOutOpen ThrottleKind = "out_open" // deliveries at once to one host
)

// Throttle is one limit: it only lowers what the configuration allows.
type Throttle struct {
	Kind   ThrottleKind
	Net    netip.Prefix // the addresses for which it holds; invalid: all but those of this host
	Max    int
	Reason string
	Set    time.Time
	Until  time.Time // zero: until it is cleared, or meta1 ends
}

// throttlesMax bounds the limits that are set at one time, reasonMax their reasons.
const (
	throttlesMax = 100
	reasonMax    = 200
)

// Throttles are the limits that were set while meta1 runs. They outlive the modules. The zero Throttles
// has none. Any goroutine may use it.
type Throttles struct {
	changed atomic.Pointer[func()]
	now     atomic.Pointer[[]Throttle]
	mu      sync.Mutex // held by writers
}

// OnChange sets what is called when limits for hosts may have changed.
func (t *Throttles) OnChange(f func()) { t.changed.Store(&f) }

// List are all limits, in the order in which they were set.
func (t *Throttles) List() []Throttle {
	if l := t.now.Load(); l != nil {
		return *l
	}
	return nil
}

// Put sets a limit, in place of one of the same kind for the same addresses.
func (t *Throttles) Put(l Throttle) error {
	least := 0
	switch l.Kind {
	case ThrottleInOpen, ThrottleInRate:
	case ThrottleOutOpen:
		least = 1
	default:
		return fmt.Errorf("%q is no kind of limit: it is %s, %s or %s", l.Kind, ThrottleInOpen, ThrottleInRate, ThrottleOutOpen)
	}
	if l.Max < least {
		return fmt.Errorf("a limit %s is at least %d; to keep mail for hosts back use hold", l.Kind, least)
	}
	if l.Reason == "" || len(l.Reason) > reasonMax {
		return fmt.Errorf("a limit needs a reason of at most %d bytes", reasonMax)
	}
	if l.Net.IsValid() {
		l.Net = netip.PrefixFrom(l.Net.Addr().Unmap(), l.Net.Bits()).Masked()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(t.List()), l.same)
	if len(list) >= throttlesMax {
		return errors.New("too many limits are set")
	}
	t.storeLocked(append(list, l))
	return nil
}

func (t *Throttles) storeLocked(list []Throttle) {
	t.now.Store(&list)
	if f := t.changed.Load(); f != nil {
		(*f)()
	}
}

func (l *Throttle) same(o Throttle) bool { return l.Kind == o.Kind && l.Net == o.Net }

// Clear ends limits of a kind for some addresses, all of them if kind is "", and returns those that
// have ended.
func (t *Throttles) Clear(kind ThrottleKind, net netip.Prefix) []Throttle {
	if net.IsValid() {
		net = netip.PrefixFrom(net.Addr().Unmap(), net.Bits()).Masked()
	}
	return t.end(func(l Throttle) bool { return kind == "" || l.Kind == kind && l.Net == net })
}

// Expire ends the limits whose time is over.
func (t *Throttles) Expire(now time.Time) []Throttle {
	over := func(l Throttle) bool { return !l.Until.IsZero() && !now.Before(l.Until) }
	if !slices.ContainsFunc(t.List(), over) {
		return nil
	}
	return t.end(over)
}

func (t *Throttles) end(which func(Throttle) bool) (ended []Throttle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := []Throttle{}
	for _, l := range t.List() {
		if which(l) {
			ended = append(ended, l)
		} else {
			kept = append(kept, l)
		}
	}
	if len(ended) > 0 {
		t.storeLocked(kept)
	}
	return ended
}

// Of is the lowest limit of a kind that holds for an address; ok is false for none.
func (t *Throttles) Of(kind ThrottleKind, ip netip.Addr) (most int, ok bool) {
	ip = ip.Unmap()
	for _, l := range t.List() {
		holds := l.Net.IsValid() && l.Net.Contains(ip) || !l.Net.IsValid() && !ip.IsLoopback()
		if l.Kind == kind && holds && (!ok || l.Max < most) {
			most, ok = l.Max, true
		}
	}
	return most, ok
}
