package client

import (
	"context"
	"log/slog"
	"runtime/debug"

	"meta1/mta/msg"
)

// logConnected logs an open session (README 10.4).
func (c *Client) logConnected(cn *conn) {
	c.metrics.opened.add(1)
	c.log.LogAttrs(context.Background(), slog.LevelInfo, "connected",
		append(hopAttrs(cn.hop), slog.String("da_se", cn.id), slog.String("status", "connected"))...)
}

// logNotConnected logs why there is no session.
func (c *Client) logNotConnected(hop msg.Hop, f *dialFailure) {
	c.metrics.refused.add(1)
	c.log.LogAttrs(context.Background(), slog.LevelInfo, "not connected",
		append(hopAttrs(hop), slog.String("da_se", f.session), slog.String("status", "failed"),
			slog.String("where", f.stage.String()), slog.Int("stat", f.reply.Code), slog.String("reply", f.reply.String()))...)
}

func hopAttrs(hop msg.Hop) []slog.Attr {
	a := make([]slog.Attr, 0, 8)
	if hop.Socket != "" {
		return append(a, slog.String("addr", hop.Socket))
	}
	return append(a, slog.Int("port", int(hop.Addr.Port())), slog.String("addr", hop.Addr.Addr().String()),
		slog.String("host", hop.Host))
}

// logPanic logs a fault of our own that ended one delivery.
func (c *Client) logPanic(ctx context.Context, v any, of slog.Attr) {
	c.log.LogAttrs(ctx, slog.LevelError, "panic in a delivery",
		of, slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
}

// log writes one line for each recipient at the end of the attempt.
func (d *delivery) log() {
	ctx := d.r.Ctx
	if !d.c.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	q := &d.r.Q
	ta, where := q.TA.String(), d.a.Stage.String()
	if d.a.Stage == msg.DeliverDone {
		where = msg.DeliverDot.String()
	}
	var buf [20]slog.Attr
	for i := range d.a.Rcpts {
		r := &d.a.Rcpts[i]
		stat, event := r.Code, "delivery failed"
		if r.Positive() {
			stat, event = 0, "delivered"
		}
		attrs := append(buf[:0],
			slog.String("da_se", d.a.Session), slog.String("da_ta", d.a.Transaction), slog.String("ss_ta", ta),
			slog.String("where", where), slog.String("mail", q.Mail.From.String()),
			slog.String("rcpt", q.Rcpts[i].To.String()), slog.Int64("size", q.Body.Size()),
			slog.Int("stat", stat), slog.String("reply", r.String()), slog.String("relay", q.Hop.String()),
			slog.Duration("xdelay", d.a.Elapsed))
		if d.a.Unknown && !r.Positive() {
			attrs = append(attrs, slog.Bool("unknown", true))
		}
		if i == 0 {
			attrs = d.steps.attrs(attrs)
		}
		d.c.log.LogAttrs(ctx, slog.LevelInfo, event, attrs...)
	}
}
