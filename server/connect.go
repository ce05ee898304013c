package server

import (
	"context"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/condition"
	"meta1/server/wire"
)

// endWait bounds how long the end of a session waits to be noted by QMGR.
const endWait = 5 * time.Second

// admit asks QMGR for the session. If it refuses, the client is told, and the phase
// is phaseClosed.
func (c *session) admit() bool {
	s := c.srv
	c.wire.Acquire()
	a, err := ask(&c.asks, s.deps.Ports.Admit, s.cfg.ModuleTimeout, msg.AdmitQ{
		Kind: msg.NewSession, Server: s.cfg.ID, Client: c.client.IP,
	})
	if err != nil {
		c.refuse(refusedDown, replyDownSession, slog.Any("error", err))
		return false
	}
	if !a.Reply.IsZero() {
		c.refuse(refusedAdmit, a.Reply)
		return false
	}
	c.id, c.admitted, c.askName = a.ID, true, a.AskName
	c.log = s.log.With(slog.Any("ss_se", c.id))
	c.show()
	return true
}

// endSession tells QMGR that an admitted session is over.
func (c *session) endSession(ctx context.Context) {
	if !c.admitted {
		return
	}
	// Also when the server is stopped by force: QMGR may live on.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	_, err := c.srv.deps.Ports.Admit.Ask(ctx, msg.AdmitQ{
		Kind: msg.EndSession, Server: c.srv.cfg.ID, Client: c.client.IP, Session: c.id,
	})
	if err != nil {
		c.emit(slog.LevelDebug, "end of session not noted", slog.Any("error", err))
	}
}

// admitName asks QMGR again, now that the name of the client is known or found to be
// unknown, if limits depend on it. If QMGR refuses, the phase is phaseClosed.
func (c *session) admitName() bool {
	if !c.askName {
		return true
	}
	s := c.srv
	a, err := ask(&c.asks, s.deps.Ports.Admit, s.cfg.ModuleTimeout, msg.AdmitQ{
		Kind: msg.NameSession, Server: s.cfg.ID, Client: c.client.IP, Session: c.id, Name: c.client.Name,
	})
	switch {
	case err != nil:
		c.refuse(refusedDown, replyDownSession, slog.Any("error", err))
	case !a.Reply.IsZero():
		c.refuse(refusedAdmit, a.Reply)
	default:
		return true
	}
	return false
}

// refuse answers a connection in place of the greeting.
func (c *session) refuse(reason string, r smtp.Reply, attrs ...slog.Attr) {
	c.srv.metrics.refused.WithLabelValues(reason).Inc()
	c.note.add(attrs...)
	c.respond(c.srv.verb(verbOther), r)
	c.enter(phaseClosed)
}

// clientIP names the client in the log.
func (c *session) clientIP() slog.Attr {
	if !c.client.IP.IsValid() {
		return slog.String("client_ip", "local")
	}
	return slog.Any("client_ip", c.client.IP)
}

// greet makes the checks of the connection and collects the greeting.
func (c *session) greet() {
	f := &c.srv.cfg.Flags
	if f.Access || f.LookupSessionConf {
		if r := c.checkSession(msg.StageConnect); !r.IsZero() {
			c.refuse(refusedCheck, r)
			return
		}
	}
	c.atConnect = c.policy
	if !c.admitName() {
		return
	}
	if r := c.checkSections(condition.AtConnect, smtp.Path{}, nil); !r.IsZero() {
		c.refuse(refusedSection, r)
		return
	}
	if r := c.filterConnect(); !r.IsZero() {
		c.refuse(refusedFilter, r)
		return
	}
	c.atConnect = c.policy // with what filters have said
	attrs := c.appendClient(make([]slog.Attr, 0, 3))
	if c.policy.class != nil {
		attrs = append(attrs, slog.String("session_feature", c.policy.class.name))
	}
	c.emit(slog.LevelInfo, "session", c.appendVia(attrs)...)
	if !f.AllowDataBeforeGreeting && c.wire.SpeaksFirst(c.srv.cfg.GreetPause) {
		c.srv.metrics.earlyTalker.Inc()
		r := replyEarly
		if c.wire.BeginsTLS() {
			c.noteTLSFailure(wire.ErrTLSRecord)
			r = replyTLSRecord
		}
		c.respond(c.srv.verb(verbOther), r)
		c.enter(phaseClosed)
		return
	}
	c.wire.Out = c.srv.greeting.AppendWire(c.wire.Out)
	c.progress()
}

// checkSession asks SMAR at StageConnect or StageEhlo and notes what the verdict
// means for the session. The reply is zero to go on.
func (c *session) checkSession(stage msg.Stage) smtp.Reply {
	v, err := c.check(msg.CheckQ{Stage: stage})
	if err != nil {
		if stage == msg.StageConnect {
			return replyDownSession
		}
		return replyDown
	}
	if stage == msg.StageConnect {
		if c.client.Resolve == "" { // XCLIENT has not given the name
			c.client.Name, c.client.Resolve = v.ClientName, v.ClientResolve
		}
		c.requireTLS(&v)
		c.choose(&v)
	}
	p := &c.policy
	p.relaying = p.relaying || v.Relay
	p.relays = p.relays || v.Relay && stage == msg.StageConnect
	p.marks |= v.Marks
	switch v.Action {
	case msg.Reject:
		if c.srv.cfg.Flags.DelayChecks && !v.Quick {
			p.refusal = refusal{reply: v.Reply, by: v.Decision()}
			return smtp.Reply{}
		}
		c.note.by = v.Decision()
		return v.Reply
	case msg.Discard:
		p.discard = true
		c.logDiscard(v.Decision(), stage)
	case msg.Accept:
		p.quick = p.quick || v.Quick
	}
	return smtp.Reply{}
}

// check asks SMAR about a stage. An error has been logged. A rejection always has a
// reply.
func (c *session) check(q msg.CheckQ) (msg.Verdict, error) {
	q.Session, q.Client, q.Rules = c.id, c.client, &c.srv.rules
	q.Relaying, q.Marks = c.relaying(), c.policy.marks
	if c.tx != nil {
		q.TA, q.Mail = c.tx.env.TA, c.tx.env.Mail
		q.Marks |= c.tx.marks
	}
	begun := c.stages.begin()
	v, err := ask(&c.asks, c.srv.deps.Ports.Check, c.srv.cfg.WaitForSMAR, q)
	c.stages.end("check ", q.Stage.String(), begun, v.Reply)
	if err != nil {
		c.emit(slog.LevelWarn, "no verdict", slog.String("where", q.Stage.String()), slog.Any("error", err))
		return msg.Verdict{}, err
	}
	if v.Action == msg.Reject && v.Reply.Code < 400 {
		v.Reply = replyRejected
	}
	return v, nil
}
