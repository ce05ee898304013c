package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta1/confparse"
	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
	"meta1/queue/records"
)

// world is a queue between a fake resolver and a fake client, on a disk in memory.
type world struct {
	t     *testing.T
	disk  *crashfs.Disk
	fs    vfs.FS // nil: disk as it is
	space func() (int64, int64)
	now   func() time.Time // nil: time.Now
	cfg   Config
	ports *msg.Ports
	log   *logText

	features []string    // session_features of smtpc
	memory   *msg.Memory // the budget, shared with servers; nil: the queue's own
	hold     string      // Hold of what is submitted

	route   func(msg.RouteQ) msg.RouteA
	deliver func(msg.DeliverQ) msg.DeliverA

	mu        sync.Mutex          // guards delivered
	delivered map[string][]string // content by recipient

	ctx   context.Context // of all questions
	fatal func(error)
	stop  func() error
}

func defaults(t testing.TB) Config {
	t.Helper()
	var c Config
	files := confparse.LoadOptions{FS: confparse.Files{"/meta1.conf": ""}}
	if _, err := confparse.Load(files, "/meta1.conf", c.Options()); err != nil {
		t.Fatal(err)
	}
	return c
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, disk: crashfs.New(), cfg: defaults(t), ports: msg.NewPorts(),
		log: new(logText), delivered: map[string][]string{}, ctx: context.Background(),
		fatal: func(err error) { t.Error("fatal:", err) },
	}
	w.space = func() (int64, int64) { return 1 << 30, 64 << 20 } // a small disk has small reserves
	w.cfg.RetryMin, w.cfg.RetryMax = time.Minute, time.Hour
	if err := vfs.MakeDir(crashfs.FS(w.disk, nil), "spool", 0o700); err != nil {
		t.Fatal(err)
	}
	w.route = func(q msg.RouteQ) msg.RouteA { return routeTo(q.Rcpt.Domain) }
	w.deliver = func(q msg.DeliverQ) msg.DeliverA { return w.take(q, smtp.NewReply(250, "2.0.0", "ok")) }
	return w
}

// routeTo is a route over one host whose address depends on the domain.
func routeTo(domain string) msg.RouteA {
	sum := byte(1)
	for _, c := range []byte(domain) {
		sum += c
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, sum}), 25)
	return msg.RouteA{Hops: []msg.Hop{{Addr: addr, Host: "mx." + domain}}, Dest: "mx:" + domain}
}

