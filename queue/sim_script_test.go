package queue

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// simSize is how much happens in a run of the simulation.
type simSize struct {
	messages int
	length   time.Duration // in which messages are sent and things go wrong
	faults   int
	giveUp   time.Duration // queue_return
}

// script is all that happens in a run: messages, destinations and their hosts, and
// what goes wrong when. It is made from the seed alone.
type script struct {
	seed     uint64
	size     simSize
	messages []*simMessage
	leaves   map[string]*leaf      // by address: where a message arrives or fails
	aliases  map[string]simAlias   // by address
	tellers  map[string]*teller    // by address: whom a notice goes to
	dests    map[string][]*simHost // by domain
	faults   []fault
}

// fate is what must become of a recipient in the end.
type fate uint8

const (
	fateDelivered fate = iota
	fateNoUser         // its host refuses it for good
	fateNoDomain       // its domain does not exist
	fateDead           // its host never answers: it is given up
	fateRemoved        // the operator removes it
	fateExpired        // the operator gives it up
)

// leaf is a recipient as it leaves the queue: one of a message, or one that an alias
// stands for. Each has an address of its own.
type leaf struct {
	m      *simMessage
	addr   string
	fate   fate
	grey   int     // attempts that its host puts off
	teller *teller // who hears of its failure; nil for nobody
	notify string
	made   bool // by an alias

	attempts   int
	deliveries []simDelivery
	told       map[smtp.ID]bool // by which DSNs
	dropped    int
	removed    int
}

// teller is an address to which notices go.
type teller struct {
	addr    string
	dead    bool // mail to it fails: the notice is dropped
	dropped int
}

// simAlias is an alias; one with lists in it has several groups.
type simAlias []simGroup

type simGroup struct {
	to    []*leaf
	owner *teller // of a list
}

// simMessage is a message that a client sends until it is accepted.
type simMessage struct {
	id      int
	at      time.Duration
	size    int
	mail    msg.Mail
	rcpts   []msg.Rcpt
	leaves  []*leaf
	aborted bool // the client breaks off before the end of the content

	acked   bool
	unknown int // commits of which the client does not know the end
}

// simHost is a host of a destination.
type simHost struct {
	hop    msg.Hop
	dead   bool
	phases []phaseOf
}

// phaseOf is a time in which a host does not serve as it should.
type phaseOf struct {
	from, to time.Duration
	kind     trouble
}

type trouble uint8

const (
	noTrouble  trouble = iota
	refuses            // no connection
	greets4            // 421 as greeting
	hanging            // no answer until delivery_timeout
	mail4              // 4xx to MAIL
	rcpt4              // 4xx to some RCPT
	closes             // 421 to RCPT
	data4              // 4xx to DATA
	dot4               // 4xx to the final dot
	losesReply         // the connection is lost after the final dot
	troubles
)

func (h *simHost) trouble(at time.Duration) trouble {
	for _, p := range h.phases {
		if p.from <= at && at < p.to {
			return p.kind
		}
	}
	return noTrouble
}

// faultKind is what goes wrong on our side.
type faultKind uint8

const (
	faultCrash   faultKind = iota // at a change of the disk
	faultRestart                  // an orderly one
	faultClock
	faultLow  // the disk is short of space
	faultFull // writes fail for want of space
	faultEIO  // one write fails
	faultFlush
	faultRequeue
	faultHold
	faultRelease
	faultReload
	faultRemove
	faultExpire
	faults
)

func (k faultKind) String() string {
	return [...]string{"crash", "restart", "clock", "low", "full", "eio", "flush", "requeue", "hold", "release", "reload", "remove", "expire"}[k]
}

type fault struct {
	at   time.Duration
	kind faultKind
	n    int           // crash, EIO: how many changes of the disk later
	dur  time.Duration // how long the queue is down, or the disk short
	by   time.Duration // by how much the clock is set
	what string        // domain for the operator; kind of files for EIO
}

const (
	simDests   = 40
	simSenders = 4
)

