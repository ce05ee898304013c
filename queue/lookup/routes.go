package lookup

import (
	"time"

	"meta1/mta/msg"
)

// Routes keeps the routes of destinations, so that other recipients need no lookup. One is used
// until it expires, until the maps are read anew, or until its hosts fail.
type Routes struct {
	known map[string]route // by destination
	// from is when the maps were read last: older routes may not be used.
	from  time.Time
	never bool
}

// route is what is known of a destination from the last lookup that led to it.
type route struct {
	hops    []msg.Hop
	asked   time.Time
	expires time.Time
}

// NewRoutes knows none.
func NewRoutes() Routes { return Routes{known: map[string]route{}} }

// Configure notes that the maps were read: no route that was asked for before is used any more. never
// says that each recipient needs a lookup of its own.
func (r *Routes) Configure(now time.Time, never bool) { r.from, r.never = now, never }

// Of returns the hosts of a destination, nil if they must be looked up.
func (r *Routes) Of(now time.Time, dest string) []msg.Hop {
	if rt := r.known[dest]; r.usable(now, rt) {
		return rt.hops
	}
	return nil
}

// usable reports whether a route may be used without a lookup.
func (r *Routes) usable(now time.Time, rt route) bool {
	return !r.never && now.Before(rt.expires) && !rt.asked.Before(r.from)
}

// Keep notes the route of a destination for other recipients. Its expiry is of the machine's clock,
// which is ahead of the queue's, and becomes one of the queue's.
func (r *Routes) Keep(now time.Time, a *msg.RouteA, asked time.Time, ahead time.Duration) {
	expires := a.Expires.Add(-ahead)
	if a.Expires.IsZero() || !expires.After(now) {
		return
	}
	if rt := r.known[a.Dest]; r.usable(now, rt) && rt.expires.Before(expires) {
		return // what is shorter holds
	}
	r.known[a.Dest] = route{hops: a.Hops, asked: asked, expires: expires}
}

// Forget drops the route of a destination.
func (r *Routes) Forget(dest string) { delete(r.known, dest) }

// Sweep drops routes that may not be used any more.
func (r *Routes) Sweep(now time.Time) {
	for dest, rt := range r.known {
		if !r.usable(now, rt) {
			delete(r.known, dest)
		}
	}
}
