package queue

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/retry"
)

// simDelivery is one copy of a message that arrived.
type simDelivery struct {
	ta      smtp.ID
	at      time.Duration
	unknown bool // the queue did not hear of it
}

// lostAfter is how long a delivery may take to be recorded: after a crash within this
// time there may be another one.
const lostAfter = 5 * time.Second

// luck is a number from [0,1) that the seed and v alone determine.
func (s *sim) luck(v ...any) float64 { return retry.Chance(fmt.Sprint(s.seed, v)) }

// pause lets time pass, unless ctx ends before.
func waitFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// route is the resolver.
func (l *life) route(ctx context.Context, q msg.RouteQ) msg.RouteA {
	s := l.s
	slot := s.at() / (10 * time.Minute)
	_ = waitFor(ctx, time.Duration(s.luck("route", q.Rcpt.Addr(), slot)*float64(300*time.Millisecond)))
	s.mu.Lock()
	healed := s.healed
	s.mu.Unlock()
	if !healed && s.luck("dns", q.Rcpt.Domain, slot) < 0.04 {
		return msg.RouteA{Reply: smtp.NewReply(451, "4.4.3", "DNS does not answer")}
	}
	if a := s.aliases[q.Rcpt.Addr()]; a != nil {
		return a.route()
	}
	hosts := s.dests[q.Rcpt.Domain]
	if len(hosts) == 0 {
		return msg.RouteA{Reply: smtp.NewReply(550, "5.1.2", "no such domain")}
	}
	a := msg.RouteA{Dest: "mx:" + hosts[0].hop.Host}
	for _, h := range hosts {
		a.Hops = append(a.Hops, h.hop)
	}
	if ttl := s.luck("ttl", q.Rcpt.Domain); ttl > 0.2 {
		a.Expires = s.clock.now().Add(time.Duration(ttl * float64(2*time.Hour)))
	}
	return a
}

func (a simAlias) route() msg.RouteA {
	r := msg.RouteA{Expand: make([]msg.Expansion, len(a))}
	for i, g := range a {
		for _, l := range g.to {
			r.Expand[i].Rcpts = append(r.Expand[i].Rcpts, path(l.addr))
		}
		if g.owner != nil {
			r.Expand[i].Owner = path(g.owner.addr)
		}
	}
	return r
}

func (s *sim) host(q msg.DeliverQ) *simHost {
	for _, hosts := range s.dests {
		for _, h := range hosts {
			if h.hop == q.Hop {
				return h
			}
		}
	}
	return nil
}

// deliver is the client and all the hosts of the world.
func (l *life) deliver(ctx context.Context, q msg.DeliverQ) msg.DeliverA {
	s := l.s
	h := s.host(q)
	what := l.begins(ctx, h)
	defer l.ends(ctx)
	at := s.at()
	if what == hanging {
		<-ctx.Done()
		return msg.DeliverA{}
	}
	if waitFor(ctx, time.Millisecond+time.Duration(s.luck("speed", q.Hop, q.Rcpts[0].To, at)*float64(3*time.Second))) != nil {
		return msg.DeliverA{}
	}
	whole := func(stage msg.DeliverStage, hostFailed bool, code int, enhanced, text string) msg.DeliverA {
		a := msg.DeliverA{Stage: stage, HostFailed: hostFailed, Rcpts: make([]smtp.Reply, len(q.Rcpts))}
		for i := range a.Rcpts {
			a.Rcpts[i] = smtp.NewReply(code, enhanced, text)
		}
		return a
	}
	switch what {
	case refuses:
		return whole(msg.DeliverConnect, true, 451, "4.4.1", "connection refused")
	case greets4:
		return whole(msg.DeliverGreeting, true, 421, "4.3.2", "too busy")
	case mail4:
		return whole(msg.DeliverMail, false, 452, "4.3.1", "disk full")
	case closes:
		return whole(msg.DeliverRcpt, true, 421, "4.3.0", "closing")
	case data4:
		return whole(msg.DeliverData, false, 451, "4.3.0", "no resources")
	}
	a := l.dialogue(q, what)
	if what == losesReply && a.Stage == msg.DeliverDone {
		replies := a.Rcpts
		a = whole(msg.DeliverDot, true, 451, "4.4.2", "connection lost")
		a.Unknown = true
		for i, r := range replies {
			if r.Permanent() {
				a.Rcpts[i] = r
			}
		}
	}
	return a
}

