package queue

import (
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
)

// home is the database that answers for a recipient.
type home uint8

const (
	homeIBDB home = iota
	homeDEFEDB
)

// phase is where a recipient in the active queue stands.
type phase uint8

const (
	phaseRoute    phase = iota // its route is asked for
	phaseWait                  // it waits for a connection
	phaseInflight              // a delivery attempt runs
	phaseEnding                // it is being written to the DEFEDB, or a bounce is made
)

// rcpt is a recipient in the active queue. The loop owns it.
type rcpt struct {
	t     *transaction
	index int
	home  home
	phase phase
	// state is its record in the DEFEDB if it has one, and what the next one is
	// made of. state.NextTry is the time under which it lies there.
	state defedb.State
	dest  *dest     // while phaseWait or phaseInflight
	job   *job      // the same; while phaseWait, of which the next delivery is made
	conf  *msg.Conf // of smtpc_rcpt_conf:, as of the last route; nil for none
	start time.Time // of the attempt that runs
	slot  int       // its place in t.rcpts
	held  bool      // it goes to the DEFEDB to be held
	waits bool      // it goes to the DEFEDB to wait for its destination
	wait  *wait     // for which it was in the DEFEDB
}

func (r *rcpt) id() string      { return smtp.RcptID(r.t.env.TA, r.index) }
func (r *rcpt) path() smtp.Path { return r.t.env.Rcpts[r.index].To }
func (r *rcpt) attr() *msg.Rcpt { return &r.t.env.Rcpts[r.index] }
func (r *rcpt) stored() time.Time {
	if r.home == homeDEFEDB {
		return r.state.NextTry
	}
	return time.Time{}
}

// transaction is a message of which recipients are in the active queue. The loop
// owns it, except for spill.
type transaction struct {
	env  *msg.Envelope
	size int64
	body msg.Body

	rcpts  []*rcpt        // in the active queue, in no order
	active bits           // their indexes
	left   int            // recipients that have not ended, wherever they are
	jobs   map[*flow]*job // those that wait, if there are several recipients

	inIBDB   bool
	inline   bool  // its content is in the IBDB
	ibdbLeft int   // recipients whose home is the IBDB
	ended    []int // recipients with an end record in the IBDB
	inDEFEDB bool
	hasFile  bool
	memory   int64    // bytes counted against the content budget
	pending  int      // operations on the DEFEDB under way
	spilling bool     // a deferSpill is under way
	bounced  bool     // a bounce was made: further ones return only the header
	lost     bool     // its content is gone
	notices  []notice // kept back for a while, to share a DSN
	accepted time.Time
	living   bits // see spillRest

	spill spillState // owned by the deferrer
}

// spillState is what the deferrer knows to be durable of a transaction.
type spillState struct {
	file bool // the content file
	ta   bool // the record in the DEFEDB
}

// bits is a set of recipient indexes. A message may have a hundred thousand.
type bits []uint64

func newBits(n int) bits      { return make(bits, (n+63)/64) }
func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) clear(i int)    { b[i/64] &^= 1 << (i % 64) }

// missing gives the indexes below n that are not in the set.
func (b bits) missing(n int) (all []int) {
	for i := range n {
		if !b.has(i) {
			all = append(all, i)
		}
	}
	return all
}

// take puts a recipient into the active queue.
func (t *transaction) take(r *rcpt) {
	r.slot = len(t.rcpts)
	t.rcpts = append(t.rcpts, r)
	t.active.set(r.index)
}

// drop takes a recipient out of the active queue.
func (t *transaction) drop(r *rcpt) {
	last := len(t.rcpts) - 1
	t.rcpts[r.slot] = t.rcpts[last]
	t.rcpts[r.slot].slot = r.slot
	t.rcpts[last] = nil
	t.rcpts = t.rcpts[:last]
	t.active.clear(r.index)
}

// spillRest is what the deferrer gets of the recipients that have not ended, for the
// file that it is about to make. All of them are in the active queue then, for the
// file is there before the first recipient leaves it otherwise. The set is taken once:
// a recipient that ends until the file is written may be told of as living.
func (t *transaction) spillRest() bits {
	if t.living == nil && !t.hasFile {
		t.living = slices.Clone(t.active)
	}
	return t.living
}

// has tells whether the recipient is in the active queue.
func (t *transaction) has(index int) bool { return t.active.has(index) }

// newTransaction makes a transaction that is in the IBDB with all its recipients
// in the active queue, but for those that have ended. At now they are waited old.
func newTransaction(e *msg.Envelope, size int64, body msg.Body, ended []int, now time.Time, waited time.Duration) *transaction {
	t := &transaction{
		env: e, size: size, body: body, inIBDB: true, ended: ended, accepted: now,
		active: newBits(len(e.Rcpts)), rcpts: make([]*rcpt, 0, len(e.Rcpts)),
	}
	var gone bits
	if len(ended) > 0 {
		gone = newBits(len(e.Rcpts))
		for _, i := range ended {
			gone.set(i)
		}
	}
	all := make([]rcpt, len(e.Rcpts))
	for i := range all {
		if gone == nil || !gone.has(i) {
			all[i] = rcpt{t: t, index: i, state: defedb.State{TA: e.TA, Index: i, Stored: now, Waited: waited}}
			t.take(&all[i])
		}
	}
	t.left, t.ibdbLeft = len(t.rcpts), len(t.rcpts)
	return t
}
