package mta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// statusTime bounds the question for a module's snapshot.
const statusTime = 2 * time.Second

// Status is a snapshot of everything.
func (m *mta) Status(ctx context.Context) control.Status {
	s := control.Status{
		Version: m.setup.Version, Hostname: m.hostname, PID: os.Getpid(), Started: m.started,
		Spool: m.dir, Config: m.result.File, Listen: m.listening(), Health: m.Health(ctx),
		Limits: m.current().limits, Configuration: m.configuration(),
	}
	for _, u := range m.tree.Status() {
		module := control.Module{Name: u.Name, State: string(u.State), Since: u.Since, Restarts: u.Restarts}
		if u.LastErr != nil {
			module.Error = u.LastErr.Error()
		}
		if a, err := m.ask(ctx, u.Name); err == nil {
			for _, v := range a.Values {
				module.Values = append(module.Values, control.Value(v))
			}
		}
		s.Modules = append(s.Modules, module)
	}
	return s
}

// ask asks a module for its snapshot.
func (m *mta) ask(ctx context.Context, unit string) (msg.StatusA, error) {
	return m.askFor(ctx, unit, msg.StatusQ{})
}

func (m *mta) askFor(ctx context.Context, unit string, q msg.StatusQ) (msg.StatusA, error) {
	port := m.ports.Status[unit]
	if named, ok := m.statusPorts.Load(unit); ok {
		port = named.(*msg.Port[msg.StatusQ, msg.StatusA])
	}
	if port == nil {
		return msg.StatusA{}, errors.New("no such module")
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	return port.Ask(ctx, q)
}

// listening are all sockets that are bound.
func (m *mta) listening() []control.Socket {
	var all []control.Socket
	add := func(section string, listeners []net.Listener) {
		for _, l := range listeners {
			all = append(all, control.Socket{Section: section, Network: l.Addr().Network(), Address: l.Addr().String()})
		}
	}
	c := m.current().conf
	for _, s := range c.Servers {
		add(s.Of.Section, m.sockets.of(s.Of.Section))
	}
	for _, s := range c.Services {
		add(s.Of.Section, m.sockets.of(s.Of.Section))
	}
	for _, owner := range []string{forMetrics, forControl, forHTTP} {
		add(owner, m.sockets.of(owner))
	}
	return all
}

// Operate does something to recipients in the queue.
func (m *mta) Operate(ctx context.Context, o control.Operation) (control.Operated, error) {
	q := msg.OperateQ{Op: o.Op, Select: msg.Selection{
		Sender: o.Sender, Rcpt: o.Rcpt, Domain: o.Domain, Hop: o.Hop, MinAge: o.MinAge, MaxAge: o.MaxAge, Reason: o.Reason, Held: o.Held, Unheld: o.Unheld,
	}}
	switch o.Op {
	case msg.OpHold, msg.OpRelease, msg.OpFlush, msg.OpRequeue, msg.OpRemove, msg.OpExpire:
	default:
		return control.Operated{}, fmt.Errorf("unknown operation %q", o.Op)
	}
	if o.TA != "" {
		var err error
		if q.Select.TA, err = smtp.ParseID(o.TA); err != nil {
			return control.Operated{}, err
		}
	}
	if o.RcptID != "" {
		ta, _, err := smtp.ParseRcptID(o.RcptID)
		if err != nil {
			return control.Operated{}, err
		}
		if o.TA != "" && ta != q.Select.TA {
			return control.Operated{}, fmt.Errorf("recipient %s is not one of transaction %s", o.RcptID, o.TA)
		}
		q.Select.TA, q.Select.RcptID = ta, o.RcptID
	}
	a, err := m.ports.Operate.Ask(ctx, q)
	if err != nil {
		return control.Operated{}, fmt.Errorf("the queue manager does not answer: %w", err)
	}
	m.log.LogAttrs(ctx, levelNotice, "queue operation", slog.String("op", string(o.Op)), slog.Int("done", a.Done), slog.Int("busy", a.Busy),
		slog.String("ss_ta", o.TA), slog.String("rcpt_id", o.RcptID), slog.String("mail", o.Sender), slog.String("rcpt", o.Rcpt), slog.String("domain", o.Domain), slog.String("hop", o.Hop), slog.String("reason", o.Reason))
	return control.Operated(a), nil
}

// Hosts gives the hosts to which mail goes.
func (m *mta) Hosts(ctx context.Context, closed bool) (control.Hosts, error) {
	a, err := m.ports.Hosts.Ask(ctx, msg.HostsQ{Closed: closed})
	if err != nil {
		return control.Hosts{}, fmt.Errorf("the queue manager does not answer: %w", err)
	}
	all := control.Hosts{More: a.More, Hosts: make([]control.Host, len(a.Hosts))}
	for i := range a.Hosts {
		h := &a.Hosts[i]
		all.Hosts[i] = control.Host{
			Host: h.Host, State: h.State, InUse: h.InUse, Window: h.Window, Max: h.Max, Waiting: h.Waiting, LastUse: h.LastUse,
			Until: h.Until, Reason: h.Reason, Provider: h.Provider, TLS: h.TLS.Version, Verify: h.TLS.Verify,
		}
	}
	for _, f := range a.TriedLast {
		all.TriedLast = append(all.TriedLast, control.Family(f))
	}
	for i := range a.Providers {
		p := &a.Providers[i]
		all.Providers = append(all.Providers, control.Provider{
			Provider: p.Provider, InUse: p.InUse, Max: p.Max, Waiting: p.Waiting, Rate: p.Rate, RateMax: p.RateMax,
			Interval: p.Per.String(), SlowDowns: p.SlowDowns, Until: p.Until, Reason: p.Reason,
		})
	}
	return all, nil
}

// Fsck checks a part of the databases of the queue.
func (m *mta) Fsck(ctx context.Context, q control.FsckQuestion) (control.FsckAnswer, error) {
	a, err := m.ports.Fsck.Ask(ctx, msg.FsckQ(q))
	if err != nil {
		return control.FsckAnswer{}, fmt.Errorf("the queue manager does not answer: %w", err)
	}
	findings := make([]control.Finding, 0, len(a.Findings))
	for _, f := range a.Findings {
		findings = append(findings, control.Finding(f))
	}
	return control.FsckAnswer{Findings: findings, Cursor: a.Cursor, Examined: a.Examined, Err: a.Err}, nil
}

// Health says whether everything that is configured works: the modules are up, the queue
// takes mail, and no service was given up.
func (m *mta) Health(ctx context.Context) control.Health {
	h := m.working(ctx)
	h.Reasons = append(h.Reasons, m.givenUp()...)
	if d := m.Draining(); d.Phase != control.NotDraining {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%s: new mail is refused since %s: %s", d.Phase, d.Since.Format(time.RFC3339), d.Reason))
	}
	h.OK = len(h.Reasons) == 0
	return h
}

// Stop begins the end, because the control socket was asked for it.
func (m *mta) Stop(ctx context.Context) {
	m.log.LogAttrs(ctx, levelNotice, "stop was asked for at the control socket")
	m.beginStop()
}

// working says whether the modules are up and the queue takes mail. A service that was
// given up is not asked for: to start meta1 again would not mend it.
func (m *mta) working(ctx context.Context) control.Health {
	h := m.readiness()
	for _, u := range m.tree.Status() {
		if m.requires(u.Name) && u.State != supervise.Up {
			h.Reasons = append(h.Reasons, u.Name+" is "+string(u.State))
		}
	}
	if reason := m.refuses(ctx); reason != "" {
		h.Reasons = append(h.Reasons, reason)
	}
	h.OK = len(h.Reasons) == 0
	return h
}

// givenUp names the services that are not started again, and why.
func (m *mta) givenUp() (reasons []string) {
	for _, u := range m.tree.Status() {
		if m.requires(u.Name) || u.State != supervise.Failed {
			continue
		}
		reason := "service " + u.Name + " was given up"
		if u.LastErr != nil {
			reason += ": " + u.LastErr.Error()
		}
		reasons = append(reasons, reason)
	}
	return reasons
}

// readiness says whether everything was started, and the end has not begun.
func (m *mta) readiness() control.Health {
	switch {
	case m.stopping.Load():
		return control.Health{Reasons: []string{"meta1 is stopping"}}
	case !m.ready.Load():
		return control.Health{Reasons: []string{"meta1 is starting"}}
	}
	return control.Health{OK: true}
}

// refuses says why the queue takes no mail, or "". QMGR tells in its snapshot: the
// value "accepting" is yes, or no and the reason.
func (m *mta) refuses(ctx context.Context) string {
	a, err := m.ask(ctx, unitQueue)
	if err != nil {
		return "qmgr does not answer: " + err.Error()
	}
	for _, v := range a.Values {
		if v.Name == "accepting" && v.Text != "yes" {
			return "the queue takes no mail: " + strings.TrimPrefix(v.Text, "no: ")
		}
	}
	return ""
}