// begins notes an attempt, and that there are not too many. One whose time is over
// does not count: the queue knows of that before its host does.
func (l *life) begins(ctx context.Context, h *simHost) trouble {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	l.open[ctx] = h.hop
	all, same := 0, 0
	for c, hop := range l.open {
		if c.Err() == nil {
			all++
			if hop == h.hop {
				same++
			}
		}
	}
	if !l.dead && (same > s.cfg.SMTPC.Max || all > s.cfg.SMTPC.DeliveriesAtOnce) {
		s.faultLocked("%d attempts at once to %v, %d in all", same, h.hop, all)
	}
	switch {
	case s.healed:
		return noTrouble
	case h.dead:
		return refuses
	}
	return h.trouble(s.at())
}

func (l *life) ends(ctx context.Context) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.open, ctx)
}

// dialogue gets as far as RCPT, and with recipients that are taken to the end.
func (l *life) dialogue(q msg.DeliverQ, what trouble) msg.DeliverA {
	s := l.s
	a := msg.DeliverA{Stage: msg.DeliverRcpt, Rcpts: make([]smtp.Reply, len(q.Rcpts)), DSN: what == rcpt4}
	content, err := readBody(q.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.dead { // the power was cut before the end
		return a
	}
	if err != nil {
		s.faultLocked("content of %v: %v", q.TA, err)
	}
	taken := what != losesReply || s.luck("taken", q.TA, s.at()) < 0.5
	for i := range q.Rcpts {
		if a.Rcpts[i] = s.rcptLocked(&q.Rcpts[i], what); !a.Rcpts[i].IsZero() {
			continue
		}
		a.Stage = msg.DeliverDone
		if a.Rcpts[i] = smtp.NewReply(250, "2.0.0", "ok"); what == dot4 {
			a.Rcpts[i], a.Stage = smtp.NewReply(451, "4.6.0", "cannot look at it now"), msg.DeliverDot
		} else if taken {
			s.arriveLocked(q, i, content, what == losesReply)
		}
	}
	return a
}

func readBody(b msg.Body) (string, error) {
	r, err := b.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err == nil && int64(len(all)) != b.Size() {
		err = fmt.Errorf("%d bytes of %d", len(all), b.Size())
	}
	return string(all), err
}

// rcptLocked is the reply to RCPT, zero for 250.
func (s *sim) rcptLocked(r *msg.Rcpt, what trouble) smtp.Reply {
	l := s.leaves[r.To.Addr()]
	if l == nil {
		return smtp.Reply{} // a notice
	}
	l.attempts++
	switch {
	case l.fate == fateNoUser:
		return smtp.NewReply(550, "5.1.1", "no such user")
	case l.attempts <= l.grey:
		return smtp.NewReply(450, "4.7.1", "greylisted")
	case what == rcpt4 && s.luck("rcpt", l.addr, s.at()/(10*time.Minute)) < 0.5:
		return smtp.NewReply(452, "4.2.2", "mailbox full")
	}
	return smtp.Reply{}
}

// arriveLocked notes a copy that arrived, and that it is right.
func (s *sim) arriveLocked(q msg.DeliverQ, i int, content string, unknown bool) {
	to := q.Rcpts[i].To.Addr()
	s.noteLocked("%v arrives at %s", q.TA, to)
	if t := s.teller(to); t != nil {
		s.noticeLocked(t, q.TA, content)
		return
	}
	l := s.leaves[to]
	switch {
	case l == nil:
		s.faultLocked("%v to %s, which nobody sent", q.TA, to)
		return
	case l.m.aborted || !l.m.acked && l.m.unknown == 0:
		s.faultLocked("%s got a message that was not accepted", to)
	case content != l.m.content():
		s.faultLocked("%s got %d bytes that are not the message of %d bytes", to, len(content), len(l.m.content()))
	case l.fate != fateDelivered && !s.healed:
		s.faultLocked("%s got a message, which should end otherwise", to)
	}
	s.duplicateLocked(l, q.TA)
	l.deliveries = append(l.deliveries, simDelivery{ta: q.TA, at: s.at(), unknown: unknown})
}

// duplicateLocked checks that another copy has an excuse: the queue did not hear of
// the one before, or a crash made it forget.
func (s *sim) duplicateLocked(l *leaf, ta smtp.ID) {
	for _, d := range l.deliveries {
		s.count["duplicates"]++
		crashed := slices.ContainsFunc(s.crashedAt, func(at time.Duration) bool { return d.at <= at && at <= d.at+lostAfter })
		switch {
		case d.ta == ta && (d.unknown || crashed):
		case d.ta != ta && (l.m.unknown > 0 || l.made && s.crashes > 0):
		default:
			s.faultLocked("%s gets %v again without an excuse; the other was %v at %v", l.addr, ta, d.ta, d.at)
		}
	}
}

// teller finds to whom a notice goes; with VERP the recipient stands behind the +.
func (s *script) teller(addr string) *teller {
	local, domain, _ := strings.Cut(addr, "@")
	local, _, _ = strings.Cut(local, "+")
	return s.tellers[local+"@"+domain]
}

// noticeLocked reads a DSN.
func (s *sim) noticeLocked(t *teller, ta smtp.ID, content string) {
	var rcpt string
	lines := bufio.NewScanner(strings.NewReader(content))
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "Final-Recipient: rfc822;"); ok {
			rcpt = strings.TrimSpace(v)
		}
		if v, ok := strings.CutPrefix(lines.Text(), "Action: "); ok && rcpt != "" {
			s.toldLocked(t, ta, rcpt, v)
			rcpt = ""
		}
	}
}

