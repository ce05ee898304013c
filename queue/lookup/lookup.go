// Package lookup says whose routes are looked up next. It is pure: it knows recipients only as
// values of some type, and neither asks nor answers.
//
// Routes are looked up by domains: a lookup that hangs holds up its own domain only. One batch
// is in progress for a domain at a time, and several as long as they are answered, for a map
// may take its time for each. Domains take turns by sender, none of whom has more than a quarter
// of the lookups in progress: so a list of addresses at very many domains whose name servers
// hang holds nobody else up, nor do three of them.
//
// What was answered for a destination is kept for other recipients (Routes).
package lookup

import "meta1/mta/lists"

const (
	// most lookups are in progress, and of these mostSender for mail of one sender.
	most       = 256
	mostSender = most / 4
	// mostDomain leaves most of a sender's lookups to other domains.
	mostDomain = mostSender / 4
	// batchMax bounds the recipients of a lookup.
	batchMax = 100
	// groupMax is how many of a batch one message may have while others wait.
	groupMax = 25
)

// Queue is recipients that need routes.
type Queue[T any] struct {
	running int
	senders map[string]*sender[T]
	turns   lists.FIFO[*sender[T]] // senders with domains, who may have another lookup
	domains map[string]*domain[T]

	// The last ones that were forgotten. While answers come at once each message needs one of both.
	spareSender *sender[T]
	spareDomain *domain[T]
}

// sender is whose mail needs routes.
type sender[T any] struct {
	name    string
	running int
	domains lists.FIFO[*domain[T]] // some may be done by now
	queued  bool                   // in Queue.turns
}

// domain is a domain whose recipients need routes.
type domain[T any] struct {
	name     string
	running  int
	answered bool // the last lookup was
	listed   int  // in so many lists of senders
	parts    lists.FIFO[*Part[T]]
}

// Part is the recipients of one message at one domain.
type Part[T any] struct {
	sender string
	rcpts  []T
}

// Add adds a recipient.
func (p *Part[T]) Add(r T) { p.rcpts = append(p.rcpts, r) }

// Batch is one lookup: recipients at one domain.
type Batch[T any] struct {
	Domain string
	Rcpts  []T

	domain *domain[T]
	sender *sender[T]
}

// New makes an empty queue.
func New[T any]() Queue[T] {
	return Queue[T]{senders: map[string]*sender[T]{}, domains: map[string]*domain[T]{}}
}

// Add queues recipients of one message at a domain, whose name is in lower case. They are added
// to the part before Next is called.
func (q *Queue[T]) Add(name, from string) *Part[T] {
	d := q.domains[name]
	if d == nil {
		if d, q.spareDomain = q.spareDomain, nil; d == nil {
			d = new(domain[T])
		}
		d.name = name
		q.domains[name] = d
	}
	p := &Part[T]{sender: from}
	d.parts.Push(p)
	q.queue(d, from)
	return p
}

// queue gives a domain a place in the turns of a sender.
func (q *Queue[T]) queue(d *domain[T], from string) {
	s := q.senders[from]
	if s == nil {
		if s, q.spareSender = q.spareSender, nil; s == nil {
			s = new(sender[T])
		}
		s.name = from
		q.senders[from] = s
	}
	s.domains.Push(d)
	d.listed++
	q.queueSender(s)
}

func (q *Queue[T]) queueSender(s *sender[T]) {
	if !s.queued && s.domains.Len() > 0 && s.running < mostSender {
		s.queued = true
		q.turns.Push(s)
	}
	if s.domains.Len() == 0 && s.running == 0 && q.senders[s.name] == s {
		delete(q.senders, s.name)
		*s = sender[T]{domains: s.domains.Empty()}
		q.spareSender = s
	}
}

// Next begins the next lookup, nil if none may begin now. Recipients that are not wanted any
// more are left out.
func (q *Queue[T]) Next(wanted func(T) bool) (b *Batch[T]) {
	for b == nil && q.running < most {
		s, ok := q.turns.Pop()
		if !ok {
			return nil
		}
		s.queued = false
		d, ok := s.domains.Pop()
		if ok {
			d.listed--
		}
		if ok && d.more() {
			if rcpts := d.batch(wanted); len(rcpts) > 0 {
				b = &Batch[T]{Domain: d.name, Rcpts: rcpts, domain: d, sender: s}
				q.running++
				s.running++
				d.running++
			}
			q.again(d)
		}
		q.queueSender(s)
	}
	return b
}

// Done ends a lookup. hung says that it was not answered in time.
func (q *Queue[T]) Done(b *Batch[T], hung bool) {
	b.domain.answered = !hung
	q.running--
	b.sender.running--
	b.domain.running--
	q.again(b.domain)
	q.queueSender(b.sender)
}

// more reports whether another batch may be in progress.
func (d *domain[T]) more() bool {
	return d.parts.Len() > 0 && (d.running == 0 || d.answered && d.running < mostDomain)
}

// batch takes the next recipients to look up: some of each message in turn.
func (d *domain[T]) batch(wanted func(T) bool) (rcpts []T) {
	for len(rcpts) < batchMax && d.parts.Len() > 0 {
		p, _ := d.parts.Pop()
		n := min(groupMax, batchMax-len(rcpts), len(p.rcpts))
		for _, r := range p.rcpts[:n] {
			if wanted(r) {
				rcpts = append(rcpts, r)
			}
		}
		if p.rcpts = p.rcpts[n:]; len(p.rcpts) > 0 {
			d.parts.Push(p)
		}
	}
	return rcpts
}

// again queues a domain for another batch, in a turn of the sender whose recipients come
// next, or forgets it.
func (q *Queue[T]) again(d *domain[T]) {
	switch {
	case d.more():
		q.queue(d, d.parts.First().sender)
	case d.parts.Len() == 0 && d.running == 0 && q.domains[d.name] == d:
		delete(q.domains, d.name)
		if d.listed == 0 {
			*d = domain[T]{parts: d.parts.Empty()}
			q.spareDomain = d
		}
	}
}
