package milter

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"meta1/mta/smtp"
)

// Macros gives the value of a macro by its name as filters write it, such as "j" or
// "{client_addr}"; "" if it has none now.
type Macros func(name string) string

// usual are the macros for filters that do not say which they want: those that Sendmail and
// Postfix send.
var usual = [MacroStages][]string{
	StageConnect: {"j", "v", "_", "{daemon_name}", "{if_name}", "{if_addr}", "{client_addr}", "{client_name}", "{client_port}", "{client_ptr}", "{client_resolve}"},
	StageHelo:    {"{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}"},
	StageMail:    {"i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_mailer}", "{mail_host}", "{mail_addr}"},
	StageRcpt:    {"{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"},
	StageData:    {"i"},
	StageEOH:     {"i"},
	StageEOM:     {"i", "{msg_id}"},
}

// peerState is where one filter stands in the SMTP session.
type peerState uint8

const (
	apart       peerState = iota // not connected
	inSession                    // it knows of the client
	inMessage                    // it was told of a MAIL
	messageDone                  // it has accepted the message before its end
	sessionDone                  // it has accepted the client, and is asked nothing more
	failed
)

// peer is one filter in one SMTP session.
type peer struct {
	*Filter
	c     *conn
	state peerState
	stop  func() bool // ends the watch over the context
	why   error       // of failed
}

// Session is what one SMTP session says to all filters. One goroutine uses it.
type Session struct {
	ctx    context.Context
	peers  []*peer
	client Client
	greet  bool // Connect was called
	helo   string
}

// Client is the client of an SMTP session.
type Client struct {
	Name string // verified name, without a trailing dot, or "" for none
	IP   netip.Addr
	Port uint16
}

// Begin begins a session with filters, in their order. Nothing is connected yet. When ctx
// ends, waits end. Close must be called.
func Begin(ctx context.Context, filters []*Filter) *Session {
	s := &Session{ctx: ctx}
	for _, f := range filters {
		s.peers = append(s.peers, &peer{Filter: f})
	}
	return s
}

// command is one event as it goes to a filter.
type command struct {
	stage     Stage
	kind      byte
	data      []byte
	unwanted  uint32 // flag of a filter that does not want it
	unreplied uint32 // flag of a filter that does not answer it
	macros    Macros
}

// Connect tells the filters of a client.
func (s *Session) Connect(client Client, macros Macros) Verdict {
	s.client, s.greet, s.helo = client, true, ""
	return s.each(func(p *peer) Verdict {
		s.leave(p)
		return s.attempt(p, s.connect(macros), macros)
	})
}

func (s *Session) connect(macros Macros) *command {
	k := &command{stage: StageConnect, kind: cmdConnect, unwanted: noConnect, unreplied: noReplyConnect, macros: macros}
	ip, name := s.client.IP.Unmap(), s.client.Name
	switch {
	case !ip.IsValid():
		k.data = append(appendString(nil, "localhost"), 'L')
		k.data = appendString(append(k.data, 0, 0), "local")
		return k
	case name == "":
		name = "[" + literal(ip) + "]"
	}
	family := byte('4')
	if ip.Is6() {
		family = '6'
	}
	k.data = append(appendString(nil, name), family)
	k.data = appendString(binary.BigEndian.AppendUint16(k.data, s.client.Port), literal(ip))
	return k
}

// literal is an address as Sendmail gives it to filters.
func literal(ip netip.Addr) string {
	if ip.Is6() {
		return "IPv6:" + ip.String()
	}
	return ip.String()
}

// Helo tells them of EHLO or HELO.
func (s *Session) Helo(name string, macros Macros) Verdict {
	s.helo = name
	k := s.heloCommand(macros)
	return s.each(func(p *peer) Verdict {
		if p.state != inSession {
			return Verdict{}
		}
		return s.attempt(p, k, macros)
	})
}

func (s *Session) heloCommand(macros Macros) *command {
	return &command{stage: StageHelo, kind: cmdHelo, data: appendString(nil, s.helo), unwanted: noHelo, unreplied: noReplyHelo, macros: macros}
}

