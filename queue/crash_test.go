package queue

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
)

// snapshot is the disk as a crash before one operation would have left it, and what
// had been promised until then.
type snapshot struct {
	op    string
	disk  *crashfs.Disk
	acked map[string]string // content by recipient
	done  map[string]bool   // recipients that had been delivered or bounced
	over  error             // why the process had ended
}

// recorder takes snapshots of a disk before every stride-th operation that changes
// it.
type recorder struct {
	*story
	stride int
	rnd    *rand.Rand
	on     bool // guarded by story.mu, like what follows
	n      int
	all    []snapshot
}

// MaybeError is called before each operation on the disk.
func (c *recorder) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n++; !c.on || c.n%c.stride != 0 {
		return nil
	}
	s := c.snapshotLocked(fmt.Sprintf("operation %d kind %d on %s", c.n, op.Kind, op.Path))
	// Some of what was not synced may have reached the disk all the same.
	s.disk = c.w.disk.Crash(crashfs.Random(c.rnd, 50))
	c.all = append(c.all, s)
	return nil
}

func (c *recorder) String() string { return "recorder" }

// TestCrashAtAnyWrite runs a scenario of deliveries, deferrals, bounces, spills and lists,
// crashes it in front of its writes, and expects of each crash that every
// recipient that was acknowledged and had not ended is served by a new start.
func TestCrashAtAnyWrite(t *testing.T) {
	var all []snapshot
	synctest.Test(t, func(t *testing.T) { all = record(t, crashStride) })
	if len(all) < 10 {
		t.Fatalf("only %d snapshots were taken", len(all))
	}
	t.Logf("%d crashes", len(all))
	for _, s := range all {
		ok := t.Run(s.op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replay(t, s) })
		})
		if !ok {
			return
		}
	}
}

// record runs the scenario and returns the crashes.
func record(t *testing.T, stride int) []snapshot {
	w := newWorld(t)
	rec := &recorder{story: newStory(w), stride: stride, rnd: rand.New(rand.NewPCG(1, 2))}
	w.fs = crashfs.FS(errorfs.Wrap(w.disk, rec), w.space)
	q := w.start()
	rec.mu.Lock()
	rec.on = true
	rec.mu.Unlock()
	rec.run(q)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	rec.cancel()
	for rcpt := range rec.acked {
		if !rec.done[rcpt] {
			t.Errorf("%s was not served although nothing has crashed", rcpt)
		}
	}
	for _, what := range []string{"op=hold done=1", "op=expire done=1", "op=release done=1"} {
		if !strings.Contains(w.log.String(), what) {
			t.Errorf("the scenario lacks %s", what)
		}
	}
	return rec.all
}

// replay starts a queue on the disk of a crash and checks the promises.
func replay(t *testing.T, s snapshot) {
	w := newWorld(t)
	mustBeSound(t, w, s.disk.Crash(crashfs.Nothing))
	configureStory(w)
	w.disk = s.disk
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		switch q.Rcpts[0].To.Domain {
		case "bad.test":
			return w.take(q, smtp.NewReply(550, "5.1.1", "no"))
		case "dead.test":
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		return w.take(q, smtp.NewReply(250, "", "ok"))
	}
	w.start()
	time.Sleep(time.Minute)
	w.operate(msg.OpRelease, msg.Selection{})
	time.Sleep(20 * time.Minute)
	for rcpt, content := range s.acked {
		got := w.all(rcpt)
		if len(got) == 0 && !s.done[rcpt] {
			t.Errorf("%s was acknowledged and is lost", rcpt)
		}
		for _, c := range got {
			if content != "" && c != content {
				t.Errorf("%s got %d bytes that are not the message of %d bytes", rcpt, len(c), len(content))
			}
		}
	}
	w.checkEmpty()
	if t.Failed() {
		t.Logf("log of the start:\n%s", w.log)
	}
}
