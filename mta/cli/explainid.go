package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/maillog"
	"meta1/mta/smtp"
	"meta1/mta/story"
)

// storyMax bounds the lines of the log that are kept of one message.
const storyMax = 100_000

// messageID reads the identifier of a message or a recipient.
func messageID(args []string) (ta smtp.ID, ok bool) {
	if len(args) != 1 {
		return ta, false
	}
	ta, err := story.ParseID(args[0])
	return ta, err == nil
}

// explainMessage tells of a message in the queue and in the log.
func explainMessage(ctx context.Context, e *Env, to *target, log *logFlags, ta smtp.ID, asJSON bool) error {
	m, err := story.Tell(ctx, ta, storySources(e, to, log))
	if err != nil {
		return &statusError{1, fmt.Errorf("message %s: %w", ta, err)}
	}
	if asJSON {
		err = printJSON(e.Stdout, &m)
	} else {
		err = printMessage(e.Stdout, &m, time.Local)
	}
	if err != nil {
		return err
	}
	fates := map[control.Fate]bool{}
	for i := range m.Recipients {
		fates[m.Recipients[i].Fate] = true
	}
	switch {
	case fates[control.FateFailed]:
		return &statusError{exit.NoPerm, nil}
	case fates[control.FateWaits]:
		return &statusError{exit.TempFail, nil}
	}
	return nil
}

// storySources are the queue of a running meta1, and the logs that the flags name, whoever wrote them.
func storySources(e *Env, to *target, log *logFlags) story.Sources {
	return story.Sources{
		Queue: func(ctx context.Context, behind string, f func(*control.Entry) bool) error {
			enough := errors.New("the message is over")
			err := to.ask(func(k *control.Client) error {
				return k.QueueBehind(ctx, behind, func(one control.Entry) error {
					if !f(&one) {
						return enough
					}
					return nil
				})
			})
			if errors.Is(err, enough) {
				return nil
			}
			return err
		},
		Hosts: func(ctx context.Context) (hosts control.Hosts, err error) {
			return hosts, to.ask(func(k *control.Client) error {
				hosts, err = k.Hosts(ctx, true)
				return err
			})
		},
		Log: func(ctx context.Context, ta string, f func(*maillog.Line) error) (string, error) {
			log.conf = to.file
			return "", log.read(ctx, e, ta, f)
		},
		LinesMax: storyMax,
	}
}

// printMessage prints a story as text.
func printMessage(out io.Writer, m *control.Message, zone *time.Location) error {
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
		for _, s := range r.Steps {
			text := plain(s.Text)
			if !s.Time.IsZero() {
				text = s.Time.In(zone).Format(clock) + " " + text
			}
			if !s.At.IsZero() {
				text += " " + s.At.In(zone).Format(clock)
			}
			w.line("  %s", text)
		}
	}
	for _, n := range m.Notes {
		w.line("note: %s", plain(n))
	}
	return w.err
}
