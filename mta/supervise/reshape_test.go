package supervise

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestReshape: units come, go, are replaced, and keep running.
func TestReshape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards log and removed
		var log, removed []string
		tell := func(to *[]string, what string) {
			mu.Lock()
			defer mu.Unlock()
			*to = append(*to, what)
		}
		unit := func(name, version string, stop time.Duration) Unit {
			return Unit{Name: name, Policy: DefaultPolicy(), New: func() (func(context.Context) error, error) {
				tell(&log, "+"+name+version)
				return func(ctx context.Context) error {
					<-ctx.Done()
					time.Sleep(stop)
					tell(&log, fmt.Sprintf("-%s%s %v", name, version, context.Cause(ctx)))
					return nil
				}, nil
			}}
		}
		tree, err := NewTree([]Unit{unit("a", "1", 0), unit("b", "1", time.Second), unit("c", "1", 3*time.Second)}, func(e Event) {
			if e.State == Removed {
				tell(&removed, e.Unit)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		g := NewGroup(t.Context())
		g.Go(tree.Run)
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(log, ", "); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			log = nil
		}
		names := func() (all []string) {
			for _, s := range tree.Status() {
				all = append(all, s.Name+" "+string(s.State))
			}
			return all
		}
		expect("+a1, +b1, +c1")
		// b is replaced, c goes and takes its time, d comes.
		if err := tree.Reshape(t.Context(), []Unit{unit("a", "2", 0), unit("b", "2", 0), unit("d", "1", 0)}, "b"); err != nil {
			t.Fatal(err)
		}
		expect("+d1")
		if got, want := names(), []string{"a up", "b down", "d up", "b stopping", "c stopping"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		time.Sleep(2 * time.Second)
		expect("-b1 paused, +b2")
		// c comes again before the former one has ended.
		if err := tree.Reshape(t.Context(), []Unit{unit("a", "2", 0), unit("c", "2", 0)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		mu.Lock()
		slices.Sort(log)
		mu.Unlock()
		expect("+c2, -b2 paused, -c1 paused, -d1 paused")
		if got, want := names(), []string{"a up", "c up"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		mu.Lock()
		slices.Sort(removed)
		if !slices.Equal(removed, []string{"b", "b", "c", "d"}) {
			t.Errorf("%q", removed)
		}
		mu.Unlock()
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if err := tree.Reshape(t.Context(), nil); err != ErrEnded {
			t.Error(err)
		}
	})
}

// TestReshapeRenewsTwice: a unit that is replaced again while its first instance still stops waits for that one, too.
func TestReshapeRenewsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, started int
		unit := Unit{Name: "a", Policy: DefaultPolicy(), New: func() (func(context.Context) error, error) {
			return func(ctx context.Context) error {
				running++
				started++
				most = max(most, running)
				<-ctx.Done()
				time.Sleep(3 * time.Second)
				running--
				return nil
			}, nil
		}}
		tree, err := NewTree([]Unit{unit}, nil)
		if err != nil {
			t.Fatal(err)
		}
		g := NewGroup(t.Context())
		g.Go(tree.Run)
		synctest.Wait()
		for range 3 {
			if err := tree.Reshape(t.Context(), []Unit{unit}, "a"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if most != 1 || started != 2 || running != 1 {
			t.Errorf("%d instances at a time, %d started, %d run", most, started, running)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestReshapeTells: when Reshape returns, the units that go know that they are to end, so that an error of a socket that is closed
// next is none of theirs.
func TestReshapeTells(t *testing.T) {
	for range 100 {
		ran, taken, ended := make(chan context.Context, 1), make(chan struct{}), make(chan Event, 1)
		unit := Unit{Name: "a", Policy: DefaultPolicy(), New: func() (func(context.Context) error, error) {
			return func(ctx context.Context) error {
				ran <- ctx
				<-taken
				if ctx.Err() != nil {
					return nil
				}
				return net.ErrClosed
			}, nil
		}}
		tree, err := NewTree([]Unit{unit}, func(e Event) {
			if e.State == Down || e.State == Removed {
				ended <- e
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		g := NewGroup(t.Context())
		g.Go(tree.Run)
		ctx := <-ran
		if err := tree.Reshape(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		told := ctx.Err()
		close(taken)
		if e := <-ended; told == nil || e.Err != nil {
			t.Fatalf("%v, %+v", told, e)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// TestReshapeOverdue: a unit that does not go in its grace ends the tree, as at any stop.
func TestReshapeOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		tree, err := NewTree([]Unit{{Name: "a", Grace: func() time.Duration { return time.Second }, New: func() (func(context.Context) error, error) {
			return func(context.Context) error { <-stuck; return nil }, nil
		}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		g := NewGroup(t.Context())
		g.Go(tree.Run)
		synctest.Wait()
		if err := tree.Reshape(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := g.Wait(); err == nil || !strings.Contains(err.Error(), "a did not stop within 1s") {
			t.Error(err)
		}
		close(stuck)
	})
}
