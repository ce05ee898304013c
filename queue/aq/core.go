package aq

import (
	"log/slog"
	"slices"
	"time"

	"meta1/mta/lists"
	"meta1/mta/smtp"
	"meta1/queue/budget"
	"meta1/queue/intake"
	"meta1/queue/lookup"
	"meta1/queue/retry"
	"meta1/queue/sched"
	"meta1/queue/verp"
)

// Config is what the decisions depend on. Configure changes it.
type Config struct {
	Hostname string
	Budget   *budget.Budget
	Sched    sched.Config

	Patience         Patience
	DANEPatience     Patience // if no TLSA record matches the certificate of a host (README 3.8, item 13)
	SchedulerTimeout time.Duration

	DestinationShare int // percent of the active queue
	ParksMax         int // destinations for which mail is parked
	ScanMax          int // recipients of one scan
	LMTPRcpts        int // most recipients of one delivery
	SMTPRcpts        int
	SpillOver        int64 // content of a deferred message that is larger goes to a file
	AlwaysLookup     bool  // a stored destination does not give a route: recipients are looked up in the access map

	Notice NoticeConfig
	VERP   verp.Config
	// Rewrite gives the sender by SRS for mail that is forwarded; false: there is none. Nil: senders stay.
	Rewrite func(from smtp.Path) (smtp.Path, bool)

	// Limits names the connection_limits for recipients at a domain, "" for none.
	Limits func(domain string) string

	// HandsOver reports whether mail is handed over to another MTA: then each route is looked up anew,
	// also for domains that have none. Nil: never.
	HandsOver func() bool
}

// Patience is how long a recipient may stay in the queue.
type Patience struct {
	Return time.Duration // queue_return: then it has failed
	Delay  time.Duration // queue_delay: then its sender is told; 0: never
}

// NoticeConfig says how senders are told.
type NoticeConfig struct {
	MergeDelay   time.Duration
	HeaderOnly   bool
	NoLMTPDelay  bool
	ErrorsMax    int
	DoubleBounce smtp.Path // zero: double bounces are dropped
}

// Counts are totals since the start, and what is there now.
type Counts struct {
	Accepted, Delivered, Deferred, Bounced, Dropped, SetAside uint64
	// Waiting is the number of deferred recipients that are not in the active queue,
	// relative to those that were there at the start.
	Waiting    int
	MaxWaiting int // the highest so far (README 9.4)
}

// Core is the active queue. One goroutine at a time may call its methods.
type Core struct {
	cfg   Config
	now   time.Time     // of the present event, by the queue's clock
	ahead time.Duration // of the machine's clock

	messages   map[smtp.ID]*message
	sched      *sched.Scheduler
	routes     lookup.Routes
	lookups    lookup.Queue[*rcpt]
	intake     *intake.Intake
	operations []*operation // in the order in which they were asked for
	timers     lists.Heap[timer]
	idle       []*message // have nothing to do here, when the scan that runs has ended
	swept      time.Time
	down       [modules]bool // work for these modules pauses
	draining   bool

	saved  uint64  // Save.ID of the last one that was made
	saving []*Save // not yet durable, in order
	// rewritten is the last save of records that are not in the active queue.
	rewritten uint64
	making    int // messages of our own that are being made
	running   map[*sched.Delivery]*Delivery

	out    Ready
	spare  Ready
	counts Counts
}

// New makes an empty active queue.
func New(cfg Config, now time.Time) *Core {
	c := &Core{
		cfg: cfg, now: now,
		messages: map[smtp.ID]*message{}, sched: sched.New(cfg.Sched), routes: lookup.NewRoutes(),
		lookups: lookup.New[*rcpt](), running: map[*sched.Delivery]*Delivery{},
		timers: newTimers(),
	}
	c.routes.Configure(now, cfg.AlwaysLookup)
	c.intake = intake.New(c.intakeConfig(), now)
	return c
}

func (c *Core) intakeConfig() intake.Config {
	return intake.Config{
		Budget: c.cfg.Budget, Sched: c.sched, Retry: c.cfg.Sched.Retry, ParksMax: c.cfg.ParksMax, ScanMax: c.cfg.ScanMax,
		Share: c.cfg.DestinationShare, Date: c.date,
	}
}

// configure does what Configure says.
func (c *Core) configure(cfg Config) {
	c.cfg = cfg
	c.routes.Configure(c.now, cfg.AlwaysLookup)
	c.sched.Configure(c.now, cfg.Sched)
	c.intake.Configure(c.now, c.intakeConfig())
	held := c.timers
	c.timers = newTimers()
	for _, t := range held.All() {
		if latest := c.now.Add(cfg.Notice.MergeDelay); t.at.After(latest) {
			t.at = latest
		}
		c.timers.Push(t)
	}
}

// Step takes an event. What follows from it comes with the next Ready.
func (c *Core) Step(now time.Time, ev Event) {
	c.now = now
	switch ev := ev.(type) {
	case *Accepted:
		c.counts.Accepted++
		m := newMessage(&ev.Message)
		m.takeFresh(nil, now, 0)
		m.left = m.fresh
		c.enter(m)
	case *Recovered:
		c.recovered(ev)
	case *Routed:
		c.routed(ev)
	case *Delivered:
		c.delivered(ev)
	case *Progress:
		c.sched.Progress(now, ev.Delivery.attempt.d)
	case *Made:
		c.made(ev)
	case *Scanned:
		c.scanned(ev)
	case *Operate:
		c.operate(ev)
	case *Withdraw:
		c.withdrawn(ev.ID)
	case *Up:
		c.down[ev.Module] = false
	case *ClockSet:
		c.clockSet(ev.Ahead)
	case *Configure:
		c.configure(ev.Config)
	case *LimitsChanged:
		c.sched.SetLimits(now)
	case *Parked:
		for _, dest := range ev.Dests {
			c.intake.Backlog(dest)
		}
	case *Drain:
		c.draining = true
	}
}

