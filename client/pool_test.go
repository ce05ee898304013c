package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// TestHandOver: a delivery that waits for a dial is served by a connection that
// becomes free before; the dialled one serves later.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(acceptAll(sleep(2 * time.Second)))
		slow := false
		dial := n.dial
		deps := Deps{ReuseConnections: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if slow {
				time.Sleep(20 * time.Second)
			}
			slow = true
			return dial(ctx, network, addr)
		}}
		r := start(t, Config{IdleTimeout: time.Minute}, deps, nil)
		defer func() {
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			if err := n.group.Wait(); err != nil {
				t.Error(err)
			}
		}()
		var took [2]time.Duration
		var reused [2]bool
		g := supervise.NewGroup(context.Background())
		begin := time.Now()
		for i := range 2 {
			g.Go(func(context.Context) error {
				time.Sleep(time.Duration(i) * time.Second)
				a, err := r.ask(context.Background(), question())
				took[i], reused[i] = time.Since(begin), a.Reused
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		// The first takes 2 s; the second begins after 1 s and is served from then on.
		if took[0].Round(time.Second) != 2*time.Second || took[1].Round(time.Second) != 4*time.Second || reused[0] || !reused[1] {
			t.Errorf("took %v, reused %v", took, reused)
		}
		time.Sleep(30 * time.Second)
		if idle, busy, _ := r.pool.counts(); idle != 2 || busy != 0 {
			t.Errorf("%d idle, %d busy", idle, busy)
		}
	})
}

// acceptAll is a host that takes all mail, and thinks about each final dot.
func acceptAll(think func()) func(net.Conn) {
	return func(nc net.Conn) {
		r := bufio.NewReader(nc)
		data := false
		_, _ = io.WriteString(nc, "220 mx\r\n")
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			reply := "250 ok\r\n"
			switch {
			case data && line == ".\r\n":
				data = false
				think()
			case data:
				continue
			case line == "DATA\r\n":
				data = true
				reply = "354 go on\r\n"
			}
			if _, err := io.WriteString(nc, reply); err != nil {
				return
			}
		}
	}
}

func sleep(d time.Duration) func() { return func() { time.Sleep(d) } }

// TestThreadsMax: no more deliveries run than threads_max; the rest waits its turn.
func TestThreadsMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		n := newNetwork(acceptAll(func() {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
		}))
		r := start(t, Config{ThreadsMax: 3}, Deps{}, n)
		g := supervise.NewGroup(context.Background())
		begin := time.Now()
		for range 9 {
			g.Go(func(context.Context) error {
				a, err := r.ask(context.Background(), question())
				if err == nil && !a.Rcpts[0].Accepted() {
					t.Errorf("answer %+v", a)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); most != 3 || took.Round(time.Second) != 3*time.Second {
			t.Errorf("%d at once, took %v", most, took)
		}
		if n := r.threads.Load(); n > 3 {
			t.Errorf("%d workers", n)
		}
	})
}

// TestTransactionsPerSession: a connection serves no more than the bound.
func TestTransactionsPerSession(t *testing.T) {
	n := newNetwork(acceptAll(func() {}))
	r := start(t, Config{}, Deps{ReuseConnections: true, TransactionsPerSession: 3}, n)
	for i := range 7 {
		a := r.deliver(t, question())
		if a.Reused != (i%3 != 0) || !a.Rcpts[0].Accepted() {
			t.Errorf("%d: %+v", i, a)
		}
	}
	if n.dialed() != 3 {
		t.Errorf("%d connections", n.dialed())
	}
}

// TestConnectionAge: a connection is not used for ever.
func TestConnectionAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(acceptAll(func() {}))
		r := start(t, Config{}, Deps{ReuseConnections: true}, n)
		for range 120 {
			r.deliver(t, question())
			time.Sleep(3 * time.Second)
		}
		if n.dialed() != 2 {
			t.Errorf("%d connections in 6 minutes", n.dialed())
		}
	})
}

