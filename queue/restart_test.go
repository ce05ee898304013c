package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/mta/vfs/crashfs"
)

// modules runs each module by itself, so that each may end and start again while the others,
// and what they have been granted, live on.
type modules struct {
	w     *world
	q     *Queue
	ended map[string]func() // ends the module of that name
}

func startModules(w *world) *modules {
	m := &modules{w: w, ended: map[string]func(){}}
	for _, name := range []string{"qmgr", "smar", "smtpc"} {
		m.start(name)
	}
	w.stop = func() error {
		for _, name := range []string{"qmgr", "smar", "smtpc"} {
			m.ended[name]()
		}
		return nil
	}
	return m
}

func (m *modules) start(name string) {
	w := m.w
	g := supervise.NewGroup(context.Background())
	switch name {
	case "smar":
		serve(g, w.ports.Route, func(q msg.RouteQ) msg.RouteA { return w.route(q) })
	case "smtpc":
		serve(g, w.ports.Deliver, func(q msg.DeliverQ) msg.DeliverA { return w.deliver(q) })
	case "qmgr":
		q, err := New(w.cfg, Deps{
			Ports: w.ports, Hostname: "mta.test", Dir: "spool", FS: crashfs.FS(w.disk, w.space),
			Log: slog.New(slog.NewTextHandler(w.log, nil)), Fatal: w.fatal,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		m.q = q
		g.Go(q.Run)
	}
	m.ended[name] = func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			w.t.Errorf("%s ended with %v", name, err)
		}
	}
}

// restart ends a module and starts it again after a while.
func (m *modules) restart(name string) {
	m.ended[name]()
	time.Sleep(300 * time.Millisecond)
	m.start(name)
	time.Sleep(time.Millisecond)
}

// TestGrantsOfAFormerInstance: what QMGR has granted ends with it. A transaction that began
// before it was restarted gets 451 and loses nothing, a session that it counted is not taken
// out of the counts of the next one, and content whose message it has acknowledged stays.
func TestGrantsOfAFormerInstance(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.OrphanGrace = time.Minute
		var down atomic.Bool
		down.Store(true)
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if down.Load() {
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		ctx := context.Background()
		m := startModules(w)
		time.Sleep(time.Second)
		large := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 20_000)
		if r, err := w.submit(m.q, "s@here.test", large, "kept@d.test"); err != nil || !r.IsZero() {
			t.Fatal(r, err)
		}
		client := msg.AdmitQ{Kind: msg.NewSession, Client: addr("192.0.2.9")}
		session, err := w.ports.Admit.Ask(ctx, client)
		if err != nil {
			t.Fatal(err)
		}
		begin := func() (msg.AdmitA, *msg.Envelope) {
			a, err := w.ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction, Session: session.ID})
			if err != nil {
				t.Fatal(err)
			}
			return a, &msg.Envelope{TA: a.ID, Arrival: time.Now(), Mail: msg.Mail{From: path("s@here.test")}, Rcpts: []msg.Rcpt{{To: path("late@d.test")}}}
		}
		_, first := begin()
		old := m.q.Content()
		writer, err := old.Create(first.TA)
		if err != nil {
			t.Fatal(err)
		}
		_, second := begin()
		m.restart("qmgr")

		_, _ = writer.Write([]byte(large))
		_ = writer.Commit(first) // the file may be whole: nobody has acknowledged it
		if a, err := w.ports.Commit.Ask(ctx, msg.CommitQ{Envelope: first, Size: int64(len(large))}); err != nil || a.Reply.Code != 451 {
			t.Errorf("content of the former instance: %v, %v", a.Reply, err)
		}
		if a, err := w.ports.Commit.Ask(ctx, msg.CommitQ{Envelope: second, Inline: []byte("m"), Size: 1}); err != nil || a.Reply.Code != 451 {
			t.Errorf("id of the former instance: %v, %v", a.Reply, err)
		}
		if _, err := m.q.Content().Create(second.TA); err == nil {
			t.Error("a content file for an id of the former instance")
		}
		for range w.cfg.SMTPS.ConnectionsMax { // the next instance counts anew
			if a, err := w.ports.Admit.Ask(ctx, client); err != nil || !a.Reply.IsZero() {
				t.Fatalf("%v, %v", a.Reply, err)
			}
		}
		end := msg.AdmitQ{Kind: msg.EndSession, Client: client.Client, Session: session.ID}
		if _, err := w.ports.Admit.Ask(ctx, end); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // or it is the rate that refuses
		if a, _ := w.ports.Admit.Ask(ctx, client); a.Reply.Code != 421 {
			t.Errorf("the end of a session of the former instance made room: %v", a.Reply)
		}
		time.Sleep(10 * time.Minute) // the search for orphans has passed
		down.Store(false)
		time.Sleep(3 * time.Hour)
		if w.got("kept@d.test", large) != 1 {
			t.Error("acknowledged mail did not arrive")
		}
		if n := len(w.all("late@d.test")); n != 0 {
			t.Errorf("refused mail arrived %d times", n)
		}
		w.checkEmpty()
	})
}

