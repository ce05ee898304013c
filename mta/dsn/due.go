package dsn

import "strings"

// Kind is what became of a recipient (RFC 3464 section 2.3.3, Action).
type Kind uint8

// The kinds.
const (
	Failed    Kind = iota // given up
	Delayed               // still tried
	Delivered             // in the recipient's mailbox
	Relayed               // handed on to a host that will not report success
	Expanded              // replaced by the addresses that its alias stands for
)

// String is the word of the field Action.
func (k Kind) String() string {
	return [...]string{"failed", "delayed", "delivered", "relayed", "expanded"}[k]
}

// class groups the kinds of which one DSN may tell at once.
func (k Kind) class() int { return min(int(k), int(Delivered)) }

// notifySet is what a recipient wants to be told of.
type notifySet struct{ success, failure, delay bool }

// parseNotify reads NOTIFY=. Without one a failure is told, and a delay too, which
// is left to the MTA (RFC 3461 section 4.1); so is a value without a known word,
// which no checked command brings.
func parseNotify(notify string) (s notifySet) {
	known := false
	for word := range strings.SplitSeq(strings.ToUpper(notify), ",") {
		switch word {
		case "NEVER":
		case "SUCCESS":
			s.success = true
		case "FAILURE":
			s.failure = true
		case "DELAY":
			s.delay = true
		default:
			continue
		}
		known = true
	}
	if !known {
		return notifySet{failure: true, delay: true}
	}
	return s
}

// Due reports whether a recipient with this NOTIFY= ("" if there was none) is to be
// notified of an event (RFC 3461 sections 4.1 and 5.2). Delivered, relayed and
// expanded are all told to those who asked for SUCCESS, and to nobody else. Whether
// the message has a sender to tell, and whether delays are told at all, is the
// caller's to check.
func Due(notify string, k Kind) bool {
	s := parseNotify(notify)
	switch k {
	case Failed:
		return s.failure
	case Delayed:
		return s.delay
	default:
		return s.success
	}
}

// Success says what a 2xx reply to a delivery means. If the peer offers DSN, it has
// taken over to report, and nothing is ours to tell (ok is false). Otherwise final
// delivery (LMTP) is Delivered, and any other host is the edge beyond which nothing
// is reported: Relayed (RFC 3461 section 5.2.2).
func Success(final, peerDSN bool) (k Kind, ok bool) {
	switch {
	case peerDSN:
		return 0, false
	case final:
		return Delivered, true
	default:
		return Relayed, true
	}
}

// Expand says what an alias means for a recipient's NOTIFY= (RFC 3461 section
// 5.2.7): the kind of event, whether it is due, and the NOTIFY= of the addresses
// that the alias stands for.
//
// A list is an alias whose owner replaces the sender: the message has arrived when
// the list has it, and what the list sends is a new message, so NOTIFY= and with it
// ORCPT=, ENVID= and RET= of the old one do not go on. With any other alias they
// all go on, but for SUCCESS if it stands for several addresses (to is their
// number): that is answered here by Expanded.
func Expand(notify string, to int, list bool) (k Kind, due bool, next string) {
	due = Due(notify, Expanded)
	if list {
		return Delivered, due, ""
	}
	if !due || to == 1 {
		return Expanded, false, notify
	}
	s := parseNotify(notify)
	var words []string
	if s.failure {
		words = append(words, "FAILURE")
	}
	if s.delay {
		words = append(words, "DELAY")
	}
	if len(words) == 0 {
		return Expanded, true, "NEVER"
	}
	return Expanded, true, strings.Join(words, ",")
}

// Merge groups the recipients of one message into DSNs of at most limit recipients
// (errors_per_DSN_max; below 1 it counts as 1). Failures, delays and successes do
// not share a DSN: they have different subjects and return different amounts of the
// message. Failures come first; the order is kept otherwise. list is not changed.
func Merge[T any](list []T, kind func(T) Kind, limit int) [][]T {
	limit = max(limit, 1)
	var classes [int(Delivered) + 1][]T
	for _, e := range list {
		c := kind(e).class()
		classes[c] = append(classes[c], e)
	}
	var out [][]T
	for _, c := range classes {
		for len(c) > 0 {
			n := min(len(c), limit)
			out = append(out, c[:n:n])
			c = c[n:]
		}
	}
	return out
}