func (s *sim) toldLocked(t *teller, ta smtp.ID, rcpt, action string) {
	s.count[action+" notices"]++
	l := s.leaves[rcpt]
	switch {
	case l == nil && s.aliases[rcpt] == nil:
		s.faultLocked("%s is told of %s, whom nobody knows", t.addr, rcpt)
	case l == nil: // success of an alias, or that it is delayed
	case l.teller != t:
		s.faultLocked("%s is told of %s, which is not its mail", t.addr, rcpt)
	case action == "failed":
		l.told[ta] = true
		if !l.fails() || !l.tells() {
			s.faultLocked("%s is told that %s failed", t.addr, rcpt)
		}
	case action == "delayed" && !dsn.Due(l.notify, dsn.Delayed), action != "delayed" && !dsn.Due(l.notify, dsn.Relayed):
		s.faultLocked("%s is told that %s was %s, which it did not ask for", t.addr, rcpt, action)
	case action != "delayed" && len(l.deliveries) == 0:
		s.faultLocked("%s is told that %s was %s, which is not true", t.addr, rcpt, action)
	}
}

func (s *sim) droppedLocked(addr string) {
	switch l, t := s.leaves[addr], s.teller(addr); {
	case t != nil && t.dead:
		t.dropped++
	case l != nil && l.fails() && !l.tells():
		l.dropped++
	default:
		s.faultLocked("%s was dropped", addr)
	}
}

func (s *sim) removedLocked(addr string) {
	l := s.leaves[addr]
	if l == nil || l.fate != fateRemoved {
		s.faultLocked("%s was removed", addr)
		return
	}
	l.removed++
}
