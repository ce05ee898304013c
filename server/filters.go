package server

import (
	"net/netip"
	"strconv"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/milter"
	"meta1/server/pmilter"
)

// Mail filters (sections milter) are told of each step of the dialogue, behind all other
// checks: what those refuse no filter sees.

// filtered is what a session has to do with filters.
type filtered struct {
	set     *filterSet       // with which the session began
	session *milter.Session  // nil: there are no milters
	policy  *pmilter.Session // nil: there is no policy milter
	rcpt    smtp.Path        // that filters are asked about
	params  []string         // of MAIL or RCPT, as they came
	msgid   string
}

// endFilters ends what filters know of the session.
func (c *session) endFilters() {
	c.filter.session.Close()
	c.filter.policy.Close()
	c.filter.session, c.filter.policy = nil, nil
}

// filterConnect tells filters of the client. The reply is zero if it may go on.
func (c *session) filterConnect() smtp.Reply {
	c.endFilters()
	defer c.filtersAsked("connect", c.stages.begin())
	r := c.policyConnect()
	if r.IsZero() && len(c.filter.set.milters) > 0 {
		c.filter.session = milter.Begin(c.asks.parent, c.filter.set.milters)
		v := c.filter.session.Connect(milter.Client{Name: c.clientName(), IP: c.client.IP, Port: c.client.Port}, c.macro)
		r = c.filterVerdict(&v)
	}
	switch {
	case r.Permanent(): // RFC 5321 section 3.1
		r.Code = 554
	case r.Temporary():
		r.Code = 421
	}
	return r
}

// filterHelo tells filters of EHLO or HELO.
func (c *session) filterHelo() smtp.Reply {
	defer c.filtersAsked("ehlo", c.stages.begin())
	if p := c.filter.policy; p != nil {
		v := p.Helo(c.client.Helo, c.esmtp, c.macro)
		if r := c.policyVerdict(&v); !r.IsZero() {
			return r
		}
	}
	if c.filter.session == nil {
		return smtp.Reply{}
	}
	v := c.filter.session.Helo(c.client.Helo, c.macro)
	return c.filterVerdict(&v)
}

// filterMail tells filters of the sender.
func (c *session) filterMail() smtp.Reply {
	defer c.filtersAsked("mail", c.stages.begin())
	if p := c.filter.policy; p != nil && !c.tx.discard {
		v := p.Mail(c.tx.env.Mail.From.Addr(), c.filter.params, c.macro)
		if r := c.policyVerdict(&v); !r.IsZero() {
			return r
		}
	}
	if c.filter.session == nil || c.tx.discard {
		return smtp.Reply{}
	}
	v := c.filter.session.Mail(c.tx.env.Mail.From.Addr(), c.filter.params, c.macro)
	return c.filterVerdict(&v)
}

// filterRcpt tells filters of a recipient. refusal is why it is refused already, zero if it
// is not. discard says that it is to be accepted and dropped.
func (c *session) filterRcpt(to smtp.Path, refusal smtp.Reply) (r smtp.Reply, discard bool) {
	defer c.filtersAsked("rcpt", c.stages.begin())
	if r, discard = c.policyRcpt(to, refusal); !r.IsZero() {
		return r, false
	}
	if c.filter.session == nil || c.tx.discard {
		return smtp.Reply{}, discard
	}
	c.filter.rcpt = to
	v := c.filter.session.Rcpt(to.Addr(), c.filter.params, refusal, c.macro)
	c.filter.rcpt = smtp.Path{}
	return c.filterVerdict(&v), discard
}

// filterData tells filters that the message follows.
func (c *session) filterData() smtp.Reply {
	defer c.filtersAsked("data", c.stages.begin())
	if p := c.filter.policy; p != nil && !c.tx.discard {
		v := p.Data(c.macro)
		if r := c.policyVerdict(&v); !r.IsZero() {
			return r
		}
	}
	if c.filter.session == nil || c.tx.discard {
		return smtp.Reply{}
	}
	v := c.filter.session.Data(c.macro)
	return c.filterVerdict(&v)
}

// filterUnknown tells filters of a command that is not known. The reply is zero if it is the
// usual one.
func (c *session) filterUnknown(line []byte) smtp.Reply {
	if p := c.filter.policy; p != nil {
		if v := p.Unknown(string(line), c.macro); v.Action != pmilter.Discard {
			if r := c.policyVerdict(&v); !r.IsZero() {
				return r
			}
		}
	}
	if c.filter.session == nil {
		return smtp.Reply{}
	}
	v := c.filter.session.Unknown(string(line), c.macro)
	if v.Action == milter.Discard {
		v = milter.Verdict{}
	}
	return c.filterVerdict(&v)
}

