package tracing

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"meta1/mta/smtp"
)

// SpanID names a span within its trace; zero names none.
type SpanID [8]byte

// NewSpanID makes a name for a span.
func NewSpanID() (id SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1) // never zero, which is none
	return id
}

// Kind says on which side of a conversation a span is; its numbers are OTLP's.
type Kind int

// The kinds.
const (
	Internal Kind = 1
	Server   Kind = 2 // we are asked
	Client   Kind = 3 // we ask
)

// Attr is an attribute of a span: Text, or Number if Text is "".
type Attr struct {
	Key    string
	Text   string
	Number int64
}

// Span is one stage of what happened to a message. Names and attributes hold no address of a mailbox and
// nothing of the content.
type Span struct {
	TA         smtp.ID // the message
	ID         SpanID  // zero: Record gives it one
	Parent     SpanID  // zero: the span of the message, unless this is that
	Name       string
	Kind       Kind // zero: Internal
	Start, End time.Time
	Attrs      []Attr
	// Failed is why the stage had no success; "" if it had.
	Failed string

	whole bool // it is the span of the message
}

// traceID is the name of a message's trace. The first half decides whether it is traced, as the
// specification of W3C wants it to be random.
type traceID [16]byte

// traceOf is the name of the trace of a message of this spool.
func (t *Tracer) traceOf(ta smtp.ID) (id traceID) {
	buf := make([]byte, 0, 128)
	sum := sha256.Sum256(ta.Append(append(buf, t.seed...)))
	copy(id[:], sum[:])
	return id
}

// root is the span of the message of a trace.
func (id traceID) root() (s SpanID) {
	copy(s[:], id[8:])
	s[7] |= 1
	return s
}
