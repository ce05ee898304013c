package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"meta1/mta/control"
	"meta1/mta/maillog"
)

const (
	// logMax bounds what is read of the end of one log file, in bytes, and logTime the time for all.
	logMax  = 64 << 20
	logTime = 10 * time.Second
	// storyMax bounds the lines that are kept of one message.
	storyMax = 10_000
)

// readLog adds what the log files tell of a message: as far back as logMax reaches. What was put away by
// logrotate is for meta1 log.
func (a *API) readLog(ctx context.Context, m *control.Message) error {
	names, err := a.deps.LogFiles()
	if err != nil {
		return err
	}
	var logs []io.Reader
	cut := false
	for _, name := range names {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // of a module that has logged nothing yet
		}
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() > logMax {
			cut = true
			if _, err := f.Seek(-logMax, io.SeekEnd); err != nil {
				return err
			}
		}
		logs = append(logs, io.LimitReader(f, logMax))
	}
	ctx, cancel := context.WithTimeout(ctx, logTime)
	defer cancel()
	var lines []maillog.Line
	story := maillog.NewStory(m.TA, func(l *maillog.Line) error {
		if len(lines) < storyMax {
			lines = append(lines, *l)
		}
		return nil
	})
	if err := maillog.Read(ctx, logs, story.Add); err != nil {
		return err
	}
	if cut {
		m.Notes = append(m.Notes, "only the end of the log was read: meta1 log reads all")
	}
	account := maillog.Tell(m.TA, lines)
	m.Log = &account
	join(m)
	return nil
}

// join brings queue and log together by recipient.
func join(m *control.Message) {
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
