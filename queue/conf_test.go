package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
	"meta1/queue/conf"
)

// setConf makes the configuration map.
func (w *world) setConf(text string) {
	w.t.Helper()
	if w.cfg.Conf == "" || !w.cfg.ConfNamed {
		w.cfg.Conf, w.cfg.ConfNamed = filepath.Join(w.t.TempDir(), "qmgr_conf.db"), true
	}
	if _, err := maps.Create(w.cfg.Conf, strings.NewReader(text), maps.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) reload(q *Queue, text string) {
	w.t.Helper()
	w.setConf(text)
	if err := w.reconfigure(q); err != nil {
		w.t.Fatal(err)
	}
}

// reconfigure reloads the configuration as it is now.
func (w *world) reconfigure(q *Queue) error { return reload(q, w.cfg, w.features) }

// reload is what mta does at a reload.
func reload(q *Queue, cfg Config, features []string) error {
	next, err := q.Prepare(cfg, features)
	if err != nil {
		return err
	}
	next.Commit()
	return nil
}

// pause sleeps, and waits for what happens then, so that it can be looked at.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// peak counts deliveries that run at once, by domain.
type peak struct{ now, most map[string]int }

// of gives the most deliveries to a domain that ran at once.
func (p *peak) of(w *world, domain string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.most[domain]
}

// slow makes each delivery take a second.
func (w *world) slow() *peak {
	p := &peak{now: map[string]int{}, most: map[string]int{}}
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		domain := q.Rcpts[0].To.Domain
		w.mu.Lock()
		p.now[domain]++
		p.most[domain] = max(p.most[domain], p.now[domain])
		w.mu.Unlock()
		time.Sleep(time.Second)
		w.mu.Lock()
		p.now[domain]--
		w.mu.Unlock()
		return w.take(q, smtp.NewReply(250, "", "ok"))
	}
	return p
}

// sendMany sends n messages to each of the domains.
func (w *world) sendMany(q *Queue, n int, domains ...string) {
	w.t.Helper()
	for i := range n {
		for _, d := range domains {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("r%d@%s", i, d))
		}
	}
}

func addrOf(domain string) string { return routeTo(domain).Hops[0].Addr.Addr().String() }

func TestLimitsByAddress(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.setConf("oci: 2\nocm: 5\noci:" + addrOf("few.test") + " 1\nocm:" + addrOf("few.test") + " 3\n")
		p := w.slow()
		q := w.start()
		w.sendMany(q, 60, "few.test", "other.test")
		pause(500 * time.Millisecond)
		if few, other := p.of(w, "few.test"), p.of(w, "other.test"); few != 1 || other != 2 {
			t.Errorf("slow start with %d and %d", few, other)
		}
		pause(5 * time.Minute)
		if p.most["few.test"] != 3 || p.most["other.test"] != 5 || w.served() != 120 {
			t.Errorf("at most %v at once, %d served", p.most, w.served())
		}
		w.checkEmpty()
	})
}

// TestLimitsByDomain: connection_limits hold for recipients at the domain alone, on
// a host that others share, and limits for the address override them.
func TestLimitsByDomain(t *testing.T) {
	for name, c := range map[string]struct {
		extra               string
		most, other, txsMax int
	}{
		"domain":         {"ocm: 20\n", 2, 12, 7}, // an entry for all addresses does not
		"address":        {"oci:192.0.2. 4\nocm:192. 6\n", 6, 6, 7},
		"other address":  {"ocm:198.51.100. 6\n", 2, 12, 7},
		"without limits": {"", 2, 12, 7},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.cfg.SMTPC.Max = 12
				if c.extra == "ocm: 20\n" {
					c.other = 20
				}
				w.cfg.SMTPC.ConnectionLimits = []conf.ConnectionLimits{{Name: "low", Initial: 1, Max: 2, TransactionsMax: 7}}
				w.setConf("smtpc_conf_rcpt_domain:low.test connection_limits=low;\n" + c.extra)
				w.route = func(q msg.RouteQ) msg.RouteA { // one host for all
					a := routeTo("host.test")
					if c.most == 6 {
						a = routeTo(q.Rcpt.Domain) // the limit is per address, so two addresses
					}
					return a
				}
				p := w.slow()
				run, txs := w.deliver, map[string]int{}
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					w.mu.Lock()
					txs[q.Rcpts[0].To.Domain] = q.TransactionsMax
					w.mu.Unlock()
					return run(q)
				}
				q := w.start()
				w.sendMany(q, 100, "low.test", "x.test")
				pause(5 * time.Minute)
				if p.most["low.test"] != c.most || p.most["x.test"] != c.other || w.served() != 200 {
					t.Errorf("at most %v at once, %d served", p.most, w.served())
				}
				if txs["low.test"] != c.txsMax || txs["x.test"] != 0 {
					t.Errorf("transactions per session %v", txs)
				}
				w.checkEmpty()
			})
		})
	}
}

