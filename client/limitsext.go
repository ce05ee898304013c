package client

import (
	"strconv"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// peerLimits are those that a host announces (LIMITS, RFC 9422); 0 is none.
type peerLimits struct {
	mails   int // transactions of a session
	rcpts   int // recipients of a transaction
	domains int // different domains of the recipients of a transaction
}

// parseLimits reads the arguments of the keyword LIMITS. A limit that is unknown, malformed
// or 0 is ignored (RFC 9422 section 3.2).
func parseLimits(args string) (l peerLimits) {
	for word := range strings.FieldsSeq(args) {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			continue
		}
		switch strings.ToUpper(name) {
		case "MAILMAX":
			l.mails = int(n)
		case "RCPTMAX":
			l.rcpts = int(n)
		case "RCPTDOMAINMAX":
			l.domains = int(n)
		}
	}
	return l
}

// postpone leaves recipients beyond the limits of the host to a further transaction. The
// reply that they have until then is that of a host without LIMITS to one recipient too
// many.
func (t *transaction) postpone() {
	l := t.ext.limits
	if l.rcpts == 0 && l.domains == 0 {
		return
	}
	n, domains := 0, map[string]bool{}
	for i := range t.q.Rcpts {
		if !t.a.Rcpts[i].IsZero() {
			continue
		}
		domain := t.q.Rcpts[i].To.LowerDomain()
		more := l.domains > 0 && !domains[domain] && len(domains) >= l.domains
		if more || l.rcpts > 0 && n >= l.rcpts {
			t.a.Rcpts[i], t.a.Stages[i] = beyondLimits(t.hop), msg.DeliverRcpt
			t.open--
			t.again = append(t.again, i)
			continue
		}
		n++
		domains[domain] = true
	}
	t.postponed = len(t.again) > 0
	t.withQuit = t.withQuit && !t.postponed
}

func beyondLimits(hop msg.Hop) smtp.Reply {
	return smtp.NewReply(452, "4.5.3", "more recipients than host "+hop.String()+" takes at once (LIMITS)")
}

// mayGoOn reports that the connection may take a further transaction for the recipients
// that were postponed.
func (cn *conn) mayGoOn() bool {
	if cn.broken || cn.closing || cn.spent || cn.pending() {
		return false
	}
	return cn.leaves(0)
}

// leaves reports that after more transactions than there were the connection has one left
// within the limits that are ours and the host's.
func (cn *conn) leaves(more int) bool {
	n := cn.transactions + more
	return (cn.most <= 0 || n < cn.most) && (cn.ext.limits.mails == 0 || n < cn.ext.limits.mails)
}
