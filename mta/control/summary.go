package control

import (
	"cmp"
	"slices"
	"time"
)

// groupsMax bounds what is counted apart; the rest is counted together.
const (
	groupsMax = 10_000
	others    = "(others)"
)

// AgeBuckets are those of qshape, in minutes; what is older is in one of its own.
func AgeBuckets() [9]int { return [...]int{5, 10, 20, 40, 80, 160, 320, 640, 1280} }

// Summary is the queue, counted.
type Summary struct {
	Messages     int            `json:"messages"`
	Recipients   int            `json:"recipients"`
	Bytes        int64          `json:"bytes"`
	States       map[string]int `json:"states"`
	Destinations []DestAges     `json:"destinations"` // most recipients first
	Reasons      []ReasonCount  `json:"reasons"`
	Time         time.Time      `json:"time,omitzero"` // at which it was counted
	// More says that destinations or reasons with fewer recipients were left out.
	More bool `json:"more,omitempty"`
}

// DestAges are the recipients of one destination.
type DestAges struct {
	Destination string `json:"destination"`
	Recipients  int    `json:"recipients"`
	// Ages has the recipients by their minutes in the queue: less than 5, 10, 20 and so on; the
	// last is what is older.
	Ages [10]int `json:"ages"`
	// Reason is why the recipient that is tried next waits, and NextTry when that is.
	Reason  string    `json:"reason,omitempty"`
	NextTry time.Time `json:"next_try,omitzero"`
}

// ReasonCount are the recipients that wait for one reason.
type ReasonCount struct {
	Reason     string `json:"reason"`
	Recipients int    `json:"recipients"`
}

// Summarizer counts recipients by destination and age, and by reason. It bounds what it holds.
type Summarizer struct {
	now      time.Time
	messages int
	rcpts    int
	bytes    int64
	last     string // the message that was counted last
	states   map[string]int
	dests    map[string]*DestAges
	reasons  map[string]int
}

// NewSummarizer makes one that counts ages against now.
func NewSummarizer(now time.Time) *Summarizer {
	return &Summarizer{now: now, states: map[string]int{}, dests: map[string]*DestAges{}, reasons: map[string]int{}}
}

// Add counts a recipient. Those of one message come one behind the other.
func (s *Summarizer) Add(e *Entry) {
	if e.TA != s.last || s.rcpts == 0 {
		s.last = e.TA
		s.messages++
		s.bytes += e.Size
	}
	s.rcpts++
	s.states[string(e.State)]++
	dest := cmp.Or(e.Dest, "(no route yet)")
	if s.dests[dest] == nil && len(s.dests) >= groupsMax {
		dest = others
	}
	d := s.dests[dest]
	if d == nil {
		d = &DestAges{Destination: dest}
		s.dests[dest] = d
	}
	d.Recipients++
	buckets := AgeBuckets()
	minutes := int(s.now.Sub(e.Arrival) / time.Minute)
	n, exact := slices.BinarySearch(buckets[:], minutes)
	if exact {
		n++ // a bucket ends before its number
	}
	d.Ages[n]++
	if e.Reason != "" && (d.Reason == "" || !e.NextTry.IsZero() && (d.NextTry.IsZero() || e.NextTry.Before(d.NextTry))) {
		d.Reason, d.NextTry = e.Reason, e.NextTry
	}
	reason := cmp.Or(e.Reason, string(e.State))
	if _, ok := s.reasons[reason]; !ok && len(s.reasons) >= groupsMax {
		reason = others
	}
	s.reasons[reason]++
}

// Summary is what was counted.
func (s *Summarizer) Summary() Summary {
	r := Summary{
		Messages: s.messages, Recipients: s.rcpts, Bytes: s.bytes, States: s.states, Time: s.now,
		Destinations: []DestAges{}, Reasons: []ReasonCount{},
	}
	for _, d := range s.dests {
		r.Destinations = append(r.Destinations, *d)
	}
	for reason, n := range s.reasons {
		r.Reasons = append(r.Reasons, ReasonCount{reason, n})
	}
	slices.SortFunc(r.Destinations, func(a, b DestAges) int {
		return cmp.Or(cmp.Compare(b.Recipients, a.Recipients), cmp.Compare(a.Destination, b.Destination))
	})
	slices.SortFunc(r.Reasons, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Recipients, a.Recipients), cmp.Compare(a.Reason, b.Reason))
	})
	return r
}

// Cut is the summary with at most n destinations and reasons.
func (s Summary) Cut(n int) Summary {
	if len(s.Destinations) > n {
		s.Destinations, s.More = s.Destinations[:n], true
	}
	if len(s.Reasons) > n {
		s.Reasons, s.More = s.Reasons[:n], true
	}
	return s
}
