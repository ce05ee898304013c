package client

import (
	"context"
	"log/slog"
	"runtime/debug"

	"meta1/client/tlspolicy"
	"meta1/client/wire"
	"meta1/mta/logline"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// logConnected logs an open session (README 10.4).
func (c *Client) logConnected(cn *conn) {
	c.metrics.Opened.Add(1)
	c.log.LogAttrs(context.Background(), slog.LevelInfo, "connected",
		append(hopAttrs(cn.hop), slog.String("da_se", cn.id), slog.String("status", "connected"))...)
	if cn.mechanism != "" {
		c.log.LogAttrs(context.Background(), slog.LevelInfo, "authenticated", slog.String("da_se", cn.id),
			slog.String("mech", cn.mechanism), slog.String("user", cn.line.login.Account))
	}
	t := &cn.tls.HopTLS
	c.metrics.TLS[t.Level].Inc()
	if !cn.tls.on() {
		return
	}
	if t.Resumed {
		c.metrics.TLSResumed.Inc()
	}
	info := cn.tls.info
	attrs := []slog.Attr{
		slog.String("da_se", cn.id), slog.String("starttls", t.Version), slog.String("cipher", t.Cipher), slog.Int("bits", t.Bits),
		slog.String("verify", t.Verify),
	}
	for _, f := range [...]struct{ name, value string }{
		{"reason", info.Reason}, {"tlsa", t.Record}, {"cert_fp", info.Fingerprint}, {"cert_subject", info.Subject}, {"cert_issuer", info.Issuer},
	} {
		if f.value != "" {
			attrs = append(attrs, slog.String(f.name, f.value[:min(len(f.value), logNameMax)]))
		}
	}
	if t.Resumed {
		attrs = append(attrs, slog.Bool("resumed", true))
	}
	c.log.LogAttrs(context.Background(), slog.LevelInfo, "starttls", attrs...)
}

// logOtherWay logs that a TLS handshake failed, and what is tried next.
func (c *Client) logOtherWay(hop msg.Hop, f *dialFailure, next tlspolicy.Way) {
	c.log.LogAttrs(context.Background(), slog.LevelInfo, "TLS failed: connecting in another way",
		append(hopAttrs(hop), slog.String("da_se", f.session), slog.String("where", f.stage.String()),
			slog.Int("stat", f.reply.Code), slog.String("reply", f.reply.String()), slog.String("next", next.String()))...)
}

// logNotConnected logs why there is no session.
func (c *Client) logNotConnected(hop msg.Hop, f *dialFailure) {
	c.metrics.Refused.Add(1)
	attrs := append(hopAttrs(hop), slog.String("da_se", f.session), slog.String("status", "failed"),
		slog.String("where", f.stage.String()), slog.Int("stat", f.reply.Code), slog.String("reply", f.reply.String()))
	if n := f.busy(); n > 0 {
		attrs = append(attrs, slog.Int("others_open", n))
	}
	c.log.LogAttrs(context.Background(), slog.LevelInfo, "not connected", attrs...)
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

// logReply writes the line of a command of the envelope and its reply (README 10.4).
func (t *transaction) logReply(event string, last *wire.Said, of slog.Attr) {
	if !t.log.Enabled(t.ctx, slog.LevelInfo) {
		return
	}
	r := last.Value(&t.Reply)
	logline.Emit(t.log, slog.LevelInfo, event,
		slog.String("da_se", t.id), slog.String("da_ta", t.a.Transaction), slog.Any("ss_ta", &t.q.TA),
		of, slog.Int("stat", stat(*r)), slog.Any("reply", r))
}

// logConverted logs that content was changed for a host without an extension, after which
// signatures no longer fit.
func (t *transaction) logConverted(without string, size, converted int) {
	if !t.log.Enabled(t.ctx, slog.LevelInfo) {
		return
	}
	logline.Emit(t.log, slog.LevelInfo, "content converted",
		slog.String("da_se", t.id), slog.String("da_ta", t.a.Transaction), slog.Any("ss_ta", &t.q.TA),
		slog.String("without", without), slog.Int("size", size), slog.Int("converted", converted), slog.String("relay", t.hop.String()))
}

// stat is the reply code as the log has it: 0 for success.
func stat(r smtp.Reply) int {
	if r.Accepted() {
		return 0
	}
	return r.Code
}

// log writes one line for each recipient that has its reply, at the end of an attempt.
func (d *delivery) log() {
	ctx := d.r.Ctx
	if !d.c.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	q := &d.r.Q
	first := true
	var buf [24]slog.Attr
	for i := range d.a.Rcpts {
		r := &d.a.Rcpts[i]
		if r.IsZero() || d.logged != nil && d.logged[i] {
			continue
		}
		event := "delivery failed"
		if r.Accepted() {
			event = "delivered"
		}
		attrs := append(buf[:0],
			slog.String("da_se", d.a.Session), slog.String("da_ta", d.a.Transaction), slog.Any("ss_ta", &q.TA),
			slog.String("where", d.a.StageOf(i).String()), slog.Any("mail", &q.Mail.From),
			slog.Any("rcpt", &q.Rcpts[i].To), slog.Int64("size", q.Body.Size()),
			slog.Int("stat", stat(*r)), slog.Any("reply", r), slog.String("relay", q.Hop.String()),
			slog.Duration("xdelay", d.a.Elapsed))
		if d.a.TLS.Level > msg.TLSNone {
			attrs = append(attrs, slog.String("tls", d.a.TLS.Level.String()), slog.String("verify", d.a.TLS.Verify))
		}
		if d.a.Auth != "" {
			attrs = append(attrs, slog.String("auth", d.a.Auth))
		}
		if q.Provider != "" {
			attrs = append(attrs, slog.String("provider", q.Provider))
		}
		if !d.a.SlowDown.IsZero() {
			attrs = append(attrs, slog.Bool("slow_down", true))
		}
		if d.a.Unknown && !r.Accepted() {
			attrs = append(attrs, slog.Bool("unknown", true))
		}
		if first {
			attrs = d.steps.attrs(attrs)
		}
		first = false
		logline.Emit(d.c.log, slog.LevelInfo, event, attrs...)
		if d.logged != nil {
			d.logged[i] = true
		}
	}
}