// Mail tells them of a sender, an address without brackets, and of the parameters of MAIL.
func (s *Session) Mail(from string, params []string, macros Macros) Verdict {
	k := &command{stage: StageMail, kind: cmdMail, data: address(from, params), unwanted: noMail, unreplied: noReplyMail, macros: macros}
	return s.each(func(p *peer) Verdict {
		switch {
		case p.state == sessionDone:
			return Verdict{}
		case p.state == failed && (p.cfg.Failure == Ignore || p.cfg.Failure == Reconnect):
			return Verdict{}
		}
		if p.state == inMessage { // the caller has not said that the last one is over
			s.end(p)
		}
		v := s.attempt(p, k, macros)
		if p.state == inSession { // also if it refuses the sender: it hears that the message is over
			p.state = inMessage
		}
		return v
	})
}

// Rcpt tells them of a recipient. refusal is the reply of a recipient that was refused, of
// which only filters hear that want to; their verdict has no effect. It is zero for one that
// is to be accepted.
func (s *Session) Rcpt(to string, params []string, refusal smtp.Reply, macros Macros) Verdict {
	k := &command{stage: StageRcpt, kind: cmdRcpt, data: address(to, params), unwanted: noRcpt, unreplied: noReplyRcpt, macros: macros}
	if !refusal.IsZero() {
		k.macros = refused(refusal, macros)
	}
	return s.each(func(p *peer) Verdict {
		if !refusal.IsZero() {
			if p.state == inMessage && p.c.protocol&rejectedRcpts != 0 {
				_ = s.inMessage(p, k) // there is nothing left to decide
			}
			return Verdict{}
		}
		return s.inMessage(p, k)
	})
}

// refused are the macros of a recipient that was refused, as Sendmail gives them.
func refused(r smtp.Reply, macros Macros) Macros {
	return func(name string) string {
		switch name {
		case "{rcpt_mailer}":
			return "error"
		case "{rcpt_host}":
			if r.Enhanced.IsZero() {
				return ""
			}
			return r.Enhanced.String()
		case "{rcpt_addr}":
			return r.Text()
		}
		return macros(name)
	}
}

// Data tells them of DATA, or of the first chunk of BDAT.
func (s *Session) Data(macros Macros) Verdict {
	k := &command{stage: StageData, kind: cmdData, unwanted: noData, unreplied: noReplyData, macros: macros}
	return s.each(func(p *peer) Verdict {
		if p.c != nil && p.c.version < 4 {
			return Verdict{} // it came with version 4
		}
		return s.inMessage(p, k)
	})
}

// Unknown tells them of a command that the server does not know.
func (s *Session) Unknown(line string, macros Macros) Verdict {
	k := &command{stage: StageUnknown, kind: cmdUnknown, data: appendString(nil, line), unwanted: noUnknown, unreplied: noReplyUnknown, macros: macros}
	return s.each(func(p *peer) Verdict {
		if p.c == nil || p.c.version < 3 || p.state != inSession && p.state != inMessage {
			return Verdict{}
		}
		return s.once(p, k)
	})
}

// Abort tells them that the message they heard of does not come, if they heard of one.
func (s *Session) Abort() {
	if s == nil {
		return
	}
	for _, p := range s.peers {
		s.end(p)
	}
}

// end ends a message of one filter.
func (s *Session) end(p *peer) {
	switch p.state {
	case inMessage:
		p.state = inSession
		if err := p.c.say(cmdAbort); err != nil {
			s.fail(p, StageEOM, err)
		}
	case messageDone:
		p.state = inSession
	}
}

// Close ends the session. Connections go back to their filters. A nil Session has none.
func (s *Session) Close() {
	if s == nil {
		return
	}
	s.Abort()
	for _, p := range s.peers {
		s.leave(p)
	}
}

// leave ends the session with one filter.
func (s *Session) leave(p *peer) {
	if p.c != nil {
		p.stop()
		p.put(p.c)
		p.c = nil
	}
	p.state, p.why = apart, nil
}

// address is the data of MAIL and RCPT.
func address(addr string, params []string) []byte {
	b := appendString(nil, "<"+addr+">")
	for _, p := range params {
		b = appendString(b, p)
	}
	return b
}

// each asks the filters in turn, until one decides.
func (s *Session) each(ask func(*peer) Verdict) Verdict {
	for _, p := range s.peers {
		switch v := ask(p); v.Action {
		case Refuse, Abort, Discard:
			return v
		}
	}
	return Verdict{}
}

// attempt asks one filter at connect, helo or mail. If it has no connection it gets one, and
// if one that it had before turns out to be dead another one: then the filter is told first
// what it has missed.
func (s *Session) attempt(p *peer, k *command, macros Macros) Verdict {
	had := p.c != nil
	v, err := s.reach(p, k, macros, false)
	if err != nil && p.c != nil && (had || p.c.used) && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.drop(p)
		v, err = s.reach(p, k, macros, true)
	}
	if err != nil {
		return s.fail(p, k.stage, err)
	}
	return s.took(p, k, v)
}

