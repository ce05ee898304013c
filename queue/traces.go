package queue

import (
	"time"

	"meta1/mta/smtp"
	"meta1/mta/tracing"
	"meta1/queue/aq"
)

// waitsMax bounds the recipients of which traces knows when they began to wait.
const waitsMax = 10_000

// traces records what the queue does with messages that are traced: each wait for an attempt, and the message
// itself when it ends. The loop alone uses it.
type traces struct {
	t *tracing.Tracer // nil: nothing is traced
	// since is when recipients of messages that are traced were deferred, so that their next wait does not
	// begin before. It is lost at a restart: the wait then begins when the message arrived.
	since map[aq.Ref]time.Time
}

func newTraces(t *tracing.Tracer) traces { return traces{t: t, since: map[aq.Ref]time.Time{}} }

// start records how long mail has waited for an attempt that begins now.
func (t *traces) start(d *aq.Delivery) {
	if !t.t.Sampled(d.Envelope.TA) {
		return
	}
	now := time.Now()
	ref := aq.Ref{TA: d.Envelope.TA, Index: d.Rcpts[0]}
	begun, known := t.since[ref]
	if !known {
		begun = now.Add(-d.Waited)
	}
	delete(t.since, ref)
	t.t.Record(tracing.Span{TA: d.Envelope.TA, Name: "queue", Start: begun, End: now, Attrs: []tracing.Attr{
		{Key: "meta1.destination", Text: d.Dest}, {Key: "meta1.recipients", Number: int64(len(d.Rcpts))},
	}})
}

// delivered notes who begins to wait again after an attempt.
func (t *traces) delivered(ev *aq.Delivered) {
	ta := ev.Delivery.Envelope.TA
	if !t.t.Sampled(ta) {
		return
	}
	now := time.Now()
	for i, index := range ev.Delivery.Rcpts {
		if i < len(ev.A.Rcpts) && !ev.A.Rcpts[i].Temporary() {
			continue
		}
		if len(t.since) >= waitsMax {
			clear(t.since) // those of recipients that an operator removed, among others
		}
		t.since[aq.Ref{TA: ta, Index: index}] = now
	}
}

// saved records the messages that end.
func (t *traces) saved(saves []*aq.Save) {
	if !t.t.On() {
		return
	}
	for _, s := range saves {
		for i := range s.Changes {
			ch := &s.Changes[i]
			if ch.Kind == aq.Forget && ch.Envelope != nil && t.t.Sampled(ch.Ref.TA) {
				t.message(ch)
			}
		}
	}
}

func (t *traces) message(ch *aq.Change) {
	e := ch.Envelope
	attrs := []tracing.Attr{
		{Key: "meta1.ss_ta", Text: e.TA.String()},
		{Key: "meta1.recipients", Number: int64(len(e.Rcpts))},
		{Key: "meta1.sender_domain", Text: domainOf(e.Mail.From)},
	}
	if !e.Session.IsZero() {
		attrs = append(attrs, tracing.Attr{Key: "meta1.ss_se", Text: e.Session.String()})
	}
	t.t.Message(e.TA, e.Arrival, time.Now(), attrs...)
}

// domainOf is the domain of a sender, "<>" for none.
func domainOf(p smtp.Path) string {
	if p.Domain == "" {
		return "<>"
	}
	return p.LowerDomain()
}
