package control

import (
	"cmp"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

const (
	// GroupsMax bounds the destinations and the reasons of a summary; what is beyond is counted together, as one
	// of them.
	GroupsMax = 10_000
	others    = "(others)"
)

// AgeBuckets are those of qshape, in minutes; what is older is in one of its own.
func AgeBuckets() [9]int { return [...]int{5, 10, 20, 40, 80, 160, 320, 640, 1280} }

// SummaryQuestion asks for the queue, counted.
type SummaryQuestion struct {
	// Max is how many destinations and how many reasons are wanted, those with the most recipients; 0 stands for
	// 500, and GroupsMax is the most.
	Max int
	// Fresh: what is counted must not be older than the question. It may be some seconds old otherwise, or ten
	// times as long as it took to count.
	Fresh bool
}

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
	last     smtp.ID // the message that was counted last
	states   map[msg.QueueState]int
	dests    map[string]*DestAges
	reasons  map[string]*int
}

// NewSummarizer makes one that counts ages against now.
func NewSummarizer(now time.Time) *Summarizer {
	return &Summarizer{now: now, states: map[msg.QueueState]int{}, dests: map[string]*DestAges{}, reasons: map[string]*int{}}
}

// Add counts a recipient. Those of one message come one behind the other.
func (s *Summarizer) Add(e *msg.ListEntry) {
	if e.TA != s.last || s.rcpts == 0 {
		s.last = e.TA
		s.messages++
		s.bytes += e.Size
	}
	s.rcpts++
	s.states[e.State]++
	d := s.dest(cmp.Or(e.Dest, "(no route yet)"))
	d.Recipients++
	buckets := AgeBuckets()
	minutes := int(s.now.Sub(e.Arrival) / time.Minute)
	age, exact := slices.BinarySearch(buckets[:], minutes)
	if exact {
		age++ // a bucket ends before its number
	}
	d.Ages[age]++
	if e.Reason != "" && (d.Reason == "" || !e.NextTry.IsZero() && (d.NextTry.IsZero() || e.NextTry.Before(d.NextTry))) {
		d.Reason, d.NextTry = e.Reason, e.NextTry
	}
	reason := cmp.Or(e.Reason, string(e.State))
	n := s.reasons[reason]
	if n == nil {
		if len(s.reasons) >= GroupsMax-1 {
			reason = others
		}
		if n = s.reasons[reason]; n == nil {
			n = new(int)
			s.reasons[reason] = n
		}
	}
	*n++
}

// dest is what is counted for a destination, or for those that are not counted apart.
func (s *Summarizer) dest(name string) *DestAges {
	if d := s.dests[name]; d != nil {
		return d
	}
	if len(s.dests) >= GroupsMax-1 {
		name = others
	}
	d := s.dests[name]
	if d == nil {
		d = &DestAges{Destination: name}
		s.dests[name] = d
	}
	return d
}

// Summary is what was counted.
func (s *Summarizer) Summary() Summary {
	r := Summary{
		Messages: s.messages, Recipients: s.rcpts, Bytes: s.bytes, States: map[string]int{}, Time: s.now,
		Destinations: []DestAges{}, Reasons: []ReasonCount{},
	}
	for state, n := range s.states {
		r.States[string(state)] = n
	}
	for _, d := range s.dests {
		r.Destinations = append(r.Destinations, *d)
	}
	for reason, n := range s.reasons {
		r.Reasons = append(r.Reasons, ReasonCount{reason, *n})
	}
	slices.SortFunc(r.Destinations, func(a, b DestAges) int {
		return cmp.Or(cmp.Compare(b.Recipients, a.Recipients), cmp.Compare(a.Destination, b.Destination))
	})
	slices.SortFunc(r.Reasons, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Recipients, a.Recipients), cmp.Compare(a.Reason, b.Reason))
	})
	return r
}

// Cut is the summary with at most n destinations and reasons, which share their memory with the whole.
func (s Summary) Cut(n int) Summary {
	if len(s.Destinations) > n {
		s.Destinations, s.More = s.Destinations[:n], true
	}
	if len(s.Reasons) > n {
		s.Reasons, s.More = s.Reasons[:n], true
	}
	return s
}
