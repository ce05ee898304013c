package server

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/condition"
	"meta1/server/content"
)

// The actions of a section check (README 8.5.1).
const (
	actionPermfail = "permfail"
	actionTempfail = "tempfail"
	actionAbort    = "abort"
)

// checkSection is a section check, ready to be evaluated.
type checkSection struct {
	*Check
	cond    *condition.Condition
	refused prometheus.Counter
}

// indexChecks makes the sections check of each stage, in the order of the file.
func (s *Server) indexChecks() error {
	var errs []error
	s.checks = map[condition.Stage][]checkSection{}
	for i := range s.cfg.Checks {
		k := &s.cfg.Checks[i]
		stage, ok := condition.StageOf(k.Stage)
		cond, err := condition.Parse(k.Condition, stage)
		if !ok || err != nil {
			errs = append(errs, fmt.Errorf("section check %q: %w", k.Stage, err))
			continue
		}
		s.checks[stage] = append(s.checks[stage], checkSection{k, cond, s.metrics.sections.checks.WithLabelValues(k.Stage, k.Action)})
	}
	return errors.Join(errs...)
}

// checkSections evaluates the sections check of a stage. The first whose condition holds
// decides; the reply is zero if none does. A condition that cannot be evaluated refuses for
// now: a rule must not be skipped because of a number that the client chose. Nothing exempts
// from these sections, neither quick: nor delay_checks.
func (c *session) checkSections(stage condition.Stage, rcpt smtp.Path, body *content.Content) smtp.Reply {
	sections := c.srv.checks[stage]
	if len(sections) == 0 {
		return smtp.Reply{}
	}
	facts := c.facts(rcpt, body)
	for i := range sections {
		k := &sections[i]
		holds, err := k.cond.Holds(facts)
		if err == nil && !holds {
			continue
		}
		c.note.by = msg.Step{
			Check: "check " + k.Stage, Map: k.Where, Key: k.cond.String(), Value: k.cond.Explain(facts), Effect: k.Action,
		}
		k.refused.Inc()
		if err != nil {
			c.note.by.Effect = "refused for now: " + err.Error()
			return checkReply(stage, actionTempfail)
		}
		return checkReply(stage, k.Action)
	}
	return smtp.Reply{}
}

// checkReply is the reply that an action asks for.
func checkReply(stage condition.Stage, action string) smtp.Reply {
	switch {
	case action == actionAbort, action == actionTempfail && stage == condition.AtConnect:
		return replyCheckAbort
	case action == actionTempfail:
		return replyCheckTemporary
	case stage == condition.AtConnect, stage == condition.AtData:
		return replyCheckNoService // RFC 5321 section 4.3.2
	}
	return replyRejected
}

// facts are the values of the identifiers of README 8.5.1. rcpt is that of RCPT, body the
// message at its end, else nil.
func (c *session) facts(rcpt smtp.Path, body *content.Content) *condition.Facts {
	f := &condition.Facts{}
	if c.client.IP.IsValid() {
		f.Text[condition.ClientIP] = maps.FullIP(c.client.IP)
	}
	f.Text[condition.ClientName] = c.client.Name
	f.Text[condition.ClientResolve] = c.client.Resolve
	f.Text[condition.AuthAuthen] = c.client.Auth.User
	f.Text[condition.AuthType] = c.client.Auth.Mechanism
	f.Text[condition.Hostname] = c.srv.deps.Hostname
	f.Text[condition.SessionID] = c.id.String()
	if t := c.client.TLS; t != nil {
		f.Text[condition.TLSVersion], f.Text[condition.Cipher], f.Text[condition.TLSVerify] = t.Version, t.Cipher, t.Verify
		f.Number[condition.CipherBits], f.Number[condition.AlgBits] = int64(t.Bits), int64(t.Bits)
		f.Text[condition.CertSubject], f.Text[condition.CertIssuer] = t.Subject, t.Issuer
		f.Text[condition.CNSubject], f.Text[condition.CNIssuer] = t.CN, t.IssuerCN
	}
	f.Number[condition.SessionRcptsTotal] = int64(c.count.rcpts)
	f.Number[condition.Transactions] = int64(c.count.transactions)
	if c.tx == nil {
		return f
	}
	f.Text[condition.AuthType], f.Text[condition.AuthAuthen] = c.client.Auth.Mechanism, c.client.Auth.User
	env := c.tx.env
	if last := len(env.Rcpts) - 1; rcpt == (smtp.Path{}) && last >= 0 {
		rcpt = env.Rcpts[last].To
	}
	f.Text[condition.AuthAuthor] = env.Mail.Auth
	f.Text[condition.Mail] = env.Mail.From.Addr()
	f.Text[condition.AuthAuthor] = env.Mail.Auth
	f.Text[condition.Rcpt] = rcpt.Addr()
	f.Text[condition.TransactionID] = env.TA.String()
	f.Number[condition.TransactionRcptsOK] = int64(c.tx.accepted)
	f.Number[condition.TransactionRcptsTotal] = int64(c.tx.rcpts)
	f.Number[condition.MessageSize] = env.Mail.Size
	if c.tx.authn != nil {
		for _, i := range condition.Of(condition.FromAuthentication) {
			f.Text[i] = c.tx.authn.Fact(i.String())
		}
	}
	if body != nil {
		f.Text[condition.MessageID] = body.MessageID()
		f.Number[condition.Hops] = int64(body.Hops())
		f.Number[condition.MessageSize] = body.Size()
	}
	return f
}

