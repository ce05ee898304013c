package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

// syncingFS counts the syncs of all files and directories, and makes each take longer.
type syncingFS struct {
	vfs.FS
	delay time.Duration
	syncs atomic.Int64
}

func (s *syncingFS) sync() {
	s.syncs.Add(1)
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
}

func (s *syncingFS) Pebble() pvfs.FS { return &syncingPebble{s.FS.Pebble(), s} }

func (s *syncingFS) SyncDir(dir string) error {
	s.sync()
	return s.FS.SyncDir(dir)
}

func (s *syncingFS) Create(name string) (vfs.File, error) {
	f, err := s.FS.Create(name)
	return syncingFile{f, s}, err
}

type syncingFile struct {
	vfs.File
	s *syncingFS
}

func (f syncingFile) Sync() error {
	f.s.sync()
	return f.File.Sync()
}

// syncingPebble is the same for the files of Pebble. (errorfs does not see files that
// are used again, as logs are.)
type syncingPebble struct {
	pvfs.FS
	s *syncingFS
}

func (p *syncingPebble) Create(name string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	f, err := p.FS.Create(name, c)
	return p.file(f, err)
}

func (p *syncingPebble) ReuseForWrite(oldname, newname string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	f, err := p.FS.ReuseForWrite(oldname, newname, c)
	return p.file(f, err)
}

func (p *syncingPebble) OpenDir(name string) (pvfs.File, error) {
	f, err := p.FS.OpenDir(name)
	return p.file(f, err)
}

func (p *syncingPebble) file(f pvfs.File, err error) (pvfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &syncingPebbleFile{f, p.s}, nil
}

type syncingPebbleFile struct {
	pvfs.File
	s *syncingFS
}

func (f *syncingPebbleFile) Sync() error {
	f.s.sync()
	return f.File.Sync()
}

func (f *syncingPebbleFile) SyncData() error {
	f.s.sync()
	return f.File.SyncData()
}

// sendAll has some sessions send n messages of a size, each the next one when its last
// one was acknowledged.
func sendAll(tb testing.TB, sessions, n, size int, send func(rcpt string, content []byte) error) {
	tb.Helper()
	content := bytes.Repeat([]byte("0123456789abcdef\r\n"), size/18)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := send(fmt.Sprintf("r%d@d%d.test", i, i%20), content); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestSyncsAreShared: on a disk whose sync takes a while, 50 sessions at once need at
// most one sync for five messages, deliveries included.
func TestSyncsAreShared(t *testing.T) {
	for _, size := range []int{1 << 10, 64 << 10} {
		t.Run(fmt.Sprintf("%d KB", size>>10), func(t *testing.T) {
			l := newLive(t)
			disk := &syncingFS{FS: vfs.Real(), delay: 20 * time.Millisecond}
			l.fs = disk
			stop := l.start()
			defer stop()
			if err := l.accept([]byte("x"), to("first@d.test", "")); err != nil {
				t.Fatal(err)
			}
			before := disk.syncs.Load()
			const n = 500
			sendAll(t, 50, n, size, func(rcpt string, content []byte) error { return l.accept(content, to(rcpt, "")) })
			for end := time.Now().Add(2 * time.Minute); l.status("delivered") != strconv.Itoa(n+1); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s of %d messages were delivered", l.status("delivered"), n+1)
				}
			}
			each := float64(disk.syncs.Load()-before) / n
			t.Logf("%.3f syncs for each message", each)
			if each > 0.2 {
				t.Errorf("%.3f syncs for each message, want at most 0.2", each)
			}
		})
	}
}

// TestAllocations: a message costs the queue no more allocations, from the commit until it is
// delivered and forgotten, than it did when this was written: 75, with those of the modules that
// stand in for the others, of the store on a disk in memory, and some for what the runtime does meanwhile.
func TestAllocations(t *testing.T) {
	l := newLive(t)
	stop := l.start()
	defer stop()
	content, rcpts := []byte("x"), to("a@d.test", "")
	sent := int64(0)
	message := func() {
		if err := l.accept(content, rcpts); err != nil {
			t.Fatal(err)
		}
		sent++
		for end := time.Now().Add(2 * time.Minute); l.q.gauges.Delivered.Load() < sent; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("a message is not delivered")
			}
		}
	}
	n := testing.AllocsPerRun(100, message)
	t.Logf("%.0f allocations", n)
	if most := 88.0; n > most && !raceDetector {
		t.Errorf("a message costs %.0f allocations, want at most %.0f", n, most)
	}
}