func TestReloadOfConf(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.setConf("ocm: 3\noci: 1\n")
		p := w.slow()
		q := w.start()
		w.sendMany(q, 30, "d.test")
		pause(time.Minute)
		if p.most["d.test"] != 3 {
			t.Errorf("at most %v at once", p.most)
		}
		w.setConf("ocm: none\n")
		if err := w.reconfigure(q); err == nil || !strings.Contains(err.Error(), `"ocm`) {
			t.Errorf("reload of a bad map: %v", err)
		}
		p.most = map[string]int{}
		w.sendMany(q, 30, "d.test")
		pause(time.Minute)
		if p.most["d.test"] != 3 {
			t.Errorf("after a failed reload at most %v at once", p.most)
		}
		w.reload(q, "ocm: 1\noci: 1\n")
		p.most = map[string]int{}
		w.sendMany(q, 30, "d.test")
		pause(time.Minute)
		if p.most["d.test"] != 1 { // the host is the one of before
			t.Errorf("after a reload at most %v at once", p.most)
		}
		w.checkEmpty()
	})
}

// TestConnectionRate: ocr counts connections that are opened, not deliveries.
func TestConnectionRate(t *testing.T) {
	for name, reuse := range map[string]bool{"opened": false, "reused": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.setConf("ocr:" + addrOf("d.test") + " 4\n")
				var opened []time.Time
				idle := 0
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					w.mu.Lock()
					reused := reuse && idle > 0
					if reused {
						idle--
					} else if q.Rcpts[0].To.Domain == "d.test" {
						opened = append(opened, time.Now())
					}
					w.mu.Unlock()
					time.Sleep(100 * time.Millisecond)
					a := w.take(q, smtp.NewReply(250, "", "ok"))
					a.Reused = reused
					w.mu.Lock()
					idle++
					w.mu.Unlock()
					return a
				}
				q := w.start()
				w.sendMany(q, 20, "d.test")
				pause(10 * time.Second)
				if n := w.served(); !reuse && n != 5 || reuse && n != 20 { // the fifth finds out
					t.Errorf("%d served at first", n)
				}
				w.sendMany(q, 20, "e.test")
				pause(10 * time.Minute)
				for i := 5; i < len(opened); i++ {
					if d := opened[i].Sub(opened[i-4]); d < time.Minute {
						t.Errorf("5 connections within %v", d)
					}
				}
				if w.served() != 40 || reuse == (len(opened) == 20) {
					t.Errorf("%d served, %d connections", w.served(), len(opened))
				}
				w.checkEmpty()
			})
		})
	}
}

// TestCacheTimeout: octo is how long a closed window stays closed, and after how long
// an unused host begins with slow start anew.
func TestCacheTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.setConf("octo: 10m\noci: 1\nocm: 8\n")
		down := true
		var attempts []time.Time
		p := w.slow()
		up := w.deliver
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			w.mu.Lock()
			failed := down
			attempts = append(attempts, time.Now())
			w.mu.Unlock()
			if failed {
				return failedHost(q)
			}
			return up(q)
		}
		q := w.start()
		w.sendMany(q, 1, "d.test")
		pause(35 * time.Minute)
		w.mu.Lock()
		if len(attempts) < 3 {
			t.Errorf("%d attempts", len(attempts))
		}
		for i := 1; i < len(attempts); i++ {
			if d := attempts[i].Sub(attempts[i-1]); d < 10*time.Minute {
				t.Errorf("attempt %d after %v", i, d)
			}
		}
		down = false
		w.mu.Unlock()
		pause(2 * time.Hour)
		for _, c := range []struct {
			pause time.Duration
			want  int // 0: the window may still grow
		}{{0, 0}, {0, 0}, {5 * time.Minute, 8}, {11 * time.Minute, 1}} {
			pause(c.pause)
			w.mu.Lock()
			p.most = map[string]int{}
			w.mu.Unlock()
			w.sendMany(q, 20, "d.test")
			pause(500 * time.Millisecond)
			if n := p.of(w, "d.test"); c.want > 0 && n != c.want {
				t.Errorf("after a pause of %v slow start with %d, want %d", c.pause, n, c.want)
			}
			pause(time.Minute)
		}
		w.checkEmpty()
	})
}

