package server

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	form "meta1/pmilter"
	"meta1/server/content"
	"meta1/server/milter"
	"meta1/server/pmilter"
)

// The policy milter (section policy_milter) is asked at each step before the milters, behind
// all other checks.

// makePolicyMilter makes the policy milter of the section, if there is one. PRDR is offered then
// (README 3.10 item 17).
func (s *Server) makePolicyMilter(former *Server) {
	if !s.cfg.MilterPresent {
		return
	}
	m := &s.cfg.PolicyMilter
	s.cfg.Flags.Offers.PRDR = true
	c := pmilter.Config{
		Network: "unix", Address: m.Socket.Path, Timeout: m.Timeout, PRDR: true,
		Host: s.deps.Hostname, Program: "meta1-" + s.deps.Version,
	}
	if m.Socket.Type == "inet" {
		c.Network, c.Address = "tcp", net.JoinHostPort(m.Socket.Address.String(), strconv.Itoa(m.Socket.Port))
	}
	switch {
	case m.Abort:
		c.Failure = pmilter.AbortSession
	case m.AcceptButReconnect:
		c.Failure = pmilter.Reconnect
	}
	if s.policyConfig = c; former.samePolicyMilter(c) != nil {
		s.policyMilter = former.policyMilter
		return
	}
	s.policyMilter = pmilter.New(c, pmilter.Deps{Dial: s.deps.Dial, Log: s.log, Metrics: pmilter.Metrics(s.metrics.milter(pmilter.Name))})
}

// policyConnect begins a session with the policy milter.
func (c *session) policyConnect() smtp.Reply {
	if c.srv.policyMilter == nil {
		return smtp.Reply{}
	}
	c.filter.policy = c.srv.policyMilter.Begin(c.asks.parent)
	v := c.filter.policy.Connect(pmilter.Client{Name: c.clientName(), IP: c.client.IP, Port: c.client.Port}, c.macro)
	return c.policyVerdict(&v)
}

// policyRcpt asks about a recipient that the caller lets pass, or tells of one that it
// refuses. discard is of the recipient alone.
func (c *session) policyRcpt(to smtp.Path, refusal smtp.Reply) (r smtp.Reply, discard bool) {
	if c.filter.policy == nil || c.tx.discard {
		return smtp.Reply{}, false
	}
	v := c.filter.policy.Rcpt(to.Addr(), c.filter.params, refusal, c.macro)
	if v.Action == pmilter.Discard && !v.Quick {
		c.logDiscard(policyStep(&v), msg.StageRcpt)
		return smtp.Reply{}, true
	}
	return c.policyVerdict(&v), false
}

// policyVerdict does what the policy milter has decided. A refusal is delayed to RCPT if the
// option delay_checks says so, unless it is quick (README 3.9.3). The reply is zero to go on.
func (c *session) policyVerdict(v *pmilter.Verdict) smtp.Reply {
	step := policyStep(v)
	switch v.Action {
	case pmilter.Discard:
		stage := msg.StageEom
		if c.tx == nil {
			c.policy.discard, stage = true, msg.StageConnect
		} else {
			c.tx.discard = true
			c.filter.session.Abort()
			c.filter.policy.Abort()
		}
		c.logDiscard(step, stage)
	case pmilter.Refuse:
		switch delays := c.srv.cfg.Flags.DelayChecks && !v.Quick; {
		case delays && c.tx == nil && v.Stage != "unknown":
			c.policy.refusal = refusal{reply: v.Reply, by: step}
			return smtp.Reply{}
		case delays && v.Stage == "mail":
			if c.tx.refusal.reply.IsZero() {
				c.tx.refusal = refusal{reply: v.Reply, by: step}
			}
			return smtp.Reply{}
		}
		c.note.by = step
		return v.Reply
	case pmilter.Abort:
		c.note.by = step
		return v.Reply
	default:
		switch {
		case !v.Exempts():
		case c.tx == nil:
			c.policy.quick, c.policy.refusal = true, refusal{}
		case v.Stage == "mail":
			c.tx.refusal = refusal{}
		}
	}
	return smtp.Reply{}
}

