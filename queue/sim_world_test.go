package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
)

// sim is one run of the simulation: a script, and a world in which the queue lives,
// dies and is started again.
type sim struct {
	t *testing.T
	*script
	cfg   Config
	began time.Time // by the runtime's clock
	clock wallClock
	ended chan struct{} // the script is over: all is up, the clients have sent

	mu        sync.Mutex // guards what follows
	disk      *crashfs.Disk
	life      *life // the present one; nil while the queue is down
	low       bool  // the disk is short of space
	full      bool
	healed    bool
	crashes   int
	crashedAt []time.Duration
	noise     time.Duration // until then errors in the log are expected
	count     map[string]int
	events    []string
	failed    int

	graves *supervise.Group // where former lives end
}

// life is one process of the queue.
type life struct {
	s     *sim
	n     int
	q     *Queue
	ports *msg.Ports
	disk  *crashfs.Disk
	stop  func() error

	// guarded by sim.mu
	dead    bool
	after   int    // crash before this many further changes of the disk; 0: never
	eio     string // the next change of a file whose name contains this fails
	relief  map[string]int
	crashed chan struct{}               // closed when dead by a crash
	open    map[context.Context]msg.Hop // attempts under way
}

func newSim(t *testing.T, sc *script) *sim {
	s := &sim{
		t: t, script: sc, cfg: defaults(t), began: time.Now(), ended: make(chan struct{}),
		disk: crashfs.New(), count: map[string]int{}, graves: supervise.NewGroup(context.Background()),
	}
	c := &s.cfg
	c.AQEntriesMax, c.OCCEntries, c.OrphanGrace = 200+200*int(sc.seed%3), 16, 5*time.Minute
	c.RetryMin, c.RetryMax, c.ReturnDefault, c.DelayDefault = time.Minute, 20*time.Minute, sc.size.giveUp, time.Hour
	c.DeliveryTimeout, c.SchedulerTimeout = 10*time.Minute, 30*time.Minute
	c.IBDB.ContentMax, c.ContentMemory, c.IBDB.OpenTAs = 8192, 256<<10, 64
	c.SMTPC.Initial, c.SMTPC.Max, c.SMTPC.DeliveriesAtOnce, c.SMTPC.SMTPRcpts = 3, 10, 40, 50
	c.DSN.RFC, c.DSN.MergeDelay = true, time.Duration(sc.seed%2)*30*time.Second
	if err := vfs.MakeDir(crashfs.FS(s.disk, nil), "spool", 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// at is the time since the beginning.
func (s *sim) at() time.Duration { return time.Since(s.began) }

// note remembers an event for the report of a failure.
func (s *sim) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(format, args...)
}

func (s *sim) noteLocked(format string, args ...any) {
	const keep = 100_000
	if len(s.events) >= 2*keep {
		s.events = append(s.events[:0], s.events[keep:]...)
	}
	s.events = append(s.events, fmt.Sprintf("%13v  ", s.at().Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// faultLocked reports that a promise was broken.
func (s *sim) faultLocked(format string, args ...any) {
	s.noteLocked("FAULT "+format, args...)
	if s.failed++; s.failed <= 20 {
		s.t.Errorf("at %v: %s", s.at(), fmt.Sprintf(format, args...))
	}
}

func (s *sim) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultLocked(format, args...)
}

// MaybeError is called before each operation on the disk of a life.
func (l *life) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.dead {
		return nil
	}
	if l.after > 0 {
		if l.after--; l.after == 0 {
			l.crashLocked(fmt.Sprintf("before operation %d on %s", op.Kind, op.Path))
			return nil
		}
	}
	writes := op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate
	syncs := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
	if l.eio != "" && (writes || syncs) && strings.Contains(op.Path, l.eio) {
		s.noteLocked("EIO: operation %d on %s", op.Kind, op.Path)
		l.eio, s.noise = "", s.at()+time.Minute
		// A dying disk ends the process. The end itself cannot be simulated: Pebble calls Fatal
		// with its locks held. TestFaultAtAnyCall makes sure that it is called.
		l.crashLocked("for a disk that failed")
		return nil
	}
	if s.full && writes && !l.relieved(op.Path) {
		return syscall.ENOSPC
	}
	return nil
}

// relieved tells whether the reserve of a store has room for a write: it is found full
// once, then it gave up a part of its ballast. Content has no reserve.
func (l *life) relieved(path string) bool {
	dir := filepath.Dir(path)
	if !strings.Contains(dir, "db") || strings.Contains(path, "BALLAST") {
		return false
	}
	l.relief[dir]++
	return l.relief[dir] > 1
}

func (l *life) String() string { return "simulation" }

// crashLocked is the power cut: what was not synced is kept by chance.
func (l *life) crashLocked(why string) {
	s := l.s
	if l.dead {
		return
	}
	l.dead = true
	s.crashes++
	s.crashedAt = append(s.crashedAt, s.at())
	r := rand.New(rand.NewPCG(s.seed, uint64(s.crashes)))
	s.disk = l.disk.Crash(crashfs.Random(r, r.IntN(101)))
	s.noteLocked("crash of life %d %s", l.n, why)
	close(l.crashed)
}

func (l *life) crash(why string) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.crashLocked(why)
}

// boot starts the queue on the disk as it is, and tries again while it cannot.
func (s *sim) boot() {
	for try := 0; ; try++ {
		s.mu.Lock()
		l := &life{s: s, n: s.count["lives"], disk: s.disk, ports: msg.NewPorts(), relief: map[string]int{}, open: map[context.Context]msg.Hop{}, crashed: make(chan struct{})}
		s.count["lives"]++
		excused := s.excusedLocked()
		s.mu.Unlock()
		q, err := New(s.cfg, s.deps(l))
		l.q = q
		if err == nil && !l.isDead() {
			s.serve(l)
			return
		}
		if err == nil {
			err = errors.Join(q.close(), errors.New("crashed while it started"))
		} else if !excused && !l.isDead() {
			s.fault("the queue does not start: %v", err)
		}
		s.note("start %d failed: %v", l.n, err)
		if try > 100 {
			s.t.Fatal("the queue never starts")
		}
		time.Sleep(time.Minute)
	}
}

func (l *life) isDead() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.dead
}

