package queue

import (
	"context"
	"errors"
	"strings"
	"time"

	"meta1/mta/logline"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/aq"
	"meta1/queue/retry"
	"meta1/queue/sched"
)

const (
	// tickInterval is the time between two ticks, at least: what becomes due meanwhile is
	// done together.
	tickInterval = 250 * time.Millisecond
	// idleInterval is the time between two ticks, at most: the clocks are compared.
	idleInterval = time.Minute
)

// event is something for the loop: an event of the core, other settings, or that all saves up to an id are
// durable.
type event struct {
	ev        aq.Event
	configure *settings
	saved     uint64
}

// loop drives the core: it is the only goroutine that touches it. It hands events in and has
// done what comes out (act), and never waits for a disk or for another module.
type loop struct {
	q       *Queue
	core    *aq.Core
	conf    *settings // those of core
	now     time.Time
	ahead   time.Duration
	running map[*aq.Delivery]*attempt
	traces  traces

	operators map[uint64]*operateRequest
	operation uint64    // the last id in operators
	oldestAt  time.Time // when the oldest message was looked for
	ticked    time.Time // the last tick
	wakes     time.Time // the next one
	timeout   time.Time // no delivery in progress times out before; zero: none is in progress
}

// attempt is a delivery that SMTPC has been asked for.
type attempt struct {
	progress msg.Progress
	cancel   context.CancelCauseFunc
	timeout  time.Time
	request  *deliverRequest // nil: a goroutine waits for the answer
	moved    time.Time       // when it had moved last, as far as was looked
}

// end ends a delivery, unless its final dot is sent: then the reply counts.
func (a *attempt) end(why error) {
	if !a.progress.GiveWay() {
		return
	}
	a.cancel(why)
	if a.request != nil {
		a.request.Withdraw(why)
	}
}

type deliverRequest = msg.Request[msg.DeliverQ, msg.DeliverA]

type operateRequest = msg.Request[msg.OperateQ, msg.OperateA]

// loopPorts are the questions that the loop answers itself.
type loopPorts struct {
	list    <-chan *listRequest
	status  <-chan *statusRequest
	operate <-chan *operateRequest
	hosts   <-chan *hostsRequest
}

func newLoop(q *Queue) *loop {
	s := q.conf()
	return &loop{
		q: q, core: aq.New(q.coreConfig(s), q.clock.now()), conf: s,
		running: map[*aq.Delivery]*attempt{}, traces: newTraces(q.deps.Tracer), operators: map[uint64]*operateRequest{},
	}
}

// run applies events until life ends. When stop ends it starts nothing new, and returns as
// soon as nothing is in progress, or at the end of drainMax.
func (l *loop) run(life context.Context, stop <-chan struct{}, ports loopPorts) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	var spare []event
	var drain <-chan time.Time
	draining := false
	for {
		select {
		case <-l.q.events.Ready:
			l.now = l.q.clock.now()
			events := l.q.events.Take(spare)
			for i := range events {
				l.apply(&events[i])
			}
			spare = events
		case <-tick.C:
			l.tick()
		case r := <-ports.list:
			l.list(r)
		case r := <-ports.status:
			r.Answer(l.status())
		case r := <-ports.operate:
			l.operate(r)
		case r := <-ports.hosts:
			l.hosts(r)
		case <-stop:
			stop, draining = nil, true
			drain = time.After(drainMax)
			l.core.Step(l.q.clock.now(), &aq.Drain{})
		case <-drain:
			return nil
		case <-life.Done():
			return nil
		}
		l.act()
		l.show()
		if draining && l.core.Idle() {
			return nil
		}
		if at := l.wake(); !at.Equal(l.wakes) {
			l.wakes = at
			tick.Reset(at.Sub(l.q.clock.now()))
		}
	}
}

// wake is when the next tick is due.
func (l *loop) wake() time.Time {
	at := l.ticked.Add(idleInterval)
	if w := l.core.Wake(); !w.IsZero() && w.Before(at) {
		at = w
	}
	if !l.timeout.IsZero() && l.timeout.Before(at) {
		at = l.timeout
	}
	if next := l.oldestAt.Add(oldestInterval); l.q.gauges.Oldest.Load() != 0 && next.Before(at) {
		at = next
	}
	soonest := l.ticked.Add(tickInterval)
	if at.Before(soonest) || len(l.operators) > 0 || l.core.Down(aq.SMAR) || l.core.Down(aq.SMTPC) {
		return soonest
	}
	return at
}

