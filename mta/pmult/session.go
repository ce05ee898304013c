package pmult

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"unicode/utf8"

	"meta1/mta/smtp"
	"meta1/pmilter"
	"meta1/server/milter"
)

// session is one SMTP session: what the server tells of it, and the filters that are asked.
// Package pmilter calls its methods, one at a time.
type session struct {
	m    *mux
	p    *pmilter.Session
	set  *setup
	ask  *milter.Session
	helo string
	tx   *transaction
}

// transaction is one message.
type transaction struct {
	from    string // without brackets
	rcpts   []rcpt // that were accepted, in their order
	bad     int    // that were refused
	asked   string // that filters are asked about, without brackets
	content *content
	hops    int  // Received: fields
	counted bool // hops is known
	next    func(p []byte) (n int, last bool, err error)
	body    *content // a new body; nil if there is none
}

// rcpt is a recipient.
type rcpt struct {
	to    smtp.Path
	index uint32
}

// of is the session of the context. It begins with the first callback.
func (m *mux) of(p *pmilter.Session) *session {
	if s, ok := p.Context().(*session); ok {
		return s
	}
	s := &session{m: m, p: p, set: m.now.Load()}
	s.ask = milter.Begin(p.Lifetime(), s.set.filters)
	p.SetContext(s)
	m.metrics.sessions.Inc()
	return s
}

// callbacks are what pmilter calls.
func (m *mux) callbacks() pmilter.Pmilter {
	return pmilter.Pmilter{
		Name: Program, Negotiate: m.negotiate,
		Connect: func(p *pmilter.Session) pmilter.Code { return m.call(p, pmilter.StageConnect, (*session).connect) },
		Helo: func(p *pmilter.Session, name string, _ bool) pmilter.Code {
			return m.call(p, pmilter.StageHelo, func(s *session) milter.Verdict {
				s.helo = name
				return s.ask.Helo(name, s.macro)
			})
		},
		Mail: func(p *pmilter.Session, from string, args []string) pmilter.Code {
			return m.call(p, pmilter.StageMail, func(s *session) milter.Verdict { return s.mail(from, args) })
		},
		Rcpt: func(p *pmilter.Session, to string, args []string) pmilter.Code {
			return m.call(p, pmilter.StageRcpt, func(s *session) milter.Verdict { return s.rcpt(to, args) })
		},
		Data: func(p *pmilter.Session) pmilter.Code {
			return m.call(p, pmilter.StageData, func(s *session) milter.Verdict { return s.ask.Data(s.macro) })
		},
		Unknown: func(p *pmilter.Session, line string) pmilter.Code {
			return m.call(p, pmilter.StageHelo, func(s *session) milter.Verdict {
				v := s.ask.Unknown(line, s.macro)
				if v.Action == milter.Discard { // of what?
					v = milter.Verdict{}
				}
				return v
			})
		},
		Msg:        func(p *pmilter.Session, chunk []byte) pmilter.Code { return m.of(p).chunk(chunk) },
		EOM:        func(p *pmilter.Session) pmilter.Code { return m.turn(p, (*session).eom) },
		MsgReplace: func(p *pmilter.Session) ([]byte, pmilter.Code) { return m.of(p).replacement() },
		MsgReplaced: func(p *pmilter.Session, _ bool) {
			m.of(p).end()
		},
		Abort: func(p *pmilter.Session) { m.of(p).end() },
		Close: func(p *pmilter.Session) { m.of(p).close() },
	}
}

