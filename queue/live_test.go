package queue

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
	"meta1/queue/records"
)

// live is a queue on a real disk and in real time, for what depends on them. The
// resolver and the client beside it are fakes.
type live struct {
	tb      testing.TB
	dir     string
	fs      vfs.FS // nil: the real one
	cfg     Config
	ports   *msg.Ports
	deliver func(msg.DeliverQ) msg.DeliverA
	q       *Queue
}

func newLive(tb testing.TB) *live {
	tb.Helper()
	return &live{
		tb: tb, dir: tb.TempDir(), cfg: defaults(tb), ports: msg.NewPorts(),
		deliver: func(q msg.DeliverQ) msg.DeliverA { return answerAll(q, smtp.NewReply(250, "2.0.0", "ok")) },
	}
}

// answerAll gives all recipients the same reply.
func answerAll(q msg.DeliverQ, reply smtp.Reply) msg.DeliverA {
	a := msg.DeliverA{Stage: msg.DeliverDone, Rcpts: make([]smtp.Reply, len(q.Rcpts))}
	for i := range a.Rcpts {
		a.Rcpts[i] = reply
	}
	return a
}

// open opens the queue.
func (l *live) open() (*Queue, error) {
	return New(l.cfg, Deps{
		Ports: l.ports, Hostname: "mta.test", Dir: l.dir, FS: l.fs, Log: slog.New(slog.DiscardHandler),
		Fatal: func(err error) { l.tb.Error("fatal:", err) },
	})
}

// start opens the queue and serves. stop ends it.
func (l *live) start() (stop func()) {
	l.tb.Helper()
	q, err := l.open()
	if err != nil {
		l.tb.Fatal(err)
	}
	return l.run(q)
}

// run serves. stop ends it.
func (l *live) run(q *Queue) (stop func()) {
	l.tb.Helper()
	l.q = q
	others := supervise.NewGroup(context.Background())
	serve(others, l.ports.Route, func(q msg.RouteQ) msg.RouteA { return routeTo(q.Rcpt.Domain) })
	serve(others, l.ports.Deliver, func(q msg.DeliverQ) msg.DeliverA { return l.deliver(q) })
	run := supervise.NewGroup(context.Background())
	run.Go(q.Run)
	return func() {
		l.tb.Helper()
		run.Stop()
		if err := run.Wait(); err != nil {
			l.tb.Error(err)
		}
		others.Stop()
		if err := others.Wait(); err != nil {
			l.tb.Error(err)
		}
	}
}

// accept has the queue take one message, as the server does it, and waits for the
// time until it serves.
func (l *live) accept(content []byte, to ...msg.Rcpt) error {
	ctx := context.Background()
	a, err := l.ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction, Size: int64(len(content))})
	for end := time.Now().Add(time.Minute); err == msg.ErrDown && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		a, err = l.ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction, Size: int64(len(content))})
	}
	if err != nil {
		return err
	}
	if !a.Reply.IsZero() {
		return a.Reply
	}
	e := &msg.Envelope{TA: a.ID, Arrival: time.Now(), Mail: msg.Mail{From: path("s@here.test")}, Rcpts: to}
	q := msg.CommitQ{Envelope: e, Inline: content, Size: int64(len(content))}
	if q.Size > a.InlineMax {
		q.Inline = nil
		if err := writeContent(l.q.Content(), e, content); err != nil {
			return err
		}
	}
	c, err := l.ports.Commit.Ask(ctx, q)
	if err == nil && !c.Reply.IsZero() {
		err = c.Reply
	}
	return err
}

func writeContent(s msg.ContentStore, e *msg.Envelope, content []byte) error {
	w, err := s.Create(e.TA)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		w.Abort()
		return err
	}
	return w.Commit(e)
}

// status is one value of the queue's snapshot.
func (l *live) status(name string) string { l.tb.Helper(); return statusOf(l.tb, l.ports, name) }

