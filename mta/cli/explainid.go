package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"meta1/mta"
	"meta1/mta/control"
	"meta1/mta/maillog"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// storyMax bounds the lines of the log that are read of one message.
const storyMax = 100_000

// messageID reads the identifier of a message or a recipient.
func messageID(args []string) (ta smtp.ID, ok bool) {
	if len(args) != 1 {
		return ta, false
	}
	if ta, _, err := smtp.ParseRcptID(args[0]); err == nil {
		return ta, true
	}
	ta, err := smtp.ParseID(args[0])
	return ta, err == nil
}

// message is what is known of one message.
type message struct {
	TA         string             `json:"ss_ta"`
	Recipients []messageRcpt      `json:"recipients"`
	Queued     bool               `json:"queued"`            // at least one recipient is in the queue
	Arrival    *time.Time         `json:"arrival,omitempty"` // of what is queued
	Sender     string             `json:"sender"`
	Size       int64              `json:"size,omitempty"`
	Log        *maillog.Account   `json:"log,omitempty"`
	Notes      []string           `json:"notes,omitempty"` // what could not be asked
	outcomes   map[string]outcome // by rcpt_id
}

// outcome orders what becomes of a recipient.
type outcome int

const (
	outcomeDone outcome = iota
	outcomeWaits
	outcomeFailed
)

// messageRcpt is one recipient.
type messageRcpt struct {
	RcptID  string           `json:"rcpt_id"`
	Rcpt    string           `json:"rcpt"`
	Queue   *control.Entry   `json:"queue,omitempty"` // nil: it has left the queue
	Hosts   []control.Host   `json:"hosts,omitempty"` // of its destination that do not serve
	Outcome *maillog.Outcome `json:"outcome,omitempty"`
}

// explainMessage tells of a message in the queue and in the log.
func explainMessage(ctx context.Context, e *Env, to *target, log *logFlags, ta smtp.ID, asJSON bool) error {
	m := &message{TA: ta.String(), Recipients: []messageRcpt{}, outcomes: map[string]outcome{}}
	asked := to.ask(func(k *control.Client) error { return m.askQueue(ctx, k, ta) })
	if asked != nil {
		m.Notes = append(m.Notes, "the queue was not asked: "+asked.Error())
	}
	if err := m.readLog(ctx, e, to, log); err != nil {
		m.Notes = append(m.Notes, "the log was not read: "+err.Error())
	}
	if !m.Queued && (m.Log == nil || m.Log.Accepted == nil && len(m.Log.Outcomes)+len(m.Log.Attempts) == 0) {
		return &statusError{1, fmt.Errorf("nothing is known of message %s; %s", m.TA, strings.Join(append(m.Notes, "neither queue nor log has it"), "; "))}
	}
	m.join()
	var err error
	if asJSON {
		err = printJSON(e.Stdout, m)
	} else {
		err = m.print(e.Stdout, time.Local)
	}
	if err != nil {
		return err
	}
	switch worst := slices.Max(append(slices.Collect(maps.Values(m.outcomes)), outcomeDone)); worst {
	case outcomeWaits:
		return &statusError{mta.ExTempFail, nil}
	case outcomeFailed:
		return &statusError{mta.ExNoPerm, nil}
	}
	return nil
}

// errPassed ends a listing behind the message.
var errPassed = errors.New("the message is over")

// askQueue finds the recipients of the message in the queue, and the hosts that keep them.
func (m *message) askQueue(ctx context.Context, k *control.Client, ta smtp.ID) error {
	before := ""
	if ta.Counter > 0 { // the recipients of the message come behind those of all before it
		before = smtp.RcptID(smtp.ID{Counter: ta.Counter - 1, Process: 0xff}, 0)
	}
	err := k.QueueBehind(ctx, before, func(e control.Entry) error {
		at, err := smtp.ParseID(e.TA)
		switch {
		case e.TA == m.TA:
			m.Queued, m.Sender, m.Size, m.Arrival = true, e.Sender, e.Size, &e.Arrival
			m.Recipients = append(m.Recipients, messageRcpt{RcptID: e.RcptID, Rcpt: e.Rcpt, Queue: &e})
		case err == nil && at.Counter > ta.Counter:
			return errPassed
		}
		return nil
	})
	if err != nil && !errors.Is(err, errPassed) {
		return err
	}
	if !m.Queued {
		return nil
	}
	hosts, err := k.Hosts(ctx, true)
	if err != nil {
		return err
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		for _, h := range hosts.Hosts {
			if strings.Contains(r.Queue.Reason, h.Host) || strings.HasSuffix(r.Queue.Dest, h.Host) {
				r.Hosts = append(r.Hosts, h)
			}
		}
	}
	return nil
}

