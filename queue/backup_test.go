package queue

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/copies"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
)

// TestBackup: all mail ends between the moment of a copy and the copying of its content. The copy has all of it, and a queue that is started on
// it delivers it.
func TestBackup(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var once, serves atomic.Bool
		w.fs = crashfs.FS(errorfs.Wrap(w.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpMkdirAll && strings.HasPrefix(op.Path, "copy/") && !strings.Contains(op.Path, "defedb") && once.CompareAndSwap(false, true) {
				if a := w.operate(msg.OpRemove, msg.Selection{}); a.Done != 4 {
					t.Errorf("%d recipients are removed", a.Done)
				}
				time.Sleep(time.Minute)
			}
			return nil
		})), w.space)
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if serves.Load() {
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		q := w.start()
		want := map[string]string{}
		for name, size := range map[string]int{"a@x.test": 20_000, "b@x.test": 30_000, "c@y.test": 5, "d@y.test": 400} {
			want[name] = strings.Repeat("0123456789abcde\n", size)
			w.mustSend(q, "s@here.test", want[name], name)
		}
		time.Sleep(time.Second)
		if err := w.disk.MkdirAll("copy", 0o750); err != nil {
			t.Fatal(err)
		}
		a, err := w.ports.Backup.Ask(context.Background(), msg.BackupQ{Dir: "copy", Copy: copies.New(t.Context())})
		if err != nil || a.Err != "" || a.Contents < 2 || !once.Load() {
			t.Fatalf("%+v, %v, between them: %t", a, err, once.Load())
		}
		time.Sleep(time.Minute)
		w.checkEmpty() // also of content
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if err := w.disk.RemoveAll("spool"); err != nil {
			t.Fatal(err)
		}
		if err := w.disk.Rename("copy", "spool"); err != nil {
			t.Fatal(err)
		}
		mustBeSound(t, w, w.disk)
		serves.Store(true)
		w.start()
		time.Sleep(24 * time.Hour)
		for name, content := range want {
			if w.got(name, content) != 1 {
				t.Errorf("%s was not delivered from the copy", name)
			}
		}
		w.checkEmpty()
	})
}

// TestBackupAcross: a copy to another file system counts what it writes. One that is ended among tables or among content answers with
// the reason, writes nothing more, and lets content be removed again.
func TestBackupAcross(t *testing.T) {
	for _, ends := range []string{"", "copy/defedb/", "copy/1/"} {
		t.Run(ends, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				made, why := copies.New(t.Context()), errors.New("nobody wants it")
				w.fs = crashfs.FS(errorfs.Wrap(w.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
					switch {
					case op.Kind == errorfs.OpLink:
						return syscall.EXDEV
					case made.Err() != nil && strings.HasPrefix(op.Path, "copy") && op.Kind == errorfs.OpFileWrite:
						t.Errorf("it was written to %s", op.Path)
					case op.Kind == errorfs.OpCreate && ends != "" && strings.HasPrefix(op.Path, ends):
						made.End(why)
					}
					return nil
				})), w.space)
				w.deliver = func(q msg.DeliverQ) msg.DeliverA { return w.take(q, smtp.NewReply(451, "4.7.1", "later")) }
				q := w.start()
				size := 0
				for i := range 40 {
					text := strings.Repeat("0123456789abcde\n", 2_000+i)
					size += len(text)
					w.mustSend(q, "s@here.test", text, "a@x.test")
				}
				time.Sleep(time.Second)
				if err := w.disk.MkdirAll("copy", 0o750); err != nil {
					t.Fatal(err)
				}
				a, err := w.ports.Backup.Ask(context.Background(), msg.BackupQ{Dir: "copy", Copy: made})
				files, bytes := made.Made()
				switch {
				case err != nil:
					t.Fatal(err)
				case ends != "":
					if !strings.Contains(a.Err, why.Error()) {
						t.Errorf("%+v", a)
					}
				case a.Err != "" || a.Contents == 0 || files <= int64(a.Contents) || bytes < int64(size):
					t.Errorf("%+v, %d files, %d bytes", a, files, bytes)
				}
				if a := w.operate(msg.OpRemove, msg.Selection{}); a.Done != 40 {
					t.Errorf("%d recipients are removed", a.Done)
				}
				time.Sleep(time.Minute)
				w.checkEmpty() // also of content
			})
		})
	}
}
