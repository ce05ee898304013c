package queue

import "time"

// clock is the queue's own clock. It begins with the time of day at which the queue
// is opened and runs evenly from then on, whatever is done to the clock of the
// machine: all that the queue waits for is measured by it, and so are the times in
// the store. What people read (a DSN, mailq, a log) is the time of day.
type clock struct {
	day   func() time.Time // the clock of the machine
	begin time.Time
	since time.Time // begin, with a monotonic reading
}

// newClock makes the clock. A machine whose clock stands before 1970 at the start begins with
// 1970: no earlier time can be stored.
func newClock(day func() time.Time) *clock {
	if day == nil {
		day = time.Now
	}
	begin := day().Round(0)
	if epoch := time.Unix(0, 0); begin.Before(epoch) {
		begin = epoch
	}
	return &clock{day: day, begin: begin, since: time.Now()}
}

func (c *clock) now() time.Time { return c.begin.Add(time.Since(c.since)) }

// ahead is by how much the machine's clock was set forward since the queue was opened.
func (c *clock) ahead() time.Duration { return c.day().Round(0).Sub(c.now()) }

// date is a moment of the queue's clock as the machine's clock shows it now.
func (c *clock) date(t time.Time) time.Time { return t.Add(c.ahead()) }
