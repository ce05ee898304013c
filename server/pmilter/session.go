package pmilter

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"meta1/mta/smtp"
	wire "meta1/pmilter"
)

// Action is what the policy milter, or its failure, demands.
type Action uint8

// The actions.
const (
	Continue Action = iota
	Accept          // it wants to see no more of it
	Discard         // accept, and drop
	Refuse          // with Verdict.Reply
	Abort           // end the session, with Verdict.Reply
)

// String is the action in lower case.
func (a Action) String() string {
	return [...]string{"continue", "accept", "discard", "refuse", "abort"}[a]
}

// Verdict is what becomes of an event.
type Verdict struct {
	Action Action
	Reply  smtp.Reply // of Refuse and Abort
	// Quick: a refusal is not to be delayed, other refusals are overridden, a recipient that is
	// discarded stands for the transaction (README 3.9.3).
	Quick bool
	Stage string // the event
	// Failed is why the policy milter has failed, if that decided; nil if it did itself.
	Failed error
}

// Exempts reports an approval that overrides other refusals.
func (v *Verdict) Exempts() bool { return v.Quick && (v.Action == Continue || v.Action == Accept) }

// state is where the policy milter stands in the SMTP session.
type state uint8

const (
	apart       state = iota // not connected
	inSession                // it knows of the client
	inMessage                // it was told of a transaction
	messageDone              // it has accepted the transaction before its end
	sessionDone              // it has accepted the client, and is asked nothing more
	failed
)

// Session is what one SMTP session says to the policy milter. One goroutine uses it. A nil
// Session may be closed and aborted.
type Session struct {
	ctx    context.Context
	f      *Filter
	c      *conn
	box    *mailbox
	state  state
	why    error // of failed
	places []int // of the accepted recipients
}

// Client is the client of an SMTP session.
type Client struct {
	Name string // verified name, without a trailing dot, or "" for none
	IP   netip.Addr
	Port uint16
}

// Begin begins a session. Nothing is connected yet. When ctx ends, waits end. Close must be
// called.
func (f *Filter) Begin(ctx context.Context) *Session { return &Session{ctx: ctx, f: f} }

// Connect tells of the client.
func (s *Session) Connect(client Client, macros Macros) Verdict {
	k := wire.Command{Type: wire.FrameConnect, Name: client.Name, Port: client.Port}
	if client.IP.IsValid() {
		k.Addr = client.IP.Unmap().String()
	}
	var t turn
	var err error
	for again := true; ; again = false {
		if s.c, err = s.f.get(s.ctx); err != nil {
			return s.fail("connect", err)
		}
		if s.box, err = s.c.open(); err == nil {
			k.Macros = s.c.values(k.Type, macros)
			t, err = s.c.ask(s.ctx, s.box, &k)
		}
		if err == nil {
			s.state = inSession
			return s.took(&k, t)
		}
		// One that was restarted closes the connection; the next session is the first to notice.
		if lost := s.c.why() != nil && !errors.Is(err, errSilent); !lost || !again {
			return s.fail("connect", err)
		}
	}
}

// Helo tells of EHLO or HELO.
func (s *Session) Helo(name string, esmtp bool, macros Macros) Verdict {
	if s.state != inSession && s.state != inMessage {
		return Verdict{}
	}
	return s.ask(wire.CapHelo, &wire.Command{Type: wire.FrameHelo, Name: name, ESMTP: esmtp}, macros)
}

// Mail tells of a sender, an address without brackets, and of the parameters of MAIL.
func (s *Session) Mail(from string, params []string, macros Macros) Verdict {
	switch s.state {
	case inMessage: // the caller has not said that the last one is over
		s.Abort()
	case messageDone:
		s.state = inSession
	}
	if s.state != inSession {
		return s.refusal("mail")
	}
	s.state, s.places = inMessage, s.places[:0]
	return s.ask(wire.CapMail, &wire.Command{Type: wire.FrameMail, Addr: "<" + from + ">", Args: params}, macros)
}