// take notes what is delivered and answers for all recipients.
func (w *world) take(q msg.DeliverQ, reply smtp.Reply) msg.DeliverA {
	a := msg.DeliverA{Stage: msg.DeliverDone, Rcpts: make([]smtp.Reply, len(q.Rcpts))}
	var content string
	if reply.Accepted() {
		r, err := q.Body.Open()
		if err != nil {
			reply = smtp.NewReply(451, "4.3.0", err.Error())
		} else {
			b, err := io.ReadAll(r)
			if err != nil || int64(len(b)) != q.Body.Size() {
				w.t.Errorf("content: %d bytes of %d, %v", len(b), q.Body.Size(), err)
			}
			content = string(b)
			r.Close()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range q.Rcpts {
		a.Rcpts[i] = reply
		if reply.Accepted() {
			w.delivered[q.Rcpts[i].To.Addr()] = append(w.delivered[q.Rcpts[i].To.Addr()], content)
		}
	}
	return a
}

func failedHost(q msg.DeliverQ) msg.DeliverA {
	a := msg.DeliverA{HostFailed: true, Rcpts: make([]smtp.Reply, len(q.Rcpts))}
	for i := range a.Rcpts {
		a.Rcpts[i] = smtp.NewReply(451, "4.4.1", "connection refused")
	}
	return a
}

// start opens the queue on the disk as it is.
func (w *world) start() *Queue {
	w.t.Helper()
	fs := w.fs
	if fs == nil {
		fs = crashfs.FS(w.disk, w.space)
	}
	q, err := New(w.cfg, Deps{
		Ports: w.ports, Hostname: "mta.test", Dir: "spool", FS: fs, SessionFeatures: w.features, Now: w.now,
		Log: slog.New(slog.NewTextHandler(w.log, nil)), Fatal: w.fatal, Memory: w.memory,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	others := supervise.NewGroup(context.Background())
	serve(others, w.ports.Route, func(q msg.RouteQ) msg.RouteA { return w.route(q) })
	serve(others, w.ports.Deliver, func(q msg.DeliverQ) msg.DeliverA { return w.deliver(q) })
	run := supervise.NewGroup(ctx)
	run.Go(q.Run)
	w.stop = func() error {
		cancel()
		err := run.Wait()
		others.Stop()
		return errors.Join(err, others.Wait())
	}
	synctest.Wait()
	return q
}

// serve answers a port, each question in a goroutine of its own.
func serve[Q, A any](g *supervise.Group, p *msg.Port[Q, A], f func(Q) A) {
	requests, stop := p.Open()
	g.Go(func(ctx context.Context) error {
		defer stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case r := <-requests:
				g.Go(func(context.Context) error { r.Answer(f(r.Q)); return nil })
			}
		}
	})
}

// send submits a message as the server does and returns the reply.
func (w *world) send(q *Queue, from, content string, to ...string) smtp.Reply {
	w.t.Helper()
	r, err := w.submit(q, from, content, to...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// submit is send for a queue that may end before it answers.
func (w *world) submit(q *Queue, from, content string, to ...string) (smtp.Reply, error) {
	a, err := w.ports.Admit.Ask(w.ctx, msg.AdmitQ{Kind: msg.NewTransaction})
	if err != nil || !a.Reply.IsZero() {
		return a.Reply, err
	}
	e := &msg.Envelope{TA: a.ID, Arrival: time.Now(), Mail: msg.Mail{From: path(from)}}
	for _, r := range to {
		e.Rcpts = append(e.Rcpts, msg.Rcpt{To: path(r)})
	}
	cq := msg.CommitQ{Envelope: e, Inline: []byte(content), Size: int64(len(content)), Hold: w.hold}
	if int64(len(content)) > a.InlineMax {
		cq.Inline = nil
		if err := writeContent(q.Content(), e, []byte(content)); err != nil {
			return smtp.NewReply(452, "4.3.1", err.Error()), nil
		}
	}
	c, err := w.ports.Commit.Ask(w.ctx, cq)
	return c.Reply, err
}

func path(s string) smtp.Path {
	l, d, _ := strings.Cut(s, "@")
	return smtp.Path{Local: l, Domain: d}
}

func (w *world) mustSend(q *Queue, from, content string, to ...string) {
	w.t.Helper()
	if r := w.send(q, from, content, to...); !r.IsZero() {
		w.t.Fatalf("refused: %v", r)
	}
}

// all is what a recipient got.
func (w *world) all(rcpt string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.delivered[rcpt]...)
}

// status is one value of the queue's snapshot.
func (w *world) status(name string) string { w.t.Helper(); return statusOf(w.t, w.ports, name) }

// served is the number of recipients that got something.
func (w *world) served() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.delivered)
}

// got is how often a recipient got the content.
func (w *world) got(rcpt, content string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.delivered[rcpt] {
		if c == content {
			n++
		}
	}
	return n
}

// leftRecords are the keys of records in the store that belong to a message.
func leftRecords(q *Queue) (left []string) {
	err := q.db.Store().Reader().Scan(nil, nil, func(k, _ []byte) (bool, error) {
		if key, err := records.ParseKey(k); err != nil || key.Kind != records.KindStore && key.Kind != records.KindIDs {
			left = append(left, string(k))
		}
		return true, nil
	})
	if err != nil {
		left = append(left, err.Error())
	}
	return left
}

// checkEmpty stops the queue, starts it again and expects that nothing is left.
func (w *world) checkEmpty() {
	w.t.Helper()
	if err := w.stop(); err != nil {
		w.t.Fatal(err)
	}
	q := w.start()
	for _, k := range leftRecords(q) {
		w.t.Errorf("record %q is left", k)
	}
	time.Sleep(w.cfg.OrphanGrace * 2)
	if err := q.cdb.List(func(f cdbFile) error { w.t.Errorf("content %v is left", f.TA); return nil }, func(string) {}); err != nil {
		w.t.Error(err)
	}
	if err := w.stop(); err != nil {
		w.t.Fatal(err)
	}
	if m := q.deps.Memory.Used(); m != 0 {
		w.t.Errorf("%d bytes of content are still counted", m)
	}
	if total, _, granted, _ := q.budget.Used(); total != 0 || granted != 0 {
		w.t.Errorf("%d recipients and %d grants are still counted", total, granted)
	}
}

func bubble(t *testing.T, f func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

func TestDeliver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		q := w.start()
		w.mustSend(q, "s@x.test", "hello\r\n", "a@d.test", "b@d.test", "c@e.test")
		large := strings.Repeat("0123456789abcde\n", 20_000)
		w.mustSend(q, "s@x.test", large, "a@d.test")
		time.Sleep(time.Second)
		for _, r := range []string{"a@d.test", "b@d.test", "c@e.test"} {
			if w.got(r, "hello\r\n") != 1 {
				t.Errorf("%s got %q", r, w.all(r))
			}
		}
		if w.got("a@d.test", large) != 1 {
			t.Error("the large message did not arrive")
		}
		w.checkEmpty()
	})
}

