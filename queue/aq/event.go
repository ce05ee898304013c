package aq

import (
	"time"

	"meta1/mta/msg"
	"meta1/queue/intake"
)

// Event is something that has happened outside of the core. These are all:
// *Accepted, *Recovered, *Routed, *Delivered, *Progress, *Made, *Scanned, *Operate,
// *Withdraw, *Up, *ClockSet, *Configure, *LimitsChanged, *Parked and *Drain.
type Event interface{ event() }

// Message is a message as the store has it.
type Message struct {
	Envelope *msg.Envelope
	Size     int64
	Body     msg.Body
	Inline   bool // its content is in the store, not in a file
	Lost     bool // its content is gone
}

// Accepted: a message became durable in the store, with all its recipients fresh. Its
// recipients are counted in the budget.
type Accepted struct{ Message }

// Recovered: a start found a message with fresh recipients. They are counted in the budget.
type Recovered struct {
	Message
	Ended    []int // recipients with a record of their end, ascending
	Deferred []int // recipients with a record in the deferred key space, or one that was set aside
}

// Fresh is how many recipients the message brings into the active queue.
func (r *Recovered) Fresh() int { return len(r.Envelope.Rcpts) - len(r.Ended) - len(r.Deferred) }

// Routed: SMAR has answered for the first recipients of a Lookup that have no answer yet.
type Routed struct {
	Lookup  *Lookup
	Answers []msg.RouteA
	// Down: SMAR does not run. The recipients without an answer are asked about again when
	// Up says that it does; Done must be set.
	Down bool
	// Hung: a question was not answered in time, so no further ones are asked for this
	// domain at once.
	Hung bool
	Done bool // no more answers come
}

// Delivered: a delivery has ended.
type Delivered struct {
	Delivery *Delivery
	A        msg.DeliverA
	Err      error // SMTPC did not answer, though it took the question; nil if it did
	// Down: SMTPC does not run, or has ended meanwhile. That is no attempt.
	Down bool
}

// Progress: a delivery has moved: its host has answered, or taken content.
type Progress struct{ Delivery *Delivery }

// Made: messages of our own are complete, or Err says why they cannot be made.
type Made struct {
	Make     *Make
	Messages []*NewMessage
	Err      error
}

// Scanned answers a Scan.
type Scanned struct {
	Scan   *intake.Scan
	Groups []*Group
	Broken []*Broken
	// Next is when the first recipient behind the cursor is due; zero for none. Of ScanDue.
	Next time.Time
	// Aside are the records of Q.Select.TA that were set aside; of ScanSelect.
	Aside []*Broken
	// Behind is the first recipient that was not looked at; of ScanSelect.
	Behind Ref
	// More: others follow.
	More bool
	Err  error
}

// Group is the recipients of one message that a scan has found.
type Group struct {
	Message
	Left   int // recipients of it that have not ended
	States []State
}

// Operate: an operator asks for something.
type Operate struct {
	ID uint64
	Q  msg.OperateQ
	// Day is the time of day, against which the age of a message counts.
	Day time.Time
}

// Withdraw: the operator with this ID no longer waits.
type Withdraw struct{ ID uint64 }

// Up: a module runs again.
type Up struct{ Module Module }

// Module is a module that the core has work for.
type Module uint8

// The modules.
const (
	SMAR Module = iota
	SMTPC
	modules
)

// ClockSet: the machine's clock is now ahead of the queue's by so much.
type ClockSet struct{ Ahead time.Duration }

// Configure: the configuration is another one from now on, and the maps were read anew. The Budget is the
// same object. What follows:
//
//   - All decisions are made by it from now on, also about mail that is in the queue. What was decided stays:
//     deliveries, lookups and messages that are being made go on as they began.
//   - Where more deliveries are in progress than the new limits allow, none begins until enough have ended.
//   - A recipient that is older now than queue_return gets one more attempt, at its time, and fails for good
//     if that fails.
//   - What waits longer than the new retry_delay_max allows is tried now (recipients), or then at the latest
//     (hosts that are closed, routes that fail). A longer one counts from the next attempt on.
//   - What is in the active queue beyond a smaller bound stays there. Until it fits, nothing is loaded, and
//     new mail waits for room.
//   - Notices that are held back go out after the new merge_delay_max at the latest.
type Configure struct{ Config Config }

// LimitsChanged: Config.Sched's functions answer anew.
type LimitsChanged struct{}

// Parked: mail is parked for these destinations since before the start.
type Parked struct{ Dests []string }

// Drain: start nothing new.
type Drain struct{}

func (*Accepted) event()      {}
func (*Recovered) event()     {}
func (*Routed) event()        {}
func (*Delivered) event()     {}
func (*Progress) event()      {}
func (*Made) event()          {}
func (*Scanned) event()       {}
func (*Operate) event()       {}
func (*Withdraw) event()      {}
func (*Up) event()            {}
func (*ClockSet) event()      {}
func (*Configure) event()     {}
func (*LimitsChanged) event() {}
func (*Parked) event()        {}
func (*Drain) event()         {}