// negotiate takes all that the server offers but the decision within a message, which we
// make at its end.
func (m *mux) negotiate(ss *pmilter.Server, offer pmilter.Offer) (pmilter.Options, error) {
	o := offer.Options
	o.Cap &^= pmilter.CapMsgCode
	o.Fct &^= pmilter.FctReplies // filters have one reply for all recipients
	o.Feat = 0
	cfg := &m.now.Load().cfg
	for stage := range pmilter.Stages {
		if err := ss.SetMacros(stage, cfg.wanted(stage)...); err != nil {
			return o, err
		}
	}
	m.log.LogAttrs(context.Background(), slog.LevelInfo, "server connected", slog.String("server", offer.Host), slog.String("program", offer.Program))
	for _, c := range cfg.Clients {
		if offer.Timeout > 0 && c.Timeouts.End > offer.Timeout {
			m.log.LogAttrs(context.Background(), slog.LevelWarn, "server may give up before eom-timeout", slog.String("server", offer.Host),
				slog.Duration("timeout", offer.Timeout), slog.String("client", c.Name), slog.Duration("eom_timeout", c.Timeouts.End))
		}
	}
	return o, nil
}

// turn calls a callback when it has its turn (max-threads-hard). What it holds is dropped if it
// panics: package pmilter then calls nothing more.
func (m *mux) turn(p *pmilter.Session, f func(*session) pmilter.Code) pmilter.Code {
	s := m.of(p)
	if m.turns != nil {
		select {
		case m.turns <- struct{}{}:
			defer func() { <-m.turns }()
		case <-p.Lifetime().Done():
			return pmilter.Temp
		}
	}
	whole := false
	defer func() {
		if !whole {
			s.close()
		}
	}()
	code := f(s)
	whole = true
	return code
}

// call asks the filters about one step, and says what they have decided.
func (m *mux) call(p *pmilter.Session, stage pmilter.Stage, f func(*session) milter.Verdict) pmilter.Code {
	return m.turn(p, func(s *session) pmilter.Code {
		s.debug(debugTrace1, "stage", slog.String("stage", stage.String()))
		v := f(s)
		code := s.answer(&v)
		if stage == pmilter.StageMail && code.Refuses() {
			s.end() // nobody says so
		}
		return code
	})
}

// connect begins the session.
func (s *session) connect() milter.Verdict {
	c := s.p.Client()
	ip, _ := netip.ParseAddr(c.Addr) // that of a local client is not valid
	s.debug(debugTrace1, "session opened")
	return s.ask.Connect(milter.Client{Name: c.Name, IP: ip, Port: c.Port}, s.macro)
}

// bare is an address without its brackets.
func bare(addr string) string { return strings.TrimSuffix(strings.TrimPrefix(addr, "<"), ">") }

// mail begins a transaction.
func (s *session) mail(from string, args []string) milter.Verdict {
	s.end()
	s.tx = &transaction{from: bare(from), content: s.m.content()}
	return s.ask.Mail(s.tx.from, args, s.macro)
}

// rcpt asks about a recipient.
func (s *session) rcpt(to string, args []string) milter.Verdict {
	tx := s.tx
	if tx == nil { // a filter has refused the sender, and the server asks all the same
		return milter.Verdict{}
	}
	tx.asked = bare(to)
	defer func() { tx.asked = "" }()
	status, text, err := s.p.Status()
	if err == nil && status.Refuses() {
		tx.bad++
		_ = s.ask.Rcpt(tx.asked, args, refusal(status, text), s.macro) // there is nothing left to decide
		return milter.Verdict{}
	}
	path, _, err := smtp.CutForwardPath("<"+tx.asked+">", smtp.UTF8)
	if err != nil { // the server has taken it
		path = smtp.Path{Local: tx.asked}
	}
	index, _ := s.p.RcptIndex() // we are in the callback
	tx.rcpts = append(tx.rcpts, rcpt{to: path, index: index})
	v := s.ask.Rcpt(tx.asked, args, smtp.Reply{}, s.macro)
	if v.Action == milter.Refuse || v.Action == milter.Abort {
		tx.rcpts = tx.rcpts[:len(tx.rcpts)-1]
		tx.bad++
	}
	return v
}

// refusal is the reply with which the server has refused a recipient.
func refusal(code pmilter.Code, text string) smtp.Reply {
	r := smtp.Reply{Code: int(code.Plain()), Lines: []string{""}}
	if p, err := pmilter.ParseReply(text); err == nil {
		r.Lines = p.Lines
		r.Enhanced, _, _ = smtp.ParseEnhancedCode(p.Enhanced)
	}
	return r
}

