package queue

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
)

// story is a scripted scenario over the whole queue: accepted in memory and as a file,
// delivered, deferred, bounced with a merged notice, expanded, spilled for want of
// memory, held and released, expired by an operator and by time, and a reload. It
// remembers what was promised.
type story struct {
	w      *world
	cancel context.CancelFunc // ends the scenario
	onAck  func()             // called after an acknowledgement, with mu held; may be nil

	mu    sync.Mutex // guards what follows
	over  error      // why the process has ended: nothing counts any more
	disk  *crashfs.Disk
	acked map[string]string // content by recipient that is owed it; "" for a bounce
	done  map[string]bool   // recipients that got it
	tries map[string]int
	cut   snapshot // see crashAfter
}

func newStory(w *world) *story {
	s := &story{w: w, acked: map[string]string{}, done: map[string]bool{}, tries: map[string]int{}}
	w.ctx, s.cancel = context.WithCancel(context.Background())
	configureStory(w)
	w.deliver = s.deliver
	return s
}

// configureStory makes a queue on which a small scenario shows much.
func configureStory(w *world) {
	c := &w.cfg
	c.IBDB.ContentMax, c.ContentMemory = 64<<10, 100<<10
	w.space = func() (int64, int64) { return 1 << 30, 16 << 20 } // the logs and tables of a small disk are small
	c.DSN.MergeDelay = 2 * time.Second
	c.ReturnDefault, c.RetryMin, c.RetryMax = 10*time.Minute, 30*time.Second, 3*time.Minute
	c.SMTPC.Initial, c.SMTPC.Max = 1, 1
	w.route = func(q msg.RouteQ) msg.RouteA {
		if q.Rcpt.Domain == "alias.test" {
			to := []smtp.Path{path("x" + q.Rcpt.Local + "@good.test"), path("y" + q.Rcpt.Local + "@slow.test")}
			return msg.RouteA{Expand: []msg.Expansion{{Rcpts: to}}}
		}
		return nested(q)
	}
}

// nested is a route over which list@list.test is two lists, one inside of the other.
func nested(q msg.RouteQ) msg.RouteA {
	user, isList := strings.CutPrefix(q.Rcpt.Local, "list")
	if !isList || q.Expanded {
		return routeTo(q.Rcpt.Domain)
	}
	return msg.RouteA{Expand: []msg.Expansion{
		{Rcpts: []smtp.Path{path("outer" + user + "@good.test")}, Owner: path("owner-outer@own.test")},
		{Rcpts: []smtp.Path{path("inner" + user + "@good.test"), path("gone" + user + "@bad.test")}, Owner: path("owner-inner" + user + "@own.test")},
	}}
}

// deliver is the other side.
func (s *story) deliver(q msg.DeliverQ) msg.DeliverA {
	to := q.Rcpts[0].To
	s.mu.Lock()
	s.tries[to.Addr()]++
	first := s.tries[to.Addr()] == 1
	s.mu.Unlock()
	switch {
	case to.Domain == "dead.test", first && (to.Domain == "slow.test" || to.Domain == "held.test"):
		return s.w.take(q, smtp.NewReply(451, "4.7.1", "later"))
	case to.Domain == "bad.test":
		return s.w.take(q, smtp.NewReply(550, "5.1.1", "no"))
	case to.Domain == "hang.test":
		time.Sleep(5 * time.Second)
	}
	a := s.w.take(q, smtp.NewReply(250, "", "ok"))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range q.Rcpts {
		if s.over == nil && a.Rcpts[i].Accepted() {
			s.done[r.To.Addr()] = true
		}
	}
	return a
}

// send sends one message. If it is acknowledged, all in owed are owed its content.
func (s *story) send(q *Queue, i, size int, to, owed []string) {
	content := fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", size))
	from := fmt.Sprintf("sender%d@here.test", i)
	r, err := s.w.submit(q, from, content, to...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || !r.IsZero() || s.over != nil {
		return
	}
	for _, rcpt := range owed {
		if rcpt == from || strings.HasPrefix(rcpt, "owner-") {
			s.acked[rcpt] = ""
		} else {
			s.acked[rcpt] = content
		}
	}
	if s.onAck != nil {
		s.onAck()
	}
}

// run plays the scenario, until the process ends.
func (s *story) run(q *Queue) {
	for i := range 20 { // more than a log takes
		rcpt := fmt.Sprintf("a%d@bulk.test", i)
		s.send(q, 100+i, 60<<10, []string{rcpt}, []string{rcpt})
		s.sleep(10 * time.Millisecond)
	}
	type rcpts []string
	for i, m := range []struct {
		size     int
		to, owed rcpts
	}{
		{10, rcpts{"a0@good.test", "b0@slow.test"}, rcpts{"a0@good.test", "b0@slow.test"}},
		{60 << 10, rcpts{"a1@slow.test", "b1@bad.test"}, rcpts{"a1@slow.test", "sender1@here.test"}},
		{80 << 10, rcpts{"a2@good.test", "b2@slow.test", "c2@bad.test", "d2@bad.test"}, rcpts{"a2@good.test", "b2@slow.test", "sender2@here.test"}},
		{10, rcpts{"3@alias.test"}, rcpts{"x3@good.test", "y3@slow.test"}},
		{80 << 10, rcpts{"4@alias.test"}, rcpts{"x4@good.test", "y4@slow.test"}},
		{50 << 10, rcpts{"a5@hang.test"}, rcpts{"a5@hang.test"}},
		{50 << 10, rcpts{"a6@hang.test"}, rcpts{"a6@hang.test"}},
		{10, rcpts{"a7@dead.test"}, rcpts{"sender7@here.test"}},
		{10, rcpts{"a8@held.test"}, rcpts{"a8@held.test"}},
		{10, rcpts{"a9@dead.test"}, rcpts{"sender9@here.test"}},
		{10, rcpts{"list10@list.test"}, rcpts{"outer10@good.test", "inner10@good.test", "owner-inner10@own.test"}},
		{80 << 10, rcpts{"list11@list.test"}, rcpts{"outer11@good.test", "inner11@good.test", "owner-inner11@own.test"}},
	} {
		s.send(q, i, m.size, m.to, m.owed)
		s.sleep(100 * time.Millisecond)
	}
	s.sleep(15 * time.Second)
	s.operate(msg.OpHold, msg.Selection{Domain: "held.test"})
	s.operate(msg.OpExpire, msg.Selection{Rcpt: "a9@dead.test"})
	if err := s.w.reconfigure(q); err != nil {
		s.w.t.Error(err)
	}
	s.sleep(2 * time.Minute)
	s.operate(msg.OpRelease, msg.Selection{})
	s.sleep(15 * time.Minute)
}

func (s *story) operate(op msg.Operation, which msg.Selection) {
	_, _ = s.w.ports.Operate.Ask(s.w.ctx, msg.OperateQ{Op: op, Select: which}) // it may fail with the disk
}

func (s *story) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.w.ctx.Done():
	}
}

// snapshotLocked is what was promised until now, without the disk.
func (s *story) snapshotLocked(op string) snapshot {
	return snapshot{op: op, acked: maps.Clone(s.acked), done: maps.Clone(s.done)}
}
