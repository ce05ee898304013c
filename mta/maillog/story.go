package maillog

import (
	"strings"

	"meta1/mta/smtp"
)

// Bounds of a Story.
const (
	pendingMax = 50_000 // lines that may turn out to belong to it
	idsMax     = 100_000
)

// Story takes lines in their order and gives those of one message, or of all messages from
// or to an address.
type Story struct {
	address string          // in lower case; "" if an id was given
	all     bool            // every line
	what    string          // that is followed; a session is, with all its messages
	ids     map[string]bool // transactions and sessions that belong to it
	pending []Line          // the last lines that do not, oldest first from next on
	next    int
	emit    func(*Line) error
}

// NewStory follows an identifier (of a transaction, a recipient, or a session) or an address; ""
// follows everything. emit is called for each line.
func NewStory(what string, emit func(*Line) error) *Story {
	s := &Story{what: what, ids: map[string]bool{}, emit: emit}
	ta, _, err := smtp.ParseRcptID(what)
	switch {
	case what == "":
		s.all = true
	case err == nil:
		s.ids[ta.String()] = true
	case strings.Contains(what, "@"):
		s.address = strings.ToLower(strings.Trim(what, "<>"))
	default:
		s.ids[what] = true
	}
	return s
}

// Add takes a line.
func (s *Story) Add(l *Line) error {
	if s.all {
		return s.emit(l)
	}
	if !s.belongs(l) {
		s.keep(l)
		return nil
	}
	if s.learn(l) {
		if err := s.flush(); err != nil {
			return err
		}
	}
	return s.emit(l)
}

// messageOf is the transaction of a line, "" for none.
func messageOf(l *Line) string {
	if ta := l.Get("ss_ta"); ta != "" {
		return ta
	}
	if ta, _, err := smtp.ParseRcptID(l.Get("rcpt_id")); err == nil {
		return ta.String()
	}
	return ""
}

// belongs reports whether a line is one of the story.
func (s *Story) belongs(l *Line) bool {
	se, da := l.Get("ss_se"), l.Get("da_se")
	if se != "" && se == s.what || da != "" && da == s.what {
		return true
	}
	if ta := messageOf(l); ta != "" {
		return s.ids[ta] || s.hasAddress(l)
	}
	return s.ids[se] || s.ids[da] || s.hasAddress(l)
}

func (s *Story) hasAddress(l *Line) bool {
	if s.address == "" {
		return false
	}
	for _, name := range [...]string{"mail", "rcpt"} {
		if strings.ToLower(strings.Trim(l.Get(name), "<>")) == s.address {
			return true
		}
	}
	return false
}

// learn notes what else belongs to the story because of a line, and reports whether that is
// new: the message, the sessions, and what the queue has put in the place of a recipient. A
// session has other messages, too; they are none of it.
func (s *Story) learn(l *Line) (news bool) {
	for _, id := range [...]string{messageOf(l), l.Get("ss_se"), l.Get("da_se"), l.Get("by")} {
		if id != "" && !s.ids[id] && len(s.ids) < idsMax {
			s.ids[id], news = true, true
		}
	}
	return news
}

// keep notes a line that may belong to the story.
func (s *Story) keep(l *Line) {
	if messageOf(l) == "" && l.Get("ss_se") == "" && l.Get("da_se") == "" {
		return
	}
	if len(s.pending) < pendingMax {
		s.pending = append(s.pending, *l)
		return
	}
	s.pending[s.next] = *l
	s.next = (s.next + 1) % pendingMax
}

// flush gives the lines that turned out to belong to the story, in their order.
func (s *Story) flush() error {
	for again := true; again; {
		again = false
		kept := make([]Line, 0, len(s.pending))
		for i := range s.pending {
			l := &s.pending[(s.next+i)%len(s.pending)]
			if !s.belongs(l) {
				kept = append(kept, *l)
				continue
			}
			again = s.learn(l) || again
			if err := s.emit(l); err != nil {
				return err
			}
		}
		s.pending, s.next = kept, 0
	}
	return nil
}
