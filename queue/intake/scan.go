package intake

import (
	"time"

	"meta1/mta/msg"
	"meta1/queue/entry"
)

const (
	// scanMax bounds the recipients that one scan brings.
	scanMax = 2000
	// scanInterval is the time between two scans that find all that is due, so that
	// recipients who become due one after the other come together.
	scanInterval = 250 * time.Millisecond
	// scanPause is the time until the next scan after the store could not be read.
	scanPause = 10 * time.Second
)

// ScanKind is what a scan looks for.
type ScanKind uint8

// The kinds.
const (
	ScanDue    ScanKind = iota // recipients that are due at Until, in the order of their times
	ScanLate                   // after a start: recipients that are due later than any should be
	ScanParked                 // recipients that are parked for Parks
	ScanSelect                 // recipients that Q selects, from From on
)

// Scan asks for deferred recipients as they are in the store after all saves before it. One
// scan runs at a time. What is in the active queue already is left out when it comes back.
type Scan struct {
	Kind ScanKind
	Max  int // recipients

	// Of ScanDue and ScanLate: behind Cursor, which the scan moves along.
	Until  time.Time
	Cursor entry.Due

	Parks []*ParkScan // of ScanParked

	// Of ScanSelect, for the operation with this ID.
	Operation uint64
	Q         msg.OperateQ
	Day       time.Time
	From      entry.Ref
}

// ParkScan is what a scan brings of one park.
type ParkScan struct {
	Dest string
	From entry.Ref // the first to be looked at; the scan sets the one behind the last
	Max  int
	Got  int // how many the scan has found

	park *Park
}

// Wants reports whether an operation is to be done to a deferred recipient. Who makes a scan
// asks for each that Q.Select matches.
func (q *Scan) Wants(st *entry.State) bool {
	switch q.Q.Op {
	case msg.OpRelease:
		return st.Held
	case msg.OpHold, msg.OpFlush, msg.OpRequeue, msg.OpReroute:
		return !st.Held // only a release lets it go
	}
	return true
}

// Loads reports whether what a scan finds goes to the active queue.
func (q *Scan) Loads() bool {
	return q.Kind != ScanSelect || q.Q.Op == msg.OpRemove || q.Q.Op == msg.OpExpire
}

// schedule is when what is due is looked for, and from where on.
type schedule struct {
	pausedUntil time.Time // the store could not be read; zero: it could
	dueLast     bool      // the last scan was of due recipients

	cursor  entry.Due // everything up to here is in the active queue
	nextDue time.Time // when the next is due; zero: at once
	looked  time.Time // when the last scan of due recipients has ended that found all
	// late is behind the last recipient that was due too late: the clock was set back while the queue did
	// not run, or retry_delay_max was lowered. Zero: there are no more.
	late    entry.Due
	lowered bool      // while a scan for these ran: it begins anew
	soonest time.Time // the first due time of those that were deferred while a scan ran; zero: none
}

// deferred takes note that a recipient is due at some time.
func (s *schedule) deferred(at time.Time, running bool) {
	if s.nextDue.After(at) {
		s.nextDue = at
	}
	switch {
	case running:
		if s.soonest.IsZero() || s.soonest.After(at) {
			s.soonest = at
		}
	case !s.cursor.At.IsZero() && !s.cursor.At.Before(at):
		s.cursor = entry.Due{}
	}
}

// findLate has recipients found that are due after the latest time that any should be.
func (s *schedule) findLate(latest time.Time) {
	if s.late.At.IsZero() || latest.Before(s.late.At) {
		s.late, s.lowered = entry.Due{At: latest}, true
	}
}

// due is when due recipients are looked for next.
func (s *schedule) due() time.Time {
	if at := s.looked.Add(scanInterval); at.After(s.nextDue) {
		return at
	}
	return s.nextDue
}