func newScript(seed uint64, size simSize) *script {
	s := &script{
		seed: seed, size: size, leaves: map[string]*leaf{}, aliases: map[string]simAlias{},
		tellers: map[string]*teller{}, dests: map[string][]*simHost{},
	}
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	for i := range simDests {
		s.addDest(r, fmt.Sprintf("d%d.test", i), i, false)
	}
	for i := range simSenders {
		s.addDest(r, fmt.Sprintf("send%d.test", i), 100+i, false)
	}
	for i, domain := range []string{"dead.test", "remove.test", "expire.test"} {
		s.addDest(r, domain, 200+i, true)
	}
	for i := range size.messages {
		s.messages = append(s.messages, s.newMessage(r, i))
	}
	s.addFaults(r)
	return s
}

// addDest makes a destination of one to three hosts. Some share their host with the
// one before.
func (s *script) addDest(r *rand.Rand, domain string, n int, dead bool) {
	if n%8 == 7 && n < 100 {
		s.dests[domain] = s.dests[fmt.Sprintf("d%d.test", n-1)]
		return
	}
	for k := range 1 + r.IntN(3) {
		h := &simHost{dead: dead}
		h.hop = msg.Hop{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), byte(k)}), 25), Host: fmt.Sprintf("mx%d.%s", k, domain)}
		if n%10 == 3 {
			h.hop = msg.Hop{Protocol: msg.ProtoLMTP, Socket: fmt.Sprintf("/run/%s.%d", domain, k)}
		}
		for t := between(r, 0, 2*time.Hour); t < s.size.length; {
			p := phaseOf{from: t, to: t + between(r, time.Minute, 90*time.Minute), kind: trouble(1 + r.IntN(int(troubles)-1))}
			h.phases = append(h.phases, p)
			t = p.to + between(r, 10*time.Minute, 5*time.Hour)
		}
		s.dests[domain] = append(s.dests[domain], h)
	}
}

func between(r *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(r.Int64N(int64(b-a)))
}

// newMessage makes a message. Half of them come in bursts.
func (s *script) newMessage(r *rand.Rand, id int) *simMessage {
	m := &simMessage{id: id, at: between(r, 0, s.size.length), aborted: r.IntN(30) == 0}
	if r.IntN(2) == 0 {
		m.at = m.at.Truncate(2*time.Hour) + between(r, 0, 3*time.Second)
	}
	m.size = [...]int{0, 100, 100, 3000, 3000, 8191, 8192, 9000, 70_000}[r.IntN(9)] + r.IntN(5)
	m.mail = msg.Mail{Ret: [...]string{"", "", "FULL", "HDRS"}[r.IntN(4)], VERP: r.IntN(20) == 0}
	from := s.sender(r, fmt.Sprintf("s.m%d", id))
	if from != nil {
		m.mail.From = path(from.addr)
	}
	n := 1 + r.IntN(4)
	if r.IntN(15) == 0 {
		n = 1 + r.IntN(200)
	}
	for i := range n {
		s.addRcpt(r, m, from, i)
	}
	return m
}

// sender makes the sender of a message, or the owner of a list.
func (s *script) sender(r *rand.Rand, local string) *teller {
	var t *teller
	switch r.IntN(12) {
	case 0:
		return nil
	case 1:
		t = &teller{addr: local + "@nosend.test", dead: true}
	default:
		t = &teller{addr: fmt.Sprintf("%s@send%d.test", local, r.IntN(simSenders))}
	}
	s.tellers[t.addr] = t
	return t
}

func (s *script) addRcpt(r *rand.Rand, m *simMessage, from *teller, i int) {
	notify := [...]string{"", "", "", "NEVER", "FAILURE", "SUCCESS", "SUCCESS,FAILURE,DELAY", "DELAY"}[r.IntN(8)]
	name := fmt.Sprintf("r%d.m%d", i, m.id)
	if r.IntN(12) > 0 {
		l := s.newLeaf(r, m, name, from, notify, false)
		m.rcpts = append(m.rcpts, msg.Rcpt{To: path(l.addr), Notify: notify})
		return
	}
	a := make(simAlias, 1+r.IntN(2))
	n := len(a) + r.IntN(9)
	for k := range n {
		g := &a[k%len(a)]
		if k < len(a) && r.IntN(2) == 0 {
			g.owner = s.sender(r, fmt.Sprintf("o%d.%s", k, name))
		}
		_, _, next := dsn.Expand(notify, n, g.owner != nil)
		tell := from
		if g.owner != nil {
			tell = g.owner
		}
		g.to = append(g.to, s.newLeaf(r, m, fmt.Sprintf("x%d.%s", k, name), tell, next, true))
	}
	s.aliases[name+"@alias.test"] = a
	m.rcpts = append(m.rcpts, msg.Rcpt{To: path(name + "@alias.test"), Notify: notify})
}

