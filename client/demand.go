package client

import (
	"cmp"

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

// The values of violation (README 3.10, item 24p).
const (
	violationPermfail = "permfail"
	violationTempfail = "tempfail"
	violationAbort    = "abort"
)

// violation is what follows if requirements are not met: as they say themselves, else
// as section tls does.
func (c *Client) violation(t *msg.TLSRequirements) string {
	return cmp.Or(t.Violation, c.cfg.TLS.Violation, violationTempfail)
}

// violated is the reply for mail that demands what no connection of this version has.
func violated(violation, what, by string) smtp.Reply {
	text := by + " demands " + what + ", and this version sends without TLS only"
	if violation == violationPermfail {
		return smtp.NewReply(550, "5.7.4", text)
	}
	return smtp.NewReply(451, "4.7.4", text)
}

// demand answers for the recipients whose mail must not go out without TLS, which is
// the only way in which it could go (README 3.11.1, 3.13). It reports whether there is
// something to send.
func (d *delivery) demand() bool {
	q := &d.r.Q
	d.withhold = nil
	cl := d.c.classes[className(q)]
	switch {
	case cl == nil:
		d.refuse(smtp.NewReply(451, "4.3.5", "there is no section session_features "+className(q)+" in smtpc"))
		return false
	case cl.smtps:
		d.refuse(violated(d.c.cfg.TLS.Violation, "TLS (flag smtps)", "session_features "+cl.name))
		return false
	}
	if q.SessionConf != nil {
		if what := demanded(q.SessionConf.TLS); what != "" {
			d.refuse(violated(d.c.violation(q.SessionConf.TLS), what, "smtpc_session_conf for "+q.Hop.String()))
			return false
		}
	}
	return d.demandOfRcpts()
}

// demandOfRcpts is demand for smtpc_rcpt_conf:.
func (d *delivery) demandOfRcpts() bool {
	open := len(d.r.Q.Rcpts)
	for i, rc := range d.r.Q.RcptConf {
		if rc == nil || demanded(rc.TLS) == "" {
			continue
		}
		violation := d.c.violation(rc.TLS)
		reply := violated(violation, demanded(rc.TLS), "smtpc_rcpt_conf")
		switch {
		case rc.TLS.Delay:
			if d.withhold == nil {
				d.withhold = make([]smtp.Reply, open)
			}
			d.withhold[i] = reply
		case violation == violationAbort:
			d.a.Rcpts[i] = reply
			d.refuse(givenUp())
			return false
		default:
			d.a.Rcpts[i] = reply
		}
	}
	for i := range d.a.Rcpts {
		if !d.a.Rcpts[i].IsZero() {
			open--
		}
	}
	return open > 0
}

// refuse answers for all recipients without a reply.
func (d *delivery) refuse(r smtp.Reply) {
	for i := range d.a.Rcpts {
		if d.a.Rcpts[i].IsZero() {
			d.a.Rcpts[i] = r
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