func (l *loop) apply(e *event) {
	switch {
	case e.configure != nil:
		l.conf = e.configure
		l.core.Step(l.now, &aq.Configure{Config: l.q.coreConfig(l.conf)})
		return
	case e.ev == nil:
		l.core.Advance(l.now, e.saved)
		return
	}
	if d, ok := e.ev.(*aq.Delivered); ok {
		a := l.running[d.Delivery]
		a.cancel(nil)
		delete(l.running, d.Delivery)
		if d.Err == nil && !d.Down {
			l.q.metrics.Delays.Delivered(d.Delivery.Envelope, d.Delivery.Waited, &d.A, l.q.clock.day())
		}
		l.traces.delivered(d)
	}
	l.core.Step(l.now, e.ev)
}

// tick lets time pass, and has work go on for modules that run again.
func (l *loop) tick() {
	l.now = l.q.clock.now()
	l.ticked, l.wakes = l.now, time.Time{}
	if ahead := l.q.clock.ahead(); (ahead - l.ahead).Abs() >= time.Second {
		l.ahead = ahead
		l.core.Step(l.now, &aq.ClockSet{Ahead: ahead})
	}
	if l.core.Down(aq.SMAR) && l.q.ports.Route.Serving() {
		l.core.Step(l.now, &aq.Up{Module: aq.SMAR})
	}
	if l.core.Down(aq.SMTPC) && l.q.ports.Deliver.Serving() {
		l.core.Step(l.now, &aq.Up{Module: aq.SMTPC})
	}
	for id, r := range l.operators {
		if r.Ctx.Err() != nil {
			delete(l.operators, id)
			l.core.Step(l.now, &aq.Withdraw{ID: id})
		}
	}
	l.look()
	l.core.Tick(l.now)
	l.showOldest()
	l.showProviders()
}

// look ends deliveries that take too long, and tells the core which ones have moved since the last tick.
func (l *loop) look() {
	l.timeout = time.Time{}
	for d, a := range l.running {
		if !l.now.Before(a.timeout) {
			a.end(context.DeadlineExceeded)
			continue // its answer comes
		}
		if l.timeout.IsZero() || a.timeout.Before(l.timeout) {
			l.timeout = a.timeout
		}
		if _, idle := a.progress.Idle(); l.now.Sub(a.moved) > idle+time.Millisecond {
			a.moved = l.now.Add(-idle)
			l.core.Step(l.now, &aq.Progress{Delivery: d})
		}
	}
}

// act has done what the core has decided.
func (l *loop) act() {
	q := l.q
	for rd := l.core.Ready(); !rd.Empty(); rd = l.core.Ready() {
		q.journal.Save(patient(rd.Save), rd.Save...)
		l.traces.saved(rd.Save)
		q.remover.Put(rd.Unlink...)
		for _, s := range rd.Spill {
			q.group.Go(func(ctx context.Context) error { q.spill(ctx, s); return nil })
		}
		for _, ta := range rd.Evict {
			q.contents.Drop(ta)
		}
		for _, x := range rd.Lookup {
			l.lookUp(x)
		}
		for _, d := range rd.Deliver {
			l.deliver(d)
		}
		for _, d := range rd.Cancel {
			l.running[d].end(msg.ErrGaveWay)
		}
		for _, mk := range rd.Make {
			q.group.Go(func(ctx context.Context) error { q.make(ctx, mk); return nil })
		}
		if s := rd.Scan; s != nil {
			q.group.Go(func(context.Context) error { q.events.Put(event{ev: q.scan(s)}); return nil })
		}
		for _, a := range rd.Answer {
			if r := l.operators[a.ID]; r != nil {
				delete(l.operators, a.ID)
				r.Answer(a.A)
			}
		}
		l.log(rd.Log)
	}
}

// log writes the lines of the core.
func (l *loop) log(lines []aq.Line) {
	for i := range lines {
		logline.Emit(l.q.log, lines[i].Level, lines[i].Text, lines[i].Attrs...)
	}
}