func TestRetryUntilTheHostRecovers(t *testing.T) {
	for name, answer := range map[string]func(*world, msg.DeliverQ) msg.DeliverA{
		"refused by reply": func(w *world, q msg.DeliverQ) msg.DeliverA { return w.take(q, smtp.NewReply(451, "4.7.1", "later")) },
		"no connection":    func(_ *world, q msg.DeliverQ) msg.DeliverA { return failedHost(q) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				up := time.Now().Add(3 * time.Hour)
				attempts := 0
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					if time.Now().Before(up) {
						w.mu.Lock()
						attempts++
						w.mu.Unlock()
						return answer(w, q)
					}
					return w.take(q, smtp.NewReply(250, "", "ok"))
				}
				q := w.start()
				for i := range 30 {
					w.mustSend(q, "s@x.test", "m", fmt.Sprintf("r%d@d.test", i))
				}
				time.Sleep(30 * time.Second)
				a, err := w.ports.List.Ask(context.Background(), msg.ListQ{})
				if err != nil || len(a.Entries) != 30 || a.Entries[0].State != msg.StateDeferred || !strings.Contains(a.Entries[0].Reason, "4.") {
					t.Errorf("listing: %d entries, %v, first %+v", len(a.Entries), err, a.Entries[0])
				}
				time.Sleep(6 * time.Hour)
				for i := range 30 {
					if n := w.got(fmt.Sprintf("r%d@d.test", i), "m"); n != 1 {
						t.Errorf("recipient %d got it %d times", i, n)
					}
				}
				if attempts == 0 || attempts > 600 {
					t.Errorf("%d attempts", attempts)
				}
				w.checkEmpty()
			})
		})
	}
}

func TestBounceGoesToTheSender(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "bad.test" {
				return w.take(q, smtp.NewReply(550, "5.1.1", "no such user"))
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "sender@x.test", "Subject: s\r\n\r\nbody\r\n", "a@bad.test", "ok@d.test", "b@bad.test")
		w.mustSend(q, "", "Subject: s\r\n\r\nbody\r\n", "c@bad.test")
		time.Sleep(time.Second)
		got := strings.Join(w.all("sender@x.test"), "")
		if strings.Count(got, "550 5.1.1 <") != 2 || len(w.all("sender@x.test")) != 1 || !strings.Contains(got, "\r\nbody\r\n") {
			t.Errorf("bounces: %q", got)
		}
		if len(w.all("ok@d.test")) != 1 || w.served() != 2 {
			t.Errorf("delivered to %d", w.served())
		}
		w.checkEmpty()
	})
}

func TestExpiryBounces(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.ReturnDefault = 24 * time.Hour
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "down.test" {
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "sender@x.test", "Subject: s\r\n\r\nbody\r\n", "a@down.test")
		time.Sleep(w.cfg.ReturnDefault - time.Hour)
		if len(w.all("sender@x.test")) != 0 {
			t.Error("given up too early")
		}
		time.Sleep(4 * time.Hour)
		if got := strings.Join(w.all("sender@x.test"), ""); !strings.Contains(got, "maximum time in queue exceeded") || !strings.Contains(got, "connection refused") {
			t.Errorf("bounce %q", got)
		}
		w.checkEmpty()
	})
}