func TestSources(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.SMTPC.Sources = []conf.Source{
			{Name: "one", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.101")}},
			{Name: "two", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.102"), netip.MustParseAddr("2001:db8::102")}},
		}
		w.setConf("smtpc_conf_cltaddr:10. source = one;  source = two;\nsmtpc_conf_mail:boss@x.test source=one;\nsmtpc_conf_mail:x.test source=two;\n")
		got := map[string]string{}
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			w.mu.Lock()
			got[q.Rcpts[0].To.Local] = fmt.Sprint(q.Source)
			w.mu.Unlock()
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "boss@x.test", "m", "boss@d.test")
		w.mustSend(q, "other@x.test", "m", "other@d.test")
		w.mustSend(q, "boss@y.test", "m", "none@d.test")
		a, err := w.ports.Admit.Ask(context.Background(), msg.AdmitQ{Kind: msg.NewTransaction})
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.ports.Commit.Ask(context.Background(), msg.CommitQ{Inline: []byte("m"), Size: 1, Envelope: &msg.Envelope{
			TA: a.ID, Arrival: time.Now(), Mail: msg.Mail{From: path("boss@x.test")}, Rcpts: []msg.Rcpt{{To: path("net@d.test")}},
			Client: msg.Client{IP: netip.MustParseAddr("10.1.2.3")},
		}})
		if err != nil || !c.Reply.IsZero() {
			t.Fatal(c, err)
		}
		pause(time.Second)
		for rcpt, want := range map[string]string{
			"boss": "[192.0.2.101]", "other": "[192.0.2.102 2001:db8::102]", "none": "[]", "net": "[192.0.2.101 192.0.2.102 2001:db8::102]",
		} {
			if got[rcpt] != want {
				t.Errorf("sources for %s are %s, want %s", rcpt, got[rcpt], want)
			}
		}
		w.checkEmpty()
	})
}

func TestIncomingLimits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.setConf("icr: 7\nicm: 6\nicr:10. 3\nicm:10.1. 2\nicm:127.0.0.2 1\n")
		q := w.start()
		// connect tells how many of twenty sessions are let in that stay open, or end.
		connect := func(ip string, stay bool) (n int) {
			for range 20 {
				kind := msg.AdmitQ{Kind: msg.NewSession, Client: netip.MustParseAddr(ip)}
				a, err := w.ports.Admit.Ask(context.Background(), kind)
				if err != nil {
					t.Fatal(err)
				}
				if !a.Reply.IsZero() {
					continue
				}
				end := msg.AdmitQ{Kind: msg.EndSession, Client: kind.Client, Session: a.ID}
				if n++; stay {
					defer func() { _, _ = w.ports.Admit.Ask(context.Background(), end) }()
					continue
				}
				if _, err := w.ports.Admit.Ask(context.Background(), end); err != nil {
					t.Fatal(err)
				}
			}
			return n
		}
		check := func(ip string, rate, open int) {
			t.Helper()
			pause(3 * time.Minute)
			if n := connect(ip, true); n != open {
				t.Errorf("%s: %d open sessions, want %d", ip, n, open)
			}
			pause(3 * time.Minute)
			if n := connect(ip, false); n != rate {
				t.Errorf("%s: %d sessions in a minute, want %d", ip, n, rate)
			}
		}
		check("192.0.2.1", 7, 6)
		check("10.2.0.1", 3, 3)
		check("10.1.0.1", 3, 2)
		check("127.0.0.1", 20, 20)
		check("127.0.0.2", 20, 1)
		w.reload(q, "icr:192.0.2.1 5\n")
		check("192.0.2.1", 5, 5)
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestConfAtStart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		open := func() error {
			q, err := New(w.cfg, Deps{
				Ports: w.ports, Hostname: "mta.test", Dir: "spool", FS: crashfs.FS(w.disk, w.space),
				Log: slog.New(slog.NewTextHandler(w.log, nil)), Fatal: func(err error) { t.Error("fatal:", err) },
			})
			if err == nil {
				err = q.close()
			}
			return err
		}
		w.cfg.Conf = filepath.Join(t.TempDir(), "missing.db")
		if err := open(); err != nil {
			t.Errorf("a missing default map: %v", err)
		}
		w.cfg.ConfNamed = true
		if err := open(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing map that was named: %v", err)
		}
		w.setConf("smtpc_conf_cltaddr:10. source=none;\n")
		if err := open(); err == nil || !strings.Contains(err.Error(), `"smtpc_conf_cltaddr:10."`) || !strings.Contains(err.Error(), `"none"`) {
			t.Errorf("a section that does not exist: %v", err)
		}
	})
}

