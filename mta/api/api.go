package api

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Deps are what the answers are made of. All may be called by any goroutine.
type Deps struct {
	// Queue and Hosts are those of control.Backend.
	Queue func(ctx context.Context, after string, max int) (control.Page, error)
	Hosts func(ctx context.Context, closed bool) (control.Hosts, error)
	// Modules asks all modules for snapshots, by unit: qmgr, smtpc, smar, smtps and so on.
	Modules func(ctx context.Context, q msg.StatusQ) map[string]msg.StatusA
	// Gate and Throttles are what the modules obey.
	Gate      *msg.Gate
	Throttles *msg.Throttles
	// Handover is where mail goes while a drain hands it over. CheckPeer says why it cannot go to a peer,
	// and Reroute has all that is not held tried anew; busy is how many could not be at that moment.
	Handover  *msg.Handover
	CheckPeer func(ctx context.Context, peer string) error
	Reroute   func(ctx context.Context) (busy int, err error)
	// Flush has deferred mail tried now, and Stop begins the end of meta1.
	Flush func(ctx context.Context) error
	Stop  func()
	Log   *slog.Logger
	// LogFiles are the files to which the modules log now; an error says why there are none.
	LogFiles func() ([]string, error)
	Now      func() time.Time
}

// API answers. Run keeps the rates.
type API struct {
	deps    Deps
	started time.Time

	mu      sync.Mutex // guards samples
	samples []sample   // the oldest first

	drain drain

	summing sync.Mutex // held while the queue is counted; guards the fields below
	summary control.Summary
	until   time.Time // when it is counted anew
}

// New makes an API of a meta1 that was started then.
func New(d Deps, started time.Time) *API { return &API{deps: d, started: started} }

const (
	// summaryTime is how long a summary is good for at least, and summaryShare how many times as
	// long as it took to count: a long queue is not counted all the time.
	summaryTime  = 2 * time.Second
	summaryShare = 10
	// summaryMax bounds the destinations and the reasons of an answer.
	summaryMax = 500
)

// Summary counts the queue, or gives what was counted not long ago.
func (a *API) Summary(ctx context.Context) (control.Summary, error) {
	a.summing.Lock()
	defer a.summing.Unlock()
	begun := a.deps.Now()
	if begun.Before(a.until) {
		return a.summary, nil
	}
	s := control.NewSummarizer(begun)
	err := a.list(ctx, "", func(e *control.Entry) bool {
		s.Add(e)
		return true
	})
	if err != nil {
		return control.Summary{}, err
	}
	end := a.deps.Now()
	a.summary, a.until = s.Summary().Cut(summaryMax), end.Add(max(summaryTime, summaryShare*end.Sub(begun)))
	return a.summary, nil
}

// list calls f for the recipients behind one, in order, until it returns false.
func (a *API) list(ctx context.Context, after string, f func(*control.Entry) bool) error {
	for {
		page, err := a.deps.Queue(ctx, after, control.PageMax)
		if err != nil {
			return err
		}
		for i := range page.Entries {
			if !f(&page.Entries[i]) {
				return nil
			}
		}
		if !page.More || len(page.Entries) == 0 {
			return nil
		}
		after = page.Entries[len(page.Entries)-1].RcptID
	}
}

// Message tells of one message.
func (a *API) Message(ctx context.Context, id string) (control.Message, error) {
	ta, _, err := smtp.ParseRcptID(id)
	if err != nil {
		if ta, err = smtp.ParseID(id); err != nil {
			return control.Message{}, errors.Join(control.ErrNoMessage, err)
		}
	}
	m := control.Message{TA: ta.String(), Recipients: []control.MessageRcpt{}}
	before := ""
	if ta.Counter > 0 { // the recipients of the message come behind those of all before it
		before = smtp.RcptID(smtp.ID{Counter: ta.Counter - 1, Process: 0xff}, 0)
	}
	err = a.list(ctx, before, func(e *control.Entry) bool {
		at, err := smtp.ParseID(e.TA)
		if e.TA == m.TA {
			m.Queued, m.Sender, m.Size, m.Arrival = true, e.Sender, e.Size, &e.Arrival
			m.Recipients = append(m.Recipients, control.MessageRcpt{RcptID: e.RcptID, Rcpt: e.Rcpt, Queue: e})
		}
		return err != nil || at.Counter <= ta.Counter
	})
	if err != nil {
		return m, err
	}
	if m.Queued {
		hosts, err := a.deps.Hosts(ctx, true)
		if err != nil {
			return m, err
		}
		keep(&m, hosts.Hosts)
	}
	if err := a.readLog(ctx, &m); err != nil {
		m.Notes = append(m.Notes, "the log was not read: "+err.Error())
	}
	if !m.Queued && (m.Log == nil || m.Log.Accepted == nil && len(m.Log.Outcomes)+len(m.Log.Attempts) == 0) {
		return m, errors.Join(append([]error{control.ErrNoMessage}, noted(m.Notes)...)...)
	}
	return m, nil
}

func noted(notes []string) (errs []error) {
	for _, n := range notes {
		errs = append(errs, errors.New(n))
	}
	return errs
}

// keep notes the hosts that keep the recipients of a message.
func keep(m *control.Message, hosts []control.Host) {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		for _, h := range hosts {
			if strings.Contains(r.Queue.Reason, h.Host) || strings.HasSuffix(r.Queue.Dest, h.Host) {
				r.Hosts = append(r.Hosts, h)
			}
		}
	}
}
