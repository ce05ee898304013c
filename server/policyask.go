package server

import (
	"cmp"
	"log/slog"
	"strconv"
	"time"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/policyd"
)

// Policy services (sections policy_service) are asked about each recipient that SMAR has
// accepted, in the order of the file.

// PolicyService is one section policy_service.
type PolicyService struct {
	Name     string
	Socket   Socket
	Timeout  time.Duration
	Failure  string // what becomes of a recipient if the service fails
	Relaying bool   // also for clients that may relay
	Context  string // policy_context
}

// The words of the option on_failure.
const (
	policyTempfail = "tempfail"
	policyAccept   = "accept"
)

// prependMax bounds the fields that policy services put on top of a message, in bytes.
const prependMax = 16 << 10

var replyPolicyDown = smtp.NewReply(451, "4.3.5", "Policy service unavailable, try again later")

// policyService is a service at work.
type policyService struct {
	*PolicyService
	*policyd.Service
}

// newPolicyService makes the table of one section policy_service.
func (c *Config) newPolicyService(name string) *confparse.Table {
	p := &PolicyService{Name: name}
	socket := p.Socket.table("The service.", false)
	for i := range socket.Options {
		o := &socket.Options[i]
		o.Readme, o.Reload = "own", confparse.NewSessions
		switch o.Name {
		case "type":
			o.Required = true
			o.Doc = "inet: address and port say where the service listens. unix: path does."
		case "path":
			o.Doc = "Path of the socket, relative to the main queue directory."
		}
	}
	socket.Check = func(r *confparse.Report) { p.Socket.check(r) }
	table := &confparse.Table{
		Done: func() { c.PolicyServices = append(c.PolicyServices, *p) },
		Check: func(r *confparse.Report) {
			for i := range c.PolicyServices {
				if c.PolicyServices[i].Name == name {
					r.Errorf("", "there are two sections policy_service with the name %q", name)
				}
			}
		},
		Options: []confparse.Option{
			{Name: "socket", Kind: confparse.KindSection, Required: true, Readme: "own", Sub: socket, Doc: "Where the service listens."},
			{
				Name: "timeout", Type: confparse.Time, Unit: "s", Default: "30", Min: "1", Max: "10m", Readme: "own", Into: &p.Timeout,
				Doc: "How long one question may take, connecting included. The default is ours; Postfix waits for 100 s.",
			},
			{
				Name: "on_failure", Type: confparse.Enum, Words: []string{policyTempfail, policyAccept}, Default: policyTempfail, Readme: "own", Into: &p.Failure,
				Doc: "What becomes of a recipient if the service fails: tempfail refuses it for now with 451, accept goes on as if the service had no opinion.",
			},
			{
				Name: "relaying_clients", Type: confparse.Bool, Default: "false", Readme: "own", Into: &p.Relaying,
				Doc: "Ask about clients that may relay, too: by AUTH, by their address, or by quick: in the access map.",
			},
			{Name: "context", Type: confparse.String, Readme: "own", Into: &p.Context, Doc: "The attribute policy_context of each question."},
		},
	}
	for i := range table.Options {
		table.Options[i].Reload = confparse.NewSessions
	}
	return table
}

// askPolicies asks the services about a recipient. The reply is zero if none refuses it.
func (c *session) askPolicies(to smtp.Path) (r smtp.Reply, discard bool) {
	tx := c.tx
	for i := range c.filter.set.policies {
		p := &c.filter.set.policies[i]
		if (c.relaying() || c.policy.quick) && !p.Relaying {
			continue
		}
		begun := c.stages.begin()
		action, err := p.Ask(c.asks.parent, c.policyQuestion(p, to))
		d := policyd.Decide(action)
		c.stages.end("policy_service ", p.Name, begun, d.Reply)
		step := msg.Step{Check: "policy_service", Map: p.Name, Key: to.Addr(), Value: action}
		c.srv.metrics.policyAnswer(p.Name, &d, err)
		switch {
		case err != nil || d.Unknown:
			c.emit(slog.LevelWarn, "policy service failed", slog.Any("ss_ta", tx.env.TA), slog.String("service", p.Name),
				slog.String("action", action), slog.Any("error", err))
			if p.Failure != policyAccept {
				step.Effect = "refused for now: the service failed"
				c.note.by = step
				return replyPolicyDown, false
			}
		case !d.Reply.IsZero():
			step.Effect = "refused"
			c.note.by = step
			return d.Reply, false
		case d.Discard:
			step.Effect = "discard"
			c.logDiscard(step, msg.StageRcpt)
			tx.discard = true
			return smtp.Reply{}, true
		case d.Hold != "" && tx.hold == "":
			tx.hold = "held by policy service " + p.Name + ": " + d.Hold
		case d.Prepend != "" && len(tx.prepend)+len(d.Prepend) < prependMax:
			tx.prepend = append(append(tx.prepend, d.Prepend...), "\r\n"...)
		}
	}
	return smtp.Reply{}, false
}

// policyQuestion are the attributes of a question (SMTPD_POLICY_README of Postfix).
func (c *session) policyQuestion(p *policyService, to smtp.Path) []policyd.Attr {
	env := c.tx.env
	name := cmp.Or(c.clientName(), "unknown")
	own, _ := addrPort(c.wire.Raw().LocalAddr())
	t := c.client.TLS
	if t == nil {
		t = &msg.TLS{}
	}
	protocol, bits := "SMTP", ""
	if c.esmtp {
		protocol = "ESMTP"
	}
	if t.Bits > 0 {
		bits = strconv.Itoa(t.Bits)
	}
	return []policyd.Attr{
		{Name: "request", Value: "smtpd_access_policy"},
		{Name: "protocol_state", Value: "RCPT"},
		{Name: "protocol_name", Value: protocol},
		{Name: "client_address", Value: addrText(c.client.IP)},
		{Name: "client_name", Value: name},
		{Name: "client_port", Value: portText(c.client.Port)},
		{Name: "reverse_client_name", Value: name},
		{Name: "server_address", Value: addrText(own.Addr())},
		{Name: "server_port", Value: portText(own.Port())},
		{Name: "helo_name", Value: c.client.Helo},
		{Name: "sender", Value: env.Mail.From.Addr()},
		{Name: "recipient", Value: to.Addr()},
		{Name: "recipient_count", Value: "0"}, // as Postfix says before DATA
		{Name: "queue_id", Value: env.TA.String()},
		{Name: "instance", Value: env.TA.String()},
		{Name: "size", Value: strconv.FormatInt(env.Mail.Size, 10)},
		{Name: "etrn_domain"},
		{Name: "stress"},
		{Name: "sasl_method", Value: c.client.Auth.Mechanism},
		{Name: "sasl_username", Value: c.client.Auth.User},
		{Name: "sasl_sender", Value: env.Mail.Auth},
		{Name: "ccert_subject", Value: t.CN},
		{Name: "ccert_issuer", Value: t.IssuerCN},
		{Name: "encryption_protocol", Value: t.Version},
		{Name: "encryption_cipher", Value: t.Cipher},
		{Name: "encryption_keysize", Value: bits},
		{Name: "policy_context", Value: p.Context},
	}
}