// policyStep is a verdict as a step of the trace.
func policyStep(v *pmilter.Verdict) msg.Step {
	s := msg.Step{Check: pmilter.Name, Key: v.Stage, Effect: v.Action.String()}
	if v.Quick {
		s.Effect = "quick:" + s.Effect
	}
	if v.Failed != nil {
		s.Value = "failed: " + v.Failed.Error()
	}
	return s
}

// tookRcpt notes an accepted recipient for the policy milter, and for the replies of PRDR. place
// is that in the envelope, -1 if it is discarded.
func (c *session) tookRcpt(key string, rcpt msg.Rcpt, again, discard bool) {
	p, tx := c.filter.policy, c.tx
	if p == nil {
		return
	}
	place := -1
	if !discard {
		place = slices.IndexFunc(tx.env.Rcpts, func(r msg.Rcpt) bool {
			return r.Notify == rcpt.Notify && r.ORcpt == rcpt.ORcpt && rcptKey(r.To) == key
		})
	}
	index := p.Index(place)
	if !again {
		p.Took(place)
		index = len(p.Places()) - 1
	}
	if tx.prdr {
		tx.order = append(tx.order, index)
	}
}

// policyMessage gives the message to the policy milter and makes the changes that it wants.
func (d *draft) policyMessage() smtp.Reply {
	c, in := d.c, d.body
	if c.filter.policy == nil {
		return smtp.Reply{}
	}
	var next *content.Content // the new message, if there is one
	changes, v, err := c.filter.policy.Message(&pmilter.Content{
		Macros:  c.macro,
		Message: func() io.Reader { return d.body.Message() },
		Replace: func(p []byte) (err error) {
			if next == nil {
				if next, err = d.replace(); err != nil {
					return err
				}
			}
			return d.lines.Write(next, p)
		},
	})
	if next != nil {
		if changes.Replaced && err == nil {
			d.body = next
		} else {
			next.Abort()
		}
	}
	switch {
	case err != nil && next != nil && !next.Failed().IsZero():
		in.Blame(next.Cause())
		return next.Failed()
	case err != nil:
		d.body.FailStore(err)
	}
	if !d.body.Failed().IsZero() {
		return d.body.Failed()
	}
	if r := c.policyVerdict(&v); !r.IsZero() || c.tx.discard {
		return r
	}
	if changes.Replaced {
		d.lines.End(next)
		d.header = true
	}
	return d.policyChanges(&changes)
}

// policyChanges makes the changes of header and envelope, and notes what each recipient says.
func (d *draft) policyChanges(changes *pmilter.Changes) smtp.Reply {
	tx := d.c.tx
	if len(changes.List) == 0 && !changes.Replaced && changes.Replies == nil && changes.Hold == "" {
		return smtp.Reply{}
	}
	attrs := []slog.Attr{slog.Any("ss_ta", tx.env.TA)}
	if changes.Hold != "" {
		d.hold = "held by the policy milter: " + changes.Hold
		attrs = append(attrs, slog.String("hold", changes.Hold))
	}
	if r := d.policyHeader(changes.List); !r.IsZero() {
		return r
	}
	r := d.policyReplies(changes.Replies)
	if !r.IsZero() {
		return r
	}
	counts := d.policyEnvelope(changes.List)
	for _, n := range [...]struct {
		name string
		of   form.FrameType
	}{{"chgfrom", form.FrameMailReplace}, {"addrcpt", form.FrameRcptAdd}, {"delrcpt", form.FrameRcptDel}, {"header", form.FrameHeader}} {
		if counts[n.of] > 0 {
			attrs = append(attrs, slog.Int(n.name, counts[n.of]))
		}
	}
	if changes.Replaced {
		attrs = append(attrs, slog.Bool("replmsg", true))
	}
	if len(tx.each) > 0 {
		attrs = append(attrs, slog.Bool("replies", true))
	}
	d.c.emit(slog.LevelInfo, "policy milter changes the message", attrs...)
	return smtp.Reply{}
}

// policyHeader modifies the header.
func (d *draft) policyHeader(list []form.Change) smtp.Reply {
	if !slices.ContainsFunc(list, func(ch form.Change) bool { return ch.Type == form.FrameHeader }) {
		return smtp.Reply{}
	}
	if r := d.open(); !r.IsZero() {
		return r
	}
	own := d.fields[:len(d.results)] // which it has not seen
	top, fields, changed := pmilter.Header(string(d.c.receivedField()), d.fields[len(own):], list, func(text string) milter.Header {
		fields, _, _, _ := milter.ReadHeader(bufio.NewReader(strings.NewReader(text)), len(text)+1)
		return fields[0] // it was checked
	})
	if changed {
		d.fields, d.header = slices.Concat(own, fields), true
		d.top = append(slices.Clone(d.c.tx.prepend), top...)
	}
	return smtp.Reply{}
}