// TestIdleBounds: no more idle connections are kept than allowed, those of longest
// idleness go first, and they go politely.
func TestIdleBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(acceptAll(sleep(time.Second)))
		r := start(t, Config{IdleMax: 5, IdleHopMax: 3}, Deps{ReuseConnections: true}, n)
		deliver := func(count int, hop byte) {
			g := supervise.NewGroup(context.Background())
			for range count {
				g.Go(func(context.Context) error {
					q := question()
					q.Hop.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, hop}), 25)
					_, err := r.ask(context.Background(), q)
					return err
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		deliver(4, 1)
		if idle, _, hops := r.pool.counts(); idle != 3 || hops != 1 {
			t.Errorf("%d idle, %d hops", idle, hops)
		}
		deliver(3, 2)
		if idle, _, hops := r.pool.counts(); idle != 5 || hops != 2 {
			t.Errorf("%d idle, %d hops", idle, hops)
		}
		deliver(3, 3)
		if idle, busy, hops := r.pool.counts(); idle != 5 || busy != 0 || hops != 2 {
			t.Errorf("%d idle, %d busy, %d hops", idle, busy, hops)
		}
	})
}

// TestPoolRules holds the pool's rules over any order of events: a waiter always has
// a dial to hope for, nothing is lost, the bounds hold.
func TestPoolRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cl := new(class)
		p := newPool(Config{IdleMax: 4, IdleHopMax: 2, IdleTimeout: time.Minute})
		now := time.Now()
		var working []*conn
		type dialing struct {
			line
			d *dial
		}
		var dials []dialing
		type waiting struct {
			line
			w *waiter
		}
		var waiters []waiting
		closed, made := 0, 0
		hop := rapid.Custom(func(t *rapid.T) line {
			return line{class: cl, hop: msg.Hop{Host: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "host")}}
		})
		lose := func(c *conn) {
			if c != nil {
				closed++
				p.forget(c)
			}
		}
		pick := func(t *rapid.T, n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				h := hop.Draw(t, "hop")
				c, w, start := p.take(context.Background(), h, rapid.Bool().Draw(t, "reuse"))
				if c != nil {
					working = append(working, c)
					return
				}
				waiters = append(waiters, waiting{h, w})
				if start != nil {
					dials = append(dials, dialing{h, start})
				}
			},
			"dialed": func(t *rapid.T) {
				if len(dials) == 0 {
					t.Skip()
				}
				i := pick(t, len(dials))
				h, d := dials[i].line, dials[i].d
				dials = append(dials[:i], dials[i+1:]...)
				if rapid.Bool().Draw(t, "ok") {
					made++
					c := newConn(&cannedConn{}, h, "", now)
					p.watch(c, d)
					lose(p.dialed(h, d, c, nil, now))
				} else {
					p.dialed(h, d, nil, &dialFailure{}, now)
				}
			},
			"put": func(t *rapid.T) {
				if len(working) == 0 {
					t.Skip()
				}
				i := pick(t, len(working))
				c := working[i]
				working = append(working[:i], working[i+1:]...)
				lose(p.put(c, now))
			},
			"forget": func(t *rapid.T) {
				if len(working) == 0 {
					t.Skip()
				}
				lose(working[0])
				working = working[1:]
			},
			"give up": func(t *rapid.T) {
				if len(waiters) == 0 {
					t.Skip()
				}
				i := pick(t, len(waiters))
				w := waiters[i]
				waiters = append(waiters[:i], waiters[i+1:]...)
				if late, served := p.giveUp(w.line, w.w); served && late.conn != nil {
					working = append(working, late.conn)
				}
			},
			"vacate": func(t *rapid.T) {
				h := hop.Draw(t, "hop")
				for _, c := range p.vacate(h.hop) {
					lose(c)
				}
				if h := p.hops[h]; h != nil && len(h.idle) > 0 {
					t.Fatalf("%d idle connections are left", len(h.idle))
				}
			},
			"sweep": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
				for _, c := range p.sweep(now) {
					lose(c)
				}
			},
			"": func(t *rapid.T) {
				left := waiters[:0]
				for _, w := range waiters {
					select {
					case got := <-w.w.ready:
						if got.conn != nil {
							working = append(working, got.conn)
						}
						if got.reused && w.w.fresh {
							t.Fatal("a connection that was used before instead of a new one")
						}
					default:
						left = append(left, w)
					}
				}
				waiters = left
				wanted := 0
				for _, d := range dials {
					if d.d.ctx.Err() == nil {
						wanted++
					}
				}
				checkPool(t, p, len(working), len(waiters), wanted, made-closed)
			},
		})
	})
}

