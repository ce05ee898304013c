package queue

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/vfs"
)

// snapshot is the disk as a crash before one operation would have left it, and what
// had been promised until then.
type snapshot struct {
	op    string
	disk  *pvfs.MemFS
	acked map[string]string // content by recipient
	done  map[string]bool   // recipients that had been delivered or bounced
}

// recorder takes snapshots of a disk before every stride-th operation that changes
// it.
type recorder struct {
	disk   *pvfs.MemFS
	stride int
	rnd    *rand.Rand

	mu    sync.Mutex // guards what follows
	n     int
	on    bool
	acked map[string]string
	done  map[string]bool
	all   []snapshot
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
	s := snapshot{op: fmt.Sprintf("operation %d kind %d on %s", c.n, op.Kind, op.Path), acked: map[string]string{}, done: map[string]bool{}}
	for k, v := range c.acked {
		s.acked[k] = v
	}
	for k := range c.done {
		s.done[k] = true
	}
	// Some of what was not synced may have reached the disk all the same.
	s.disk = c.disk.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: c.rnd})
	c.all = append(c.all, s)
	return nil
}

func (c *recorder) String() string { return "recorder" }

func (c *recorder) ack(rcpt, content string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked[rcpt] = content
}

func (c *recorder) finish(rcpt string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[rcpt] = true
}

// nested is a route over which list@list.test is two lists, one inside of the other.
func nested(q msg.RouteQ) msg.RouteA {
	user, isList := strings.CutPrefix(q.Rcpt.Local, "list")
	if !isList || q.Expanded {
		return routeTo(q.Rcpt.Domain)
	}
	return msg.RouteA{Expand: []msg.Expansion{
		{Rcpts: []smtp.Path{path("outer" + user + "@good.test")}, Owner: path("owner-outer@own.test")},
		{Rcpts: []smtp.Path{path("inner" + user + "@good.test"), path("gone" + user + "@bad.test")}, Owner: path("owner-inner" + user + "@own.test")},
	}}
}

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
	rec := &recorder{
		disk: w.disk, stride: stride, rnd: rand.New(rand.NewPCG(1, 2)),
		acked: map[string]string{}, done: map[string]bool{},
	}
	w.fs = vfs.FromPebble(errorfs.Wrap(w.disk, rec), w.space)
	w.route = nested
	var mu sync.Mutex
	tries := map[string]int{}
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		to := q.Rcpts[0].To
		mu.Lock()
		tries[to.Addr()]++
		first := tries[to.Addr()] == 1
		mu.Unlock()
		switch {
		case to.Domain == "slow.test" && first:
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		case to.Domain == "bad.test":
			return w.take(q, smtp.NewReply(550, "5.1.1", "no"))
		}
		a := w.take(q, smtp.NewReply(250, "", "ok"))
		for _, r := range q.Rcpts {
			rec.finish(r.To.Addr())
		}
		return a
	}
	q := w.start()
	rec.mu.Lock()
	rec.on = true
	rec.mu.Unlock()
	for i := range 12 {
		content := fmt.Sprintf("message %d %s", i, strings.Repeat("x", i*i*i*120))
		to := []string{fmt.Sprintf("a%d@good.test", i), fmt.Sprintf("b%d@slow.test", i)}
		all := append(to, fmt.Sprintf("c%d@bad.test", i))
		if i%6 == 5 { // the last one is a file
			all = append(all, fmt.Sprintf("list%d@list.test", i))
			to = append(to, fmt.Sprintf("outer%d@good.test", i), fmt.Sprintf("inner%d@good.test", i))
		}
		w.mustSend(q, fmt.Sprintf("sender%d@here.test", i), content, all...)
		for _, r := range to {
			rec.ack(r, content)
		}
		rec.ack(fmt.Sprintf("sender%d@here.test", i), "") // gets a bounce
		if i%6 == 5 {
			rec.ack(fmt.Sprintf("owner-inner%d@own.test", i), "") // and so does the inner list
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(time.Hour)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	return rec.all
}

// replay starts a queue on the disk of a crash and checks the promises.
func replay(t *testing.T, s snapshot) {
	w := newWorld(t)
	mustBeSound(t, w, s.disk.CrashClone(pvfs.CrashCloneCfg{}))
	w.disk = s.disk
	w.route = nested
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		if q.Rcpts[0].To.Domain == "bad.test" {
			return w.take(q, smtp.NewReply(550, "5.1.1", "no"))
		}
		return w.take(q, smtp.NewReply(250, "", "ok"))
	}
	w.start()
	time.Sleep(2 * time.Hour)
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