var errLastRcpt = errors.New("no recipient would be left")

// policyEnvelope changes the envelope, and returns how many changes of each type there are.
// Recipients are added before others are removed, for the last one must not be.
func (d *draft) policyEnvelope(list []form.Change) map[form.FrameType]int {
	tx := d.c.tx
	counts := map[form.FrameType]int{}
	gone := map[int]bool{} // places in the envelope
	maps.Copy(gone, d.refused)
	places, original := d.c.filter.policy.Places(), len(tx.env.Rcpts)
	for i := range list {
		ch := &list[i]
		counts[ch.Type]++
		var err error
		switch ch.Type {
		case form.FrameMailReplace:
			err = d.envelope(&milter.Change{Kind: milter.ChangeFrom, Value: ch.Addr, Args: strings.Join(ch.Args, " ")})
		case form.FrameRcptAdd:
			err = d.envelope(&milter.Change{Kind: milter.AddRcpt, Value: ch.Addr, Args: strings.Join(ch.Args, " ")})
		case form.FrameRcptDel:
			to, wrong := d.address(ch.Addr, false)
			switch {
			case wrong != nil:
				err = wrong
			case int64(ch.Index) >= int64(len(places)):
				err = errNoSuchRcpt
			case places[ch.Index] < 0: // it is discarded already
			case places[ch.Index] >= original || rcptKey(tx.env.Rcpts[places[ch.Index]].To) != rcptKey(to):
				err = errNoSuchRcpt
			default:
				gone[places[ch.Index]] = true
			}
		}
		if err != nil {
			d.c.emit(slog.LevelWarn, "policy milter wants an impossible change", slog.Any("ss_ta", tx.env.TA),
				slog.String("change", wireWord(ch.Type)), slog.String("value", ch.Addr), slog.Any("error", err))
		}
	}
	if len(gone) > 0 && len(gone) >= len(tx.env.Rcpts) {
		d.c.emit(slog.LevelWarn, "policy milter wants an impossible change", slog.Any("ss_ta", tx.env.TA),
			slog.String("change", wireWord(form.FrameRcptDel)), slog.Any("error", errLastRcpt))
		return counts
	}
	tx.keep(func(place int) bool { return !gone[place] })
	return counts
}

// wireWord names a change as logs of milters do.
func wireWord(f form.FrameType) string {
	switch f {
	case form.FrameMailReplace:
		return milter.ChangeFrom.String()
	case form.FrameRcptAdd:
		return milter.AddRcpt.String()
	}
	return milter.DelRcpt.String()
}

// keep keeps the recipients whose place in the envelope says so.
func (tx *transaction) keep(stays func(place int) bool) {
	left := make([]msg.Rcpt, 0, len(tx.env.Rcpts))
	for i := range tx.env.Rcpts {
		if stays(i) {
			left = append(left, tx.env.Rcpts[i])
		}
	}
	tx.env.Rcpts = left
	tx.index()
}

// policyReplies notes the reply of each recipient, which only a client with PRDR gets. A
// message that none takes is refused as the first one refuses it.
func (d *draft) policyReplies(replies []smtp.Reply) smtp.Reply {
	tx := d.c.tx
	if replies == nil || !tx.prdr {
		return smtp.Reply{}
	}
	if !slices.ContainsFunc(replies, func(r smtp.Reply) bool { return r.IsZero() }) {
		d.c.note.by = msg.Step{Check: pmilter.Name, Key: "eom", Value: "replies", Effect: "refuse"}
		return replies[0]
	}
	tx.each = make([]smtp.Reply, len(tx.order))
	for i, index := range tx.order {
		if index >= 0 {
			tx.each[i] = replies[index]
		}
	}
	d.refused = map[int]bool{}
	for i, place := range d.c.filter.policy.Places() {
		if place >= 0 && !replies[i].IsZero() {
			d.refused[place] = true
		}
	}
	tx.accepted -= len(d.refused)
	return smtp.Reply{}
}
