package queue

import (
	"context"
	"sync"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/admit"
)

const (
	// throttleMax is how long a transaction waits before it is refused. It is far
	// below the five minutes that a client gives us (RFC 5321 section 4.5.3.2.2).
	throttleMax  = 20 * time.Second
	throttleTick = 20 * time.Millisecond
)

type admitRequest = msg.Request[msg.AdmitQ, msg.AdmitA]

// admission answers the Admit port: it hands out ids, and throttles the servers while the
// active queue or the disk is full (README 9.1).
type admission struct {
	q *Queue

	mu      sync.Mutex // guards all below; held for no longer than a decision takes
	clients *admit.Clients
	waiting []waitingAdmit // in order of arrival
}

type waitingAdmit struct {
	r     *admitRequest
	until time.Time
}

func newAdmission(q *Queue) *admission {
	return &admission{q: q, clients: admit.New(q.clientLimits, q.budget, &q.ports.Throttles)}
}

// clientLimits are the limits of clients.
func (q *Queue) clientLimits() admit.Limits {
	s := q.conf()
	return admit.Limits{SMTPSConfig: &s.SMTPS, Rules: s.rules}
}

func (a *admission) run(ctx context.Context, requests <-chan *admitRequest) error {
	var tick *time.Ticker
	var ticks <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			a.admit(r)
		case <-ticks:
			a.retry(a.q.clock.now())
		}
		switch n := len(a.waiting); { // no other goroutine changes it
		case n > 0 && tick == nil:
			tick = time.NewTicker(throttleTick)
			ticks = tick.C
		case n == 0 && tick != nil:
			tick.Stop()
			tick, ticks = nil, nil
		}
	}
}

// admit answers what decide could not answer to the asker itself, or has it wait.
func (a *admission) admit(r *admitRequest) {
	if ans, ok := a.decide(&r.Q); ok {
		r.Answer(ans)
		return
	}
	a.q.metrics.Throttle()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, waitingAdmit{r: r, until: a.q.clock.now().Add(throttleMax)})
}

// decide answers a question unless it has to wait: for room in the active queue, or behind
// others that do. Sessions call it in their own goroutines.
func (a *admission) decide(q *msg.AdmitQ) (ans msg.AdmitA, ok bool) {
	if q.Kind == msg.NewTransaction && a.q.space.Refuses(q.Size) {
		return msg.AdmitA{Reply: a.q.space.Refusal()}, true
	}
	if reason, closed := a.q.ports.Gate.Closed(); closed && q.Kind != msg.EndSession && q.Kind != msg.NameSession {
		return msg.AdmitA{Reply: smtp.NewReply(421, "4.3.2", "no mail is taken now: "+reason)}, true
	}
	now := a.q.clock.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch q.Kind {
	case msg.NewSession:
		return a.session(q, now), true
	case msg.NameSession:
		return msg.AdmitA{Reply: a.clients.Named(q.Session, q.Client, q.Name, now)}, true
	case msg.TrySession:
		return msg.AdmitA{Reply: a.clients.Would(q.Client, q.Name, now)}, true
	case msg.TryTransaction:
		return a.wouldTakeLocked(q), true
	case msg.EndSession:
		a.clients.End(q.Session)
		return msg.AdmitA{}, true
	}
	if q.Relay {
		a.clients.Relays(q.Session, now)
	}
	if len(a.waiting) > 0 {
		return msg.AdmitA{}, false
	}
	return a.transaction(q, now)
}

// wouldTakeLocked says whether a transaction would be admitted, or would have to wait. Nothing is
// granted.
func (a *admission) wouldTakeLocked(q *msg.AdmitQ) (ans msg.AdmitA) {
	switch {
	case a.q.space.Refuses(q.Size):
		ans.Reply = a.q.space.Refusal()
	case len(a.waiting) > 0:
		ans.Reply = smtp.NewReply(452, "4.3.2", "too much mail in the queue, try again later")
	}
	return ans
}

// retry lets waiting transactions in, in their order, or refuses them when their time is
// over.
func (a *admission) retry(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	full := false
	kept := a.waiting[:0]
	for _, w := range a.waiting {
		if w.r.Ctx.Err() != nil { // its session is over
			continue
		}
		if !full {
			ans, ok := a.transaction(&w.r.Q, now)
			if full = !ok; ok {
				w.r.Answer(ans)
				continue
			}
		}
		if now.After(w.until) {
			w.r.Answer(msg.AdmitA{Reply: smtp.NewReply(452, "4.3.2", "too much mail in the queue, try again later")})
		} else {
			kept = append(kept, w)
		}
	}
	clear(a.waiting[len(kept):])
	a.waiting = kept
}

// session admits a session.
func (a *admission) session(q *msg.AdmitQ, now time.Time) msg.AdmitA {
	id, err := a.q.ids.Take(q.Server)
	if err != nil {
		return msg.AdmitA{Reply: smtp.NewReply(421, "4.3.0", "no session id left")}
	}
	ask, refusal := a.clients.Connect(id, q.Client, now)
	if !refusal.IsZero() {
		return msg.AdmitA{Reply: refusal}
	}
	return msg.AdmitA{ID: id, AskName: ask}
}

// transaction grants a transaction. ok is false if there is no room for it in the active
// queue now.
func (a *admission) transaction(q *msg.AdmitQ, now time.Time) (ans msg.AdmitA, ok bool) {
	id, err := a.q.ids.Take(q.Server)
	if err != nil {
		return msg.AdmitA{Reply: smtp.NewReply(451, "4.3.0", "no transaction id left")}, true
	}
	if !a.clients.Grant(q.Session, id, now) {
		return msg.AdmitA{}, false
	}
	return msg.AdmitA{ID: id, InlineMax: a.q.conf().IBDB.ContentMax}, true
}
