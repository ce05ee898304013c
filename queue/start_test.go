package queue

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

// countingFS counts what a start reads, apart from the logs of the databases, whose
// size Pebble bounds.
type countingFS struct {
	vfs.FS
	reads, files atomic.Int64
}

func (c *countingFS) Pebble() pvfs.FS { return errorfs.Wrap(c.FS.Pebble(), c) }
func (c *countingFS) String() string  { return "reads" }

func (c *countingFS) MaybeError(op errorfs.Op) error {
	if k := op.Kind; (k == errorfs.OpFileRead || k == errorfs.OpFileReadAt) && !strings.HasSuffix(op.Path, ".log") {
		c.reads.Add(1)
	}
	return nil
}

func (c *countingFS) Stat(name string) (int64, time.Time, error) {
	c.files.Add(1)
	return c.FS.Stat(name)
}

func (c *countingFS) List(dir string) ([]string, error) {
	c.files.Add(1)
	return c.FS.List(dir)
}

// TestStartWithManyDeferred starts a queue in which very many recipients are due: what
// must be read before mail is accepted does not depend on their number, and never are
// more of them in memory than the active queue may hold.
func TestStartWithManyDeferred(t *testing.T) {
	const messages, rcpts = startMessages, 5
	l := newLive(t)
	l.cfg.AQEntriesMax = 2000
	l.deliver = func(q msg.DeliverQ) msg.DeliverA { return answerAll(q, smtp.NewReply(451, "4.7.1", "later")) }
	l.fillDeferred(messages, rcpts, time.Now().Add(-time.Hour), time.Millisecond)
	l.cfg.RetryMin, l.cfg.RetryMax = time.Hour, time.Hour
	disk := &countingFS{FS: vfs.Real()}
	l.fs = disk
	q, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	if r, f := disk.reads.Load(), disk.files.Load(); r > 100 || f > 100 {
		t.Errorf("the start made %d reads and looked at %d files", r, f)
	}
	stop := l.run(q)
	defer stop()
	if err := l.accept([]byte("Subject: x\r\n\r\nx\r\n"), to("new@other.test", "")); err != nil {
		t.Fatal(err)
	}
	tried := func() int { n, _ := strconv.Atoi(l.status("deferrals")); return n }
	for end := time.Now().Add(2 * time.Minute); tried() < 3*l.cfg.AQEntriesMax && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if n := q.inAQ(); n > int64(l.cfg.AQEntriesMax) {
			t.Fatalf("%d recipients are in the active queue", n)
		}
	}
	if tried() < 3*l.cfg.AQEntriesMax {
		t.Errorf("only %d recipients were tried", tried())
	}
	if n := l.listAll(); n != messages*rcpts+1 {
		t.Errorf("%d recipients are listed, want %d", n, messages*rcpts+1)
	}
	l.countIsRight(messages*rcpts + 1)
}

// countIsRight checks that the recipients in the status are n in the end.
func (l *live) countIsRight(n int) {
	l.tb.Helper()
	var active, deferred int
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		active, _ = strconv.Atoi(l.status("AQ_entries"))
		deferred, _ = strconv.Atoi(l.status("deferred"))
		if active+deferred == n {
			return
		}
	}
	l.tb.Errorf("the status counts %d active and %d deferred recipients, want %d in all", active, deferred, n)
}

// BenchmarkStart starts a queue with 1,000,000 deferred recipients in 200,000
// messages, all of which have become due, on the disk of TMPDIR. Run it with
// -benchtime 1x. With SPOOL=DIR the spool is made in DIR and stays, so that the
// program can be started on it.
func BenchmarkStart(b *testing.B) {
	const messages, rcpts = 200_000, 5
	l := newLive(b)
	if dir := os.Getenv("SPOOL"); dir != "" {
		l.dir = dir
	}
	l.deliver = func(q msg.DeliverQ) msg.DeliverA { return answerAll(q, smtp.NewReply(451, "4.7.1", "later")) }
	l.fillDeferred(messages, rcpts, time.Now().Add(-time.Hour), time.Millisecond)
	for b.Loop() {
		runtime.GC()
		debug.FreeOSMemory()
		before := memory("VmRSS")
		began := time.Now()
		stop := l.start()
		opened := time.Since(began)
		if err := l.accept([]byte("Subject: x\r\n\r\nx\r\n"), to("new@other.test", "")); err != nil {
			b.Fatal(err)
		}
		accepting := time.Since(began)
		peak, most := l.watch(time.Minute)
		listing := time.Now()
		n := l.listAll()
		b.ReportMetric(opened.Seconds(), "s/open")
		b.ReportMetric(accepting.Seconds(), "s/accept")
		b.ReportMetric(peak, "MiB-peak")
		b.ReportMetric(peak-before, "MiB-grown")
		b.ReportMetric(float64(most), "goroutines")
		b.ReportMetric(time.Since(listing).Seconds(), "s/list")
		b.ReportMetric(float64(n), "rcpts")
		stop()
	}
}

// watch looks at memory and goroutines for a while.
func (l *live) watch(d time.Duration) (peak float64, goroutines int) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		peak = max(peak, memory("VmRSS"))
		goroutines = max(goroutines, runtime.NumGoroutine())
	}
	return peak, goroutines
}
