package server

import (
	"cmp"
	"log/slog"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// tlsPolicy is what TLS must give to a session, and the entry of the access map that says so.
type tlsPolicy struct {
	need *msg.TLSRequirements // nil: nothing
	by   msg.Step
}

// What follows from a requirement that is not met (README 3.10, item 24p).
const (
	violationPermfail = "permfail"
	violationTempfail = "tempfail"
	violationAbort    = "abort"
)

// requireTLS notes the requirements that the access map sets for this client (README 3.10.1).
func (c *session) requireTLS(v *msg.Verdict) {
	if v.SessionConf == nil || v.SessionConf.TLS == nil {
		return
	}
	c.policy.tls.need = v.SessionConf.TLS
	for _, s := range v.Trace {
		if strings.HasPrefix(s.Check, "smtps_se") && s.Value != "" {
			c.policy.tls.by = s
		}
	}
}

// checkTLS refuses a transaction if TLS does not give what it must (README 3.13). The reply
// is zero otherwise.
func (c *session) checkTLS() smtp.Reply {
	p := &c.policy.tls
	if p.need == nil {
		return smtp.Reply{}
	}
	unmet := c.unmet(p.need)
	if unmet == "" {
		return smtp.Reply{}
	}
	c.note.by = p.by
	c.note.by.Effect = unmet
	c.note.add(slog.String("violation", c.violation(p.need)))
	switch v := c.violation(p.need); {
	case v == violationAbort:
		return smtp.NewReply(421, "4.7.0", "TLS requirements are not met: "+unmet)
	case v == violationTempfail:
		return smtp.NewReply(450, "4.7.0", "TLS requirements are not met: "+unmet)
	case c.client.TLS == nil:
		return replyTLSNeeded
	}
	return smtp.NewReply(550, "5.7.0", "TLS requirements are not met: "+unmet)
}

// unmet names the first requirement that is not met.
func (c *session) unmet(need *msg.TLSRequirements) string {
	if c.client.TLS == nil {
		return "no TLS"
	}
	return c.srv.deps.TLS.Unmet(need, c.client.TLS)
}

// violation is what follows from a requirement that is not met.
func (c *session) violation(need *msg.TLSRequirements) string {
	return cmp.Or(need.Violation, c.srv.cfg.TLS.Violation, violationPermfail)
}