// newCheck makes the table of one section check.
func (c *Config) newCheck(name string) *confparse.Table {
	k := &Check{Stage: name}
	return &confparse.Table{
		Check: func(r *confparse.Report) { k.Where = fmt.Sprintf("%s:%d", r.Pos().File, r.Pos().Line) },
		Done:  func() { c.Checks = append(c.Checks, *k) },
		Options: []confparse.Option{
			{
				Name: "action", Type: confparse.Enum, Words: []string{actionPermfail, actionTempfail, actionAbort}, Required: true,
				Readme: "8.5.1", Into: &k.Action, Doc: "What to do if the condition holds: refuse with 550 (554 at connect and data), refuse for now with 451, or end the session with 421.",
			},
			{
				Name: "condition", Type: confparse.Expr, Required: true, Readme: "8.5.1", Into: &k.Condition,
				Doc: "When to apply the action: a boolean expression behind ==, such as mail =~ \"@spam\\\\.example$\" && transaction_rcpts_total > 5. docs/checks.md has its operators and identifiers.",
			},
		},
	}
}

// checkConditions finds what is wrong with the sections check.
func (c *Config) checkConditions(r *confparse.Report) {
	for i := range c.Checks {
		k, option := &c.Checks[i], fmt.Sprintf("check#%d/condition", i+1)
		if k.Condition == "" {
			continue // that it is missing is said already
		}
		stage, _ := condition.StageOf(k.Stage)
		cond, err := condition.Parse(k.Condition, stage)
		if wrong := (*condition.Error)(nil); errors.As(err, &wrong) {
			r.ErrorIn(option, wrong.From, wrong.To, "condition: "+wrong.Message, wrong.Suggestion)
			continue
		}
		for _, use := range cond.Uses() {
			c.checkUse(r, option, stage, use)
		}
	}
}

// checkUse finds an identifier whose value depends on something that the section smtps does
// not have.
func (c *Config) checkUse(r *confparse.Report, option string, stage condition.Stage, use condition.Use) {
	missing := ""
	switch source := use.Ident.Source(); {
	case source == condition.FromTLS && stage == condition.AtConnect && !c.Flags.SMTPS:
		r.ErrorIn(option, use.From, use.To, fmt.Sprintf("condition: %s is not known at the stage connect", use.Ident),
			"without the flag smtps TLS begins later; use check mail")
		return
	case source == condition.FromAccess && !c.Flags.Access:
		missing = "the flag access"
	case source == condition.FromTLS && !c.TLSPresent:
		missing = "a section tls"
	case source == condition.FromAuth && !c.AuthPresent:
		missing = "a section auth"
	case source == condition.FromAuthentication && !c.AuthenticationPresent:
		missing = "a section authentication"
	case use.Ident == condition.Rcpt && stage > condition.AtRcpt:
		r.WarnIn(option, use.From, use.To, "condition: at this stage rcpt is the last recipient alone", "check rcpt has all of them")
	}
	if missing != "" {
		r.WarnIn(option, use.From, use.To, fmt.Sprintf("condition: %s never has a value without %s", use.Ident, missing), "")
	}
}
