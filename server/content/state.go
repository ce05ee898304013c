package content

import (
	"errors"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// What is known of a content.

// Failed is why the message cannot be accepted, zero if it can so far.
func (c *Content) Failed() smtp.Reply { return c.failed }

// Cause is what is behind a refusal, for the log; nil: the reply says all.
func (c *Content) Cause() error { return c.cause }

// Blame adds to Cause; nil adds nothing.
func (c *Content) Blame(err error) {
	if c.cause != nil {
		err = errors.Join(c.cause, err)
	}
	c.cause = err
}

// Size is how many bytes of the message have come, without our Received: and removed NULs.
func (c *Content) Size() int64 { return c.size }

// Came is how many bytes of the message have come, all of them.
func (c *Content) Came() int64 { return c.size + c.stripped }

// Received is how many bytes of what was kept are our trace fields, on top of the message.
func (c *Content) Received() int64 { return c.received }

// Written is how many bytes were kept, ours included, and without a head.
func (c *Content) Written() int64 { return c.written }

// Shape is what is known of the content when all of it has come.
func (c *Content) Shape() msg.Shape { return c.shape }

// Memory is what the content takes of the budget.
func (c *Content) Memory() *msg.Reservation { return c.cfg.Memory }

// Discarded reports that nothing is kept, because the message is not to be delivered.
func (c *Content) Discarded() bool { return c.cfg.Discard }

// Discard says that the message is not to be delivered. What was kept stays until Abort.
func (c *Content) Discard() { c.cfg.Discard = true }

// Hops is the number of Received: fields, without ours.
func (c *Content) Hops() int { return c.header.hops }

// MessageID is the beginning of the value of Message-Id:, of 250 bytes at most. It may hold anything.
func (c *Content) MessageID() string { return c.header.msgid }

// TLSOptional reports that the sender wishes that TLS not be insisted on (RFC 8689 section 3).
func (c *Content) TLSOptional() bool { return c.header.tlsOptional }

// Become has c tell Size and Cause of next, which filters have made of it and which is aborted
// by that. It may be c itself; then it does nothing.
func (c *Content) Become(next *Content) {
	if next != c {
		c.size, c.cause = next.size, next.cause
		next.Abort()
	}
}
