package server

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// TestRefilter: a session goes on with the filters and services with which it began, and later
// ones have the new ones. What stays keeps its connections; those of the others are closed.
func TestRefilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newPipeListener(), newFakeMTA()
		var mu sync.Mutex
		var dialled []string
		open := map[string]int{}
		deps := fake.deps(l)
		deps.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := pipeFilter()(ctx, network, address)
			mu.Lock()
			defer mu.Unlock()
			dialled = append(dialled, address)
			open[address]++
			return &countedConn{Conn: conn, closed: func() {
				mu.Lock()
				defer mu.Unlock()
				open[address]--
			}}, err
		}
		at := func(kept int, ports ...int) Filtering {
			f := Filtering{Milters: filterConfig(len(ports)).Milters}
			for i, port := range ports {
				f.Milters[i].Socket.Port, f.Milters[i].Kept = port, kept
				f.Milters[i].Name = string(rune('a' + port))
			}
			return f
		}
		state := func(wantDialled []string, wantOpen map[string]int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(dialled, wantDialled) {
				t.Errorf("connected to %q, want %q", dialled, wantDialled)
			}
			for address, n := range open {
				if n != wantOpen[address] {
					t.Errorf("%s has %d connections, want %d", address, n, wantOpen[address])
				}
			}
		}
		first := at(4, 1, 2)
		b := startDeps(t, Config{Milters: first.Milters}, fake, deps)
		old := l.talker(t)
		old.begin()
		state([]string{"127.0.0.1:1", "127.0.0.1:2"}, map[string]int{"127.0.0.1:1": 1, "127.0.0.1:2": 1})

		if b.server.Refilter(first) {
			t.Error("the same filters are a change")
		}
		kept := first.Milters[1]
		next := Filtering{Milters: append(at(4, 3).Milters, kept)}
		if !b.server.Refilter(next) {
			t.Error("other filters are no change")
		}
		next.Milters[0].Name = "of the caller" // who may do with it what it likes
		young := l.talker(t)
		young.begin()
		state([]string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:2"},
			map[string]int{"127.0.0.1:1": 1, "127.0.0.1:2": 2, "127.0.0.1:3": 1})
		for _, c := range []*talker{old, young} {
			c.say("Subject: x\r\n\r\nold\r\n.", "250")
			c.say("QUIT", "221")
		}
		// The filter that is gone has no connection left; the others keep theirs.
		state([]string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:2"},
			map[string]int{"127.0.0.1:2": 2, "127.0.0.1:3": 1})
		b.server.Refilter(Filtering{})
		none := l.talker(t)
		none.begin()
		none.say("Subject: x\r\n\r\nold\r\n.", "250")
		none.say("QUIT", "221")
		state([]string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:2"}, nil)
		b.end(t)
		b.server.Refilter(first) // too late, and harmless
	})
}

// TestRefilterServices: a policy service that stays is the same one, with what it answers to failures
// taken from the new configuration.
func TestRefilterServices(t *testing.T) {
	service := func(name, failure string, port int) PolicyService {
		return PolicyService{Name: name, Failure: failure, Socket: Socket{Type: "inet", Port: port}}
	}
	l, fake := newPipeListener(), newFakeMTA()
	s := mustNew(t, Config{PolicyServices: []PolicyService{service("a", policyTempfail, 1), service("b", policyTempfail, 2)}}, fake.deps(l))
	old := s.filters.get()
	s.Refilter(Filtering{PolicyServices: []PolicyService{service("b", policyAccept, 2), service("a", policyTempfail, 3)}})
	now := s.filters.get()
	if b := now.policies[0]; b.Service != old.policies[1].Service || b.Failure != policyAccept || old.policies[1].Failure != policyTempfail {
		t.Errorf("service b: %+v", b)
	}
	if a := now.policies[1]; a.Service == old.policies[0].Service {
		t.Error("service a listens elsewhere and is the same")
	}
}

// countedConn tells when it is closed.
type countedConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *countedConn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}