func TestExpansionReplacesTheRecipient(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.route = func(q msg.RouteQ) msg.RouteA {
			if q.Rcpt.Local == "list" && !q.Expanded {
				return msg.RouteA{Expand: []msg.Expansion{{Rcpts: []smtp.Path{path("a@d.test"), path("list@d.test")}, Owner: path("owner@d.test")}}}
			}
			return routeTo(q.Rcpt.Domain)
		}
		var from string
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			w.mu.Lock()
			from = q.Mail.From.Addr()
			w.mu.Unlock()
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		large := strings.Repeat("0123456789abcde\n", 20_000)
		w.mustSend(q, "s@x.test", "small", "list@d.test")
		w.mustSend(q, "s@x.test", large, "list@d.test")
		time.Sleep(time.Second)
		for _, c := range []string{"small", large} {
			if w.got("a@d.test", c) != 1 || w.got("list@d.test", c) != 1 {
				t.Errorf("message of %d bytes: %d and %d", len(c), w.got("a@d.test", c), w.got("list@d.test", c))
			}
		}
		if from != "owner@d.test" {
			t.Errorf("sender %q", from)
		}
		w.checkEmpty()
	})
}

func TestAHangingHostHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "hang.test" {
				time.Sleep(5 * time.Minute)
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		for i := range 200 {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("r%d@hang.test", i))
		}
		for i := range 200 {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("r%d@good.test", i))
		}
		time.Sleep(time.Second)
		if n := w.served(); n != 200 {
			t.Errorf("%d of 200 good recipients were served", n)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestNextHostIsTried(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		first, second := routeTo("one.test").Hops[0], routeTo("two.test").Hops[0]
		w.route = func(msg.RouteQ) msg.RouteA { return msg.RouteA{Hops: []msg.Hop{first, second}, Dest: "mx:d.test"} }
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Hop == first {
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "s@x.test", "m", "a@d.test")
		time.Sleep(time.Second)
		if w.got("a@d.test", "m") != 1 {
			t.Error("the second host was not tried")
		}
		w.checkEmpty()
	})
}

func TestFullDiskRefusesAndRecovers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		free := int64(1 << 30)
		w.space = func() (int64, int64) { w.mu.Lock(); defer w.mu.Unlock(); return free, 1 << 34 }
		set := func(n int64) {
			w.mu.Lock()
			free = n
			w.mu.Unlock()
			time.Sleep(time.Second)
		}
		q := w.start()
		w.mustSend(q, "s@x.test", "one", "a@d.test")
		set(1 << 20)
		if r := w.send(q, "s@x.test", "two", "a@d.test"); r.Code != 452 {
			t.Errorf("on a full disk: %v", r)
		}
		if q.Accepting() == nil {
			t.Error("Accepting says nothing")
		}
		set(70 << 20) // above the minimum, below what is enough
		if r := w.send(q, "s@x.test", "two", "a@d.test"); r.Code != 452 {
			t.Errorf("on a disk that is not free enough: %v", r)
		}
		set(1 << 30)
		w.mustSend(q, "s@x.test", "three", "a@d.test")
		time.Sleep(time.Second)
		if w.got("a@d.test", "one")+w.got("a@d.test", "three") != 2 || w.got("a@d.test", "two") != 0 {
			t.Errorf("delivered to %d", w.served())
		}
		w.checkEmpty()
	})
}

func TestLostContentIsBounced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		down := true
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if down && q.Rcpts[0].To.Domain == "d.test" {
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "sender@x.test", strings.Repeat("x", 200_000), "a@d.test")
		time.Sleep(time.Second)
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if err := q.cdb.List(func(f cdbFile) error { _ = q.cdb.Remove(f.TA); return nil }, func(string) {}); err != nil {
			t.Fatal(err)
		}
		down = false
		w.start()
		time.Sleep(2 * time.Hour)
		if got := strings.Join(w.all("sender@x.test"), ""); !strings.Contains(got, "lost on disk") {
			t.Errorf("bounce %q", got)
		}
		w.checkEmpty()
	})
}

type cdbFile = cdb.File

// inAQ is the number of recipients in the active queue.
func (q *Queue) inAQ() int64 {
	n, _, _, _ := q.budget.Used()
	return int64(n)
}
