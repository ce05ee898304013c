package aq

import (
	"log/slog"
	"time"

	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/entry"
	"meta1/queue/intake"
	"meta1/queue/lookup"
)

// The words that the store has, too.
type (
	Ref    = entry.Ref
	State  = entry.State
	Broken = entry.Broken
)

// Ready is what the core has decided since the last Ready: all that the queue does, it does
// because it stands here. It is valid until the next call of Ready.
type Ready struct {
	// Save must be written in this order, each Save as a whole or not at all. When that is
	// durable, tell Advance. All else may be done at once.
	Save []*Save
	// Unlink are messages that are forgotten, durably: their content files may go.
	Unlink []smtp.ID
	// Spill are messages that wait, with content too large to stay in the store: it may be
	// moved to files.
	Spill []*msg.Envelope
	// Evict are messages of which no recipient is in the active queue any more: their
	// content need not stay in memory.
	Evict []smtp.ID

	Lookup  []*Lookup    // ask SMAR for routes; answer with Routed
	Deliver []*Delivery  // ask SMTPC to deliver; answer with Delivered
	Cancel  []*Delivery  // end these if they can be ended: they hang, and others wait for their slots
	Make    []*Make      // make a message of our own; answer with Made
	Scan    *intake.Scan // read deferred mail; answer with Scanned; nil for nothing
	Answer  []Answer     // to operators
	Log     []Line

	attrs []slog.Attr // those of Log: one list, for there are several lines for each message
}

// Save is one indivisible step of one message in the store.
type Save struct {
	ID      uint64 // ascending; for Advance
	Changes []Change

	leave []*rcpt    // they leave the active queue when it is durable
	enter []*message // they enter it
	m     *message   // of leave; nil for none
}

// ChangeKind is what a Change does to the store.
type ChangeKind uint8

// The kinds. Package records says what each writes.
const (
	Accept       ChangeKind = iota // New is a message
	EndFresh                       // the fresh recipient Ref has ended; others of its message are fresh
	EndDeferred                    // the deferred recipient whose record is Old has ended
	Put                            // the recipient has the record State from now on; Old is the one before, nil if it was fresh
	DropAccepted                   // no recipient of Ref.TA is fresh any more; Ended have a record EndFresh
	Forget                         // all recipients of Ref.TA have ended
	SetAside                       // the record of Broken cannot be decoded
	DropAside                      // an operator gives up the record of Broken, which was set aside
)

// Change is one change of the store.
type Change struct {
	Kind   ChangeKind
	Ref    Ref
	State  *State
	Old    *State
	New    *NewMessage
	Ended  []int
	Inline bool // Forget: the content is in the store
	Fresh  bool // Forget: until now some recipient was fresh; EndDeferred: some still is
	Broken *Broken
	// Envelope is that of the message of Forget; nil if it was not read.
	Envelope *msg.Envelope
}

// NewMessage is a message of the queue's own that is complete: a notice, or what an alias
// makes of a message.
type NewMessage struct {
	Envelope *msg.Envelope
	Content  []byte // nil: it is in a file, durable
	Size     int64
	Body     msg.Body // gives the content for deliveries
}

// Lookup asks for the routes of recipients at one domain, in this order.
type Lookup struct {
	Rcpts []Rcpt
	Asked time.Time

	batch *lookup.Batch[*rcpt]
}

// Rcpt is a recipient as Ready passes it out. What it shows does not change.
type Rcpt struct {
	Ref      Ref
	Envelope *msg.Envelope

	r *rcpt
}

// Delivery is one attempt: recipients of one message over one hop.
type Delivery struct {
	Hop      msg.Hop
	Envelope *msg.Envelope
	Body     msg.Body
	Sender   smtp.Path   // of the transaction: that of the envelope, or one that names the recipient (VERP)
	Rcpts    []int       // indexes
	Conf     []*msg.Conf // of smtpc_rcpt_conf:, for each of Rcpts; nil if none has one
	Dest     string      // destination of the route
	Limits   string      // name of the connection_limits, "" for none
	Provider string      // of the hop, "" for none
	Start    time.Time
	// Waited is how long its first recipient had been in the queue at Start, all its waits for
	// another attempt included.
	Waited time.Duration

	attempt
}

// Make is a message to be made: a notice (Notice is set) or what an alias stands for.
type Make struct {
	Of   smtp.ID  // the message that it is about
	Body msg.Body // its content
	// Envelopes are those of the new messages but for their ids. That of a notice is complete
	// when Notice is built.
	Envelopes []*msg.Envelope
	// Seal says of each of them whether its message leaves our domains, so that it is sealed (ARC). Nil:
	// none does.
	Seal []bool
	// Notice lacks ID, Original and Now. Its LastAttempt and RetryUntil are times of the
	// queue's clock.
	Notice *dsn.Notification

	m      *message
	rcpts  []*rcpt       // which it replaces
	waited time.Duration // their age
}

// Answer is an answer to an operator, for the Operate event with this ID.
type Answer struct {
	ID uint64
	A  msg.OperateA
}

// Line is a line for the log.
type Line struct {
	Level slog.Level
	Text  string
	Attrs []slog.Attr
}
