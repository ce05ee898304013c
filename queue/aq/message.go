package aq

import (
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/intake"
	"meta1/queue/sched"
)

// RcptState is where a recipient in the active queue stands. The package comment has the
// picture.
type RcptState uint8

// The states.
const (
	Routing    RcptState = iota // its route is being looked up
	ReadyState                  // it waits in the ready queue
	Delivering                  // a delivery attempt runs
	Noticing                    // what replaces it is being made, or is held back to be merged
	Saving                      // its move is being written
	Gone                        // it has left
)

// String is the word for it in tests and listings.
func (s RcptState) String() string {
	return [...]string{"routing", "ready", "delivering", "noticing", "saving", "gone"}[s]
}

// contentPlace is where the content of a message is.
type contentPlace uint8

const (
	inStore    contentPlace = iota // beside its envelope, and it never had a file
	wasInStore                     // it was committed with its envelope; an earlier stay in the active queue may have moved it to a file
	spilled                        // it was moved to a file in this stay, or is about to be
	inFile
	lost
)

// committed reports content that was committed with its envelope, wherever it is now.
func (p contentPlace) committed() bool { return p <= spilled }

// message is a message of which recipients are in the active queue, or for which something
// is in progress.
type message struct {
	env     *msg.Envelope
	size    int64
	body    msg.Body
	content contentPlace
	sender  string // in the form in which senders are compared

	rcpts  []*rcpt // in the active queue, in no order
	active bits    // their indexes
	left   int     // recipients that have not ended, wherever they are, as decided
	fresh  int     // of these, fresh ones, as decided
	ended  []int   // recipients with a record EndFresh
	busy   int     // saves and makes in progress, which need the message in memory

	ready   map[readyKey]*mail // its mail in the ready queue, if it has several recipients
	notices []notice           // held back, to share a DSN
	making  *Make              // in progress: it reads the content
	makes   []*Make            // wait for that
	ending  []*rcpt            // recipients that end when nothing is being made
	bounced bool               // a bounce was made: further ones return only the header

	// What most messages need no more of, so that it takes no memory of its own.
	oneRcpt [1]*rcpt
	oneBits [1]uint64
}

// rcpt is a recipient in the active queue.
type rcpt struct {
	m      *message
	index  int
	slot   int // its place in m.rcpts
	state  RcptState
	class  sched.Class
	rec    State  // its record if it is deferred, and what the next one is made of
	domain string // for comparing (smtp.Path.LowerDomain); the envelope has it as sent

	dest  *sched.Destination // in Ready and Delivering
	mail  *mail              // the same
	conf  *msg.Conf          // of smtpc_rcpt_conf:, as of the last route; nil for none
	start time.Time          // of the last attempt; zero: none
	park  *intake.Park       // from which it came back; nil for none
}

func (r *rcpt) ref() Ref        { return Ref{TA: r.m.env.TA, Index: r.index} }
func (r *rcpt) path() smtp.Path { return r.m.env.Rcpts[r.index].To }
func (r *rcpt) attr() *msg.Rcpt { return &r.m.env.Rcpts[r.index] }

// take puts a recipient into the active queue.
func (m *message) take(r *rcpt) {
	r.slot = len(m.rcpts)
	m.rcpts = append(m.rcpts, r)
	m.active.set(r.index)
}

// drop takes a recipient out of the active queue.
func (m *message) drop(r *rcpt) {
	last := len(m.rcpts) - 1
	m.rcpts[r.slot] = m.rcpts[last]
	m.rcpts[r.slot].slot = r.slot
	m.rcpts[last] = nil
	m.rcpts = m.rcpts[:last]
	m.active.clear(r.index)
	r.state = Gone
}

// newMessage makes a message that has just become durable, without recipients in the active queue.
func newMessage(s *Message) *message {
	m := readMessage(s)
	if m.content == wasInStore {
		m.content = inStore
	}
	return m
}

// readMessage makes a message that was read from the store, without recipients in the active queue.
func readMessage(s *Message) *message {
	from := s.Envelope.Mail.From
	m := &message{
		env: s.Envelope, size: s.Size, body: s.Body, content: inFile,
		sender: from.Local + "@" + from.LowerDomain(),
	}
	m.rcpts, m.active = m.oneRcpt[:0], m.oneBits[:]
	if n := len(s.Envelope.Rcpts); n > 64 {
		m.active = make(bits, (n+63)/64)
	}
	if s.Lost {
		m.content = lost
	} else if s.Inline {
		m.content = wasInStore
	}
	return m
}

// takeFresh puts all recipients into the active queue but for those in gone. At now they
// are waited old.
func (m *message) takeFresh(gone []int, now time.Time, waited time.Duration) {
	n := len(m.env.Rcpts)
	all := make([]rcpt, n)
	m.rcpts = slices.Grow(m.rcpts, n-len(gone))
	for _, i := range gone { // marked for a moment, so that they are passed over
		m.active.set(i)
	}
	for i := range all {
		if m.active.has(i) {
			continue
		}
		r := &all[i]
		*r = rcpt{m: m, index: i, rec: State{Ref: Ref{TA: m.env.TA, Index: i}, Stored: now, Waited: waited}}
		r.domain = r.path().LowerDomain()
		m.take(r)
	}
	for _, i := range gone {
		m.active.clear(i)
	}
	m.fresh = len(m.rcpts)
}

// all are the recipients in the active queue, in the order of their indexes. The list stays
// as it is when recipients leave.
func (m *message) all() []*rcpt {
	list := slices.Clone(m.rcpts)
	slices.SortFunc(list, func(a, b *rcpt) int { return a.index - b.index })
	return list
}

// bits is a set of recipient indexes. A message may have a hundred thousand.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) clear(i int)    { b[i/64] &^= 1 << (i % 64) }
