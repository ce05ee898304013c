package verify

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/authn"
	"meta1/server/authn/arc"
	"meta1/server/authn/dmarc"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/authn/spf"
	"meta1/server/dkim"
)

// DMARC holds subsection dmarc.
type DMARC struct {
	Check      bool
	Reject     string // what becomes of mail that its domain wants rejected
	Quarantine string // and of that which it wants in quarantine
	TempError  string
	Lists      string   // what at most becomes of mail of mailing lists
	Forwarders []string // trusted_forwarders
	Sealers    []string // trusted_sealers
}

// The words of RFC 9990 section 3.1.6 for why a policy is not applied.
const (
	overrideForwarder = "trusted_forwarder"
	overrideList      = "mailing_list"
	overrideLocal     = "local_policy"
)

// replyDMARCTemporary: RFC 9989 section 7.2 wants a 4xy reply.
var replyDMARCTemporary = smtp.NewReply(451, "4.7.1", "DMARC: the policy cannot be looked up now")

func (d *DMARC) table() *confparse.Table {
	action := func(name, doc string, words ...string) confparse.Option {
		into := map[string]*string{"reject": &d.Reject, "quarantine": &d.Quarantine, "temperror": &d.TempError}[name]
		return confparse.Option{Name: name, Type: confparse.Enum, Words: words, Default: ActionNone, Readme: "own", Into: into, Doc: doc}
	}
	return &confparse.Table{Check: d.check, Options: []confparse.Option{
		{Name: "check", Type: confparse.Bool, Default: "true", Readme: "own", Into: &d.Check, Doc: "Evaluate DMARC."},
		action("reject", "What becomes of mail that fails and whose domain asks to reject it. none: it is only reported. quarantine: it is held in the queue; RFC 9989, 7.4, advises it where nothing else is known of the mail. reject: 550 at the end of the message.", ActionNone, ActionQuarantine, ActionReject),
		action("quarantine", "What becomes of mail that fails and whose domain asks for quarantine. none: it is only reported. quarantine: it is held in the queue.", ActionNone, ActionQuarantine),
		action("temperror", "What becomes of mail if DNS does not answer (temperror). none: it is only reported. tempfail: 451 at the end of the message.", ActionNone, ActionTempfail),
		{
			Name: "mailing_lists", Type: confparse.Enum, Words: []string{ActionNone, ActionQuarantine, ActionReject}, Default: ActionQuarantine, Readme: "own", Into: &d.Lists,
			Doc: "What at most becomes of mail that fails and has the header List-Id: or List-Post:, since lists change what authors have signed, and end the subscription of whoever refuses their mail. Anybody can write such a header.",
		},
		{
			Name: "trusted_forwarders", Type: confparse.List, Readme: "own", Into: &d.Forwarders,
			Doc: "Clients whose mail is exempt from the policy of its domain, such as hosts that forward mail to you: addresses, networks such as 192.0.2.0/24, names, and .domain for all names below. Names must be confirmed, for which the flag access is needed.",
		},
		{
			Name: "trusted_sealers", Type: confparse.List, Readme: "own", Into: &d.Sealers,
			Doc: "Domains, and .domain for all below, whose ARC seals are believed. Mail is exempt from the policy of its domain if its ARC chain is valid, one of its sealers has found dmarc=pass for the domain of From:, and that one and all later sealers are listed. Needs verify of section arc.",
		},
	}}
}

// check refuses forwarders that can match no client, and sealers that are no domains.
func (d *DMARC) check(r *confparse.Report) {
	for _, s := range d.Sealers {
		if smtp.CheckDomain(strings.TrimPrefix(s, ".")) != nil {
			r.Errorf("trusted_sealers", "%q is no domain or .domain", s)
		}
	}
	for _, f := range d.Forwarders {
		name := strings.TrimPrefix(f, ".")
		if _, err := network(f); err != nil && (smtp.CheckDomain(name) != nil || strings.Trim(f, "0123456789./:") == "") {
			r.Errorf("trusted_forwarders", "%q is no address, network, host name or .domain", f)
		}
	}
}

// network reads an address or a network.
func network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	return netip.ParsePrefix(s)
}

