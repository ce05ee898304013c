package story

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"meta1/mta/control"
	"meta1/mta/maillog"
	"meta1/mta/smtp"
)

// Sources are what a story is made of. Their functions are called by the goroutine of Tell, each at most once.
type Sources struct {
	// Queue calls f for the recipients in the queue behind the one of that rcpt_id ("" from the first), in their
	// order, until f returns false.
	Queue func(ctx context.Context, behind string, f func(*control.Entry) bool) error
	// Hosts are those to which mail goes and that are not tried now.
	Hosts func(ctx context.Context) (control.Hosts, error)
	// Log calls f for the lines of a message and of the sessions that it came and went by, in the order of time. The
	// note says what was left out; "" is nothing.
	Log func(ctx context.Context, ta string, f func(*maillog.Line) error) (note string, err error)
	// LinesMax bounds the lines that are kept; a line is some 500 bytes.
	LinesMax int
}

// ParseID reads the identifier of a message or of a recipient, and returns that of the message.
func ParseID(id string) (smtp.ID, error) {
	if ta, _, err := smtp.ParseRcptID(id); err == nil {
		return ta, nil
	}
	return smtp.ParseID(id)
}

// errUnknown says that the queue may know a message, and could not be asked.
var errUnknown = errors.New("the log knows nothing of this message")

// Tell tells of a message. The error wraps control.ErrNoMessage if nothing is known of it, unless the queue could not
// be asked.
func Tell(ctx context.Context, ta smtp.ID, s Sources) (control.Message, error) {
	m := control.Message{TA: ta.String(), Recipients: []control.MessageRcpt{}}
	unasked := s.queue(ctx, ta, &m)
	if err := unasked; err != nil {
		m.Unasked = true
		m.Notes = append(m.Notes, "the queue was not asked: "+err.Error())
	}
	if err := s.log(ctx, &m); err != nil {
		m.Notes = append(m.Notes, "the log was not read: "+err.Error())
	}
	if !m.Queued && (m.Log == nil || m.Log.Accepted == nil && len(m.Log.Outcomes)+len(m.Log.Attempts) == 0) {
		why := control.ErrNoMessage
		if unasked != nil {
			why = errUnknown
		}
		notes := m.Notes
		if len(notes) == 0 {
			notes = []string{"neither queue nor log has it"}
		}
		return m, fmt.Errorf("%w: %s", why, strings.Join(notes, "; "))
	}
	join(&m)
	for i := range m.Recipients {
		r := &m.Recipients[i]
		r.Fate, r.Steps = fate(&m, r), steps(&m, r)
	}
	return m, nil
}

// queue finds the recipients of the message in the queue, and the hosts that keep them.
func (s *Sources) queue(ctx context.Context, ta smtp.ID, m *control.Message) error {
	behind := ""
	if ta.Counter > 0 { // the recipients of the message come behind those of all before it
		behind = smtp.RcptID(smtp.ID{Counter: ta.Counter - 1, Process: 0xff}, 0)
	}
	err := s.Queue(ctx, behind, func(e *control.Entry) bool {
		if e.TA == m.TA {
			q := *e
			m.Queued, m.Sender, m.Size, m.Arrival = true, q.Sender, q.Size, &q.Arrival
			m.Recipients = append(m.Recipients, control.MessageRcpt{RcptID: q.RcptID, Rcpt: q.Rcpt, Queue: &q})
		}
		at, err := smtp.ParseID(e.TA)
		return err != nil || at.Counter <= ta.Counter
	})
	if err != nil || !m.Queued {
		return err
	}
	hosts, err := s.Hosts(ctx)
	if err != nil {
		m.Notes = append(m.Notes, "it was not asked which hosts are closed: "+err.Error())
		return nil
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

// log reads what is past.
func (s *Sources) log(ctx context.Context, m *control.Message) error {
	var lines []maillog.Line
	note, err := s.Log(ctx, m.TA, func(l *maillog.Line) error {
		if len(lines) < s.LinesMax {
			lines = append(lines, *l)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if note != "" {
		m.Notes = append(m.Notes, note)
	}
	a := maillog.Tell(m.TA, lines)
	m.Log = &a
	return nil
}

// join brings queue and log together by recipient.
func join(m *control.Message) {
	if m.Log == nil {
		return
	}
	if m.Log.Accepted != nil && !m.Queued {
		m.Sender = bare(m.Log.Accepted.Fields["mail"])
	}
	for _, id := range slices.Sorted(maps.Keys(m.Log.Outcomes)) {
		o := m.Log.Outcomes[id]
		i := slices.IndexFunc(m.Recipients, func(r control.MessageRcpt) bool { return r.RcptID == id })
		if i < 0 {
			m.Recipients = append(m.Recipients, control.MessageRcpt{RcptID: id, Rcpt: bare(o.Rcpt)})
			i = len(m.Recipients) - 1
		}
		m.Recipients[i].Outcome = o
	}
}

// bare is an address without angle brackets.
func bare(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">") }
