package server

import (
	"cmp"
	"context"
	"log/slog"
	"strconv"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// nameNotDetermined is logged as the client's name when names are not looked up, because
// the access map is not used (README 6.1.2).
const nameNotDetermined = "Hostname_Not_Determined"

// stepMax bounds what is logged of an entry; that of a map may be of any length.
const stepMax = 500

// refusal is a reply that refuses something, and the step of SMAR's that decided so.
type refusal struct {
	reply smtp.Reply
	by    msg.Step
	rcpt  smtp.Path // it is for; zero: for the transaction or the session
}

// note is what the log says of a refused command in addition to the reply. It is about the
// command in progress.
type note struct {
	where string       // "" stands for the name of the command
	tx    *transaction // nil outside of a transaction
	helo  string       // argument of the EHLO in progress; "" stands for the session's
	rcpt  smtp.Path    // of RCPT; zero: none
	by    msg.Step     // the step that decided
	stat  string       // a word for the refusal; "" stands for the code of the reply
	// expected: what is refused follows from an earlier refusal, which was logged.
	expected bool
	more     []slog.Attr
}

// add adds a field.
func (n *note) add(attrs ...slog.Attr) { n.more = append(n.more, attrs...) }

// logRefusal writes the one line of a refusal: who was refused what, at which stage,
// with which reply, and which entry decided. A command that is unknown, misplaced or
// misspelt is logged only if a field tells what it was.
func (c *session) logRefusal(v *verb, r smtp.Reply) {
	n := &c.note
	level := slog.LevelInfo
	if n.expected || isBad(r.Code) && n.helo == "" && len(n.more) == 0 {
		level = slog.LevelDebug
	}
	if !c.log.Handler().Enabled(context.Background(), level) {
		return
	}
	where := n.where
	if where == "" {
		where = strings.ToLower(v.name)
	}
	attrs := c.who(make([]slog.Attr, 0, 20), n)
	attrs = append(attrs, slog.String("where", where))
	attrs = append(appendStep(attrs, &n.by), n.more...)
	attrs = append(attrs, slog.String("stat", cmp.Or(n.stat, strconv.Itoa(r.Code))), slog.String("reply", r.String()))
	c.emit(level, "refused", attrs...)
}

// logDiscard says that mail is accepted and dropped, and which entry wants that.
func (c *session) logDiscard(by msg.Step, stage msg.Stage) {
	attrs := append(c.who(make([]slog.Attr, 0, 16), &c.note), slog.String("where", stage.String()))
	c.emit(slog.LevelInfo, "to be discarded", appendStep(attrs, &by)...)
}

// who adds the transaction, the client, and the envelope as far as they are known.
func (c *session) who(attrs []slog.Attr, n *note) []slog.Attr {
	if n.tx != nil && !n.tx.env.TA.IsZero() {
		attrs = append(attrs, slog.Any("ss_ta", n.tx.env.TA))
	}
	attrs = c.appendClient(attrs)
	if helo := cmp.Or(n.helo, c.client.Helo); helo != "" {
		attrs = append(attrs, slog.String("ehlo", helo))
	}
	if n.tx != nil {
		attrs = append(attrs, slog.Any("mail", n.tx.env.Mail.From))
	}
	if n.rcpt != (smtp.Path{}) {
		attrs = append(attrs, slog.Any("rcpt", n.rcpt))
	}
	return attrs
}

// appendClient adds the address and the name of the client, or why it has none.
func (c *session) appendClient(attrs []slog.Attr) []slog.Attr {
	attrs = append(attrs, c.clientIP())
	switch {
	case !c.client.IP.IsValid():
		return attrs
	case c.client.Name != "":
		return append(attrs, slog.String("client_name", c.client.Name))
	case c.client.Resolve != "":
		return append(attrs, slog.String("client_resolve", c.client.Resolve))
	case !c.srv.cfg.Flags.Access:
		return append(attrs, slog.String("client_name", nameNotDetermined))
	}
	return attrs // something was decided before the name was looked up
}

// appendStep adds the entry, option or check that decided.
func appendStep(attrs []slog.Attr, s *msg.Step) []slog.Attr {
	for _, f := range [...]struct{ name, value string }{
		{"check", s.Check}, {"map", s.Map}, {"key", s.Key}, {"value", s.Value}, {"effect", s.Effect},
	} {
		if f.value != "" {
			attrs = append(attrs, slog.String(f.name, f.value[:min(len(f.value), stepMax)]))
		}
	}
	return attrs
}
