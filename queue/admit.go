package queue

import (
	"context"
	"net/netip"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

const (
	// throttleAt and resumeAt are parts of AQ_entries_max in percent: new
	// transactions wait from the one until the active queue is below the other.
	throttleAt = 90
	resumeAt   = 80
	// throttleMax is how long a transaction waits before it is refused. It is far
	// below the five minutes that a client gives us (RFC 5321 section 4.5.3.2.2).
	throttleMax  = 20 * time.Second
	throttleTick = 20 * time.Millisecond

	rateWindow = time.Minute
)

type admitRequest = msg.Request[msg.AdmitQ, msg.AdmitA]

// admission answers the Admit port: it hands out ids, counts connections, and
// throttles the servers while the active queue or the disk is full (README 9.1).
type admission struct {
	q       *Queue
	clients map[netip.Addr]*clientCount
	unnamed map[smtp.ID]*unnamedSession
	waiting []waitingAdmit // in order of arrival
	swept   time.Time      // when clients was last searched for what can go
}

type waitingAdmit struct {
	r     *admitRequest
	until time.Time
}

// clientCount is what is known of one client address.
type clientCount struct {
	open    int
	unnamed int       // sessions of which the name is not known yet, beside those
	since   time.Time // beginning of the window
	count   int       // connections in it
	last    int       // connections in the window before
}

func newAdmission(q *Queue) *admission {
	return &admission{q: q, clients: map[netip.Addr]*clientCount{}, unnamed: map[smtp.ID]*unnamedSession{}}
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
		switch {
		case len(a.waiting) > 0 && tick == nil:
			tick = time.NewTicker(throttleTick)
			ticks = tick.C
		case len(a.waiting) == 0 && tick != nil:
			tick.Stop()
			tick, ticks = nil, nil
		}
	}
}

func (a *admission) admit(r *admitRequest) {
	switch r.Q.Kind {
	case msg.NewSession:
		r.Answer(a.session(&r.Q, a.q.clock.now()))
	case msg.NameSession:
		r.Answer(a.named(&r.Q))
	case msg.EndSession:
		a.end(&r.Q)
		r.Answer(msg.AdmitA{})
	default:
		if a.q.space.refuses(r.Q.Size) {
			r.Answer(msg.AdmitA{Reply: a.q.space.refusal()})
			return
		}
		if len(a.waiting) > 0 || a.q.fill() >= throttleAt {
			a.q.metrics.throttled.Inc()
			a.waiting = append(a.waiting, waitingAdmit{r: r, until: a.q.clock.now().Add(throttleMax)})
			return
		}
		r.Answer(a.transaction(&r.Q))
	}
}

// retry lets waiting transactions in, or refuses them when their time is over.
func (a *admission) retry(now time.Time) {
	open := a.q.fill() < resumeAt
	kept := a.waiting[:0]
	for _, w := range a.waiting {
		switch {
		case w.r.Ctx.Err() != nil: // its session is over
		case open:
			w.r.Answer(a.transaction(&w.r.Q))
		case now.After(w.until):
			w.r.Answer(msg.AdmitA{Reply: smtp.NewReply(452, "4.3.2", "too much mail in the queue, try again later")})
		default:
			kept = append(kept, w)
		}
	}
	clear(a.waiting[len(kept):])
	a.waiting = kept
}

func (a *admission) transaction(q *msg.AdmitQ) msg.AdmitA {
	id, err := a.q.ids.take(q.Server)
	if err != nil {
		return msg.AdmitA{Reply: smtp.NewReply(451, "4.3.0", "no transaction id left")}
	}
	ans := msg.AdmitA{ID: id}
	if a.q.memory.Load() < a.q.cfg.ContentMemory {
		ans.InlineMax = a.q.cfg.IBDB.ContentMax
	}
	return ans
}

func (a *admission) session(q *msg.AdmitQ, now time.Time) msg.AdmitA {
	id, err := a.q.ids.take(q.Server)
	if err != nil {
		return msg.AdmitA{Reply: smtp.NewReply(421, "4.3.0", "no session id left")}
	}
	rate, open, ask := a.limits(q.Client)
	if rate == unlimited && open == unlimited && !ask {
		return msg.AdmitA{ID: id}
	}
	c := a.count(q.Client, now)
	if c == nil {
		return msg.AdmitA{ID: id} // the table is full of open clients
	}
	c.count++ // a refused one counts too
	n := c.rate(now)
	if r := exceeded(n, rate, c.open+c.unnamed, open); !r.IsZero() {
		return msg.AdmitA{Reply: r}
	}
	if ask {
		c.unnamed++
		a.unnamed[id] = &unnamedSession{c: c, rate: n}
		return msg.AdmitA{ID: id, AskName: true}
	}
	c.open++
	return msg.AdmitA{ID: id}
}

// exceeded is the refusal of a session that is the n-th within a minute and finds
// open others, or zero.
func exceeded(n, rateMax, open, openMax int) smtp.Reply {
	switch {
	case n > rateMax:
		return smtp.NewReply(421, "4.7.0", "too many connections within a minute from your address")
	case open >= openMax:
		return smtp.NewReply(421, "4.7.0", "too many open connections from your address")
	}
	return smtp.Reply{}
}

// count finds the counters of an address, or nil if there is no room for more.
func (a *admission) count(client netip.Addr, now time.Time) *clientCount {
	c := a.clients[client]
	if c == nil {
		if len(a.clients) >= a.q.cfg.SMTPS.CacheSize {
			a.forget(now)
		}
		if len(a.clients) >= a.q.cfg.SMTPS.CacheSize {
			return nil
		}
		c = &clientCount{since: now}
		a.clients[client] = c
	}
	switch age := now.Sub(c.since); {
	case age >= 2*rateWindow:
		c.since, c.count, c.last = now, 0, 0
	case age >= rateWindow:
		c.since, c.count, c.last = c.since.Add(rateWindow), 0, c.count
	}
	return c
}

// rate is the number of connections within the last minute: those of the present
// window and the part of the last one that still counts.
func (c *clientCount) rate(now time.Time) int {
	part := float64(rateWindow-now.Sub(c.since)) / float64(rateWindow)
	return c.count + int(float64(c.last)*max(part, 0))
}

// forget drops the counters of clients that are gone. It looks at most once a second, so that a full table does not cost a search for each connection.
func (a *admission) forget(now time.Time) {
	if now.Sub(a.swept) < time.Second {
		return
	}
	a.swept = now
	for ip, c := range a.clients {
		if c.open == 0 && c.unnamed == 0 && now.Sub(c.since) >= rateWindow {
			delete(a.clients, ip)
		}
	}
}
