package queue

import (
	"context"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
	"meta1/queue/sched"
)

const (
	// tickInterval is how often the loop looks for due recipients and old ones.
	tickInterval = 250 * time.Millisecond
	// loadMax bounds the recipients that one load brings from the DEFEDB.
	loadMax = 2000
	// loadBelow: recipients are loaded while the active queue is less full, in percent.
	loadBelow = 75
	// sweepInterval is how often the loop looks for recipients that wait too long.
	sweepInterval = 10 * time.Second
)

// event is something that happened outside the loop. apply changes the loop's
// state and must not block.
type event interface{ apply(l *loop) }

// loop is QMGR's heart: it owns the active queue and decides what is sent when. It
// never waits for anything but events.
type loop struct {
	q   *Queue
	now time.Time // of the event that is applied, by the queue's clock

	tas     map[smtp.ID]*transaction
	entries int // recipients in the active queue
	dests   map[destKey]*dest
	hosts   map[hostKey]*host

	senders map[senderKey]*sender
	flows   map[flowKey]*flow
	waits   map[string]*wait     // by destination
	wanted  list[*wait]          // those of which something is to be brought
	ring    [2]list[*sender]     // senders with an open flow: of fresh mail, of deferred mail
	turns   sched.Turns          // between the two
	share   sched.Share          // of the places for deliveries
	blocked [2]sched.Heap[*host] // those that share keeps from using their windows: that serve, that are new
	held    sched.Heap[*sender]  // those that share keeps from new hosts
	asks    asks
	// routesFrom is when the maps were read last: older routes may not be used.
	routesFrom time.Time
	begin      func(msg.DeliverQ, *deliveredEvent)

	cursor  defedb.Cursor // DEFEDB: everything up to here is in the active queue
	loading bool
	// gone are recipients that a load may have read and must not bring: the state that it
	// has is old. True while the end of the recipient is not durable, else until the load
	// is over.
	gone     map[rcptRef]bool
	dueLast  bool      // the last load was of due recipients, not of waiting ones
	nextDue  time.Time // when to load again; zero: at once
	soonest  time.Time // when the first is due of those that were deferred during a load; or zero
	quiet    []*transaction
	swept    time.Time
	draining bool
	timers   sched.Heap[timer]
	ahead    time.Duration // of the machine's clock, as it was last reported

	counts counts
}

// counts are the totals since the start.
type counts struct {
	accepted, delivered, deferred, bounced, dropped uint64
	waiting                                         int  // recipients in the DEFEDB that are not in the active queue
	counted                                         bool // waiting holds those that were there at the start, too
}

func newLoop(q *Queue) *loop {
	l := &loop{
		q: q, tas: map[smtp.ID]*transaction{}, dests: map[destKey]*dest{}, hosts: map[hostKey]*host{},
		senders: map[senderKey]*sender{}, flows: map[flowKey]*flow{}, waits: map[string]*wait{}, gone: map[rcptRef]bool{}, asks: newAsks(), routesFrom: q.clock.now(), share: sched.Share{Places: q.cfg.SMTPC.DeliveriesAtOnce},
		timers: sched.NewHeap(func(a, b timer) bool { return a.at.Before(b.at) }, nil),
		held:   sched.NewHeap(func(a, b *sender) bool { return a.running < b.running }, func(s *sender) *int { return &s.place }),
	}
	for i := range l.blocked {
		l.blocked[i] = sched.NewHeap(func(a, b *host) bool { return a.used() < b.used() }, func(h *host) *int { return &h.place })
	}
	l.begin = l.deliver
	return l
}

// loopPorts are the questions that the loop answers itself.
type loopPorts struct {
	list    <-chan *listRequest
	status  <-chan *statusRequest
	operate <-chan *operateRequest
	hosts   <-chan *hostsRequest
}

