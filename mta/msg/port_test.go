package msg

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestPortDirect: what the module has in memory is answered in the asker's goroutine, and
// everything else, a fault of the module's included, by the module's own.
func TestPortDirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPort[int, string](0)
		direct := func(q *int) (string, bool) {
			if *q == 3 {
				panic("a fault of the module's")
			}
			return "memory", *q == 1
		}
		requests, stop := p.OpenDirect(direct)
		var group sync.WaitGroup
		group.Go(func() {
			for range 3 {
				r := <-requests
				r.Answer("module")
			}
		})
		for q, want := range []string{"module", "memory", "module", "module"} {
			if a, err := p.Ask(t.Context(), q); a != want || err != nil {
				t.Errorf("question %d: %q, %v, want %q", q, a, err, want)
			}
		}
		group.Wait()
		stop()
		if a, err := p.Ask(t.Context(), 1); !errors.Is(err, ErrDown) {
			t.Errorf("a module that has stopped answers %q, %v", a, err)
		}
		_, stop = p.Open()
		defer stop()
		if a, ok := p.Direct(1); ok {
			t.Errorf("a module without direct answers gives %q", a)
		}
	})
}

// TestPortStopWaitsForDirect: when stop returns, no asker is in the module any more.
func TestPortStopWaitsForDirect(t *testing.T) {
	p := NewPort[int, int](0)
	entered, leave := make(chan struct{}), make(chan struct{})
	inside := true
	_, stop := p.OpenDirect(func(*int) (int, bool) {
		close(entered)
		<-leave
		inside = false
		return 1, true
	})
	asked := make(chan error, 1)
	go func() {
		_, err := p.Ask(context.Background(), 0)
		asked <- err
	}()
	<-entered
	go close(leave)
	stop()
	if inside {
		t.Error("stop has returned while a question was being answered")
	}
	if err := <-asked; err != nil {
		t.Errorf("the question that was in progress: %v", err)
	}
}

// TestPortPost: a question that nobody waits for ends once, whoever ends it: the answer, its
// asker, or the end of the module, which answers what it has not even looked at.
func TestPortPost(t *testing.T) {
	type end struct {
		a   string
		err error
	}
	p := NewPort[int, string](3)
	ends := map[int][]end{}
	post := func(q int) *Request[int, string] {
		return p.Post(t.Context(), &q, func(a string, err error) { ends[q] = append(ends[q], end{a, err}) })
	}
	if post(0) != nil {
		t.Error("a module that does not run takes a question")
	}
	requests, stop := p.Open()
	posted := []*Request[int, string]{post(0), post(1), post(2)}
	if post(3) != nil {
		t.Error("a question is taken for which there is no room")
	}
	late := errors.New("too late")
	first, second := <-requests, <-requests
	first.Answer("yes")
	posted[0].Withdraw(late)
	posted[1].Withdraw(late)
	second.Answer("yes")
	if len(ends[2]) > 0 {
		t.Errorf("a question that waits has ended: %v", ends[2])
	}
	stop()
	posted[2].Withdraw(late)
	if post(4) != nil {
		t.Error("a module that has ended takes a question")
	}
	want := map[int][]end{0: {{"yes", nil}}, 1: {{"", late}}, 2: {{"", ErrDown}}}
	if !maps.EqualFunc(ends, want, slices.Equal) {
		t.Errorf("the questions end as %v, want %v", ends, want)
	}
}

// TestPortPostRace: of an answer, a withdrawal and the end of the module at one time exactly one
// counts.
func TestPortPostRace(t *testing.T) {
	for range 200 {
		p := NewPort[int, int](1)
		requests, stop := p.Open()
		var ended atomic.Int32
		q := 1
		r := p.Post(t.Context(), &q, func(int, error) { ended.Add(1) })
		var group sync.WaitGroup
		group.Go(func() { (<-requests).Answer(1) })
		group.Go(func() { r.Withdraw(context.Canceled) })
		group.Go(stop)
		group.Wait()
		if n := ended.Load(); n != 1 {
			t.Fatalf("a question ended %d times", n)
		}
	}
}
