package queue

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/fsck"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// TestLostDatabaseIsNotTakenForAnEmptyOne removes a database of a queue that holds
// mail, and expects that the next start refuses, because the content would be removed
// as litter.
func TestLostDatabaseIsNotTakenForAnEmptyOne(t *testing.T) {
	for _, lost := range [][]string{{"spool/defedb"}, {"spool/ibdb", "spool/defedb"}} {
		bubble(t, func(t *testing.T, w *world) {
			w.deliver = func(q msg.DeliverQ) msg.DeliverA { return failedHost(q) }
			q := w.start()
			w.mustSend(q, "s@x.test", "Subject: x\r\n\r\nm", "a@d.test")
			time.Sleep(time.Minute)
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			for _, dir := range lost {
				if err := w.disk.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // a second start must not be fooled by what the first one left
				_, err := New(w.cfg, Deps{
					Ports: w.ports, Hostname: "mta.test", Dir: "spool", FS: vfs.FromPebble(w.disk, w.space),
					Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error("fatal:", err) },
				})
				if !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "1 content files") || !strings.Contains(err.Error(), "fsck") {
					t.Errorf("without %v: %v", lost, err)
				}
			}
		})
	}
}

// TestLostIBDBBesideDeferredMail: a new IBDB would hand out the ids of deferred mail once
// more.
func TestLostIBDBBesideDeferredMail(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA { return failedHost(q) }
		q := w.start()
		w.mustSend(q, "s@x.test", "Subject: x\r\n\r\nm", "a@d.test")
		time.Sleep(time.Minute)
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if err := w.disk.RemoveAll("spool/ibdb"); err != nil {
			t.Fatal(err)
		}
		open := func() (*Queue, error) {
			return New(w.cfg, Deps{
				Ports: w.ports, Hostname: "mta.test", Dir: "spool", FS: vfs.FromPebble(w.disk, w.space),
				Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error("fatal:", err) },
			})
		}
		for range 2 {
			if _, err := open(); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("opened with %v", err)
			}
		}
		sum, err := fsck.Run(context.Background(), fsck.Options{
			FS: vfs.FromPebble(w.disk, w.space), Dirs: w.cfg.Dirs("spool"), UID: -1, Repair: true, Now: time.Now(),
			Report: func(fsck.Finding) {}, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil || sum.Unrepaired > 0 {
			t.Errorf("%+v, %v", sum, err)
		}
		w.deliver = func(q msg.DeliverQ) msg.DeliverA { return w.take(q, smtp.NewReply(250, "", "ok")) }
		w.start()
		time.Sleep(2 * time.Hour)
		if w.got("a@d.test", "Subject: x\r\n\r\nm") != 1 {
			t.Error("the deferred mail did not arrive")
		}
		w.checkEmpty()
	})
}

// TestNewDatabasesOnAnEmptySpoolAreFine: nothing is lost with an empty database.
func TestNewDatabasesOnAnEmptySpoolAreFine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		q := w.start()
		w.mustSend(q, "s@x.test", "m", "a@d.test")
		time.Sleep(time.Second)
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if err := w.disk.RemoveAll("spool/defedb"); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.checkEmpty()
	})
}