// filterVerdict does what a filter has decided, and notes for the log who it was. The reply
// is zero to go on.
func (c *session) filterVerdict(v *milter.Verdict) smtp.Reply {
	switch v.Action {
	case milter.Discard:
		stage := msg.StageEom
		switch {
		case c.tx == nil:
			c.policy.discard = true
			stage = msg.StageConnect
		default:
			c.tx.discard = true
			c.filter.session.Abort()
			c.filter.policy.Abort()
		}
		c.logDiscard(filterStep(v), stage)
	case milter.Refuse:
		c.note.by = filterStep(v)
		return v.Reply
	case milter.Abort:
		c.note.by = filterStep(v)
		r := v.Reply
		r.Code = 421
		return r
	}
	return smtp.Reply{}
}

// filterStep is a verdict as a step of the trace.
func filterStep(v *milter.Verdict) msg.Step {
	s := msg.Step{Check: "milter", Map: v.Filter, Key: v.Stage.String(), Effect: v.Action.String()}
	if v.Failed != nil {
		s.Value = "failed: " + v.Failed.Error()
	}
	return s
}

// clientName is the client's verified name without its dot, "" for none.
func (c *session) clientName() string { return strings.TrimSuffix(c.client.Name, ".") }

// macro is the value of a macro for filters (docs/milters.md), "" if it has none now. The names
// are those of Sendmail and Postfix.
func (c *session) macro(name string) string {
	switch name {
	case "j", "{if_name}":
		return c.srv.deps.Hostname
	case "v":
		return "meta1-" + c.srv.deps.Version
	case "{daemon_name}":
		if c.srv.deps.Name != "" {
			return c.srv.deps.Name
		}
		return "smtps"
	case "{if_addr}", "{daemon_addr}":
		own, _ := addrPort(c.wire.Raw().LocalAddr())
		return addrText(own.Addr())
	case "{daemon_port}":
		own, _ := addrPort(c.wire.Raw().LocalAddr())
		return portText(own.Port())
	case "r":
		return c.client.Protocol
	case pmilter.SeID:
		return c.id.String()
	case "s":
		return c.client.Helo
	}
	if v, ok := c.clientMacro(name); ok {
		return v
	}
	if v, ok := c.securityMacro(name); ok || c.tx == nil {
		return v
	}
	return c.messageMacro(name)
}

// clientMacro are the macros of the client.
func (c *session) clientMacro(name string) (string, bool) {
	host := c.clientName()
	switch name {
	case "_":
		if host == "" {
			host = c.client.Helo
		}
		return strings.TrimLeft(host+" ["+addrText(c.client.IP)+"]", " "), true
	case "{client_addr}":
		return addrText(c.client.IP), true
	case "{client_port}":
		return portText(c.client.Port), true
	case "{client_name}", "{client_ptr}":
		if host == "" {
			host = "unknown"
		}
		return host, true
	case "{client_resolve}":
		if r, ok := map[string]string{"ok": "OK", "no": "FAIL", "tempptr": "TEMP", "tempa": "TEMP"}[c.client.Resolve]; ok {
			return r, true
		}
		return "FAIL", true
	}
	return "", false
}

// securityMacro are the macros of TLS and AUTH.
func (c *session) securityMacro(name string) (string, bool) {
	t := c.client.TLS
	if t == nil {
		t = &msg.TLS{}
	}
	switch name {
	case "{tls_version}":
		return t.Version, true
	case "{cipher}":
		return t.Cipher, true
	case "{cipher_bits}":
		if t.Bits == 0 {
			return "", true
		}
		return strconv.Itoa(t.Bits), true
	case "{cert_subject}":
		return t.Subject, true
	case "{cert_issuer}":
		return t.Issuer, true
	case "{cn_subject}":
		return t.CN, true
	case "{cn_issuer}":
		return t.IssuerCN, true
	case "{verify}":
		return t.Verify, true
	case "{auth_type}":
		return c.client.Auth.Mechanism, true
	case "{auth_authen}":
		return c.client.Auth.User, true
	}
	return "", false
}

// messageMacro are the macros of the transaction.
func (c *session) messageMacro(name string) string {
	env := c.tx.env
	switch name {
	case "i":
		return env.TA.String()
	case "f", "{mail_addr}":
		return env.Mail.From.Addr()
	case "{mail_host}":
		return env.Mail.From.Domain
	case "{mail_mailer}", "{rcpt_mailer}":
		return "smtp"
	case "{auth_author}":
		return env.Mail.Auth
	case "{rcpt_addr}":
		return c.filter.rcpt.Addr()
	case "{rcpt_host}":
		return c.filter.rcpt.Domain
	case "{nrcpts}":
		return strconv.Itoa(c.tx.accepted)
	case "{msg_id}":
		return c.filter.msgid
	}
	return c.tx.authn.Fact(strings.Trim(name, "{}"))
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().String()
}

func portText(p uint16) string {
	if p == 0 {
		return ""
	}
	return strconv.Itoa(int(p))
}