func TestConfIsNamed(t *testing.T) {
	for text, want := range map[string]bool{"": false, "conf = x.db;": true, "conf = qmgr_conf.db;": true} {
		var c Config
		files := confparse.LoadOptions{FS: confparse.Files{"/meta1.conf": text}}
		if _, err := confparse.Load(files, "/meta1.conf", c.Options()); err != nil || c.ConfNamed != want {
			t.Errorf("%q: %v, %v", text, c.ConfNamed, err)
		}
	}
}

// TestNextHostAfterARefusal: after a temporary refusal of the mail one more host is
// tried; after one that may be the content's none is.
func TestNextHostAfterARefusal(t *testing.T) {
	for name, c := range map[string]struct {
		stage  msg.DeliverStage
		failed bool
		proto  msg.Protocol
		tried  int // of the three hosts, in one attempt
	}{
		"421 or a 4xx greeting": {msg.DeliverGreeting, true, msg.ProtoSMTP, 3},
		"4xx to MAIL":           {msg.DeliverMail, false, msg.ProtoSMTP, 2},
		"4xx to RCPT":           {msg.DeliverRcpt, false, msg.ProtoSMTP, 2},
		"4xx to the final dot":  {msg.DeliverDone, false, msg.ProtoSMTP, 1},
		"4xx to RCPT of LMTP":   {msg.DeliverRcpt, false, msg.ProtoLMTP, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				hops := threeHops(c.proto)
				w.route = func(msg.RouteQ) msg.RouteA { return msg.RouteA{Hops: hops, Dest: "mx:d.test"} }
				tried, up := map[msg.Hop]int{}, false
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					w.mu.Lock()
					tried[q.Hop]++
					serves := up
					w.mu.Unlock()
					if serves {
						return w.take(q, smtp.NewReply(250, "", "ok"))
					}
					a := w.take(q, smtp.NewReply(451, "4.3.0", "later"))
					a.Stage, a.HostFailed = c.stage, c.failed
					return a
				}
				q := w.start()
				w.mustSend(q, "s@x.test", "m", "a@d.test")
				pause(10 * time.Second)
				if len(tried) != c.tried || tried[hops[0]] != 1 {
					t.Errorf("tried %v", tried)
				}
				w.mu.Lock()
				up = true
				w.mu.Unlock()
				pause(3 * time.Hour)
				if w.got("a@d.test", "m") != 1 {
					t.Errorf("got %q", w.all("a@d.test"))
				}
				w.checkEmpty()
			})
		})
	}
}

func threeHops(p msg.Protocol) (hops []msg.Hop) {
	for _, d := range []string{"one.test", "two.test", "three.test"} {
		h := routeTo(d).Hops[0]
		h.Protocol = p
		hops = append(hops, h)
	}
	return hops
}

// TestARefusedMailHoldsNobodyUp: mail that the first host refuses, and for which the
// second is down, does not defer other mail for the first.
func TestARefusedMailHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.SMTPC.Initial = 1
		hops := threeHops(msg.ProtoSMTP)[:2]
		w.route = func(msg.RouteQ) msg.RouteA { return msg.RouteA{Hops: hops, Dest: "mx:d.test"} }
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			time.Sleep(time.Second)
			if q.Hop == hops[1] {
				return failedHost(q)
			}
			if strings.HasPrefix(q.Rcpts[0].To.Local, "bad") {
				a := w.take(q, smtp.NewReply(451, "4.2.0", "mailbox is busy"))
				a.Stage = msg.DeliverRcpt
				return a
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		for i := range 10 {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("bad%d@d.test", i))
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("good%d@d.test", i))
		}
		pause(40 * time.Second)
		if n := w.served(); n != 10 {
			t.Errorf("%d of 10 good recipients were served", n)
		}
		reasons := []string{}
		for _, e := range w.listAll() {
			reasons = append(reasons, e.Reason)
		}
		if len(reasons) != 10 || slices.ContainsFunc(reasons, func(s string) bool { return !strings.Contains(s, "4.") }) {
			t.Errorf("what is left waits because of %q", reasons)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}
