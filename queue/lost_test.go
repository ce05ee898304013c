package queue

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs/crashfs"
)

// TestLostStoreIsNotTakenForAnEmptyOne removes the store of a queue that holds
// mail, and expects that the next start refuses, because the content would be removed
// as litter.
func TestLostStoreIsNotTakenForAnEmptyOne(t *testing.T) {
	for _, lost := range [][]string{{"spool/defedb"}} {
		bubble(t, func(t *testing.T, w *world) {
			w.cfg.IBDB.ContentMax = 0
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
					Ports: w.ports, Hostname: "mta.test", Dir: "spool", FS: crashfs.FS(w.disk, w.space),
					Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error("fatal:", err) },
				})
				if !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "1 content files") || !strings.Contains(err.Error(), "fsck") {
					t.Errorf("without %v: %v", lost, err)
				}
			}
		})
	}
}

// TestNewStoreOnAnEmptySpoolIsFine: nothing is lost with an empty store.
func TestNewStoreOnAnEmptySpoolIsFine(t *testing.T) {
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

// TestOrphansBesideAKeptStore: while damaged files of a store are kept, content that nobody
// knows may be mail that only they know; it stays. Without them it goes.
func TestOrphansBesideAKeptStore(t *testing.T) {
	for _, kept := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			w.start()
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			files, err := cdb.Open(crashfs.FS(w.disk, w.space), "spool")
			if err != nil {
				t.Fatal(err)
			}
			ta := smtp.ID{Counter: 1}
			c, err := files.Create(ta)
			if err != nil {
				t.Fatal(err)
			}
			e := &msg.Envelope{TA: ta, Rcpts: make([]msg.Rcpt, 1)}
			if err := errors.Join(c.Commit(e)); err != nil {
				t.Fatal(err)
			}
			if kept {
				if err := w.disk.MkdirAll("spool/defedb.damaged-20261120T151200Z", 0o700); err != nil {
					t.Fatal(err)
				}
			}
			w.start()
			time.Sleep(3 * w.cfg.OrphanGrace)
			if _, err := files.Stat(ta); (err == nil) != kept {
				t.Errorf("damaged store kept: %v, orphaned content: %v", kept, err)
			}
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
