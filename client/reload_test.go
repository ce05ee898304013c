package client

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meta1/client/auth"
	"meta1/client/socks"
	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
)

// reload puts another configuration in effect. What else the client depends on stays.
func (r *running) reload(cfg Config, change ...func(*Deps)) {
	deps := r.now.Load().deps
	for _, f := range change {
		f(&deps)
	}
	r.Prepare(cfg, deps).Commit()
}

// TestReloadTimeout: a delivery keeps the timeouts with which it began; those that begin after a reload
// have the new ones.
func TestReloadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(stall())
		r := start(t, Config{IOTimeout: time.Minute}, Deps{}, n)
		g := supervise.NewGroup(context.Background())
		begin := time.Now()
		deliver := func(host string, want time.Duration) {
			g.Go(func(context.Context) error {
				q := question()
				q.Hop.Host = host
				a, err := r.ask(context.Background(), q)
				if took := time.Since(begin).Round(time.Second); took != want || !a.HostFailed {
					t.Errorf("failed after %v, want %v: %+v", took, want, a.Rcpts)
				}
				return err
			})
		}
		deliver("a.example", time.Minute)
		time.Sleep(time.Second)
		r.reload(Config{IOTimeout: 10 * time.Second})
		deliver("b.example", 11*time.Second)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestReloadThreads: a limit that is lower holds at once, and cuts nobody off; one that is higher has those go on that
// wait.
func TestReloadThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		n := newNetwork(acceptAll(func() {
			running.Add(1)
			time.Sleep(10 * time.Second)
			running.Add(-1)
		}))
		r := start(t, Config{ThreadsMax: 6}, Deps{}, n)
		g := supervise.NewGroup(context.Background())
		var done atomic.Int32
		for range 12 {
			g.Go(func(context.Context) error {
				a, err := r.ask(context.Background(), question())
				if err == nil && !a.Rcpts[0].Accepted() {
					t.Errorf("%+v", a.Rcpts)
				}
				done.Add(1)
				return err
			})
		}
		at := func(after time.Duration, wantRunning, wantDone int32) {
			t.Helper()
			time.Sleep(after)
			if n, d := running.Load(), done.Load(); n != wantRunning || d != wantDone {
				t.Errorf("%d deliveries run and %d have ended, want %d and %d", n, d, wantRunning, wantDone)
			}
		}
		at(time.Second, 6, 0)
		r.reload(Config{ThreadsMax: 2})
		at(time.Second, 6, 0) // 2 s
		at(10*time.Second, 2, 6)
		if most := r.threads.Load(); most != 2 {
			t.Errorf("%d workers", most)
		}
		r.reload(Config{ThreadsMax: 3})
		at(time.Second, 3, 6) // 13 s
		at(10*time.Second, 3, 9)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.reload(Config{ThreadsMax: 1})
		r.reload(Config{ThreadsMax: 5})
		r.reload(Config{ThreadsMax: 1}) // while all wait
		synctest.Wait()
		if threads, waiting := r.threads.Load(), r.waiting.Load(); threads != 1 || waiting != 1 {
			t.Errorf("%d workers, %d wait", threads, waiting)
		}
		if a := r.deliver(t, question()); !a.Rcpts[0].Accepted() {
			t.Errorf("%+v", a.Rcpts)
		}
	})
}

// TestReloadThreadsMany: no order of reloads and deliveries leaves nobody who takes requests.
func TestReloadThreadsMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{ThreadsMax: 4}, Deps{ReuseConnections: true}, newNetwork(acceptAll(sleep(time.Millisecond))))
		g := supervise.NewGroup(context.Background())
		for range 8 {
			g.Go(func(context.Context) error {
				for range 50 {
					if _, err := r.ask(context.Background(), question()); err != nil {
						return err
					}
				}
				return nil
			})
		}
		for i := range 200 {
			r.reload(Config{ThreadsMax: 1 + i*7%5, IdleMax: 1 + i%3})
			time.Sleep(time.Duration(i%4) * 100 * time.Microsecond)
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if threads, most := r.threads.Load(), r.threadsMax(); threads < 1 || threads > most || r.waiting.Load() != threads {
			t.Errorf("%d of %d workers", threads, most)
		}
	})
}

// greeters counts the sessions of a host that takes all mail.
func greeters(sessions *atomic.Int32) func(net.Conn) {
	serve := acceptAll(func() {})
	return func(nc net.Conn) {
		sessions.Add(1)
		serve(nc)
	}
}