// forwarder reports whether a client is among trusted_forwarders.
func (d *DMARC) forwarder(c *msg.Client) bool {
	name := strings.ToLower(strings.TrimSuffix(c.Name, "."))
	for _, f := range d.Forwarders {
		if p, err := network(f); err == nil {
			if p.Contains(c.IP.Unmap().WithZone("")) {
				return true
			}
			continue
		}
		f = strings.ToLower(f)
		if c.Resolve == "ok" && (name == f || strings.HasPrefix(f, ".") && strings.HasSuffix(name, f)) {
			return true
		}
	}
	return false
}

// txt asks SMAR for what DMARC needs.
func (v *Verifier) txt(ctx context.Context, name string) dmarc.TXT {
	return LookupTXT(ctx, v.dns, name)
}

// LookupTXT asks SMAR for TXT records as package dmarc wants them.
func LookupTXT(ctx context.Context, dns authn.DNS, name string) dmarc.TXT {
	a := dns.Lookup(ctx, name, msg.RecordTXT)
	t := dmarc.TXT{Texts: a.Texts, NoDomain: a.Status == msg.DNSNoName}
	if a.Status == msg.DNSUnavailable {
		t.Err = errors.New(a.Err)
	}
	return t
}

// evaluateDMARC adds the results of DMARC, and says what follows from the worst.
func (m *Mail) evaluateDMARC(ctx context.Context, header dkim.Header) Decision {
	in := dmarc.Input{Authors: dmarc.ParseFrom(values(header, "from"))}
	if m.SPF != nil {
		in.SPF = dmarc.Identifier{Domain: spf.Domain(m.SPF), Result: m.SPF.Value}
	}
	var signatures []dmarcrpt.Signature
	for i := range m.Signatures {
		s := &m.Signatures[i]
		in.DKIM = append(in.DKIM, dmarc.Identifier{Domain: s.Domain, Result: string(s.Verdict)})
		signatures = append(signatures, dmarcrpt.Signature{Domain: s.Domain, Selector: s.Selector, Result: string(s.Verdict)})
	}
	results := dmarc.Evaluate(ctx, &in, m.txt)
	worst := &results[0]
	applied, override, comment := m.cfg.DMARC.apply(m, worst, header)
	d := m.cfg.DMARC.decide(worst, applied, override, comment)
	m.DMARC = worst
	// The worst alone: of several results the best would be taken for that of the message.
	m.add(dmarcResult(worst, applied))
	if m.deps.Reports == nil || d.Reply.Temporary() { // it will come again
		return d
	}
	for i := range results {
		one := &dmarcrpt.Message{
			Client: m.Client.IP, Result: &results[i], Disposition: applied, Override: override, Comment: comment,
			EnvelopeFrom: m.From.ToASCII().LowerDomain(), SPF: in.SPF, DKIM: signatures,
		}
		if i > 0 { // what happens to the message is because of the first
			one.Override, one.Comment = "other", "From has several domains"
		}
		m.deps.Reports.Count(one)
	}
	return d
}

// apply is what becomes of the message because of its policy. override says in a word of RFC 9990
// why that is less than the policy asks for, comment in others; "": it is not, or the domain only
// tests.
func (d *DMARC) apply(m *Mail, r *dmarc.Result, header dkim.Header) (p dmarc.Policy, override, comment string) {
	p = r.Policy
	if p <= dmarc.None {
		return dmarc.None, "", ""
	}
	if d.forwarder(&m.Client) {
		return dmarc.None, overrideForwarder, ""
	}
	if i := d.vouched(m.Chain, r.From); i > 0 {
		// The form that RFC 9990 asks for: receivers of reports look for it.
		return dmarc.None, overrideLocal, fmt.Sprintf("arc=pass as[%d].d=%s", i, m.Chain.Sealers[i-1])
	}
	own := ActionNone
	if p == dmarc.Reject {
		own = d.Reject
	} else {
		own = d.Quarantine
	}
	if most := policyOf(own); most < p {
		p, override, comment = most, overrideLocal, "local policy"
	}
	if most := policyOf(d.Lists); most < p && (len(values(header, "list-id")) > 0 || len(values(header, "list-post")) > 0) {
		p, override, comment = most, overrideList, "it has List-Id or List-Post"
	}
	return p, override, comment
}