// next is when something may be looked for: due, or the end of a pause.
func (s *schedule) next() time.Time {
	if s.pausedUntil.IsZero() {
		return s.due()
	}
	return s.pausedUntil
}

// Scanning reports whether a scan runs.
func (i *Intake) Scanning() bool { return i.running != nil }

// Next is the next scan, nil if there is no room, nothing to read, or one runs already: for an
// operator first, then in turns for what is due and for what is parked. operation is asked for
// a scan of at most so many recipients for an operator.
func (i *Intake) Next(now time.Time, operation func(room int) *Scan) *Scan {
	s := &i.schedule
	if i.running != nil || now.Before(s.pausedUntil) {
		return nil
	}
	s.pausedUntil = time.Time{}
	room := min(i.cfg.Budget.Room(now), scanMax, i.cfg.ScanMax)
	due := !now.Before(s.due())
	q := operation(room)
	switch {
	case q != nil || room == 0:
	case !s.late.At.IsZero():
		q, s.lowered = &Scan{Kind: ScanLate, Max: room, Until: entry.Never(), Cursor: s.late}, false
	default:
		if s.dueLast || !due {
			if q = i.parkScan(now, room); q != nil {
				s.dueLast = false
			}
		}
		if q == nil && due {
			q = &Scan{Kind: ScanDue, Max: room, Until: now, Cursor: s.cursor}
			s.dueLast = true
		}
	}
	i.running = q
	return q
}

// parkScan takes parks of which something is to be loaded in turn, up to room recipients; nil
// if there is none. Those whose destination has enough for now stay queued.
func (i *Intake) parkScan(now time.Time, room int) *Scan {
	var parks []*ParkScan
	left := room
	for range i.wanted.Len() {
		if left <= 0 {
			break
		}
		p, _ := i.wanted.Pop()
		p.queued = false
		if !i.known(p) {
			continue
		}
		n := min(p.need(now), left, i.room(p.name))
		switch {
		case p.state == Returning && n <= 0:
			i.want(p)
		case n > 0:
			parks = append(parks, &ParkScan{Dest: p.name, From: p.from, Max: n, park: p})
			left -= n
		}
	}
	if len(parks) == 0 {
		return nil
	}
	return &Scan{Kind: ScanParked, Max: room, Parks: parks}
}

// Done ends a scan, after what it has brought was taken in. next is when the first recipient
// behind the cursor is due, zero for none; more says that others follow. After a failure it is
// made again, later.
func (i *Intake) Done(now time.Time, q *Scan, next time.Time, more, failed bool) {
	s := &i.schedule
	if failed {
		s.pausedUntil = now.Add(scanPause)
	}
	switch {
	case q.Kind == ScanParked:
		for _, f := range q.Parks {
			i.parkScanned(now, f, failed)
		}
	case failed:
	case q.Kind == ScanDue:
		s.cursor, s.nextDue = q.Cursor, next
		if !more {
			s.looked = now
		}
		if next.IsZero() {
			s.nextDue = entry.Never()
		}
	case q.Kind == ScanLate && !s.lowered:
		if s.late = q.Cursor; !more {
			s.late = entry.Due{}
		}
	}
	i.running = nil
	clear(i.stale)
	if soonest := s.soonest; !soonest.IsZero() {
		s.soonest = time.Time{}
		s.deferred(soonest, false)
	}
	parked := i.parked
	i.parked = nil
	for _, r := range parked {
		i.park(now, r)
	}
}

// parkScanned goes on with a park after a scan.
func (i *Intake) parkScanned(now time.Time, f *ParkScan, failed bool) {
	p := f.park
	switch {
	case !i.known(p):
	case failed:
		i.want(p)
	case p.state == Returning:
		if p.from = f.From; f.Got == f.Max {
			i.want(p)
		} else { // what is parked from now on makes a new one
			i.forget(now, p)
		}
	case f.Got == 0: // nothing to probe with
		i.forget(now, p)
	}
}