// TestReloadIdle: a connection without work is used again only if a new one would be like it.
func TestReloadIdle(t *testing.T) {
	base := Config{IdleTimeout: time.Minute, IdleMax: 10, IdleHopMax: 10}
	other := provider(t, tlsconf.Section{})
	for name, c := range map[string]struct {
		cfg   func(*Config)
		deps  func(*Deps)
		reuse bool
	}{
		"nothing":         {reuse: true},
		"timeouts":        {cfg: func(c *Config) { c.IOTimeout, c.StopTimeout = time.Second, time.Second }, reuse: true},
		"threads":         {cfg: func(c *Config) { c.ThreadsMax = 7 }, reuse: true},
		"another section": {cfg: func(c *Config) { c.SessionFeatures = []SessionFeature{{Name: "x"}} }, reuse: true},
		"tls":             {cfg: func(c *Config) { c.TLS.Violation = violationAbort }},
		"provider":        {deps: func(d *Deps) { d.TLS = other }},
		"auth":            {cfg: func(c *Config) { c.AuthPresent, c.Auth = true, auth.Config{TLS: string(auth.None)} }},
		"proxy":           {cfg: func(c *Config) { c.ProxyPresent, c.Proxy = true, socks.Config{Type: "unix", Path: "x"} }},
		"flags":           {cfg: func(c *Config) { c.TalkToMyself = true }},
		"chunking":        {cfg: func(c *Config) { c.Chunking = chunkingNever }},
		"transactions":    {deps: func(d *Deps) { d.TransactionsPerSession = 5 }},
		"no reuse":        {deps: func(d *Deps) { d.ReuseConnections = false }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, base, Deps{ReuseConnections: true, TLS: provider(t, tlsconf.Section{})}, newNetwork(acceptAll(func() {})))
				r.deliver(t, question())
				cfg := base
				if c.cfg != nil {
					c.cfg(&cfg)
				}
				r.reload(cfg, func(d *Deps) {
					if c.deps != nil {
						c.deps(d)
					}
				})
				cl := r.now.Load().classes[""]
				if same := cl == r.Client.classes[""]; c.reuse && !same {
					t.Errorf("%+v", cl)
				}
				if name == "proxy" || name == "auth" {
					synctest.Wait()
					if idle, _, _ := r.pool.counts(); idle != 0 {
						t.Errorf("%d connections are kept", idle)
					}
					return // a delivery would need a proxy, or a map
				}
				if a := r.deliver(t, question()); a.Reused != c.reuse {
					t.Errorf("reused: %v", a.Reused)
				}
			})
		})
	}
}

// TestReloadRetires: a connection of a class that a reload has changed is closed when its delivery has
// ended, and so are those beyond a limit.
func TestReloadRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := Config{IdleTimeout: time.Minute, IdleMax: 10, IdleHopMax: 10}
		r := start(t, base, Deps{ReuseConnections: true}, newNetwork(acceptAll(sleep(time.Second))))
		deliver := func(n int, during func()) {
			t.Helper()
			g := supervise.NewGroup(context.Background())
			for range n {
				g.Go(func(context.Context) error {
					a, err := r.ask(context.Background(), question())
					if err == nil && !a.Rcpts[0].Accepted() {
						t.Errorf("%+v", a.Rcpts)
					}
					return err
				})
			}
			time.Sleep(time.Second / 2)
			during()
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		kept := func(want int) {
			t.Helper()
			if idle, busy, _ := r.pool.counts(); idle != want || busy != 0 {
				t.Errorf("%d connections idle, want %d; %d busy", idle, want, busy)
			}
		}
		deliver(4, func() {})
		kept(4)
		base.IdleHopMax = 3
		r.reload(base)
		synctest.Wait()
		kept(3)
		base.IdleMax = 1
		r.reload(base)
		synctest.Wait()
		kept(1)
		base.IdleMax, base.IdleHopMax, base.TalkToMyself = 10, 10, true
		deliver(4, func() { r.reload(base) })
		kept(0)
		deliver(2, func() {})
		kept(2)
		base.IdleTimeout = 5 * time.Second
		r.reload(base)
		time.Sleep(7 * time.Second)
		kept(0)
	})
}

// TestReloadStop: stop_timeout is that of the configuration in effect when the client ends; a reload of a client that
// has ended, or does not run yet, does no harm.
func TestReloadStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		early := New(Config{}, Deps{Ports: msg.NewPorts(), Hostname: "a.example", TLS: provider(t, tlsconf.Section{})})
		early.Prepare(Config{ThreadsMax: 5}, early.deps).Commit()
		if n := early.threadsMax(); n != 5 {
			t.Errorf("threads_max %d", n)
		}
		r := start(t, Config{StopTimeout: time.Hour}, Deps{}, newNetwork(stall()))
		g := supervise.NewGroup(context.Background())
		g.Go(func(context.Context) error {
			if _, err := r.ask(context.Background(), question()); err == nil {
				t.Error("there is an answer")
			}
			return nil
		})
		time.Sleep(time.Second)
		r.reload(Config{StopTimeout: 3 * time.Second})
		begin := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin).Round(time.Second); took != 3*time.Second {
			t.Errorf("stopped after %v", took)
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		r.reload(Config{ThreadsMax: 5})
		if n := r.threads.Load(); n != 0 {
			t.Errorf("%d workers", n)
		}
	})
}