// vouched is the instance of the newest ARC set in which a sealer says that the domain of From: had
// passed DMARC, if that sealer and all after it are trusted; 0 if there is none. That the others are trusted matters:
// each could have changed the message before it sealed it.
func (d *DMARC) vouched(chain *arc.Result, from string) int {
	if chain == nil || chain.Verdict != dkim.Pass {
		return 0
	}
	for i := len(chain.Sealers) - 1; i >= 0 && d.sealer(chain.Sealers[i]); i-- {
		f, err := authn.Parse(chain.Authenticated[i])
		if err != nil {
			continue
		}
		for _, r := range f.Results {
			if r.Method == authn.DMARC && r.Value == authn.Pass && slices.ContainsFunc(r.Props, func(p authn.Prop) bool {
				return p.Type == "header" && p.Name == "from" && strings.EqualFold(p.Value, from)
			}) {
				return i + 1
			}
		}
	}
	return 0
}

// sealer reports whether a domain is among trusted_sealers.
func (d *DMARC) sealer(domain string) bool {
	for _, s := range d.Sealers {
		s = strings.ToLower(s)
		if domain == s || strings.HasPrefix(s, ".") && strings.HasSuffix(domain, s) {
			return true
		}
	}
	return false
}

// policyOf is the policy of an option; Unset of an option that was not read is none.
func policyOf(action string) dmarc.Policy {
	switch action {
	case ActionReject:
		return dmarc.Reject
	case ActionQuarantine:
		return dmarc.Quarantine
	}
	return dmarc.None
}

// decide is what SMTPS does.
func (d *DMARC) decide(r *dmarc.Result, applied dmarc.Policy, override, comment string) Decision {
	step := msg.Step{Check: "dmarc", Key: r.From, Value: r.Value.String()}
	if r.Record != nil {
		step.Value += " (" + r.Tag + "=" + r.Published.String() + " of " + r.Domain + ")"
	}
	if override != "" {
		step.Value += ", " + override
		if comment != "" {
			step.Value += ": " + comment
		}
	}
	switch {
	case r.Value == dmarc.ValueTempError && d.TempError == ActionTempfail:
		step.Effect, step.Value = ActionTempfail, step.Value+": "+r.Reason
		return Decision{Reply: replyDMARCTemporary, Step: step}
	case applied == dmarc.Reject:
		step.Effect = ActionReject
		return Decision{Reply: smtp.NewReply(550, "5.7.1", "Rejected per DMARC policy "+r.Published.String()+" of "+r.Domain), Step: step}
	case applied == dmarc.Quarantine:
		step.Effect = ActionQuarantine
		return Decision{Hold: "quarantined by DMARC: policy " + r.Published.String() + " of " + r.Domain, Step: step}
	}
	return Decision{}
}

// dmarcResult is the result for the header (RFC 8601, the registry of RFC 9989 section 9).
func dmarcResult(r *dmarc.Result, applied dmarc.Policy) authn.Result {
	a := authn.Result{Method: authn.DMARC, Value: r.Value.String(), Props: []authn.Prop{{Type: "header", Name: "from", Value: r.From}}}
	if r.Value != dmarc.ValuePass && r.Value != dmarc.ValueFail {
		a.Reason = r.Reason
	}
	if r.Record == nil {
		return a
	}
	a.Comment = r.Tag + "=" + r.Published.String() + " dis=" + applied.String()
	if r.Record.Testing {
		a.Comment += " t=y"
	}
	policy := r.Published // as it is evaluated, whatever became of it here
	if r.Value == dmarc.ValueFail {
		policy = r.Policy
	}
	a.Props = append(a.Props, authn.Prop{Type: "policy", Name: "dmarc", Value: policy.String()})
	if r.Domain != r.From {
		a.Props = append(a.Props, authn.Prop{Type: "polrec", Name: "domain", Value: r.Domain})
	}
	return a
}

// values are the values of all fields with a name, which is in lower case.
func values(h dkim.Header, name string) (list []string) {
	for _, f := range h {
		if f.Name == name {
			list = append(list, f.Value())
		}
	}
	return slices.Clip(list)
}