func (s *sim) deps(l *life) Deps {
	return Deps{
		Ports: l.ports, Hostname: "mta.test", Dir: "spool", Now: s.clock.now,
		FS:  crashfs.FS(errorfs.Wrap(l.disk, l), s.space),
		Log: slog.New(&simLog{l: l}),
		Fatal: func(err error) {
			if !l.isDead() {
				s.fault("the queue gives up: %v", err)
			}
			runtime.Goexit() // nothing comes back from the end of a process
		},
	}
}

func (s *sim) space() (free, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.low || s.full {
		return 1 << 20, 64 << 20
	}
	return 1 << 30, 64 << 20
}

// serve lets the queue run, with the network around it.
func (s *sim) serve(l *life) {
	ctx, cancel := context.WithCancel(context.Background())
	others := supervise.NewGroup(context.Background())
	answer(others, l.ports.Route, l.route)
	answer(others, l.ports.Deliver, l.deliver)
	run := supervise.NewGroup(ctx)
	run.Go(l.q.Run)
	watched := supervise.NewGroup(ctx)
	watched.Go(l.watch)
	l.stop = func() error {
		cancel()
		err := errors.Join(run.Wait(), watched.Wait())
		others.Stop()
		return errors.Join(err, others.Wait())
	}
	s.mu.Lock()
	s.life = l
	s.noteLocked("life %d begins", l.n)
	s.mu.Unlock()
	time.Sleep(time.Millisecond) // until it serves its ports
}

// answer serves a port. f may leave a question without an answer, but returns then
// only when nobody waits for it.
func answer[Q, A any](g *supervise.Group, p *msg.Port[Q, A], f func(context.Context, Q) A) {
	requests, stop := p.Open()
	g.Go(func(ctx context.Context) error {
		defer stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case r := <-requests:
				g.Go(func(context.Context) error { r.Answer(f(r.Ctx, r.Q)); return nil })
			}
		}
	})
}

// bury ends a life that has crashed. What it still does reaches nobody.
func (s *sim) bury(l *life) {
	s.mu.Lock()
	s.life = nil
	s.mu.Unlock()
	s.graves.Go(func(context.Context) error { _ = l.stop(); return nil })
}

// shutDown ends the present life in an orderly way.
func (s *sim) shutDown() {
	s.mu.Lock()
	l := s.life
	s.life = nil
	s.mu.Unlock()
	if err := l.stop(); err != nil && !l.isDead() && !s.excused() {
		s.fault("the queue ended with %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !l.dead {
		l.dead = true
		s.noteLocked("life %d ended", l.n)
	}
}

// excused tells whether the disk fails, or did a moment ago.
func (s *sim) excused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.excusedLocked()
}

func (s *sim) excusedLocked() bool { return s.full || s.low || s.at() <= s.noise }

// current is the present life, or nil.
func (s *sim) current() *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// watch looks at the bounds while a life lasts.
func (l *life) watch(ctx context.Context) error {
	s := l.s
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.mu.Lock()
		l.boundLocked("entries", l.q.inAQ(), int64(s.cfg.AQEntriesMax))
		l.boundLocked("memory", l.q.deps.Memory.Used(), s.cfg.ContentMemory)
		s.mu.Unlock()
	}
}

// boundLocked checks that something stays below twice its limit: what was admitted
// when there was room may still come.
func (l *life) boundLocked(what string, n, limit int64) {
	s := l.s
	s.count["most "+what] = max(s.count["most "+what], int(n))
	if n > 2*limit && !l.dead {
		s.faultLocked("%s: %d, the limit is %d", what, n, limit)
	}
}

// simLog takes what the queue logs.
type simLog struct{ l *life }

func (h *simLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (h *simLog) WithAttrs([]slog.Attr) slog.Handler               { return h }
func (h *simLog) WithGroup(string) slog.Handler                    { return h }

func (h *simLog) Handle(_ context.Context, r slog.Record) error {
	s := h.l.s
	text, rcpt := r.Message, ""
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		if a.Key == "rcpt" {
			rcpt = strings.Trim(fmt.Sprint(a.Value.Any()), "<>")
		}
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.l.dead {
		return nil
	}
	s.noteLocked("log %d %v %s", h.l.n, r.Level, text)
	switch {
	case strings.HasPrefix(r.Message, "dropped"):
		s.droppedLocked(rcpt)
	case strings.HasPrefix(r.Message, "removed by"):
		s.removedLocked(rcpt)
	case r.Level >= slog.LevelError && !s.excusedLocked():
		s.faultLocked("in the log: %s", text)
	}
	return nil
}