// TestReloadSource: another source address takes another connection: whoever asks says it with each delivery.
func TestReloadSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var from []string
		n := newNetwork(acceptAll(func() {}))
		r := start(t, Config{IdleTimeout: time.Minute}, Deps{ReuseConnections: true, DialFrom: func(ctx context.Context, source netip.Addr, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			from = append(from, source.String())
			return n.dial(ctx, "tcp", addr)
		}}, n)
		q := question()
		for _, source := range []string{"192.0.2.7", "192.0.2.7", "192.0.2.8"} {
			q.Source = []netip.Addr{netip.MustParseAddr(source)}
			r.deliver(t, q)
			r.reload(r.now.Load().cfg)
		}
		if got := strings.Join(from, " "); got != "192.0.2.7 192.0.2.8" {
			t.Errorf("connections from %s", got)
		}
	})
}

// TestReloadProxy: what begins after a reload goes by the proxy, and what is under way does not.
func TestReloadProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var addrs sync.Map
		n := newNetwork(acceptAll(sleep(time.Second)))
		r := start(t, Config{}, Deps{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			addrs.Store(network+" "+addr, true)
			if network == "unix" {
				return nil, io.ErrUnexpectedEOF
			}
			return n.dial(ctx, network, addr)
		}}, nil)
		defer func() {
			_ = r.stop()
			n.group.Stop()
			if err := n.group.Wait(); err != nil {
				t.Error(err)
			}
		}()
		if a := r.deliver(t, question()); !a.Rcpts[0].Accepted() {
			t.Errorf("%+v", a.Rcpts)
		}
		r.reload(Config{ProxyPresent: true, Proxy: socks.Config{Type: "unix", Path: "/run/proxy"}})
		if a := r.deliver(t, question()); !strings.Contains(a.Rcpts[0].Text(), "proxy") {
			t.Errorf("%+v", a.Rcpts)
		}
		if _, ok := addrs.Load("unix /run/proxy"); !ok {
			t.Error("the proxy was not asked")
		}
	})
}

// TestReloadFeatures: mail for a class that has gone waits, and its connections go, too.
func TestReloadFeatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sessions atomic.Int32
		r := start(t, Config{SessionFeatures: []SessionFeature{{Name: "x"}}, IdleTimeout: time.Minute}, Deps{ReuseConnections: true}, newNetwork(greeters(&sessions)))
		q := question()
		q.SessionConf = &msg.Conf{SessionFeature: "x"}
		if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
			t.Errorf("%+v", a.Rcpts)
		}
		r.reload(Config{IdleTimeout: time.Minute})
		time.Sleep(leavingFor)
		if a := r.deliver(t, q); a.Rcpts[0].Code != 451 || !strings.Contains(a.Rcpts[0].Text(), "session_features x") {
			t.Errorf("%+v", a.Rcpts)
		}
		synctest.Wait()
		if idle, _, _ := r.pool.counts(); idle != 0 {
			t.Errorf("%d connections of a class that has gone", idle)
		}
		r.reload(Config{SessionFeatures: []SessionFeature{{Name: "x"}}, IdleTimeout: time.Minute})
		if a := r.deliver(t, q); !a.Rcpts[0].Accepted() || a.Reused || sessions.Load() != 2 {
			t.Errorf("%+v, %d sessions", a.Rcpts, sessions.Load())
		}
	})
}

// TestReloadOfAClass: a class that comes is there at once. One that goes is there for what QMGR had decided on before it knew,
// with the options that it had and over a connection of its own, but for no longer, and not when another takes its place.
func TestReloadOfAClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(acceptAll(func() {}))
		with := Config{SessionFeatures: []SessionFeature{{Name: "x", Flags: []string{"no_starttls"}}}}
		r := start(t, Config{}, Deps{ReuseConnections: true}, n)
		accepts := func(want bool) {
			t.Helper()
			q := question()
			q.SessionConf = &msg.Conf{SessionFeature: "x"}
			if a := r.deliver(t, q); a.Rcpts[0].Accepted() != want {
				t.Errorf("%+v", a.Rcpts)
			}
		}
		accepts(false)
		r.reload(with)
		accepts(true)
		r.reload(Config{})
		accepts(true)
		if idle, _, _ := r.pool.counts(); idle != 0 {
			t.Errorf("%d connections of a class that has gone are kept", idle)
		}
		r.reload(Config{IOTimeout: time.Minute}) // another reload forgets nothing
		time.Sleep(leavingFor - time.Second)
		accepts(true)
		time.Sleep(2 * time.Second)
		accepts(false)
		r.reload(with)
		if cl := r.now.Load().class("x", time.Now()); cl.retired || len(r.now.Load().leaving) != 0 {
			t.Errorf("it has come again as %+v", cl)
		}
		accepts(true)
	})
}