// BenchmarkCommit has sessions hand messages over, which are delivered at once, on the
// disk of TMPDIR.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, sessions := range []int{1, 10, 50, 200} {
			b.Run(fmt.Sprintf("size=%dK/sessions=%d", size>>10, sessions), func(b *testing.B) {
				l := newLive(b)
				disk := &syncingFS{FS: vfs.Real()}
				l.fs = disk
				stop := l.start()
				defer stop()
				if err := l.accept([]byte("x"), to("first@d.test", "")); err != nil {
					b.Fatal(err)
				}
				before := disk.syncs.Load()
				b.SetBytes(int64(size))
				b.ResetTimer()
				sendAll(b, sessions, b.N, size, func(rcpt string, content []byte) error {
					return l.accept(content, to(rcpt, ""))
				})
				b.StopTimer()
				b.ReportMetric(float64(disk.syncs.Load()-before)/float64(b.N), "syncs/msg")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}

// BenchmarkDeferred: what deferred recipients that are not due cost in memory and on
// disk, and to list 1,000,000 of them. Run it with -benchtime 1x.
func BenchmarkDeferred(b *testing.B) {
	const messages, rcpts = 200_000, 5
	l := newLive(b)
	empty := l.heap()
	l.fillDeferred(messages, rcpts, time.Now().Add(24*time.Hour), time.Millisecond)
	for b.Loop() {
		stop := l.start()
		if err := l.accept([]byte("x"), to("first@d.test", "")); err != nil {
			b.Fatal(err)
		}
		grown := l.heap() - empty
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		began, allocated := time.Now(), m.TotalAlloc
		n := l.listAll()
		took := time.Since(began)
		runtime.ReadMemStats(&m)
		b.ReportMetric(grown/float64(messages*rcpts), "heap-B/rcpt")
		b.ReportMetric(float64(l.q.db.Store().Metrics().DiskSpaceUsage())/float64(messages*rcpts), "disk-B/rcpt")
		b.ReportMetric(took.Seconds(), "s/list")
		b.ReportMetric(float64(took.Nanoseconds())/float64(n), "list-ns/rcpt")
		b.ReportMetric(float64(m.TotalAlloc-allocated)/float64(n), "list-B/rcpt")
		stop()
	}
}

// heap is the memory in use.
func (l *live) heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkFlush: 10,000 deferred messages that an operator flushes are delivered.
func BenchmarkFlush(b *testing.B) {
	const messages = 10_000
	for b.Loop() {
		b.StopTimer()
		l := newLive(b)
		l.fillDeferred(messages, 1, time.Now().Add(30*time.Minute), time.Millisecond)
		var delivered atomic.Int64
		done := make(chan struct{})
		l.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if r, err := q.Body.Open(); err == nil {
				_, _ = io.Copy(io.Discard, r)
				r.Close()
			}
			if delivered.Add(1) == messages {
				close(done)
			}
			return msg.DeliverA{Stage: msg.DeliverDone, Rcpts: []smtp.Reply{smtp.NewReply(250, "", "ok")}}
		}
		stop := l.start()
		b.StartTimer()
		began := time.Now()
		a, err := l.ports.Operate.Ask(context.Background(), msg.OperateQ{Op: msg.OpFlush})
		for ; errors.Is(err, msg.ErrDown); a, err = l.ports.Operate.Ask(context.Background(), msg.OperateQ{Op: msg.OpFlush}) {
			time.Sleep(time.Millisecond)
		}
		if err != nil || a.Done != messages {
			b.Errorf("%+v, %v", a, err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/command")
		<-done
		b.StopTimer()
		stop()
		b.StartTimer()
	}
}
