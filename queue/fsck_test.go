package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
	"meta1/queue/fsck"
	"meta1/queue/records"
)

// fsckAll checks a queue at work and returns what was found.
func (w *world) fsckAll(content bool) (all []msg.Finding, examined uint64) {
	w.t.Helper()
	q := msg.FsckQ{Content: content}
	for {
		a, err := w.ports.Fsck.Ask(context.Background(), q)
		if err != nil || a.Err != "" {
			w.t.Error(err, a.Err)
			return all, a.Examined
		}
		all = append(all, a.Findings...)
		if q.Cursor = a.Cursor; q.Cursor == "" {
			return all, a.Examined
		}
	}
}

// mustBeSound checks a spool that no queue uses: leftovers of a crash are fine, damage is
// not.
func mustBeSound(t *testing.T, w *world, disk *crashfs.Disk) {
	t.Helper()
	sum, err := fsck.Run(context.Background(), fsck.Options{
		FS: crashfs.FS(disk, w.space), Dirs: w.cfg.Dirs("spool"), UID: -1, Now: time.Now(), Content: true,
		Log: slog.New(slog.DiscardHandler),
		Report: func(f fsck.Finding) {
			if f.Severity != fsck.Note {
				t.Error(f.String())
			}
		},
	})
	if err != nil || sum.Unrepaired > 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestCheckOfAQueueAtWork: mail that comes, goes and waits is no damage.
func TestCheckOfAQueueAtWork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := 0
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			time.Sleep(300 * time.Millisecond)
			w.mu.Lock()
			n++
			bad := n%3 == 0
			w.mu.Unlock()
			if bad {
				return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := range 100 {
				w.mustSend(q, "s@here.test", fmt.Sprintf("m%0*d", i*700, i), fmt.Sprintf("a%d@x.test", i), fmt.Sprintf("b%d@y.test", i))
				time.Sleep(250 * time.Millisecond)
			}
		}()
		for range 5 {
			time.Sleep(2 * time.Second)
			if all, n := w.fsckAll(true); len(all) > 0 || n == 0 {
				t.Errorf("%d records, findings %+v", n, all)
			}
		}
		<-sent
		time.Sleep(6 * time.Hour)
		if all, _ := w.fsckAll(true); len(all) > 0 {
			t.Errorf("%+v", all)
		}
		w.checkEmpty()
	})
}

// TestCheckFindsWhatStays: what is wrong is found, and what was only in progress is not.
func TestCheckFindsWhatStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var up bool
		q := downWorld(w, &up)
		defer func() {
			if err := w.stop(); err != nil {
				t.Error(err)
			}
		}()
		raw := q.db.Store()
		var list []records.State
		v := q.db.View()
		err := v.Entries(records.Ref{}, func(e *records.Entry) bool { list = append(list, e.State); return true })
		if err := errors.Join(err, v.Close()); err != nil || len(list) < 2 {
			t.Error(err, list)
			return
		}
		due := func(st records.State) []byte { return records.Indexes(&st)[0] }
		stays, goes := due(list[0]), due(list[len(list)-1])
		for _, k := range [][]byte{stays, goes} {
			if err := raw.Delete(k, nil); err != nil {
				t.Error(err)
			}
		}
		time.AfterFunc(time.Second, func() {
			if err := raw.Set(goes, nil, nil); err != nil {
				t.Error(err)
			}
		})
		all, _ := w.fsckAll(false)
		if len(all) != 1 || all[0].Code != "due-missing" || all[0].TA != list[0].TA.String() || all[0].Repair == "" {
			t.Errorf("%+v", all)
		}
		if err := raw.Set(stays, nil, nil); err != nil {
			t.Error(err)
		}
		if a, err := w.ports.Fsck.Ask(context.Background(), msg.FsckQ{Cursor: "nonsense"}); err != nil || a.Err == "" {
			t.Errorf("%+v, %v", a, err)
		}
	})
}
