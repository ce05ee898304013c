package queue

import (
	"context"
	"errors"
	"time"

	"meta1/mta/msg"
)

// showProviders publishes the figures of the providers. The loop calls it with each tick.
func (l *loop) showProviders() {
	if all := l.core.Providers(l.now); len(all) > 0 {
		l.q.gauges.Providers.Store(&all)
	}
}

// show publishes the figures of the core.
func (l *loop) show() {
	g, c, s := &l.q.gauges, l.core.Counts(), l.core.Stats()
	g.Waiting.Store(max(g.Before.Load()+int64(c.Waiting), 0))
	g.AsideNow.Store(g.Aside.Load() + int64(c.SetAside))
	g.Inflight.Store(int64(s.InUse.Now))
	g.Dests.Store(int64(s.Destinations.Now))
	g.Closed.Store(int64(s.Down.Now))
	g.Delivered.Store(int64(c.Delivered))
	g.Deferred.Store(int64(c.Deferred))
	g.Bounced.Store(int64(c.Bounced))
}

// showOldest publishes the oldest message now and then.
func (l *loop) showOldest() {
	if l.now.Sub(l.oldestAt) < oldestInterval {
		return
	}
	l.oldestAt = l.now
	active := l.core.Oldest()
	l.q.group.Go(func(context.Context) error { l.q.showOldest(active); return nil })
}

// oldestInterval is how often the oldest message is looked for.
const oldestInterval = 10 * time.Second

// showOldest publishes the arrival of the oldest message: that of the active queue or of the
// store, whose ids ascend with time.
func (q *Queue) showOldest(active *msg.Envelope) {
	v := q.db.View()
	oldest, ok, err := v.Oldest()
	if err := errors.Join(err, v.Close()); err != nil {
		q.log.Error("cannot tell the oldest message", "error", err)
	}
	if active != nil && (!ok || active.Arrival.Before(oldest)) {
		oldest, ok = active.Arrival, true
	}
	if !ok {
		q.gauges.Oldest.Store(0)
		return
	}
	q.gauges.Oldest.Store(oldest.Unix())
}
