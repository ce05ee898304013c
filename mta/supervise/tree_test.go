package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench runs a tree in a synctest bubble and writes down what its units do.
type bench struct {
	t     *testing.T
	start time.Time
	slow  bool                  // units may be Starting for a while
	end   map[string]chan error // makes the running instance of a unit end

	mu   sync.Mutex // guards the fields below
	log  []string
	made map[string]int
}

func newBench(t *testing.T) *bench {
	return &bench{t: t, start: time.Now(), end: map[string]chan error{}, made: map[string]int{}}
}

// unit is a well-behaved unit that runs until it is stopped or told to end.
func (b *bench) unit(name string, change ...func(*supervise.Unit)) supervise.Unit {
	b.end[name] = make(chan error)
	u := supervise.Unit{Name: name, Policy: supervise.DefaultPolicy(), New: func() (func(context.Context) error, error) {
		b.count(name)
		return func(ctx context.Context) error {
			select {
			case err := <-b.end[name]:
				return err
			case <-ctx.Done():
				return nil
			}
		}, nil
	}}
	for _, c := range change {
		c(&u)
	}
	return u
}

func (b *bench) count(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made[name]++
}

func (b *bench) instances(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.made[name]
}

func depends(names ...string) func(*supervise.Unit) {
	return func(u *supervise.Unit) { u.RestartDependencies = names }
}

func optional(u *supervise.Unit) { u.Optional = true }

func (b *bench) note(e supervise.Event) {
	if e.State == supervise.Starting && !b.slow {
		return // followed at once by Up, or by Failed
	}
	s := fmt.Sprintf("%v %s %s", time.Since(b.start), e.Unit, e.State)
	if e.Err != nil {
		s += fmt.Sprintf(" (%v: %v)", e.Outcome, e.Err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, s)
}

// expect checks what happened since the last call, then forgets it.
func (b *bench) expect(want ...string) {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.log, want) {
		b.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(b.log, "\n\t"), strings.Join(want, "\n\t"))
	}
	b.log = nil
}

// run starts the tree; the returned function stops it and gives its error.
func (b *bench) run(units ...supervise.Unit) (tree *supervise.Tree, stop func() error) {
	b.t.Helper()
	tree, err := supervise.NewTree(units, b.note)
	if err != nil {
		b.t.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(tree.Run)
	return tree, func() error {
		g.Stop()
		return g.Wait()
	}
}

func TestTreeOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.slow = true
		slow := func(u *supervise.Unit) {
			u.Ready = func(context.Context) error { time.Sleep(time.Second); return nil }
		}
		tree, stop := b.run(b.unit("smar"), b.unit("qmgr", slow), b.unit("smtps"))
		b.expect("0s smar starting", "0s smar up", "0s qmgr starting")
		time.Sleep(2 * time.Second)
		b.expect("1s qmgr up", "1s smtps starting", "1s smtps up")
		if s := tree.Status(); len(s) != 3 || s[1].Name != "qmgr" || s[1].State != supervise.Up || s[1].Since.Sub(b.start) != time.Second {
			t.Errorf("status %+v", s)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		b.expect("2s smtps stopping", "2s smtps down", "2s qmgr stopping", "2s qmgr down", "2s smar stopping", "2s smar down")
	})
}

func TestTreeStopWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.slow = true
		never := func(u *supervise.Unit) {
			u.Ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		}
		_, stop := b.run(b.unit("qmgr", never), b.unit("smtps"))
		b.expect("0s qmgr starting")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		b.expect("0s qmgr stopping", "0s qmgr down")
	})
}

func TestTreeRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		tree, stop := b.run(b.unit("smar"), b.unit("smtps"))
		b.expect("0s smar up", "0s smtps up")
		b.end["smar"] <- errors.New("broken")
		b.expect("0s smar down (hard: broken)")
		time.Sleep(time.Second)
		b.expect("100ms smar up")
		b.end["smar"] <- nil
		b.expect("1s smar down", "1s smar up")
		s := tree.Status()[0]
		if s.Restarts != 2 || s.LastErr == nil || b.instances("smar") != 3 {
			t.Errorf("status %+v, %d instances", s, b.instances("smar"))
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTreeRestartDependencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		_, stop := b.run(b.unit("smar", depends("qmgr")), b.unit("smtpc"), b.unit("qmgr", depends("smtps", "smar")), b.unit("smtps"))
		b.expect("0s smar up", "0s smtpc up", "0s qmgr up", "0s smtps up")
		b.end["smar"] <- errors.New("broken")
		time.Sleep(time.Second)
		b.expect("0s smar down (hard: broken)", "0s smtps stopping", "0s smtps down", "0s qmgr stopping", "0s qmgr down",
			"100ms smar up", "100ms qmgr up", "100ms smtps up")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTreeLimit checks that a unit that fails too often ends all, in order.
func TestTreeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		_, stop := b.run(b.unit("smar"), b.unit("qmgr"))
		b.expect("0s smar up", "0s qmgr up")
		for i := range 6 {
			b.end["qmgr"] <- fmt.Errorf("no %d", i)
			time.Sleep(time.Minute)
		}
		b.expect("0s qmgr down (hard: no 0)", "100ms qmgr up", "1m0s qmgr down (hard: no 1)", "1m0.4s qmgr up",
			"2m0s qmgr down (hard: no 2)", "2m1.6s qmgr up", "3m0s qmgr down (hard: no 3)", "3m6.4s qmgr up",
			"4m0s qmgr down (hard: no 4)", "4m25.6s qmgr up",
			"5m0s qmgr failed (hard: no 5)", "5m0s smar stopping", "5m0s smar down")
		if err := stop(); err == nil || err.Error() != "qmgr: no 5" {
			t.Errorf("error %v", err)
		}
	})
}

func TestTreeFatal(t *testing.T) {
	for _, opt := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			_, stop := b.run(b.unit("smtps"), b.unit("lda", func(u *supervise.Unit) { u.Optional = opt }))
			synctest.Wait()
			b.end["lda"] <- supervise.Mark(supervise.Fatal, errors.New("usage"))
			if opt {
				b.expect("0s smtps up", "0s lda up", "0s lda failed (fatal: usage)")
			} else {
				b.expect("0s smtps up", "0s lda up", "0s lda failed (fatal: usage)", "0s smtps stopping", "0s smtps down")
			}
			if err := stop(); (err == nil) != opt {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestTreeFirstStart checks that an instance that cannot be made at the start is
// not tried again, but is later.
func TestTreeFirstStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		fails := func(at int) func(*supervise.Unit) {
			return func(u *supervise.Unit) {
				inner := u.New
				u.New = func() (func(context.Context) error, error) {
					run, err := inner()
					if b.instances("qmgr") == at {
						return nil, errors.New("store is damaged")
					}
					return run, err
				}
			}
		}
		_, stop := b.run(b.unit("smar"), b.unit("qmgr", fails(1)), b.unit("smtps"))
		b.expect("0s smar up", "0s qmgr failed (hard: store is damaged)",
			"0s smar stopping", "0s smar down")
		if err := stop(); err == nil || err.Error() != "qmgr: store is damaged" {
			t.Errorf("error %v", err)
		}

		b = newBench(t)
		_, stop = b.run(b.unit("qmgr", fails(2)))
		b.expect("0s qmgr up")
		b.end["qmgr"] <- nil
		time.Sleep(time.Second)
		b.expect("0s qmgr down", "0s qmgr down (hard: store is damaged)", "100ms qmgr up")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTreePanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		panics := func(u *supervise.Unit) {
			u.New = func() (func(context.Context) error, error) {
				return func(context.Context) error { panic("no") }, nil
			}
		}
		_, stop := b.run(b.unit("x", panics, optional))
		time.Sleep(time.Hour)
		synctest.Wait()
		if last := b.log[len(b.log)-1]; !strings.HasSuffix(last, "x failed (hard: panic: no)") || len(b.log) != 12 {
			t.Errorf("%q", b.log)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTreeOverdue checks that a hanging instance holds up neither the others nor
// the end.
func TestTreeOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		release := make(chan struct{})
		hangs := func(u *supervise.Unit) {
			u.Grace = func() time.Duration { return 3 * time.Second }
			u.New = func() (func(context.Context) error, error) {
				return func(context.Context) error { <-release; return nil }, nil
			}
		}
		_, stop := b.run(b.unit("smar"), b.unit("smtps", hangs))
		b.expect("0s smar up", "0s smtps up")
		err := stop()
		if err == nil || err.Error() != "smtps did not stop within 3s" {
			t.Errorf("error %v", err)
		}
		b.expect("0s smtps stopping", "3s smar stopping", "3s smar down")
		close(release)
	})
}

