package queue

import (
	"context"
	"errors"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
)

// Routes are asked for by domains: a question that hangs holds up its own domain only.
// One batch is under way for a domain at a time, with up to askBatch recipients, and
// askersDomain as long as its questions are answered, for a map may take its time for
// each. Domains are asked about in turns of the senders, none of whom has more than
// askersEach of the askersMax questions under way: so a list of addresses at very many
// domains whose name servers hang holds nobody else up, nor do three of them.
const (
	askersMax  = 256
	askersEach = askersMax / 4
	// askersDomain leaves most of a sender's askers to other domains.
	askersDomain = askersEach / 4
	askBatch     = 100
	// askGroup is how many of them one message may have while others wait.
	askGroup = 25
	// askFlush is how long answers that are there wait for the rest of their batch.
	askFlush = 50 * time.Millisecond
)

// asks are the questions for routes.
type asks struct {
	running int
	senders map[smtp.Path]*askSender
	ring    list[*askSender] // those that have domains and may ask
	domains map[string]*askDomain
}

// askSender is whose mail needs routes.
type askSender struct {
	from    smtp.Path
	running int
	domains list[*askDomain] // some may be done or asked about by now
	queued  bool             // in asks.ring
}

// askDomain is a domain whose recipients need routes.
type askDomain struct {
	name     string
	running  int
	answered bool // the last question was
	lines    list[*askLine]
}

// askLine is the recipients of one message at one domain.
type askLine struct {
	t     *transaction
	rcpts []*rcpt
}

func newAsks() asks {
	return asks{senders: map[smtp.Path]*askSender{}, domains: map[string]*askDomain{}}
}

// route finds the routes of recipients of one transaction: those stored with them if
// they still hold; others are asked for, unless it is known that there is none now.
func (l *loop) route(t *transaction, rcpts []*rcpt) {
	lines := map[string]*askLine{}
	for _, r := range rcpts {
		r.phase = phaseRoute
		if d := l.dests[destKey{key: r.state.Dest}]; d != nil && l.overShare(d) {
			r.dest = d
			l.putWaiting(r, l.surplus(d.key))
			continue
		}
		if a := l.storedRoute(r); a != nil {
			l.join(r, a, time.Time{})
			continue
		}
		if w := l.routeFails(r); w != nil {
			r.dest, r.state.Dest = nil, w.dest
			l.putWaiting(r, w)
			continue
		}
		domain := r.path().Domain
		line := lines[domain]
		if line == nil {
			line = &askLine{t: t}
			lines[domain] = line
			l.askFor(domain, line)
		}
		line.rcpts = append(line.rcpts, r)
	}
	l.ask()
}

// storedRoute is the route that was stored with a recipient, nil if it may not be used
// any more: it has expired, or the maps were read anew since it was found. Who looks
// recipients up in the access map wants to see changes at once.
func (l *loop) storedRoute(r *rcpt) *msg.RouteA {
	route := r.state.Route
	if !route.Holds(l.now) || route.Asked.Before(l.routesFrom) || l.q.cfg.SMTPC.LookupRcptConf {
		return nil
	}
	return &msg.RouteA{Hops: route.Hops, Dest: r.state.Dest, Secure: route.Secure}
}

// keepRoute notes a route that is stored with a recipient if it is deferred.
func (l *loop) keepRoute(r *rcpt, a *msg.RouteA, asked time.Time) {
	r.state.Route = nil
	left := a.Expires.Sub(l.q.clock.day())
	d := r.dest
	if a.Expires.IsZero() || left <= 0 || a.RcptConf != nil {
		return
	}
	if d.route == nil || !d.route.Holds(l.now) || d.route.Asked.Before(l.routesFrom) || d.route.Expires.After(l.now.Add(left)) {
		d.route = &defedb.Route{Hops: a.Hops, Secure: a.Secure, Asked: asked, Expires: l.now.Add(left)}
	}
	r.state.Route = d.route
}

// askFor has the recipients of a line be asked about in their turn. They may be added
// until the loop goes on.
func (l *loop) askFor(domain string, line *askLine) {
	d := l.asks.domains[domain]
	if d == nil {
		d = &askDomain{name: domain}
		l.asks.domains[domain] = d
	}
	d.lines.push(line)
	l.fileAsk(d, line.t.env.Mail.From)
}

// fileAsk gives a domain a place in the turns of a sender.
func (l *loop) fileAsk(d *askDomain, from smtp.Path) {
	s := l.asks.senders[from]
	if s == nil {
		s = &askSender{from: from}
		l.asks.senders[from] = s
	}
	s.domains.push(d)
	l.lineAsk(s)
}

func (l *loop) lineAsk(s *askSender) {
	if !s.queued && s.domains.len() > 0 && s.running < askersEach {
		s.queued = true
		l.asks.ring.push(s)
	}
	if s.domains.len() == 0 && s.running == 0 {
		delete(l.asks.senders, s.from)
	}
}

// ask puts as many questions as may be under way.
func (l *loop) ask() {
	for l.asks.running < askersMax {
		s, ok := l.asks.ring.pop()
		if !ok {
			return
		}
		s.queued = false
		if d, ok := s.domains.pop(); ok && d.mayAsk() {
			l.asks.running++
			s.running++
			d.running++
			l.askResolver(&asking{s: s, d: d, lines: d.batch(), asked: l.now})
			l.fileAgain(d)
		}
		l.lineAsk(s)
	}
}