// readLog reads what is past.
func (m *message) readLog(ctx context.Context, e *Env, to *target, log *logFlags) error {
	log.conf = to.file
	var lines []maillog.Line
	err := log.read(ctx, e, m.TA, func(l *maillog.Line) error {
		if len(lines) < storyMax {
			lines = append(lines, *l)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a := maillog.Tell(m.TA, lines)
	m.Log = &a
	return nil
}

// join brings queue and log together by recipient.
func (m *message) join() {
	byID := map[string]int{}
	for i := range m.Recipients {
		byID[m.Recipients[i].RcptID] = i
		m.outcomes[m.Recipients[i].RcptID] = outcomeWaits
	}
	if m.Log == nil {
		return
	}
	if m.Log.Accepted != nil && !m.Queued {
		m.Sender = bare(m.Log.Accepted.Fields["mail"])
	}
	for _, id := range slices.Sorted(maps.Keys(m.Log.Outcomes)) {
		o := m.Log.Outcomes[id]
		if i, ok := byID[id]; ok {
			m.Recipients[i].Outcome = o
			continue
		}
		m.Recipients = append(m.Recipients, messageRcpt{RcptID: id, Rcpt: bare(o.Rcpt), Outcome: o})
		switch {
		case o.Event == "delivered" || o.Event == "replaced":
			m.outcomes[id] = outcomeDone
		case !o.Ended && len(m.Notes) > 0: // the queue could not be asked
			m.outcomes[id] = outcomeWaits
		default:
			m.outcomes[id] = outcomeFailed
		}
	}
}

func (m *message) print(out io.Writer, zone *time.Location) error {
	const clock = "Jan _2 15:04:05"
	w := &textWriter{out: out}
	w.line("message %s from <%s>", m.TA, plain(m.Sender))
	if m.Log != nil && m.Log.Accepted != nil {
		w.line("accepted %s", m.Log.Accepted.Time.In(zone).Format(clock))
		f := m.Log.Accepted.Fields
		for _, name := range slices.Sorted(maps.Keys(f)) {
			w.line("  %s: %s", name, plain(f[name]))
		}
	} else if m.Arrival != nil {
		w.line("accepted %s, %d bytes", m.Arrival.In(zone).Format(clock), m.Size)
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		w.line("")
		w.line("<%s> (%s)", plain(r.Rcpt), r.RcptID)
		if m.Log != nil {
			for _, a := range m.Log.Attempts {
				if !strings.EqualFold(bare(a.Rcpt), r.Rcpt) {
					continue
				}
				w.line("  %s %s at %s: %s", a.Time.In(zone).Format(clock), plain(a.Relay), plain(a.Stage), plain(a.Reply))
				if a.TLS != "" {
					w.line("      TLS: %s", plain(a.TLS))
				}
			}
		}
		switch {
		case r.Queue != nil:
			printWaiting(w, r, zone)
		case r.Outcome != nil:
			w.line("  %s %s: %s", r.Outcome.Time.In(zone).Format(clock), plain(r.Outcome.Event), plain(r.Outcome.Reply))
		}
	}
	for _, n := range m.Notes {
		w.line("note: %s", plain(n))
	}
	return w.err
}

// printWaiting prints why a recipient is in the queue.
func printWaiting(w *textWriter, r *messageRcpt, zone *time.Location) {
	q := r.Queue
	w.line("  in the queue: %s, %d attempts", q.State, q.Attempts)
	if q.Dest != "" {
		w.line("  goes to %s", plain(q.Dest))
	}
	if q.Reason != "" {
		w.line("  waits because: %s", plain(q.Reason))
	}
	for i := range r.Hosts {
		w.line("  host %s is %s %s", plain(r.Hosts[i].Host), r.Hosts[i].State, hostReason(&r.Hosts[i], zone))
	}
	if q.State == msg.StateDeferred && !q.NextTry.IsZero() {
		w.line("  is tried next %s", q.NextTry.In(zone).Format("Jan _2 15:04:05"))
	}
}