// deliver asks the client.
func (l *loop) deliver(d *aq.Delivery) {
	q := l.q
	l.traces.start(d)
	rules := l.conf.rules
	session, _ := rules.SessionOf(d.Hop)
	ask := msg.DeliverQ{
		Hop: d.Hop, Dest: d.Dest, TA: d.Envelope.TA, Mail: d.Envelope.Mail, Body: d.Body, Rcpts: rcptsOf(d),
		Source: rules.SourcesOf(d.Envelope), SessionConf: session, RcptConf: d.Conf, Provider: d.Provider,
	}
	ask.Mail.From = d.Sender
	if p := rules.Provider(d.Provider); p != nil {
		ask.TransactionsMax, ask.ConnectionsMax, ask.SlowDown = p.TransactionsMax, p.Max, p.SlowDown
	}
	if limits := rules.ConnectionLimits(d.Limits); limits != nil && limits.TransactionsMax > 0 {
		ask.TransactionsMax = limits.TransactionsMax
	}
	ctx, cancel := context.WithCancelCause(q.group.Context())
	a := &attempt{cancel: cancel, timeout: l.now.Add(l.conf.DeliveryTimeout), moved: l.now}
	a.progress.Begin()
	ask.Progress = &a.progress
	l.running[d] = a
	if l.timeout.IsZero() || a.timeout.Before(l.timeout) {
		l.timeout = a.timeout
	}
	done := func(a msg.DeliverA, err error) { q.events.Put(event{ev: delivered(d, a, err)}) }
	if a.request = q.ports.Deliver.Post(ctx, &ask, done); a.request == nil {
		q.awaitDelivery(ctx, ask, done)
	}
}

// rcptsOf are the recipients of a delivery: those of the envelope, which nobody changes, or a list
// of their own if they do not stand next to each other there.
func rcptsOf(d *aq.Delivery) []msg.Rcpt {
	all, first := d.Envelope.Rcpts, d.Rcpts[0]
	for i, index := range d.Rcpts {
		if index != first+i {
			rcpts := make([]msg.Rcpt, len(d.Rcpts))
			for i, index := range d.Rcpts {
				rcpts[i] = all[index]
			}
			return rcpts
		}
	}
	return all[first : first+len(d.Rcpts) : first+len(d.Rcpts)]
}

// awaitDelivery asks the client in a goroutine, because it cannot take the question at once.
func (q *Queue) awaitDelivery(ctx context.Context, ask msg.DeliverQ, done func(msg.DeliverA, error)) {
	q.group.Go(func(context.Context) error { done(q.ports.Deliver.Await(ctx, ask)); return nil })
}

// delivered is the event of a delivery that has ended.
func delivered(d *aq.Delivery, a msg.DeliverA, err error) *aq.Delivered {
	ev := &aq.Delivered{Delivery: d, A: a, Err: err}
	switch {
	case errors.Is(err, msg.ErrDown):
		ev.Down = true
	case errors.Is(err, msg.ErrGaveWay):
		ev.Err, ev.A = nil, gaveWay(len(d.Rcpts))
	}
	if strings.HasSuffix(d.Dest, msg.DestHandover) { // what the other MTA does not take stays with us
		for i, r := range ev.A.Rcpts {
			ev.A.Rcpts[i] = msg.Kept(r)
		}
	}
	return ev
}

// gaveWay is the answer for a delivery that was ended because it hung: its host has failed.
func gaveWay(rcpts int) msg.DeliverA {
	a := msg.DeliverA{HostFailed: true, Stage: msg.DeliverConnect, Rcpts: make([]smtp.Reply, rcpts)}
	for i := range a.Rcpts {
		a.Rcpts[i] = smtp.NewReply(451, "4.4.1", "the host did not answer for a while, and other mail waited")
	}
	return a
}

// directMax is how many recipients of a batch the loop itself asks SMAR about.
const directMax = 64

// lookUp asks SMAR about a batch of recipients: directly as far as it has the answers in memory,
// and about the others in a goroutine.
func (l *loop) lookUp(x *aq.Lookup) {
	q := l.q
	ev := &aq.Routed{Lookup: x}
	for i := range x.Rcpts[:min(len(x.Rcpts), directMax)] {
		a, ok := q.ports.Route.Direct(q.routeQ(&x.Rcpts[i]))
		if !ok {
			break
		}
		ev.Answers = append(ev.Answers, a)
	}
	rest := x.Rcpts[len(ev.Answers):]
	ev.Done = len(rest) == 0
	if len(ev.Answers) > 0 {
		l.core.Step(l.now, ev)
	}
	if !ev.Done {
		q.group.Go(func(ctx context.Context) error { q.awaitRoutes(ctx, x, rest); return nil })
	}
}

// lookupFlush is how long answers that are there wait for the rest of their batch.
const lookupFlush = 50 * time.Millisecond