// mayAsk tells whether another batch may be under way.
func (d *askDomain) mayAsk() bool {
	return d.lines.len() > 0 && (d.running == 0 || d.answered && d.running < askersDomain)
}

// batch takes the next recipients to ask about: some of each message in turn.
func (d *askDomain) batch() (lines []*askLine) {
	for n := 0; n < askBatch; {
		line, ok := d.lines.pop()
		if !ok {
			return lines
		}
		part := min(askGroup, askBatch-n, len(line.rcpts))
		lines = append(lines, &askLine{t: line.t, rcpts: line.rcpts[:part:part]})
		if line.rcpts = line.rcpts[part:]; len(line.rcpts) > 0 {
			d.lines.push(line)
		}
		n += max(part, 1)
	}
	return lines
}

// asking is a batch of questions for one domain that are under way.
type asking struct {
	s     *askSender
	d     *askDomain
	lines []*askLine
	asked time.Time
}

// askResolver asks about a batch, in a goroutine, because the resolver may have to ask
// the DNS.
func (l *loop) askResolver(b *asking) {
	l.q.group.Go(func(ctx context.Context) error {
		ev := &routedEvent{of: b}
		var hung error // then the domain is not asked about any more
		last := time.Now()
		for _, line := range b.lines {
			part := routedPart{t: line.t, asked: b.asked}
			for _, r := range line.rcpts {
				a := l.q.askRoute(ctx, line.t, r, &hung)
				part.rcpts, part.answers = append(part.rcpts, r), append(part.answers, a)
				if time.Since(last) >= askFlush {
					ev.parts = append(ev.parts, part)
					ev.answered = hung == nil
					l.q.events.put(ev)
					ev, part, last = &routedEvent{of: b}, routedPart{t: line.t, asked: b.asked}, time.Now()
				}
			}
			ev.parts = append(ev.parts, part)
		}
		ev.answered, ev.done = hung == nil, true
		l.q.events.put(ev)
		return nil
	})
}

// askRoute asks for the route of one recipient. It touches nothing of the loop's but
// the envelope, which does not change.
func (q *Queue) askRoute(ctx context.Context, t *transaction, r *rcpt, hung *error) msg.RouteA {
	err := *hung
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, q.cfg.SMARTimeout)
		defer cancel()
		var a msg.RouteA
		a, err = q.ports.Route.Ask(ctx, msg.RouteQ{TA: t.env.TA, Sender: t.env.Mail.From, Rcpt: r.path(), Expanded: t.env.Expanded})
		if err == nil {
			return a
		}
		if errors.Is(err, context.DeadlineExceeded) {
			*hung = err
		}
	}
	a := msg.RouteA{Reply: smtp.NewReply(451, "4.4.3", "no route: "+err.Error())}
	if *hung != nil {
		a.Dest = "mx:" + r.path().Domain
	}
	return a
}

// routedEvent: routes are known.
type routedEvent struct {
	of       *asking
	parts    []routedPart
	answered bool // and so may others be at once
	done     bool // these are the last of the batch
}

// routedPart is the routes of some recipients of a transaction.
type routedPart struct {
	t       *transaction
	asked   time.Time
	rcpts   []*rcpt
	answers []msg.RouteA
}

func (e *routedEvent) apply(l *loop) {
	for i := range e.parts {
		l.routed(&e.parts[i])
	}
	s, d := e.of.s, e.of.d
	d.answered = e.answered
	if e.done {
		l.asks.running--
		s.running--
		d.running--
	}
	l.fileAgain(d)
	l.lineAsk(s)
	l.ask()
}

// fileAgain has a domain be asked about again in a turn of the sender whose recipients
// come next, or forgets it.
func (l *loop) fileAgain(d *askDomain) {
	switch {
	case d.mayAsk():
		l.fileAsk(d, d.lines.items[d.lines.head].t.env.Mail.From)
	case d.lines.len() == 0 && d.running == 0:
		delete(l.asks.domains, d.name)
	}
}

func (l *loop) routed(p *routedPart) {
	var ends outcome
	for i, r := range p.rcpts {
		a := &p.answers[i]
		if !l.domainFails(r, a) {
			l.routeFound(r.path().Domain)
		}
		switch {
		case len(a.Hops) > 0:
			l.join(r, a, p.asked)
		case len(a.Expand) > 0:
			l.expand(r, a)
		case a.Reply.Permanent():
			ends.failed.add(r, a.Reply, "address resolution", "")
		case l.domainFails(r, a):
			l.noRoute(r, a.Reply, &ends)
		default:
			l.retry(r, a.Reply, "", time.Time{}, &ends)
		}
	}
	l.conclude(p.t, ends)
}

// domainFails tells whether an answer says that the route of a recipient's whole domain
// cannot be found now. What fails by an alias or a map is the recipient's alone.
func (l *loop) domainFails(r *rcpt, a *msg.RouteA) bool {
	return len(a.Hops) == 0 && len(a.Expand) == 0 && !a.Reply.Permanent() && a.Dest == "mx:"+r.path().Domain
}
