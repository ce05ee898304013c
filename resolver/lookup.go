package resolver

import (
	"context"

	"meta1/maps"
	"meta1/mta/msg"
)

// lookupFast answers from maps in memory.
func (r *Resolver) lookupFast(q *msg.LookupQ) (msg.LookupA, bool) {
	m := r.set.maps[q.Map]
	if m != nil && m.Blocking() {
		return msg.LookupA{}, false
	}
	return lookup(context.Background(), m, q), true
}

// lookupSlow answers from any map.
func (r *Resolver) lookupSlow(ctx context.Context, q *msg.LookupQ) msg.LookupA {
	return lookup(ctx, r.set.maps[q.Map], q)
}

func lookupFailed(reason string) msg.LookupA { return msg.LookupA{Err: reason} }

func lookup(ctx context.Context, m maps.Map, q *msg.LookupQ) msg.LookupA {
	if m == nil {
		return lookupFailed("map " + q.Map + " cannot be used")
	}
	value, res := m.Lookup(ctx, q.Key)
	switch {
	case res.Failed():
		return lookupFailed("map " + q.Map + ": " + res.String()) // the value may be of any kind
	case res != maps.OK:
		return msg.LookupA{}
	}
	return msg.LookupA{Value: value, Found: true}
}
