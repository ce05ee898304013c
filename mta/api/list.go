package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

const (
	// summaryTime is how long a summary is good for at least, and summaryShare how many times as
	// long as it took to count: a long queue is not counted all the time.
	summaryTime  = 2 * time.Second
	summaryShare = 10
	// summaryMax bounds the destinations and the reasons of an answer, unless more are asked for.
	summaryMax = 500
)

// Summary counts the queue, or gives what was counted not long ago. Whoever comes while it is counted waits.
func (a *API) Summary(ctx context.Context, q control.SummaryQuestion) (control.Summary, error) {
	asked := a.deps.Now()
	if q.Max <= 0 {
		q.Max = summaryMax
	}
	a.summing.Lock()
	defer a.summing.Unlock()
	begun := a.deps.Now()
	if !q.Fresh && begun.Before(a.until) || q.Fresh && a.summary.Time.After(asked) {
		return a.summary.Cut(q.Max), nil
	}
	s := control.NewSummarizer(begun)
	err := a.list(ctx, "", control.PageMax, func(e *msg.ListEntry) bool {
		s.Add(e)
		return true
	})
	if err != nil {
		return control.Summary{}, err
	}
	end := a.deps.Now()
	a.summary, a.until = s.Summary(), end.Add(max(summaryTime, summaryShare*end.Sub(begun)))
	return a.summary.Cut(q.Max), nil
}

// list calls f for the recipients behind one, in order, until it returns false. They come in pages of a
// size. QMGR reads each page anew, so that nothing of its store is held in between.
func (a *API) list(ctx context.Context, after string, size int, f func(*msg.ListEntry) bool) error {
	for {
		page, err := a.page(ctx, after, size)
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
		last := &page.Entries[len(page.Entries)-1]
		after = smtp.RcptID(last.TA, last.Index)
	}
}

func (a *API) page(ctx context.Context, after string, size int) (msg.ListA, error) {
	page, err := a.deps.List(ctx, msg.ListQ{After: after, Max: size})
	if err != nil {
		return msg.ListA{}, fmt.Errorf("the queue manager does not answer: %w", err)
	}
	if page.Err != "" {
		return msg.ListA{}, errors.New("listing the queue: " + page.Err)
	}
	return page, nil
}

// Queue lists recipients of the queue.
func (a *API) Queue(ctx context.Context, after string, max int) (control.Page, error) {
	page, err := a.page(ctx, after, max)
	if err != nil {
		return control.Page{}, err
	}
	p := control.Page{More: page.More, Entries: make([]control.Entry, len(page.Entries))}
	for i := range page.Entries {
		p.Entries[i] = entry(&page.Entries[i])
	}
	return p, nil
}

func entry(e *msg.ListEntry) control.Entry {
	id := smtp.RcptID(e.TA, e.Index)
	return control.Entry{
		RcptID: id, TA: id[:strings.LastIndexByte(id, '-')], State: e.State, Arrival: e.Arrival, Size: e.Size,
		Sender: e.Sender.Addr(), Rcpt: e.Rcpt.Addr(), Dest: e.Dest, NextTry: e.NextTry, Attempts: e.Attempts, Reason: e.Reason,
	}
}
