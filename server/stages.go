package server

import (
	"strconv"
	"time"

	"meta1/mta/smtp"
	"meta1/mta/tracing"
	"meta1/server/content"
)

// stagesMax bounds what is told of the stages of one message: it may have a hundred thousand recipients.
const stagesMax = 64

// stages are what was asked of others about the message in progress, and how long that took, with what was
// asked about its client before the first message. A nil one records nothing.
type stages struct {
	spans []tracing.Span
	more  int // beyond stagesMax
}

// begin is the time at which a stage begins.
func (s *stages) begin() time.Time {
	if s == nil {
		return time.Time{}
	}
	return time.Now()
}

// end notes a stage that has begun then, and the reply with which it refuses; zero for none.
func (s *stages) end(what, name string, begun time.Time, r smtp.Reply) {
	switch {
	case s == nil:
		return
	case len(s.spans) == stagesMax:
		s.more++
		return
	}
	span := tracing.Span{Name: what + name, Start: begun, End: time.Now()}
	if r.Code >= 400 {
		span.Failed = strconv.Itoa(r.Code)
		if !r.Enhanced.IsZero() {
			span.Failed += " " + r.Enhanced.String()
		}
	}
	s.spans = append(s.spans, span)
}

// forget begins anew, for the next message.
func (s *stages) forget() {
	if s != nil {
		clear(s.spans)
		s.spans, s.more = s.spans[:0], 0
	}
}

// filtersAsked notes that the filters of a session were asked at a stage, if there are any.
func (c *session) filtersAsked(stage string, begun time.Time) {
	if c.filter.session != nil || c.filter.policy != nil {
		c.stages.end("filters ", stage, begun, smtp.Reply{})
	}
}

// traceMessage records how a message was received, if it is traced. One that is dropped is no message of the
// queue and has no trace.
func (c *session) traceMessage(body *content.Content) {
	t, env := c.srv.deps.Tracer, c.tx.env
	if c.stages == nil || body.Discarded() || !t.Sampled(env.TA) {
		return
	}
	receive := tracing.Span{
		TA: env.TA, ID: tracing.NewSpanID(), Name: "receive", Kind: tracing.Server, Start: env.Arrival, End: time.Now(),
		Attrs: []tracing.Attr{
			{Key: "meta1.ss_ta", Text: env.TA.String()},
			{Key: "meta1.ss_se", Text: c.id.String()},
			{Key: "meta1.recipients", Number: int64(len(env.Rcpts))},
			{Key: "meta1.size", Number: body.Size()},
			{Key: "network.protocol.name", Text: env.Client.Protocol},
		},
	}
	if ip := env.Client.IP; ip.IsValid() {
		receive.Attrs = append(receive.Attrs, tracing.Attr{Key: "client.address", Text: ip.String()})
	}
	if l := env.Client.TLS; l != nil {
		receive.Attrs = append(receive.Attrs, tracing.Attr{Key: "tls.protocol.version", Text: l.Version})
	}
	if c.stages.more > 0 {
		receive.Attrs = append(receive.Attrs, tracing.Attr{Key: "meta1.stages_left_out", Number: int64(c.stages.more)})
	}
	for i := range c.stages.spans {
		s := &c.stages.spans[i]
		s.TA, s.Parent = env.TA, receive.ID
	}
	t.Record(receive)
	t.Record(c.stages.spans...)
}
