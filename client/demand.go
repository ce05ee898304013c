package client

import (
	"cmp"

	"meta1/client/tlspolicy"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// demanded puts into words what requirements ask of a connection, "" for nothing.
func demanded(t *msg.TLSRequirements) string {
	switch {
	case t == nil:
		return ""
	case t.Verified:
		return "a verified TLS certificate"
	case t.CertIssuer+t.CertSubject+t.CommonName != "", len(t.CertFingerprints)+len(t.Hostnames)+len(t.RootCASubjects) > 0:
		return "a certain TLS certificate"
	case t.Encrypted, t.CipherBitsMin > 0:
		return "encryption"
	}
	return ""
}

// policyOf is under what a request needs its connection to be made. It must be encrypted if
// what all recipients or the host's entry demand could not be met otherwise. Where some
// recipients demand nothing their mail may go without, and the others are left out then
// (README 3.11.1); one with delay is named to the host even so.
func policyOf(q *msg.DeliverQ, cl *class) tlspolicy.Policy {
	switch {
	case q.Hop.Socket != "":
		return tlspolicy.Policy{}
	case cl.smtps:
		return tlspolicy.Policy{Need: tlspolicy.Must, Implicit: true}
	case !cl.starttls:
		return tlspolicy.Policy{}
	case requiresTLS(q):
		return tlspolicy.Policy{Need: tlspolicy.Must}
	case q.SessionConf != nil && demanded(q.SessionConf.TLS) != "", allDemand(q.RcptConf):
		return tlspolicy.Policy{Need: tlspolicy.Must}
	}
	return tlspolicy.Policy{Need: tlspolicy.May}
}

// allDemand reports whether the entries of all recipients demand TLS, without delay.
func allDemand(entries []*msg.Conf) bool {
	for _, rc := range entries {
		if rc == nil || demanded(rc.TLS) == "" || rc.TLS.Delay {
			return false
		}
	}
	return len(entries) > 0
}

// The values of violation (README 3.10, item 24p).
const (
	violationPermfail = "permfail"
	violationTempfail = "tempfail"
	violationAbort    = "abort"
)

// violation is what follows if requirements are not met: as they say themselves, else
// as section tls does.
func (c *Client) violation(t *msg.TLSRequirements) string {
	return cmp.Or(t.Violation, c.deps.TLS.Section().Violation, violationTempfail)
}

// violated is the reply for mail whose demands are not met.
func violated(violation, what, by, why string) smtp.Reply {
	text := by + " demands " + what + ": " + why
	if violation == violationPermfail {
		return smtp.NewReply(550, "5.7.4", text)
	}
	return smtp.NewReply(451, "4.7.4", text)
}

// lacks says why a connection does not meet requirements, "" if it does. failed is why there
// is no connection, "" if there is one.
type lacks func(t *msg.TLSRequirements) (why string)

// demand answers for the recipients whose mail must not go over the connection, because it
// lacks what the entry of the host or their own demands (README 3.11.1, 3.13). It reports
// whether there is something to send.
func (d *delivery) demand(lacks lacks) bool {
	q := &d.r.Q
	d.withhold = nil
	if q.SessionConf != nil {
		t := q.SessionConf.TLS
		if why := unmet(t, lacks); why != "" {
			v := d.c.violation(t)
			d.refuse(msg.DeliverMail, violated(v, demanded(t), "smtpc_session_conf for "+q.Hop.String(), why))
			d.unmet(v)
			return false
		}
	}
	return d.demandOfRcpts(lacks)
}

func unmet(t *msg.TLSRequirements, lacks lacks) string {
	if demanded(t) == "" {
		return ""
	}
	return lacks(t)
}

// unmet notes that the host does not give what mail demands of TLS. With abort the session
// ends, too.
func (d *delivery) unmet(violation string) {
	d.a.Stage, d.a.TLSUnmet = max(d.a.Stage, msg.DeliverTLS), true
	if violation == violationAbort && d.conn != nil {
		d.conn.spent = true
	}
}

// demandOfRcpts is demand for smtpc_rcpt_conf:.
func (d *delivery) demandOfRcpts(lacks lacks) bool {
	for i, rc := range d.r.Q.RcptConf {
		if rc == nil || !d.a.Rcpts[i].IsZero() {
			continue
		}
		why := unmet(rc.TLS, lacks)
		if why == "" {
			continue
		}
		violation := d.c.violation(rc.TLS)
		reply := violated(violation, demanded(rc.TLS), "smtpc_rcpt_conf", why)
		switch {
		case rc.TLS.Delay:
			if d.withhold == nil {
				d.withhold = make([]smtp.Reply, len(d.r.Q.Rcpts))
			}
			d.withhold[i] = reply
		case violation == violationAbort:
			d.a.Rcpts[i], d.a.Stages[i] = reply, msg.DeliverRcpt
			d.refuse(msg.DeliverRcpt, givenUp())
			d.unmet(violation)
			return false
		default:
			d.a.Rcpts[i], d.a.Stages[i] = reply, msg.DeliverRcpt
		}
	}
	for i := range d.a.Rcpts {
		if d.a.Rcpts[i].IsZero() {
			return true
		}
	}
	d.unmet("")
	return false
}

// refuse answers for all recipients without a reply.
func (d *delivery) refuse(stage msg.DeliverStage, r smtp.Reply) {
	for i := range d.a.Rcpts {
		if d.a.Rcpts[i].IsZero() {
			d.a.Rcpts[i], d.a.Stages[i] = r, stage
		}
	}
}

// givenUp is the reply for recipients without demands whose transaction has one that
// must not go on.
func givenUp() smtp.Reply {
	return smtp.NewReply(451, "4.7.4", "the transaction was given up: another recipient of it demands TLS")
}

// withheld answers for a transaction that ends before DATA: the RCPT of a recipient
// has been sent for the sake of greylisting, but the mail must not follow (flag delay,
// README 3.11.1).
func (t *transaction) withheld() {
	t.needReset = t.mailed
	for i := range t.a.Rcpts {
		if r := t.withhold[i]; !r.IsZero() {
			t.answer(i, r)
		} else {
			t.answer(i, givenUp())
		}
	}
}
