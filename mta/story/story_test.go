package story

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/control"
	"meta1/mta/maillog"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// world has a queue with messages around the one that is asked for, and a log.
type world struct {
	queue   []control.Entry
	log     string
	note    string
	down    error // of the queue
	unread  error // of the log
	hostErr error
	asked   string
}

func (w *world) sources() Sources {
	return Sources{
		Queue: func(_ context.Context, behind string, f func(*control.Entry) bool) error {
			w.asked = behind
			for i := range w.queue {
				if w.queue[i].RcptID > behind && !f(&w.queue[i]) {
					return nil
				}
			}
			return w.down
		},
		Hosts: func(context.Context) (control.Hosts, error) {
			return control.Hosts{Hosts: []control.Host{
				{Host: "mx.a.test[192.0.2.1]:25", State: msg.HostClosed, Until: at(30), Reason: "refused"}, {Host: "mx.c.test", State: msg.HostClosed},
			}}, w.hostErr
		},
		Log: func(_ context.Context, _ string, f func(*maillog.Line) error) (string, error) {
			for _, text := range strings.Split(w.log, "\n") {
				if l, ok := maillog.Parse([]byte(text)); ok {
					if err := f(&l); err != nil {
						return "", err
					}
				}
			}
			return w.note, w.unread
		},
		LinesMax: 100,
	}
}

func at(minute int) time.Time { return time.Date(2026, 11, 22, 8, minute, 0, 0, time.UTC) }

var ta = smtp.ID{Counter: 0x20}

func queued(ta smtp.ID, index int) control.Entry {
	return control.Entry{
		RcptID: smtp.RcptID(ta, index), TA: ta.String(), State: msg.StateDeferred, Arrival: at(0), Size: 9, Sender: "s@b.test", Rcpt: fmt.Sprintf("r%d@a.test", index),
		Dest: "mx:a.test", Attempts: 2, NextTry: at(40), Reason: "451 by mx.a.test[192.0.2.1]:25",
	}
}

// lines of the log about recipients 0 (deferred), 1 (delivered), 2 (bounced) and 3 (deferred, says the log).
var lines = strings.ReplaceAll(`2026-11-22T08:00:00Z sev=INFO, module=smtps, event=mail, ss_se=S1, ss_ta=TA, mail=<s@b.test>, client_ip=192.0.2.7
2026-11-22T08:00:01Z sev=INFO, module=smtps, event=message, ss_se=S1, ss_ta=TA
2026-11-22T08:01:00Z sev=INFO, module=smtpc, event=starttls, da_se=C1, starttls=TLSv1.3, cipher=X
2026-11-22T08:01:01Z sev=INFO, module=smtpc, event=failed, da_se=C1, ss_ta=TA, rcpt=<R0@A.test>, relay=mx.a.test[192.0.2.1], where=rcpt, reply=451 later
2026-11-22T08:01:02Z sev=INFO, module=qmgr, event=deferred, rcpt_id=TA-000000, ss_ta=TA, rcpt=<r0@a.test>, reply=451 later
2026-11-22T08:01:03Z sev=INFO, module=qmgr, event=delivered, rcpt_id=TA-000001, ss_ta=TA, rcpt=<r1@a.test>, reply=250 ok, stat=0
2026-11-22T08:01:04Z sev=INFO, module=qmgr, event=bounced, rcpt_id=TA-000002, ss_ta=TA, rcpt=<r2@a.test>, reply=550 no, stat=0
2026-11-22T08:01:05Z sev=INFO, module=qmgr, event=deferred, rcpt_id=TA-000003, ss_ta=TA, rcpt=<r3@a.test>, reply=451 later`, "TA", ta.String())

// told is a story in short: each recipient, its fate and its steps.
func told(m *control.Message) (all []string) {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		all = append(all, r.Rcpt+" "+string(r.Fate))
		for _, s := range r.Steps {
			text := s.Text
			if !s.Time.IsZero() {
				text = s.Time.Format("15:04 ") + text
			}
			if !s.At.IsZero() {
				text += s.At.Format(" 15:04")
			}
			all = append(all, "  "+text)
		}
	}
	return all
}

// TestTell: what waits and what is past, by recipient, of the message that was asked for alone.
func TestTell(t *testing.T) {
	w := &world{log: lines, queue: []control.Entry{queued(smtp.ID{Counter: 1}, 0), queued(ta, 0), queued(smtp.ID{Counter: 0x21}, 0)}}
	m, err := Tell(t.Context(), ta, w.sources())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"r0@a.test waits", "  08:01 mx.a.test[192.0.2.1] at rcpt: 451 later (TLS: TLSv1.3 X)", "  in the queue: deferred, 2 attempts", "  goes to mx:a.test",
		"  waits because: 451 by mx.a.test[192.0.2.1]:25", "  host mx.a.test[192.0.2.1]:25 is closed: refused; it is tried again 08:30", "  is tried next 08:40",
		"r1@a.test done", "  08:01 delivered: 250 ok", "r2@a.test failed", "  08:01 bounced: 550 no", "r3@a.test failed", "  08:01 deferred: 451 later",
	}
	if got := told(&m); !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !m.Queued || m.Unasked || m.Sender != "s@b.test" || m.Log.Accepted.Fields["client_ip"] != "192.0.2.7" || len(m.Notes) != 0 {
		t.Errorf("%+v", m)
	}
	if w.asked >= smtp.RcptID(ta, 0) || w.asked < smtp.RcptID(smtp.ID{Counter: 1}, 0) {
		t.Errorf("the queue was read from %s on", w.asked)
	}
}

// TestTellInPart: what cannot be asked is a note, and the rest is told.
func TestTellInPart(t *testing.T) {
	broken := errors.New("broken")
	down := &world{log: lines, down: broken, note: "cut"}
	m, err := Tell(t.Context(), ta, down.sources())
	if err != nil || !m.Unasked || m.Sender != "s@b.test" || !slices.Equal(m.Notes, []string{"the queue was not asked: broken", "cut"}) {
		t.Errorf("%+v, %v", m, err)
	}
	if got := told(&m); !slices.Contains(got, "r3@a.test waits") || !slices.Contains(got, "r2@a.test failed") { // nobody says that it has left
		t.Errorf("%q", got)
	}
	unread := &world{unread: broken, hostErr: broken, queue: []control.Entry{queued(ta, 0)}}
	if m, err = Tell(t.Context(), ta, unread.sources()); err != nil || len(m.Notes) != 2 || m.Log != nil || len(m.Recipients[0].Steps) != 4 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, w := range []*world{{}, {unread: broken}} {
		if _, err := Tell(t.Context(), ta, w.sources()); !errors.Is(err, control.ErrNoMessage) {
			t.Errorf("nothing is known: %v", err)
		}
	}
	if _, err := Tell(t.Context(), ta, (&world{down: broken}).sources()); err == nil || errors.Is(err, control.ErrNoMessage) || !strings.Contains(err.Error(), "broken") {
		t.Errorf("the queue may know: %v", err)
	}
}

func TestParseID(t *testing.T) {
	for _, id := range []string{ta.String(), smtp.RcptID(ta, 7)} {
		if got, err := ParseID(id); err != nil || got != ta {
			t.Errorf("%s: %v, %v", id, got, err)
		}
	}
	for _, id := range []string{"", "../x", ta.String() + "-"} {
		if _, err := ParseID(id); err == nil {
			t.Errorf("%q is taken", id)
		}
	}
}