// Rcpt tells of a recipient, an address without brackets. refusal is the reply of a recipient
// that was refused, of which only a policy milter hears that wants to; its verdict has no effect.
// It is zero for one that is to be accepted; Took says then that it was.
func (s *Session) Rcpt(to string, params []string, refusal smtp.Reply, macros Macros) Verdict {
	k := wire.Command{Type: wire.FrameRcpt, Addr: "<" + to + ">", Args: params, Index: uint32(len(s.places)), Status: uint16(wire.OK)}
	switch {
	case s.state == failed && refusal.IsZero():
		return s.refusal("rcpt")
	case s.state != inMessage:
		return Verdict{}
	case refusal.IsZero():
		return s.ask(wire.CapRcpt, &k, macros)
	}
	k.Status, k.Reply = uint16(refusal.Code), replyText(refusal)
	_ = s.ask(wire.CapRcptStatus, &k, macros) // there is nothing left to decide
	if s.state != failed {
		s.state = inMessage
	}
	return Verdict{}
}

// Took says that the recipient was accepted. place is for the caller, who gets it back.
func (s *Session) Took(place int) {
	if s != nil {
		s.places = append(s.places, place)
	}
}

// Index is the number of the accepted recipient with a place, -1 for none.
func (s *Session) Index(place int) int {
	for i, p := range s.places {
		if p == place {
			return i
		}
	}
	return -1
}

// Places are those of the accepted recipients, in their order.
func (s *Session) Places() []int { return s.places }

// Data tells of DATA, or of the first chunk of BDAT.
func (s *Session) Data(macros Macros) Verdict {
	switch s.state {
	case inMessage:
		return s.ask(wire.CapData, &wire.Command{Type: wire.FrameData}, macros)
	case failed:
		return s.refusal("data")
	}
	return Verdict{}
}

// Unknown tells of a command that the server does not know.
func (s *Session) Unknown(line string, macros Macros) Verdict {
	if s.state != inSession && s.state != inMessage {
		return Verdict{}
	}
	was := s.state
	v := s.ask(wire.CapUnknown, &wire.Command{Type: wire.FrameUnknown, Name: line[:min(len(line), lineMax)]}, macros)
	if s.state == messageDone || s.state == sessionDone { // it is not about either
		s.state = was
	}
	return v
}

// lineMax bounds the unknown command that the policy milter is told.
const lineMax = 4 << 10

// Abort tells that the message it heard of does not come, if it heard of one.
func (s *Session) Abort() {
	if s == nil {
		return
	}
	switch s.state {
	case inMessage:
		s.c.tell(s.box, wire.Command{Type: wire.FrameAbort})
		s.state = inSession
	case messageDone:
		s.c.tell(s.box, wire.Command{Type: wire.FrameAbort})
		s.state = inSession
	}
}

// Close ends the session.
func (s *Session) Close() {
	if s == nil {
		return
	}
	s.drop()
	s.state, s.why = apart, nil
}

// drop leaves the connection.
func (s *Session) drop() {
	if s.box != nil {
		s.c.leave(s.box)
		s.box = nil
	}
}

// ask sends a command if it is wanted, and reads the verdict.
func (s *Session) ask(need wire.Cap, k *wire.Command, macros Macros) Verdict {
	if s.c.agreed.Cap&need == 0 {
		return Verdict{}
	}
	k.Macros = s.c.values(k.Type, macros)
	t, err := s.c.ask(s.ctx, s.box, k)
	if err != nil {
		return s.fail(word(k.Type), err)
	}
	return s.took(k, t)
}

// word is the name of a command for logs.
func word(f wire.FrameType) string {
	switch f {
	case wire.FrameConnect:
		return "connect"
	case wire.FrameHelo:
		return "helo"
	case wire.FrameMail:
		return "mail"
	case wire.FrameRcpt:
		return "rcpt"
	case wire.FrameData:
		return "data"
	case wire.FrameUnknown:
		return "unknown"
	}
	return "eom"
}