// TestTreeOverdueDependency checks that all ends when an instance that must be
// replaced does not stop.
func TestTreeOverdueDependency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		release := make(chan struct{})
		hangs := func(u *supervise.Unit) {
			u.New = func() (func(context.Context) error, error) {
				return func(context.Context) error { <-release; return nil }, nil
			}
		}
		_, stop := b.run(b.unit("smar", depends("smtps")), b.unit("smtps", hangs))
		synctest.Wait()
		b.end["smar"] <- nil
		time.Sleep(time.Minute)
		b.expect("0s smar up", "0s smtps up", "0s smar down", "0s smtps stopping")
		if err := stop(); err == nil || err.Error() != "smtps did not stop within 10s" {
			t.Errorf("error %v", err)
		}
		close(release)
	})
}

func TestNewTreeRefuses(t *testing.T) {
	b := newBench(t)
	if _, err := supervise.NewTree([]supervise.Unit{b.unit("smar", depends("smapr"))}, nil); err == nil {
		t.Error("an unknown restart dependency was accepted")
	}
}

func TestOutcomeOf(t *testing.T) {
	tests := []struct {
		err  error
		want supervise.Outcome
	}{
		{nil, supervise.OK},
		{errors.New("x"), supervise.Hard},
		{&supervise.PanicError{Value: 1}, supervise.Hard},
		{supervise.Mark(supervise.Soft, nil), supervise.OK},
		{fmt.Errorf("y: %w", supervise.Mark(supervise.Soft, errors.New("x"))), supervise.Soft},
	}
	for _, tt := range tests {
		if got := supervise.OutcomeOf(tt.err); got != tt.want {
			t.Errorf("OutcomeOf(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
	for status, want := range map[int]supervise.Outcome{0: supervise.OK, 75: supervise.Soft, 69: supervise.Hard, 64: supervise.Fatal, 78: supervise.Fatal, 1: supervise.Hard, -1: supervise.Hard} {
		if got := supervise.OutcomeOfExit(status); got != want {
			t.Errorf("OutcomeOfExit(%d) = %v, want %v", status, got, want)
		}
	}
}

func TestHistory(t *testing.T) {
	p := supervise.Policy{OK: supervise.Limit{Max: 2, Per: time.Minute}, Soft: supervise.Limit{Per: time.Minute}, Pause: time.Second, PauseMax: 10 * time.Second}
	now := time.Unix(0, 0)
	type end struct {
		after   time.Duration
		outcome supervise.Outcome
		pause   time.Duration
		restart bool
	}
	tests := map[string]struct {
		p    supervise.Policy
		ends []end
	}{
		"rate":     {p, []end{{0, supervise.OK, 0, true}, {1, supervise.OK, 0, true}, {2, supervise.OK, 0, false}}},
		"slow":     {p, []end{{0, supervise.OK, 0, true}, {31e9, supervise.OK, 0, true}, {31e9, supervise.OK, 0, true}}},
		"no limit": {p.WithMax(0), []end{{0, supervise.OK, 0, true}, {0, supervise.OK, 0, true}, {0, supervise.OK, 0, true}}},
		"pauses": {p, []end{
			{0, supervise.Soft, time.Second, true},
			{0, supervise.Soft, 4 * time.Second, true},
			{0, supervise.Soft, 10 * time.Second, true},
			{time.Hour, supervise.Soft, time.Second, true},
		}},
		"fatal": {p.WithMax(0), []end{{0, supervise.Fatal, 0, false}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var h supervise.History
			now := now
			for i, e := range tt.ends {
				now = now.Add(e.after)
				if pause, restart := h.Next(tt.p, e.outcome, now); pause != e.pause || restart != e.restart {
					t.Errorf("end %d: %v, %v; want %v, %v", i, pause, restart, e.pause, e.restart)
				}
			}
		})
	}
}

func TestGroup(t *testing.T) {
	g := supervise.NewGroup(context.Background())
	g.Go(func(ctx context.Context) error { <-ctx.Done(); return nil })
	g.Go(func(context.Context) error { panic("no") })
	var p *supervise.PanicError
	if err := g.Wait(); !errors.As(err, &p) || p.Value != "no" || len(p.Stack) == 0 {
		t.Errorf("error %v", err)
	}
}
