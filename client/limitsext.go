package client

import (
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// postpone leaves recipients beyond the limits of the host to a further transaction. The
// reply that they have until then is that of a host without LIMITS to one recipient too
// many.
func (t *transaction) postpone() {
	l := t.ext.Limits
	if l.Rcpts == 0 && l.Domains == 0 {
		return
	}
	n, domains := 0, map[string]bool{}
	for i := range t.q.Rcpts {
		if !t.a.Rcpts[i].IsZero() {
			continue
		}
		domain := t.q.Rcpts[i].To.LowerDomain()
		more := l.Domains > 0 && !domains[domain] && len(domains) >= l.Domains
		if more || l.Rcpts > 0 && n >= l.Rcpts {
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
	if cn.Broken || cn.Closing || cn.spent || cn.Pending() {
		return false
	}
	return cn.leaves(0)
}

// leaves reports that after more transactions than there were the connection has one left
// within the limits that are ours and the host's.
func (cn *conn) leaves(more int) bool {
	n := cn.transactions + more
	return (cn.most <= 0 || n < cn.most) && (cn.ext.Limits.Mails == 0 || n < cn.ext.Limits.Mails)
}
