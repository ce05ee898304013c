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
				if err == nil && !a.Rcpts[0].Positive() {
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
		if a.Reused != (i%3 != 0) || !a.Rcpts[0].Positive() {
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
		p := newPool(Config{IdleMax: 4, IdleHopMax: 2, IdleTimeout: time.Minute})
		now := time.Now()
		var working []*conn
		var dials []line
		type waiting struct {
			line
			w *waiter
		}
		var waiters []waiting
		closed, made := 0, 0
		hop := rapid.Custom(func(t *rapid.T) line {
			return line{hop: msg.Hop{Host: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "host")}}
		})
		lose := func(c *conn) {
			if c != nil {
				closed++
			}
		}
		pick := func(t *rapid.T, n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				h := hop.Draw(t, "hop")
				c, w, dial := p.take(context.Background(), h, rapid.Bool().Draw(t, "reuse"))
				if c != nil {
					working = append(working, c)
					return
				}
				waiters = append(waiters, waiting{h, w})
				if dial {
					dials = append(dials, h)
				}
			},
			"dialed": func(t *rapid.T) {
				if len(dials) == 0 {
					t.Skip()
				}
				i := pick(t, len(dials))
				h := dials[i]
				dials = append(dials[:i], dials[i+1:]...)
				if rapid.Bool().Draw(t, "ok") {
					made++
					c := &conn{line: h, nc: &cannedConn{}}
					p.watch(c, context.Background())
					lose(p.dialed(h, c, nil, now))
				} else {
					p.dialed(h, nil, &dialFailure{}, now)
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
				p.forget(working[0])
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
					default:
						left = append(left, w)
					}
				}
				waiters = left
				checkPool(t, p, len(working), len(waiters), len(dials), made-closed)
			},
		})
	})
}

func checkPool(t *rapid.T, p *pool, working, waiting, dialing, open int) {
	idle, waiters, dials := 0, 0, 0
	for hop, h := range p.hops {
		if h.dialing < len(h.waiters) {
			t.Fatalf("%v: %d waiters, %d dials", hop, len(h.waiters), h.dialing)
		}
		if len(h.idle) > p.idleHopMax {
			t.Fatalf("%v: %d idle", hop, len(h.idle))
		}
		idle += len(h.idle)
		waiters += len(h.waiters)
		dials += h.dialing
	}
	if idle != p.idle.n || idle > p.idleMax {
		t.Fatalf("%d idle by hop, %d in all", idle, p.idle.n)
	}
	if p.busy.n != working || waiters != waiting || dials != dialing {
		t.Fatalf("busy %d, want %d; waiters %d, want %d; dials %d, want %d", p.busy.n, working, waiters, waiting, dials, dialing)
	}
	if idle+working != open {
		t.Fatalf("%d idle and %d at work, %d are open", idle, working, open)
	}
}
