package sched

import (
	"math"
	"slices"
	"time"
)

const (
	// rateTime is the time in which the connections of a host are counted.
	rateTime = time.Minute
	// keptFor is how long a connection is taken to stay open after a delivery. SMTPC
	// keeps it for longer, by default.
	keptFor = 2 * time.Second
)

// rate bounds the connections that are opened to a host within a minute (ocr). Only
// the end of a delivery tells whether a connection was opened for it: until then one is
// counted, unless the host is known to keep connections and one should be idle. To find
// that out, one delivery may start when the connections of the minute are used up: if it
// opens a connection after all, that is one too many, once, and it counts as well. A nil
// rate has no bound.
type rate struct {
	max     int
	opened  []time.Time // connections of the last minute, oldest first
	idle    int         // connections that should be open and without work
	idleAt  time.Time   // when the last of them became idle
	reuse   reuse
	finding bool // the delivery that finds out whether connections are kept is in progress
}

// reuse is what is known of a host's keeping connections open.
type reuse uint8

const (
	reuseUnknown reuse = iota
	reuseYes
	reuseNo
)

// free returns how many deliveries may start.
func (r *rate) free(now time.Time) int {
	if r == nil {
		return math.MaxInt
	}
	old := 0
	for old < len(r.opened) && now.Sub(r.opened[old]) >= rateTime {
		old++
	}
	r.opened = slices.Delete(r.opened, 0, old)
	if now.Sub(r.idleAt) >= keptFor {
		r.idle = 0
	}
	n := max(r.max-len(r.opened), 0)
	switch {
	case r.reuse == reuseYes:
		n += r.idle
	case r.reuse == reuseUnknown && r.idle > 0 && !r.finding:
		n++
	}
	return n
}

// next returns when another connection may be opened, zero if that is now.
func (r *rate) next() time.Time {
	if r == nil || len(r.opened) < r.max {
		return time.Time{}
	}
	return r.opened[len(r.opened)-r.max].Add(rateTime)
}

// start counts a delivery that begins, one of those that free allows. It reports
// whether the delivery took one of the minute's connections.
func (r *rate) start(now time.Time) (counted bool) {
	switch {
	case r == nil:
		return false
	case r.idle > 0 && (r.reuse == reuseYes || len(r.opened) >= r.max):
		r.idle--
		r.finding = r.finding || r.reuse == reuseUnknown
		return false
	}
	r.opened = append(r.opened, now)
	return true
}

// connection is what a delivery did with connections.
type connection uint8

const (
	connOpened  connection = iota // it opened one
	connReused                    // it used one that was open already
	connUntried                   // it tried none
)

// ended corrects the count by what a delivery that began at start did. keeps says that
// its connection should be open and idle now.
func (r *rate) ended(now, start time.Time, counted bool, c connection, keeps bool) {
	if r == nil {
		return
	}
	if !counted {
		r.finding = false
	}
	switch {
	case c == connReused:
		r.reuse = reuseYes
		r.uncount(start, counted)
	case c == connUntried && !counted:
		r.idle++
	case c == connUntried:
		r.uncount(start, counted)
	case !counted: // there was none that was idle
		r.reuse, r.idle = reuseNo, 0
		r.opened = append(r.opened, now)
	}
	if keeps {
		r.idle++
		r.idleAt = now
	}
}

func (r *rate) uncount(start time.Time, counted bool) {
	if i := slices.Index(r.opened, start); counted && i >= 0 {
		r.opened = slices.Delete(r.opened, i, i+1)
	}
}
