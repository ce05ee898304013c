package client

import (
	"strconv"
	"time"

	"meta1/mta/tracing"
)

// trace records an attempt that ends now, with the way to the host, the TLS handshake, and what followed.
func (d *delivery) trace(now time.Time) {
	q, a := &d.r.Q, &d.a
	t := d.c.deps.Tracer
	if !t.Sampled(q.TA) {
		return
	}
	attempt := tracing.Span{
		TA: q.TA, ID: tracing.NewSpanID(), Name: "attempt", Kind: tracing.Client, Start: d.start, End: now, Failed: d.failure(),
		Attrs: []tracing.Attr{
			{Key: "meta1.destination", Text: q.Dest},
			{Key: "meta1.recipients", Number: int64(len(q.Rcpts))},
			{Key: "meta1.delivered", Number: int64(d.accepted())},
			{Key: "meta1.stage", Text: a.Stage.String()},
			{Key: "server.address", Text: d.serverAddress()},
			{Key: "meta1.size", Number: q.Body.Size()},
		},
	}
	if port := q.Hop.Addr.Port(); port > 0 {
		attempt.Attrs = append(attempt.Attrs, tracing.Attr{Key: "server.port", Number: int64(port)})
	}
	if a.Session != "" {
		attempt.Attrs = append(attempt.Attrs, tracing.Attr{Key: "meta1.da_se", Text: a.Session})
	}
	connected := d.start.Add(d.connects)
	connect := tracing.Span{TA: q.TA, Parent: attempt.ID, Name: "connect", Kind: tracing.Client, Start: d.start, End: connected}
	if d.conn == nil {
		connect.Failed = attempt.Failed
		t.Record(attempt, connect)
		return
	}
	if a.Reused {
		connect.Attrs = []tracing.Attr{{Key: "meta1.reused", Number: 1}}
	}
	t.Record(attempt, connect, tracing.Span{
		TA: q.TA, Parent: attempt.ID, Name: "transmit", Kind: tracing.Client, Start: connected, End: now, Failed: attempt.Failed,
		Attrs: []tracing.Attr{{Key: "meta1.stage", Text: a.Stage.String()}},
	})
	if begun := d.conn.tlsTime[0]; !begun.IsZero() && !begun.Before(d.start) {
		t.Record(tracing.Span{
			TA: q.TA, Parent: attempt.ID, Name: "tls", Kind: tracing.Client, Start: begun, End: d.conn.tlsTime[1],
			Attrs: []tracing.Attr{{Key: "tls.protocol.version", Text: a.TLS.Version}, {Key: "meta1.verify", Text: a.TLS.Level.String()}},
		})
	}
}

// serverAddress names the host of the attempt.
func (d *delivery) serverAddress() string {
	switch hop := &d.r.Q.Hop; {
	case hop.Socket != "":
		return hop.Socket
	case hop.Host != "":
		return hop.Host
	default:
		return hop.Addr.Addr().String()
	}
}

// failure is the codes of the first reply that is no success, "" if there is none. The text of a reply may name
// a mailbox, which has no place in a trace.
func (d *delivery) failure() string {
	for i := range d.a.Rcpts {
		r := &d.a.Rcpts[i]
		if r.Accepted() {
			continue
		}
		if e := r.Enhanced; !e.IsZero() {
			return strconv.Itoa(r.Code) + " " + e.String()
		}
		return strconv.Itoa(r.Code)
	}
	return ""
}