// TestContentOfAFormerInstance: a delivery that goes on while QMGR is restarted gets the whole
// content or an error, never a part.
func TestContentOfAFormerInstance(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		content := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 2000)
		var body atomic.Pointer[msg.Body]
		var serves atomic.Bool
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if serves.Load() {
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			body.Store(&q.Body)
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		m := startModules(w)
		time.Sleep(time.Second)
		w.mustSend(m.q, "s@here.test", content, "r@d.test")
		time.Sleep(time.Second)
		m.restart("qmgr")
		r, err := (*body.Load()).Open()
		if err == nil {
			b, rerr := io.ReadAll(r)
			if rerr == nil && string(b) != content {
				t.Errorf("%d bytes of %d without an error", len(b), len(content))
			}
		}
		serves.Store(true)
		time.Sleep(2 * time.Hour)
		w.checkEmpty()
	})
}

// TestModulesRestart restarts each module at every step of a scenario in which mail is
// accepted in memory and as a file, delivered, deferred, bounced and expanded, while the
// sessions and deliveries of the others live on. What was acknowledged arrives, what was
// refused is sent again as a client does, and no restart costs the mail a retry time.
func TestModulesRestart(t *testing.T) {
	for _, name := range []string{"qmgr", "smar", "smtpc"} {
		for at := 0; ; at += restartStride {
			steps := 0
			ok := t.Run(fmt.Sprintf("%s at step %d", name, at), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) { steps = chaos(w, name, at) })
			})
			if !ok || at >= steps {
				break
			}
		}
	}
}

// chaos plays the scenario, restarts a module at one step, and returns the number of steps.
func chaos(w *world, name string, at int) (steps int) {
	t, ctx := w.t, context.Background()
	w.cfg.ReturnDefault = 2 * time.Hour
	w.route = func(q msg.RouteQ) msg.RouteA {
		time.Sleep(20 * time.Millisecond)
		if q.Rcpt.Domain == "alias.test" {
			return msg.RouteA{Expand: []msg.Expansion{{Rcpts: []smtp.Path{path("x@good.test"), path("y@good.test")}}}}
		}
		return routeTo(q.Rcpt.Domain)
	}
	tries := map[string]int{}
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		time.Sleep(20 * time.Millisecond)
		to := q.Rcpts[0].To
		w.mu.Lock()
		tries[to.Addr()]++
		n := tries[to.Addr()]
		w.mu.Unlock()
		switch {
		case to.Domain == "bad.test":
			return w.take(q, smtp.NewReply(550, "5.1.1", "no"))
		case to.Domain == "slow.test" && n == 1:
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		return w.take(q, smtp.NewReply(250, "", "ok"))
	}
	m := startModules(w)
	time.Sleep(time.Second)
	step := func() {
		if steps == at {
			m.restart(name)
		}
		steps++
	}
	large := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 20_000)
	// send is one transaction as the server does it, with a step before each question.
	send := func(content string, to ...string) error {
		step()
		a, err := w.ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction})
		if err != nil {
			return err
		}
		e := &msg.Envelope{TA: a.ID, Arrival: time.Now(), Mail: msg.Mail{From: path("s@here.test")}}
		for _, r := range to {
			e.Rcpts = append(e.Rcpts, msg.Rcpt{To: path(r)})
		}
		step()
		cq := msg.CommitQ{Envelope: e, Inline: []byte(content), Size: int64(len(content))}
		if cq.Size > a.InlineMax {
			cq.Inline = nil
			c, err := m.q.Content().Create(e.TA)
			if err != nil {
				return err
			}
			defer c.Abort()
			step()
			if _, err := c.Write([]byte(content)); err != nil {
				return err
			}
			step()
			if err := c.Commit(e); err != nil {
				return err
			}
		}
		step()
		answer, err := w.ports.Commit.Ask(ctx, cq)
		if err == nil && !answer.Reply.IsZero() {
			err = answer.Reply
		}
		return err
	}
	for _, s := range []struct {
		content string
		to      []string
	}{
		{"small", []string{"a@good.test", "b@slow.test"}},
		{large, []string{"c@good.test", "d@slow.test"}},
		{"bad", []string{"e@bad.test", "f@good.test"}},
		{"all", []string{"all@alias.test"}},
	} {
		for try := 0; ; try++ {
			err := send(s.content, s.to...)
			if err == nil {
				break
			}
			var r smtp.Reply
			if try > 3 || !errors.Is(err, msg.ErrDown) && errors.As(err, &r) && !r.Temporary() {
				t.Fatalf("%v: %v", s.to, err)
			}
			time.Sleep(time.Second) // the client comes again
		}
		for range 4 { // while it is routed and delivered
			step()
			time.Sleep(15 * time.Millisecond)
		}
	}
	time.Sleep(10 * time.Second) // far less than retry_delay_min
	step()
	for rcpt, content := range map[string]string{"a@good.test": "small", "c@good.test": large, "f@good.test": "bad", "x@good.test": "all", "y@good.test": "all", "s@here.test": ""} {
		if got := w.all(rcpt); len(got) == 0 || content != "" && got[0] != content {
			t.Errorf("%s got %d messages soon", rcpt, len(got))
		}
	}
	time.Sleep(5 * time.Minute)
	for rcpt, content := range map[string]string{"b@slow.test": "small", "d@slow.test": large} {
		if w.got(rcpt, content) == 0 {
			t.Errorf("%s did not get it after retry_delay_min", rcpt)
		}
	}
	w.checkEmpty()
	if t.Failed() {
		t.Log(w.log)
	}
	return steps
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
