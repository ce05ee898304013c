package queue

import (
	"context"
	"sync/atomic"
	"time"
)

// gauges are what the loop shows of itself to the metrics.
type gauges struct {
	waiting  atomic.Int64 // recipients in the DEFEDB that are not in the active queue
	inflight atomic.Int64
	dests    atomic.Int64
	closed   atomic.Int64 // hosts to which no connection is tried for a while
	oldest   atomic.Int64 // arrival of the oldest message, in seconds since 1970; 0: none
}

// show publishes what is known at once; it is called at each tick.
func (l *loop) show() {
	g := &l.q.gauges
	g.waiting.Store(int64(max(l.counts.waiting, 0))) // until it is counted what was there at the start
	g.inflight.Store(int64(l.share.Used))
	g.dests.Store(int64(len(l.dests)))
}

// survey publishes what must be looked for; it is called now and then.
func (l *loop) survey() {
	closed := int64(0)
	for _, h := range l.hosts {
		if h.window.Closed(l.now) {
			closed++
		}
	}
	l.q.gauges.closed.Store(closed)
	var active time.Time
	for _, t := range l.tas {
		if active.IsZero() || t.env.Arrival.Before(active) {
			active = t.env.Arrival
		}
	}
	l.q.group.Go(func(context.Context) error {
		l.q.gauges.oldest.Store(unixOrZero(l.q.older(active)))
		return nil
	})
}

// older is the arrival of the oldest deferred message if that is before active. Ids
// ascend with time, so it is the one with the lowest id.
func (q *Queue) older(active time.Time) time.Time {
	deferred, ok, err := q.defedb.Oldest()
	if err != nil {
		q.log.Error("cannot tell the oldest message", "error", err)
	}
	if ok && (active.IsZero() || deferred.Before(active)) {
		return deferred
	}
	return active
}

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
