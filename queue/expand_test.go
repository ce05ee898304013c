package queue

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
)

// TestListsInLists: the members of each list get the message from its owner.
func TestListsInLists(t *testing.T) {
	for name, content := range map[string]string{"small": "m", "file": strings.Repeat("0123456789abcde\n", 20_000)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.route = func(q msg.RouteQ) msg.RouteA {
					if q.Rcpt.Local != "all" || q.Expanded {
						return routeTo(q.Rcpt.Domain)
					}
					return msg.RouteA{Expand: []msg.Expansion{
						{Rcpts: []smtp.Path{path("a@d.test"), path("b@e.test")}},
						{Rcpts: []smtp.Path{path("c@d.test")}, Owner: path("o1@d.test")},
						{Rcpts: []smtp.Path{path("d@d.test"), path("e@e.test")}, Owner: path("o2@d.test"), VERP: true},
					}}
				}
				got := map[string]string{}
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					w.mu.Lock()
					for _, r := range q.Rcpts {
						got[r.To.Addr()] = q.Mail.From.Addr()
					}
					w.mu.Unlock()
					return w.take(q, smtp.NewReply(250, "", "ok"))
				}
				q := w.start()
				w.mustSend(q, "s@x.test", content, "all@d.test")
				pause(time.Second)
				want := map[string]string{
					"a@d.test": "s@x.test", "b@e.test": "s@x.test", "c@d.test": "o1@d.test",
					"d@d.test": "o2+d=d.test@d.test", "e@e.test": "o2+e=e.test@d.test",
				}
				if !maps.Equal(got, want) {
					t.Errorf("senders %v, want %v", got, want)
				}
				for r := range want {
					if w.got(r, content) != 1 {
						t.Errorf("%s got it %d times", r, w.got(r, content))
					}
				}
				w.checkEmpty()
			})
		})
	}
}

// TestListsWithoutRoom: if one copy cannot be written, there is none, and the list is
// expanded later.
func TestListsWithoutRoom(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const n = 5
		var created, failAt atomic.Int64
		failAt.Store(4) // the message itself is a file, too
		w.fs = crashfs.FS(errorfs.Wrap(w.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpCreate && isContent(op.Path) && created.Add(1) == failAt.Load() {
				return syscall.ENOSPC
			}
			return nil
		})), w.space)
		w.route = func(q msg.RouteQ) msg.RouteA {
			if q.Rcpt.Local != "all" || q.Expanded {
				return routeTo(q.Rcpt.Domain)
			}
			a := msg.RouteA{}
			for i := range n {
				a.Expand = append(a.Expand, msg.Expansion{Rcpts: []smtp.Path{path(fmt.Sprintf("m%d@d.test", i))}, Owner: path(fmt.Sprintf("o%d@d.test", i))})
			}
			return a
		}
		q := w.start()
		created.Store(0)
		content := strings.Repeat("0123456789abcde\n", 20_000)
		w.mustSend(q, "s@x.test", content, "all@d.test")
		pause(10 * time.Second)
		files := 0
		if err := q.cdb.List(func(cdbFile) error { files++; return nil }, func(string) {}); err != nil || files != 1 || w.served() != 0 {
			t.Errorf("%d files, %d recipients served, %v", files, w.served(), err)
		}
		pause(time.Minute * 2)
		for i := range n {
			if r := fmt.Sprintf("m%d@d.test", i); w.got(r, content) != 1 {
				t.Errorf("%s got it %d times", r, w.got(r, content))
			}
		}
		w.checkEmpty()
	})
}

// isContent tells the path of a content file.
func isContent(path string) bool {
	_, err := smtp.ParseID(filepath.Base(path))
	return err == nil
}