// newLeaf makes a recipient. What the operator is to end waits at a dead host.
func (s *script) newLeaf(r *rand.Rand, m *simMessage, name string, tell *teller, notify string, made bool) *leaf {
	l := &leaf{m: m, teller: tell, notify: notify, made: made, told: map[smtp.ID]bool{}, grey: max(r.IntN(8)-5, 0)}
	domain := fmt.Sprintf("d%d.test", r.IntN(simDests))
	switch n := r.IntN(100); {
	case n < 6:
		l.fate = fateNoUser
	case n < 8:
		l.fate, domain = fateNoDomain, "none.test"
	case n < 11:
		l.fate, domain = fateDead, "dead.test"
	case n < 12:
		l.fate, domain = fateRemoved, "remove.test"
	case n < 13:
		l.fate, domain = fateExpired, "expire.test"
	}
	l.addr = name + "@" + domain
	s.leaves[l.addr] = l
	m.leaves = append(m.leaves, l)
	return l
}

// addFaults spreads faults over the run. The operator ends what is his to end every
// hour. The clock goes far forward only once: a restart meanwhile takes half of
// queue_return.
func (s *script) addFaults(r *rand.Rand) {
	for i := range s.size.faults {
		f := fault{at: between(r, 0, s.size.length), kind: faultKind(r.IntN(int(faultRemove))), n: 1 + r.IntN(40)}
		if i%3 == 0 {
			f.kind = faultCrash
		}
		f.dur = between(r, time.Second, 20*time.Minute)
		f.by = between(r, -5*time.Hour, 30*time.Minute)
		f.what = [...]string{"/defedb/", "/defedb/", "/S", ".log", ".sst"}[r.IntN(5)]
		switch f.kind {
		case faultFlush, faultRequeue, faultHold, faultRelease:
			f.what = fmt.Sprintf("d%d.test", r.IntN(simDests))
		case faultCrash, faultRestart:
			if r.IntN(2) == 0 { // else the clock is set while the queue is down
				f.by = 0
			}
		}
		s.faults = append(s.faults, f)
	}
	far := between(r, 0, s.size.length)
	s.faults = append(s.faults,
		fault{at: far, kind: faultClock, by: year}, fault{at: far + time.Hour, kind: faultClock, by: -year - 7*time.Hour},
		fault{at: between(r, 0, s.size.length), kind: faultRestart, dur: time.Minute, by: -30 * 24 * time.Hour})
	for t := time.Hour; t < s.size.length+3*time.Hour; t += time.Hour {
		s.faults = append(s.faults, fault{at: t, kind: faultRemove, what: "remove.test"}, fault{at: t + time.Minute, kind: faultExpire, what: "expire.test"})
	}
	slices.SortStableFunc(s.faults, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
}

// content is the whole content of a message.
func (m *simMessage) content() string {
	head := fmt.Sprintf("X-Message: %d\r\nSubject: simulated\r\n\r\n", m.id)
	line := fmt.Sprintf("%d:%d line\r\n", m.id, m.size)
	if m.size < len(head) {
		return head[:m.size] // also no content at all
	}
	return head + strings.Repeat(line, (m.size-len(head))/len(line))
}

// fails tells whether a recipient must fail.
func (l *leaf) fails() bool { return l.fate != fateDelivered && l.fate != fateRemoved }

// tells reports whether the sender must hear of the failure of l.
func (l *leaf) tells() bool { return l.teller != nil && dsn.Due(l.notify, dsn.Failed) }