// reach sends a command, behind those that the filter has missed.
func (s *Session) reach(p *peer, k *command, macros Macros, fresh bool) (Verdict, error) {
	if p.c != nil {
		return p.exchange(s.ctx, k)
	}
	c, err := p.get(s.ctx, fresh)
	if err != nil {
		return Verdict{}, err
	}
	p.c = c
	p.stop = context.AfterFunc(s.ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	missed := []*command{s.connect(macros)}
	if k.stage != StageHelo && s.helo != "" {
		missed = append(missed, s.heloCommand(macros))
	}
	if k.stage == StageConnect {
		missed = nil
	}
	p.state = inSession
	for _, m := range missed {
		v, err := p.exchange(s.ctx, m)
		if err != nil || v.Action != Continue {
			return v, err
		}
	}
	return p.exchange(s.ctx, k)
}

// took notes what a verdict means for the filter that gave it.
func (s *Session) took(p *peer, k *command, v Verdict) Verdict {
	if v.Action == Continue || v.Action == skip {
		return Verdict{}
	}
	v.Filter, v.Stage = p.cfg.Name, k.stage
	p.count(v)
	switch {
	case v.Action != Accept:
	case k.stage <= StageHelo:
		p.state = sessionDone
	case p.state == inMessage || k.stage == StageMail:
		p.state = messageDone
	}
	return v
}

// inMessage asks a filter that follows the message.
func (s *Session) inMessage(p *peer, k *command) Verdict {
	switch p.state {
	case inMessage:
		return s.once(p, k)
	case failed:
		return s.refusal(p, k.stage)
	}
	return Verdict{}
}

// once asks a filter on the connection that it has.
func (s *Session) once(p *peer, k *command) Verdict {
	v, err := p.exchange(s.ctx, k)
	if err != nil {
		return s.fail(p, k.stage, err)
	}
	return s.took(p, k, v)
}

// drop gives up a connection.
func (s *Session) drop(p *peer) {
	if p.c != nil {
		p.stop()
		_ = p.c.nc.Close() // there is nothing to be said
		p.c = nil
	}
}

// fail notes that a filter has failed, and returns what follows.
func (s *Session) fail(p *peer, stage Stage, err error) Verdict {
	s.drop(p)
	p.state, p.why = failed, err
	if p.deps.Metrics.Errors != nil {
		p.deps.Metrics.Errors.Inc()
	}
	level := slog.LevelWarn
	if errors.Is(err, errSulk) || s.ctx.Err() != nil {
		level = slog.LevelDebug
	}
	v := s.refusal(p, stage)
	effect := v.Action.String()
	if p.cfg.Failure == Quarantine {
		effect = "quarantine"
	}
	p.deps.Log.LogAttrs(s.ctx, level, "milter failed", slog.String("milter", p.cfg.Name), slog.String("where", stage.String()),
		slog.Any("error", err), slog.String("effect", effect))
	return v
}

// refusal is what follows from the failure of a filter at a stage.
func (s *Session) refusal(p *peer, stage Stage) Verdict {
	v := Verdict{Filter: p.cfg.Name, Stage: stage, Failed: p.why}
	switch p.cfg.Failure {
	case AbortSession:
		v.Action, v.Reply = Abort, replyFailed421
	case Tempfail:
		v.Action, v.Reply = Refuse, replyFailed
	case Reject:
		v.Action, v.Reply = Refuse, replyFailedNo
	default:
		return Verdict{}
	}
	if v.Action == Refuse && (stage <= StageHelo || stage == StageUnknown) {
		return Verdict{} // it is said to MAIL
	}
	p.count(v)
	return v
}

// count counts a verdict.
func (f *Filter) count(v Verdict) {
	if f.deps.Metrics.Verdicts != nil {
		f.deps.Metrics.Verdicts.WithLabelValues(v.word()).Inc()
	}
}

// Words are the verdicts as metrics have them.
func Words() []string {
	return []string{"continue", "accept", "discard", "reject", "tempfail", "abort", "quarantine"}
}

func (v Verdict) word() string {
	switch {
	case v.Action == Refuse && v.Reply.Permanent():
		return "reject"
	case v.Action == Refuse:
		return "tempfail"
	}
	return v.Action.String()
}