// run applies events until life ends. When stop ends it starts nothing new, and
// returns as soon as nothing is under way, or at the end of drainMax.
func (l *loop) run(life context.Context, stop <-chan struct{}, ports loopPorts) error {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	var spare []event
	var drain <-chan time.Time
	for {
		select {
		case <-l.q.events.ready:
			spare = l.applyAll(spare)
		case <-tick.C:
			l.tick()
		case r := <-ports.list:
			l.list(r)
		case r := <-ports.status:
			r.Answer(l.status())
		case r := <-ports.operate:
			l.operate(r)
		case r := <-ports.hosts:
			l.listHosts(r)
		case <-stop:
			stop, l.draining = nil, true
			drain = time.After(drainMax)
		case <-drain:
			return nil
		case <-life.Done():
			return nil
		}
		if l.draining && l.idle() {
			return nil
		}
		l.q.entries.Store(int64(l.entries))
	}
}

// idle reports that nothing is under way whose result would be lost.
func (l *loop) idle() bool {
	if l.share.Used > 0 {
		return false
	}
	for _, t := range l.tas {
		if t.pending > 0 {
			return false
		}
	}
	return true
}

func (l *loop) applyAll(spare []event) []event {
	l.now = l.q.clock.now()
	events := l.q.events.take(spare)
	for _, ev := range events {
		ev.apply(l)
	}
	l.schedule()
	return events
}

func (l *loop) tick() {
	l.now = l.q.clock.now()
	l.watchClock()
	l.strike()
	l.load()
	if l.now.Sub(l.swept) >= sweepInterval {
		l.swept = l.now
		l.sweep()
		l.survey()
	}
	l.relieve()
	l.schedule()
	l.show()
}

// timer is something to do at a later tick.
type timer struct {
	at time.Time
	do func()
}

// after does something in the loop when d is over.
func (l *loop) after(d time.Duration, do func()) { l.at(l.now.Add(d), do) }

// at does something in the loop at the first tick that is not before t.
func (l *loop) at(t time.Time, do func()) { l.timers.Push(timer{at: t, do: do}) }

// strike does what is due.
func (l *loop) strike() {
	var due []timer
	for l.timers.Len() > 0 && !l.timers.First().at.After(l.now) {
		t, _ := l.timers.Pop()
		due = append(due, t)
	}
	for _, t := range due { // what they ask for comes at a later tick
		t.do()
	}
}

// acceptedEvent: transactions became durable.
type acceptedEvent struct{ ts []*transaction }

func (e *acceptedEvent) apply(l *loop) {
	for _, t := range e.ts {
		l.counts.accepted++
		l.enter(t)
	}
}

// enter takes a transaction into the active queue and asks for its routes. What
// does not fit goes to the DEFEDB.
func (l *loop) enter(t *transaction) {
	l.tas[t.env.TA] = t
	l.entries += len(t.rcpts)
	l.q.logAccepted(context.Background(), t)
	if t.left == 0 {
		l.finish(t)
		return
	}
	if l.entries > l.q.cfg.AQEntriesMax {
		for _, r := range append([]*rcpt(nil), t.rcpts...) {
			l.postpone(r, fullPause, "the active queue is full")
		}
		return
	}
	l.route(t, append([]*rcpt(nil), t.rcpts...))
}

// fullPause is how long a recipient waits that found the active queue full.
const fullPause = 10 * time.Second

// retryPolicy bounds the retry times.
func (l *loop) retryPolicy() sched.Retry {
	return sched.Retry{Min: l.q.cfg.RetryMin, Max: l.q.cfg.RetryMax}
}