// awaitRoutes asks SMAR about recipients of a batch. When one question hangs, the others of the
// batch are not asked: they are of the same domain.
func (q *Queue) awaitRoutes(ctx context.Context, x *aq.Lookup, rcpts []aq.Rcpt) {
	ev := &aq.Routed{Lookup: x}
	var hung error
	last := time.Now()
	for i := range rcpts {
		r := &rcpts[i]
		a, err := q.askRoute(ctx, r, hung)
		if errors.Is(err, msg.ErrDown) {
			ev.Down = true
			break
		}
		if errors.Is(err, context.DeadlineExceeded) {
			hung = err
			ev.Hung = true
		}
		if err != nil {
			a = msg.RouteA{Reply: smtp.NewReply(451, "4.4.3", "no route: "+err.Error())}
			if hung != nil {
				a.Dest = "mx:" + r.Envelope.Rcpts[r.Ref.Index].To.LowerDomain()
			}
		}
		ev.Answers = append(ev.Answers, a)
		if time.Since(last) >= lookupFlush {
			q.events.Put(event{ev: ev})
			ev, last = &aq.Routed{Lookup: x, Hung: ev.Hung}, time.Now()
		}
	}
	ev.Done = true
	q.events.Put(event{ev: ev})
}

// askRoute asks for the route of one recipient, unless hung says that it would hang.
func (q *Queue) askRoute(ctx context.Context, r *aq.Rcpt, hung error) (msg.RouteA, error) {
	if hung != nil {
		return msg.RouteA{}, hung
	}
	ctx, cancel := context.WithTimeout(ctx, q.conf().SMARTimeout)
	defer cancel()
	return q.ports.Route.Ask(ctx, q.routeQ(r))
}

func (q *Queue) routeQ(r *aq.Rcpt) msg.RouteQ {
	e := r.Envelope
	return msg.RouteQ{
		TA: e.TA, Sender: e.Mail.From, Rcpt: e.Rcpts[r.Ref.Index].To, Expanded: e.Expanded, TLSOptional: e.Mail.TLSOptional, Via: q.ports.Handover.Via(),
	}
}

const (
	// hangAfter is after how long without progress a delivery does not count any more against
	// what its sender and new hosts may use.
	hangAfter = 5 * time.Second
	// giveUpAfter is after how long without progress it is ended if other mail waits.
	giveUpAfter = 30 * time.Second
)

// coreConfig is what the core must know of the configuration.
func (q *Queue) coreConfig(c *settings) aq.Config {
	return aq.Config{
		Hostname: q.deps.Hostname, Budget: q.budget,
		Sched: sched.Config{
			Slots: c.SMTPC.DeliveriesAtOnce, HostsMax: c.OCCEntries, HostsPerAttempt: c.SMTPC.HostsPerRcpt,
			Retry: retry.Bounds{Min: c.RetryMin, Max: c.RetryMax}, ReuseConnection: c.ReuseConnection,
			Limits: func(k sched.HostKey) sched.HostLimits { return c.hostLimits(k, &q.ports.Throttles) }, Ruled: c.rules.Ruled, Name: q.deps.Hostname,
			Providers: c.Names(nil).Providers, Provider: c.rules.ProviderOf, ProviderLimits: c.providerLimits,
			HangAfter: hangAfter, GiveUpAfter: giveUpAfter,
		},
		Patience:         aq.Patience{Return: c.ReturnDefault, Delay: c.DelayDefault},
		DANEPatience:     aq.Patience{Return: c.ReturnDANE, Delay: c.DelayDANE},
		SchedulerTimeout: c.SchedulerTimeout, DestinationShare: c.SMTPC.DestinationShare, ParksMax: c.OCCEntries,
		SpillOver: spillOver, ScanMax: c.DEFEDB.HashEntries, LMTPRcpts: c.SMTPC.LMTPRcpts, SMTPRcpts: c.SMTPC.SMTPRcpts, AlwaysLookup: c.SMTPC.LookupRcptConf,
		Notice: aq.NoticeConfig{
			MergeDelay: c.DSN.MergeDelay, HeaderOnly: c.DSN.HeaderOnly, NoLMTPDelay: c.DSN.NoLMTPDelay,
			ErrorsMax: c.DSN.ErrorsMax, DoubleBounce: c.doubleBounce(q.deps.Hostname),
		},
		VERP: c.VERP, Rewrite: q.deps.Rewrite,
		Limits:    c.rules.LimitsOf,
		HandsOver: func() bool { return q.ports.Handover.Via() != "" },
	}
}