// took makes a verdict of an answer, and notes what it means for the policy milter itself.
func (s *Session) took(k *wire.Command, t turn) Verdict {
	v := Verdict{Stage: word(k.Type), Quick: t.Code.IsQuick() && t.Code.Plain() != wire.Continue}
	switch code := t.Code.Plain(); code {
	case wire.Continue, wire.OK, wire.Replace:
		if k.Type == wire.FrameEOM {
			s.f.count("continue")
		}
		return v
	case wire.Accept:
		v.Action = Accept
		switch {
		case k.Type == wire.FrameConnect, k.Type == wire.FrameHelo:
			s.state = sessionDone
		case s.state == inMessage:
			s.state = messageDone
		}
	case wire.Discard:
		v.Action = Discard
	case wire.SSD:
		v.Action, v.Reply = Abort, reply(t.Answer)
	default:
		v.Action, v.Reply = Refuse, reply(t.Answer)
	}
	s.f.count(v.word())
	return v
}

// reply is that of a refusal, with the words of the policy milter if it has some.
func reply(a wire.Answer) smtp.Reply {
	if r, err := wire.ParseReply(a.Reply); err == nil {
		out := smtp.NewReply(r.Code, r.Enhanced, "")
		out.Lines = r.Lines
		return out
	}
	return DefaultReply(int(a.Code.Plain()), "Command rejected")
}

// DefaultReply is a reply from 400 to 599 without words of the policy milter.
func DefaultReply(code int, text string) smtp.Reply {
	switch {
	case code == 421:
		return smtp.NewReply(code, "4.7.0", "Closing connection")
	case code < 500:
		return smtp.NewReply(code, "4.7.1", "Please try again later")
	}
	return smtp.NewReply(code, "5.7.1", text)
}

// replyText is a reply as the wire form has it; "" for one that it cannot have.
func replyText(r smtp.Reply) string {
	if text := string(r.AppendWire(nil)); !r.Enhanced.IsZero() {
		return text
	}
	return ""
}

var replyFailed = smtp.NewReply(421, "4.7.1", "Service unavailable, closing connection")

// fail notes that the policy milter has failed for this session, and returns what follows.
func (s *Session) fail(stage string, err error) Verdict {
	s.drop()
	s.state, s.why = failed, err
	if s.f.deps.Metrics.Errors != nil {
		s.f.deps.Metrics.Errors.Inc()
	}
	level := slog.LevelWarn
	if errors.Is(err, errSulk) || errors.Is(err, errClosed) || s.ctx.Err() != nil {
		level = slog.LevelDebug
	}
	v := s.refusal(stage)
	s.f.deps.Log.LogAttrs(s.ctx, level, "policy milter failed", slog.String("where", stage), slog.Any("error", err), slog.String("effect", v.Action.String()))
	return v
}

// refusal is what follows at a stage from a failure; nothing if there was none.
func (s *Session) refusal(stage string) Verdict {
	if s.state != failed || s.f.cfg.Failure != AbortSession {
		return Verdict{}
	}
	v := Verdict{Action: Abort, Reply: replyFailed, Stage: stage, Failed: s.why}
	s.f.count(v.word())
	return v
}

// word is the verdict as metrics have it: as for milters.
func (v *Verdict) word() string {
	switch {
	case v.Action == Refuse && v.Reply.Permanent():
		return "reject"
	case v.Action == Refuse:
		return "tempfail"
	}
	return v.Action.String()
}

// printable replaces what a line of a log or a reply must not have, and bounds it.
func printable(s string) string {
	s = s[:min(len(s), textMax)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// textMax bounds texts of the policy milter that go to the log or the queue, in bytes.
const textMax = 500
