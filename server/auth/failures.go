package auth

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"meta1/maps"
)

// tableMax bounds each table of failures: what failed longest ago is forgotten first.
const tableMax = 10_000

// failures are what failed and succeeded, with the limits of one configuration.
type failures struct {
	limits Limits
	*memory
}

// memory remembers who failed, and which account succeeded from where.
type memory struct {
	mu       sync.Mutex // guards the rest
	clients  table
	accounts table
	good     table // accounts with an address from which they succeeded
}

func newFailures(l Limits) *failures {
	return &failures{l, &memory{clients: newTable(), accounts: newTable(), good: newTable()}}
}

// table counts events by key, at most tableMax keys.
type table struct {
	order *list.List // of *tally, the latest event first
	index map[string]*list.Element
}

type tally struct {
	key   string
	count int
	last  time.Time
}

func newTable() table { return table{order: list.New(), index: map[string]*list.Element{}} }

// count is the number of events of a key since it last had none for expire.
func (t *table) count(key string, now time.Time, expire time.Duration) int {
	e, ok := t.index[key]
	if !ok {
		return 0
	}
	n := e.Value.(*tally)
	if now.Sub(n.last) < expire {
		return n.count
	}
	t.remove(e)
	return 0
}

// add counts an event.
func (t *table) add(key string, now time.Time, expire time.Duration) int {
	n := t.count(key, now, expire)
	if e, ok := t.index[key]; ok {
		v := e.Value.(*tally)
		v.count, v.last = n+1, now
		t.order.MoveToFront(e)
		return n + 1
	}
	if t.order.Len() >= tableMax {
		t.remove(t.order.Back())
	}
	t.index[key] = t.order.PushFront(&tally{key: key, count: 1, last: now})
	return 1
}

func (t *table) remove(e *list.Element) {
	delete(t.index, e.Value.(*tally).key)
	t.order.Remove(e)
}

// clientKey is the address of a client: of IPv6 the /64, which one host may have whole.
func clientKey(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64) // it has that many bits
		return p.String()
	}
	return ip.String()
}

// clientBlocked reports that an address has failed too often.
func (f *failures) clientBlocked(client netip.Addr, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.limits.PerClient > 0 && f.clients.count(clientKey(client), now, f.limits.Expire) >= f.limits.PerClient
}

// failed counts a failure. It gives the delay of the reply, and whether there were too
// many for the account before, so that this one says nothing about the password.
func (f *failures) failed(client netip.Addr, account string, now time.Time) (delay time.Duration, blocked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	blocked = f.blockedLocked(client, account, now)
	account = maps.Lower(account)
	n := f.clients.add(clientKey(client), now, f.limits.Expire)
	if account != "" {
		n = max(n, f.accounts.add(account, now, f.limits.Expire))
	}
	if f.limits.Delay <= 0 {
		return 0, blocked
	}
	return min(f.limits.Delay<<min(n-1, 8), delayMax), blocked
}

// succeeded notes a success. It reports that the account is closed to this address: then
// nothing is noted.
func (f *failures) succeeded(client netip.Addr, account string, now time.Time) (blocked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blockedLocked(client, account, now) {
		return true
	}
	f.good.add(maps.Lower(account)+"\x00"+clientKey(client), now, f.limits.Expire)
	return false
}

func (f *failures) blockedLocked(client netip.Addr, account string, now time.Time) bool {
	account = maps.Lower(account) // most maps do not tell them apart
	return f.limits.PerAccount > 0 && f.accounts.count(account, now, f.limits.Expire) >= f.limits.PerAccount &&
		f.good.count(account+"\x00"+clientKey(client), now, f.limits.Expire) == 0
}
