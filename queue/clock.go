package queue

import (
	"hash/fnv"
	"math"
	"time"
)

// clock is the queue's own clock. It begins with the time of day at which the queue
// is opened and runs evenly from then on, whatever is done to the clock of the
// machine: all that the queue waits for is measured by it, and so are the times in
// the DEFEDB. What people read (a DSN, mailq, a log) is the time of day.
type clock struct {
	day   func() time.Time // the clock of the machine
	begin time.Time
	since time.Time // begin, with a monotonic reading
}

func newClock(day func() time.Time) *clock {
	if day == nil {
		day = time.Now
	}
	return &clock{day: day, begin: day().Round(0), since: time.Now()}
}

func (c *clock) now() time.Time { return c.begin.Add(time.Since(c.since)) }

// ahead is by how much the machine's clock was set forward since the queue was opened.
func (c *clock) ahead() time.Duration { return c.day().Round(0).Sub(c.now()) }

// date is a moment of the queue's clock as the machine's clock shows it now.
func (c *clock) date(t time.Time) time.Time { return t.Add(c.ahead()) }

// clockStep is from how much on a difference between the clocks is reported.
const clockStep = 10 * time.Second

// watchClock reports when the machine's clock was set. Nothing else need be done.
func (l *loop) watchClock() {
	ahead := l.q.clock.ahead()
	if by := ahead - l.ahead; by.Abs() >= clockStep {
		l.ahead = ahead
		l.q.log.Warn("the clock of the machine was set; retry times and queue_return are measured without it", "by", by.Round(time.Second).String())
	}
}

// waitedMax bounds what is added to the age of a recipient for the time between the
// last word on it and now, which may be one in which the queue did not run or the
// recipient was held: nobody can tell then whether time went by or the clock was set.
func (c *Config) waitedMax() time.Duration { return c.ReturnDefault / 2 }

// waited is the age of a recipient at now that had the age before at the time since.
func (c *Config) waited(before time.Duration, since, now time.Time) time.Duration {
	return before + min(max(now.Sub(since), 0), c.waitedMax())
}

// age is how long a recipient is in the queue.
func (l *loop) age(r *rcpt) time.Duration { return r.state.Waited + l.now.Sub(r.state.Stored) }

// chance is a number from [0,1) that its arguments alone determine, so that a run of
// the queue can be repeated. name makes it another one on each machine.
func chance(name string, numbers ...uint64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	x := h.Sum64()
	for _, n := range numbers {
		x = mix(x ^ mix(n))
	}
	return math.Ldexp(float64(mix(x)>>11), -53)
}

// rcptChance spreads the retry times of recipients.
func (q *Queue) rcptChance(r *rcpt, attempts int) float64 {
	return chance(q.deps.Hostname, r.t.env.TA.Counter, uint64(r.index), uint64(attempts))
}

// hostChance spreads the times for which hosts are closed.
func (q *Queue) hostChance(e *deliveredEvent) float64 {
	return chance(q.deps.Hostname+" "+e.hop.String(), uint64(e.h.window.Downs()))
}

// mix spreads the bits of x (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