// ended ends a recipient: it was delivered, or it was given up and the notice of
// that is durable.
func (l *loop) end(r *rcpt) {
	t := r.t
	l.leave(r)
	t.left--
	if r.home == homeDEFEDB {
		t.pending++
		l.gone[rcptRef{t.env.TA, r.index}] = true
		ops := []deferOp{{kind: deferEnd, ta: t.env.TA, r: r, state: defedb.State{Index: r.index}, old: r.state.NextTry}}
		if t.left == 0 && !t.inIBDB { // in the same commit
			t.inDEFEDB = false
			ops = append(ops, deferOp{kind: deferForget, ta: t.env.TA, unlink: t.hasFile})
		}
		l.q.deferrer.ops.put(ops...)
		return
	}
	l.endIBDB(t, r.index)
	if t.left == 0 {
		l.finish(t)
	}
}

// endIBDB records that a recipient has no more business in the IBDB.
func (l *loop) endIBDB(t *transaction, index int) {
	if t.ibdbLeft--; t.ibdbLeft > 0 {
		t.ended = append(t.ended, index)
		l.q.journal.ops.put(journalOp{kind: opEnd, ta: t.env.TA, index: index})
		return
	}
	t.inIBDB = false
	op := journalOp{kind: opForget, ta: t.env.TA, hadIt: t.inline, ended: t.ended}
	// The content may go only when the IBDB has forgotten the envelope; if the
	// DEFEDB has one too, it must forget that first.
	if t.left == 0 && t.inDEFEDB {
		t.pending++
		op.done = &forgottenEvent{t: t}
	} else if t.left == 0 {
		op.unlink = t.hasFile
	}
	t.inline = false
	l.q.journal.ops.put(op)
}

// forgottenEvent: the IBDB has forgotten a transaction that the DEFEDB still has.
type forgottenEvent struct{ t *transaction }

func (e *forgottenEvent) apply(l *loop) {
	e.t.pending--
	l.finish(e.t)
}

// finish forgets a transaction of which no recipient is left, as soon as nothing
// is under way for it.
func (l *loop) finish(t *transaction) {
	if t.pending > 0 || t.inIBDB || t.spilling {
		if t.ibdbLeft == 0 && t.inIBDB && t.left == 0 { // recovered without any recipient
			t.ibdbLeft = 1
			l.endIBDB(t, 0)
			l.finish(t)
		}
		return
	}
	if t.inDEFEDB {
		t.inDEFEDB = false
		l.q.deferrer.ops.put(deferOp{kind: deferForget, ta: t.env.TA, unlink: t.hasFile})
	}
	l.release(t)
	delete(l.tas, t.env.TA)
}

// leave takes a recipient out of the active queue.
func (l *loop) leave(r *rcpt) {
	r.t.drop(r)
	r.dest, r.job = nil, nil
	l.entries--
	if r.wait != nil {
		r.wait.active--
		r.wait = nil
	}
}

// release gives the memory of the content back.
func (l *loop) release(t *transaction) {
	if t.memory > 0 {
		l.q.memory.Add(-t.memory)
		t.memory = 0
	}
}

// settle forgets a transaction in memory that has no recipient in the active
// queue but some in the DEFEDB. While recipients are being loaded it must stay,
// because the load may have counted what is no longer true.
func (l *loop) settle(t *transaction) {
	switch {
	case t.left == 0:
		l.finish(t)
	case len(t.rcpts) > 0 || t.pending > 0 || t.spilling:
	case l.loading:
		l.quiet = append(l.quiet, t)
	default:
		l.release(t)
		delete(l.tas, t.env.TA)
	}
}

// deliveredLog is the line of README 10.4 for a recipient.
func (l *loop) logEnd(what string, r *rcpt, reply smtp.Reply) {
	ctx := context.Background()
	if !l.q.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	l.q.log.LogAttrs(ctx, slog.LevelInfo, what,
		slog.String("rcpt_id", r.id()), slog.Any("rcpt", r.path()),
		slog.Int64("xdelay", seconds(l.now.Sub(r.start), r.start)), slog.Int64("delay", int64(l.age(r)/time.Second)),
		slog.Any("reply", reply))
}

func seconds(d time.Duration, start time.Time) int64 {
	if start.IsZero() {
		return 0
	}
	return int64(d / time.Second)
}