func checkPool(t *rapid.T, p *pool, working, waiting, dialing, open int) {
	idle, waiters, dials := 0, 0, 0
	for hop, h := range p.hops {
		if len(h.dials) < len(h.waiters) {
			t.Fatalf("%v: %d waiters, %d dials", hop, len(h.waiters), len(h.dials))
		}
		if len(h.idle) > p.idleHopMax {
			t.Fatalf("%v: %d idle", hop, len(h.idle))
		}
		idle += len(h.idle)
		waiters += len(h.waiters)
		dials += len(h.dials)
	}
	if idle != p.idle.n || idle > p.idleMax {
		t.Fatalf("%d idle by hop, %d in all", idle, p.idle.n)
	}
	if p.busy.n != working || waiters != waiting || dials != dialing {
		t.Fatalf("busy %d, want %d; waiters %d, want %d; dials %d, want %d", p.busy.n, working, waiters, waiting, dials, dialing)
	}
	counted := 0
	for _, n := range p.open {
		counted += n
	}
	if idle+working != open || counted != open {
		t.Fatalf("%d idle and %d at work, %d are open, %d are counted", idle, working, open, counted)
	}
}

// TestConnectionsOfAProvider: before a connection is made that is one too many for a provider, one
// of its hosts that has no work is given up, whichever has been idle longest.
func TestConnectionsOfAProvider(t *testing.T) {
	cl := new(class)
	p := newPool(Config{IdleMax: 10, IdleHopMax: 10, IdleTimeout: time.Minute})
	to := func(host, provider string) line {
		return line{class: cl, hop: msg.Hop{Host: host}, provider: shared{provider, 2}}
	}
	made := func(l line, d *dial) *conn {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
		c := newConn(ours, l, "", time.Now())
		p.watch(c, d)
		return c
	}
	var idle []*conn
	for _, l := range []line{to("a", "big"), to("b", "big"), to("c", "small"), to("d", "")} {
		_, w, d := p.take(t.Context(), l, true)
		if d == nil || d.instead != nil {
			t.Fatalf("%v: %+v", l.hop, d)
		}
		p.dialed(l, d, made(l, d), nil, time.Now())
		got := <-w.ready
		p.put(got.conn, time.Now())
		idle = append(idle, got.conn)
	}
	_, _, first := p.take(t.Context(), to("e", "big"), true)
	_, _, second := p.take(t.Context(), to("f", "big"), true)
	if first.instead != idle[0] || second.instead != idle[1] {
		t.Fatal("the idle connections are not given up, the oldest first")
	}
	_, _, third := p.take(t.Context(), to("g", "big"), true) // QMGR has asked for one too many
	if third.instead != nil {
		t.Fatal("a connection of another provider is given up")
	}
	for i, d := range []*dial{first, second, third} {
		if d.instead != nil {
			p.forget(d.instead)
		}
		p.dialed(to([]string{"e", "f", "g"}[i], "big"), d, nil, &dialFailure{}, time.Now())
	}
	if n := p.shared["big"]; n != 0 || p.shared["small"] != 1 || len(p.shared) != 1 {
		t.Errorf("counted as %v", p.shared)
	}
	if c, _, _ := p.take(t.Context(), to("c", "small"), true); c != idle[2] {
		t.Error("the connection of another provider is not there any more")
	}
}