func statusOf(tb testing.TB, ports *msg.Ports, name string) string {
	tb.Helper()
	a, err := ports.Status["qmgr"].Ask(context.Background(), msg.StatusQ{})
	if err != nil {
		tb.Fatal(err)
	}
	for _, v := range a.Values {
		if v.Name == name {
			return cmp.Or(v.Text, strconv.FormatInt(v.Number, 10))
		}
	}
	tb.Fatalf("status has no %s", name)
	return ""
}

// listAll lists the queue page by page, as mailq does, and returns the number of
// recipients.
func (l *live) listAll() (rcpts int) {
	l.tb.Helper()
	for after := ""; ; {
		a, err := l.ports.List.Ask(context.Background(), msg.ListQ{After: after})
		if err != nil || a.Err != "" {
			l.tb.Fatal(err, a.Err)
		}
		rcpts += len(a.Entries)
		if !a.More {
			return rcpts
		}
		last := a.Entries[len(a.Entries)-1]
		after = smtp.RcptID(last.TA, last.Index)
	}
}

// fillDeferred puts messages into the store, each with some recipients
// that are due one after another from first on, step apart.
func (l *live) fillDeferred(messages, rcpts int, first time.Time, step time.Duration) {
	l.tb.Helper()
	fatal := func(err error) {
		if err != nil {
			l.tb.Helper()
			l.tb.Fatal(err)
		}
	}
	opts := store.Options{Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { l.tb.Error(err) }}
	db, err := records.Open(vfs.Real(), filepath.Join(l.dir, "defedb"), opts)
	fatal(err)
	id, err := db.ReserveIDs(uint64(messages))
	fatal(err)
	b := db.NewBatch()
	for i := range messages {
		e := deferredEnvelope(smtp.ID{Counter: id + uint64(i)}, i, rcpts)
		text := fmt.Sprintf("Subject: number %d\r\n\r\ntext\r\n", i)
		fatal(b.Accept(e, int64(len(text)), []byte(text)))
		fatal(b.DropAccepted(e.TA, nil))
		for r := range e.Rcpts {
			due := first.Add(time.Duration(i*rcpts+r) * step)
			fatal(b.Put(&records.State{
				Ref: records.Ref{TA: e.TA, Index: r}, NextTry: due, Stored: due.Add(-time.Hour), Waited: time.Hour, Attempts: 3, Dest: "mx:" + e.Rcpts[r].To.Domain,
				Reason: "451 4.7.1 <" + e.Rcpts[r].To.Addr() + ">: Recipient address rejected: greylisted, please try again later",
			}, nil))
		}
		if (i+1)%2000 == 0 || i == messages-1 {
			fatal(db.Commit(b))
			b = db.NewBatch()
		}
	}
	b.Discard()
	fatal(db.Close())
	// Another start flushes what is in the log, and so that a later one finds it at
	// rest, it waits for what follows.
	db, err = records.Open(vfs.Real(), filepath.Join(l.dir, "defedb"), opts)
	fatal(err)
	for idle := 0; idle < 10; time.Sleep(10 * time.Millisecond) {
		if m := db.Store().Metrics(); m.Compact.NumInProgress > 0 || m.Flush.NumInProgress > 0 {
			idle = 0
		} else {
			idle++
		}
	}
	fatal(db.Close())
}

// deferredEnvelope is message number i to some recipients, whose domains are some
// thousand.
func deferredEnvelope(ta smtp.ID, i, rcpts int) *msg.Envelope {
	e := &msg.Envelope{
		TA: ta, Arrival: time.Now().Add(-time.Hour),
		Client: msg.Client{Helo: "client.example.test", Name: "client.example.test.", Resolve: "ok", Protocol: "ESMTP"},
		Mail:   msg.Mail{From: path(fmt.Sprintf("bounces+%d@sender.example.test", i))},
	}
	for r := range rcpts {
		e.Rcpts = append(e.Rcpts, to(fmt.Sprintf("some.user%d@domain%d.example.test", r, (i*7+r)%5000), ""))
	}
	return e
}

// memory is a value of /proc/self/status in MiB, or 0 where there is none.
func memory(name string) (mib float64) {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, name+":%f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}