// sweepInterval is how often the core looks for recipients that wait too long.
const sweepInterval = 10 * time.Second

// Tick lets time pass. Call it when Wake says so; earlier does no harm.
func (c *Core) Tick(now time.Time) {
	c.now = now
	for c.timers.Len() > 0 && !c.timers.First().at.After(now) {
		t, _ := c.timers.Pop()
		c.sendHeld(t.m)
	}
	for _, d := range c.sched.Tick(now) {
		c.out.Cancel = append(c.out.Cancel, c.running[d])
	}
	c.intake.Tick(now)
	if now.Sub(c.swept) >= sweepInterval {
		c.swept = now
		for _, j := range c.sched.TimedOut(now, c.cfg.SchedulerTimeout) {
			c.timedOut(j)
		}
		c.routes.Sweep(c.now)
	}
}

// Wake is when Tick has something to do, if nothing happens before; zero for never.
func (c *Core) Wake() time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	sooner(c.timers.First().at)
	sooner(c.sched.NextAlarm())
	if len(c.messages) > 0 {
		sooner(c.swept.Add(sweepInterval))
	}
	if c.mayScan() {
		sooner(c.intake.Wake())
	}
	return at
}

// Advance tells that all saves up to an ID are durable.
func (c *Core) Advance(now time.Time, id uint64) {
	c.now = now
	n := 0
	for n < len(c.saving) && c.saving[n].ID <= id {
		c.done(c.saving[n])
		n++
	}
	c.saving = slices.Delete(c.saving, 0, n)
}

// Ready is what is to be done. It is empty when there is nothing (Ready.Empty).
func (c *Core) Ready() *Ready {
	c.lookUp()
	c.dispatch()
	if c.mayScan() {
		c.out.Scan = c.intake.Next(c.now, c.operationScan)
	}
	c.spare.reset()
	c.out, c.spare = c.spare, c.out
	return &c.spare
}

// mayScan reports whether deferred records may be read. While those that an operation changes
// where they lie are being written, a scan could bring what they were before: a recipient that
// is held would be tried.
func (c *Core) mayScan() bool {
	return !c.draining && (len(c.saving) == 0 || c.saving[0].ID > c.rewritten)
}

// Idle reports whether nothing is in progress whose result would be lost.
func (c *Core) Idle() bool {
	return len(c.running)+len(c.saving)+c.making == 0
}

// reset empties r and keeps its memory.
func (r *Ready) reset() {
	*r = Ready{
		Save: cut(r.Save), Unlink: cut(r.Unlink), Spill: cut(r.Spill), Evict: cut(r.Evict), Lookup: cut(r.Lookup),
		Deliver: cut(r.Deliver), Cancel: cut(r.Cancel), Make: cut(r.Make), Answer: cut(r.Answer), Log: cut(r.Log), attrs: cut(r.attrs),
	}
}

func cut[T any](list []T) []T {
	clear(list)
	return list[:0]
}

// Empty reports whether there is nothing to do.
func (r *Ready) Empty() bool {
	return len(r.Save)+len(r.Unlink)+len(r.Evict)+len(r.Spill)+len(r.Lookup)+len(r.Deliver)+len(r.Cancel)+len(r.Make)+len(r.Answer)+len(r.Log) == 0 && r.Scan == nil
}

// timer is when notices of a message are sent that were held back.
type timer struct {
	at time.Time
	m  *message
}

func newTimers() lists.Heap[timer] {
	return lists.NewHeap(func(a, b timer) bool { return a.at.Before(b.at) }, nil)
}

// clockStep is from how much on a difference between the clocks is reported.
const clockStep = 10 * time.Second

func (c *Core) clockSet(ahead time.Duration) {
	by := ahead - c.ahead
	c.ahead = ahead
	if by.Abs() >= clockStep {
		c.log(slog.LevelWarn, "the clock of the machine was set; retry times and queue_return are measured without it", slog.String("by", by.Round(time.Second).String()))
	}
}

// date is a moment of the queue's clock as the machine's clock shows it.
func (c *Core) date(t time.Time) string { return t.Add(c.ahead).UTC().Format(time.RFC3339) }

func (c *Core) log(level slog.Level, text string, attrs ...slog.Attr) {
	first := len(c.out.attrs)
	c.out.attrs = append(c.out.attrs, attrs...)
	c.out.Log = append(c.out.Log, Line{Level: level, Text: text, Attrs: c.out.attrs[first:len(c.out.attrs):len(c.out.attrs)]})
}

// age is how long a recipient is in the queue.
func (c *Core) age(r *rcpt) time.Duration { return r.rec.Waited + c.now.Sub(r.rec.Stored) }

// chance spreads the retry times of recipients.
func (c *Core) chance(r *rcpt, n int) float64 {
	return retry.Chance(c.cfg.Hostname, r.m.env.TA.Counter, uint64(r.index), uint64(n))
}