// chunk keeps a piece of the content. What goes wrong is told at the end.
func (s *session) chunk(p []byte) pmilter.Code {
	if s.tx != nil {
		_ = s.tx.content.write(p) // the error is kept
		if s.set.cfg.Debug&debugTrace7 != 0 {
			s.debug(debugTrace7, "content", slog.Int("size", len(p)), slog.String("begins", string(p[:min(len(p), 256)])))
		}
	}
	return pmilter.Continue
}

// answer is what the server is told of a verdict.
func (s *session) answer(v *milter.Verdict) pmilter.Code {
	attrs := []slog.Attr{slog.String("client", v.Filter), slog.String("stage", v.Stage.String())}
	if v.Failed != nil {
		attrs = append(attrs, slog.String("reason", "failed: "+v.Failed.Error()))
	}
	switch v.Action {
	case milter.Discard:
		s.log(slog.LevelInfo, "filter discards", attrs...)
		s.m.metrics.count("discard")
		return pmilter.Discard
	case milter.Refuse, milter.Abort:
		r := v.Reply
		if v.Action == milter.Abort {
			r.Code = int(pmilter.SSD)
		}
		s.log(slog.LevelInfo, "filter refuses", append(attrs, slog.String("reply", r.String()))...)
		s.m.metrics.count("refuse")
		return s.refuse(r)
	}
	return pmilter.Continue
}

// refuse gives the server a reply.
func (s *session) refuse(r smtp.Reply) pmilter.Code {
	if err := s.p.SetReply(replyText(r)); err != nil { // not with what replyText makes
		s.log(slog.LevelWarn, "reply cannot be told to the server", slog.String("reply", r.String()), slog.Any("error", err))
	}
	return pmilter.Code(r.Code)
}

// Bounds of a reply, as package pmilter has them.
const (
	replyLinesMax = 32
	replyTextMax  = 960 // of a line, without its codes
)

// replyText is a reply as the server wants it: each line has an enhanced code of the class of
// its code. A reply without one gets X.0.0 (RFC 3463 section 2: there is nothing more to say).
func replyText(r smtp.Reply) string {
	if class := uint16(r.Code / 100); r.Enhanced.IsZero() || r.Enhanced[0] != class {
		r.Enhanced = smtp.EnhancedCode{class, 0, 0}
	}
	var list []string
	for _, line := range r.Lines[:min(len(r.Lines), replyLinesMax)] {
		line = strings.ToValidUTF8(line, "?")
		for len(line) > replyTextMax {
			_, n := utf8.DecodeLastRuneInString(line)
			line = line[:len(line)-n]
		}
		list = append(list, strings.Map(func(c rune) rune {
			if c < ' ' && c != '\t' || c == 0x7f {
				return '?'
			}
			return c
		}, line))
	}
	r.Lines = list
	return string(r.AppendWire(nil))
}

// end is the end of a transaction, whatever has become of it.
func (s *session) end() {
	if s.tx == nil {
		return
	}
	s.ask.Abort()
	s.tx.content.close()
	s.tx.body.close()
	s.tx = nil
}

// close is the end of the session.
func (s *session) close() {
	s.end()
	s.ask.Close()
	s.debug(debugTrace1, "session closed")
}

// log writes a line of the session.
func (s *session) log(level slog.Level, event string, attrs ...slog.Attr) {
	var ids []slog.Attr
	if s.set.cfg.Log.SessionID {
		ids = append(ids, slog.String("ss_se", s.symbol(pmilter.MacroSeID)))
		if ta := s.symbol(pmilter.MacroMailTAID); ta != "" && s.tx != nil {
			ids = append(ids, slog.String("ss_ta", ta))
		}
	}
	s.m.log.LogAttrs(context.Background(), level, event, append(ids, attrs...)...)
}

// debug writes a line if the debug level is set.
func (s *session) debug(d Debug, event string, attrs ...slog.Attr) {
	if s.set.cfg.Debug&d != 0 {
		s.log(slog.LevelInfo, event, attrs...)
	}
}
