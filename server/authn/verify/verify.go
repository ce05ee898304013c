// Package verify does what section authentication of smtps says: it checks SPF when a sender is
// given, and at the end of a message DKIM and what stands on both, decides what becomes of it,
// and reports the results in its header.
package verify

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/authn"
	"meta1/server/authn/arc"
	"meta1/server/authn/dmarc"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/authn/spf"
	"meta1/server/dkim"
)

// Deps are what a Verifier needs.
type Deps struct {
	DNS      *msg.Port[msg.DNSQ, msg.DNSA]
	Hostname string
	// Count is told each result; nil: nobody is.
	Count func(method authn.Method, word string)
	// Reports count mail for reports about DMARC; nil: nobody does.
	Reports *dmarcrpt.Reports
}

// Verifier checks the mail of one section smtps. Any goroutine may use it.
type Verifier struct {
	cfg  Config
	deps Deps
	dns  authn.DNS
	ids  []string // in lower case, that of our own fields first
}

// New makes a Verifier.
func New(cfg Config, deps Deps) *Verifier {
	if cfg.Time <= 0 {
		cfg.Time = timeDefault
	}
	if cfg.ID == "" {
		cfg.ID = deps.Hostname
	}
	if deps.Count == nil {
		deps.Count = func(authn.Method, string) {}
	}
	v := &Verifier{cfg: cfg, deps: deps, dns: authn.DNS{Port: deps.DNS}}
	for _, id := range append([]string{cfg.ID}, cfg.OwnIDs...) {
		v.ids = append(v.ids, strings.ToLower(id))
	}
	return v
}

// Sender is what is known when MAIL is given.
type Sender struct {
	TA      smtp.ID
	Client  msg.Client
	From    smtp.Path
	Trusted bool // the client may relay, or is on this machine
}

// Decision is what follows from results. The zero value says that mail goes on.
type Decision struct {
	Reply smtp.Reply // refuses the mail, unless it is zero
	Hold  string     // why the queue is to hold it; "": it is not
	Step  msg.Step   // what decided; Step.Check is "" if nothing did
}

// Mail is one transaction. It is not safe for concurrent use.
type Mail struct {
	*Verifier
	Sender
	// Results so far, in the order of the field.
	Results []authn.Result
	// SPF is the result for the sender, Helo the one for HELO, also among Results; nil: there is none.
	SPF, Helo *authn.Result
	// Signatures are all results of DKIM.
	Signatures []dkim.Result
	// Chain is the result of ARC; nil: it was not verified.
	Chain *arc.Result
	// DMARC is the worst result of DMARC; nil: it was not evaluated.
	DMARC *dmarc.Result
}

// Begin evaluates what is known at MAIL. The decision is about the sender.
func (v *Verifier) Begin(ctx context.Context, s Sender) (*Mail, Decision) {
	m := &Mail{Verifier: v, Sender: s}
	c := &s.Client
	if v.cfg.Auth && c.Auth.User != "" {
		m.add(authn.Result{Method: authn.Auth, Value: authn.Pass, Props: []authn.Prop{{Type: "smtp", Name: "auth", Value: c.Auth.User}}})
	}
	if !m.checked() {
		return m, Decision{}
	}
	if v.cfg.IPRev {
		m.addIPRev()
	}
	if !v.cfg.SPF.Check {
		return m, Decision{}
	}
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Time)
	defer cancel()
	q := spf.Query{IP: c.IP, Helo: c.Helo, From: s.From}
	limits := spf.Limits{Lookups: uint(v.cfg.SPF.Lookups), VoidLookups: uint(v.cfg.SPF.VoidLookups)}
	helo := spf.CheckHelo(ctx, v.dns.Lookup, q, limits)
	from := helo
	if !s.From.IsNull() {
		from = spf.Check(ctx, v.dns.Lookup, q, limits)
		m.add(from)
	}
	m.add(helo)
	m.SPF, m.Helo = &from, &helo
	return m, v.cfg.SPF.decide(m.SPF, m.Helo)
}

// checked reports whether the mail is to be checked.
func (m *Mail) checked() bool { return m.cfg.Trusted || !m.Trusted }

func (m *Mail) add(r authn.Result) {
	m.Results = append(m.Results, r)
	m.deps.Count(r.Method, r.Value)
}

// addIPRev reports how the client's name was found (RFC 8601 section 2.7.3).
func (m *Mail) addIPRev() {
	r := authn.Result{Method: authn.IPRev, Props: []authn.Prop{{Type: "policy", Name: "iprev", Value: addrText(m.Client.IP)}}}
	switch m.Client.Resolve {
	case "ok":
		r.Value, r.Comment = authn.Pass, strings.TrimSuffix(m.Client.Name, ".")
	case "no":
		r.Value = authn.Fail
	case "tempptr", "tempa":
		r.Value = authn.TempError
	default:
		return // it was not looked up
	}
	m.add(r)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.WithZone("").Unmap().String()
}

// decide is what the results of SPF demand.
func (s *SPF) decide(from, helo *authn.Result) Decision {
	for _, rule := range []struct {
		r            *authn.Result
		word, action string
	}{
		{from, authn.Fail, s.Fail},
		{helo, authn.Fail, s.HeloFail},
		{from, authn.PermError, s.PermError},
		{from, authn.TempError, s.TempError},
	} {
		if rule.r.Value != rule.word || rule.action == ActionNone || rule.action == "" {
			continue
		}
		d := Decision{Step: msg.Step{Check: "spf", Key: spf.Domain(rule.r), Value: rule.word, Effect: rule.action}}
		if rule.r.Reason != "" {
			d.Step.Value += " (" + rule.r.Reason + ")"
		}
		switch {
		case rule.action == ActionTempfail:
			d.Reply = replySPFTemporary
		case rule.action == ActionQuarantine:
			d.Hold = "quarantined by SPF: " + rule.word + " of " + spf.Domain(rule.r)
		case rule.word == authn.PermError:
			d.Reply = replySPFError
		default:
			d.Reply = replySPFFail
		}
		return d
	}
	return Decision{}
}

// The refusals of SPF (RFC 7208 section 8.4, 8.6, 8.7; RFC 7372 section 3.2).
var (
	replySPFFail      = smtp.NewReply(550, "5.7.23", "SPF: the domain does not permit your host to send for it")
	replySPFError     = smtp.NewReply(550, "5.7.24", "SPF: the record of the domain cannot be evaluated")
	replySPFTemporary = smtp.NewReply(451, "4.7.24", "SPF: the record of the domain cannot be looked up now")
)

// Message reads the content of the message, the header on top as the client sent it, and
// evaluates all that is left. take asks for memory, and gives it back if n is negative; false:
// there is none left. The error says that the content cannot be read or not be held; what it is
// about has not been decided then.
func (m *Mail) Message(ctx context.Context, content io.Reader, take func(n int64) bool) (Decision, error) {
	if !m.checked() {
		return Decision{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Time)
	defer cancel()

	// The content goes through all that hash it, once.
	signatures, chain := m.verification()
	signatures.Limit(m.cfg.DKIM.signatures())
	held, err := stream(content, signatures, take)
	defer func() { take(-held) }()
	if err != nil {
		return Decision{}, err
	}

	// DKIM.
	if m.cfg.DKIM.Verify {
		m.Signatures = signatures.Results(ctx, m.dns.TXT, time.Now())
		m.addSignatures()
	}

	// ARC: the chain of those who have passed the message on.
	m.addChain(ctx, chain, signatures)

	// DMARC: what the domain of From: says of mail that neither SPF nor DKIM speaks for.
	if !m.cfg.DMARC.Check {
		return Decision{}, nil
	}
	header, err := signatures.Header()
	if header == nil && err != nil {
		return Decision{}, nil // it is too long, and refused for that
	}
	return m.evaluateDMARC(ctx, header), nil
}

// streamPiece is how much of the content is read at a time.
const streamPiece = 32 << 10

// errMemory: the header does not fit into the budget beside the content.
var errMemory = errors.New("the memory for its header is used up")

// stream reads the content until nothing of it matters any more. held is what was taken of the
// memory.
func stream(in io.Reader, v *dkim.Verification, take func(int64) bool) (held int64, err error) {
	piece := make([]byte, streamPiece)
	for {
		n, err := in.Read(piece)
		_, _ = v.Write(piece[:n]) // it never fails
		if more := int64(v.Held()) - held; more > 0 {
			if !take(more) {
				return held, errMemory
			}
			held += more
		}
		switch {
		case errors.Is(err, io.EOF), err == nil && !v.More():
			return held, nil
		case err != nil:
			return held, err
		}
	}
}

func (d *DKIM) signatures() int {
	if !d.Verify {
		return 0
	}
	if d.Signatures == 0 {
		return maxSignatures
	}
	return d.Signatures
}

// addSignatures reports DKIM (RFC 8601 section 2.7.1, RFC 6008).
func (m *Mail) addSignatures() {
	for i := range m.Signatures {
		s := &m.Signatures[i]
		r := authn.Result{Method: authn.DKIM, Value: string(s.Verdict), Reason: s.Reason}
		for _, p := range []authn.Prop{
			{Type: "header", Name: "d", Value: s.Domain},
			{Type: "header", Name: "i", Value: s.Identifier},
			{Type: "header", Name: "s", Value: s.Selector},
			{Type: "header", Name: "a", Value: s.Algorithm},
			{Type: "header", Name: "b", Value: s.Signature},
		} {
			if p.Value != "" {
				r.Props = append(r.Props, p)
			}
		}
		if s.Test {
			r.Comment = "test mode"
		}
		m.add(r)
	}
	if len(m.Signatures) == 0 {
		m.add(authn.Result{Method: authn.DKIM, Value: authn.None})
	}
}

// Field is the Authentication-Results: field of the message.
func (m *Mail) Field() []byte { return authn.Append(nil, m.cfg.ID, m.Results) }

// Remove removes the fields from a header that remove_results names.
func (m *Mail) Remove(header []byte) authn.Removed {
	return authn.RemoveFields(header, func(value string) bool {
		switch {
		case m.cfg.Remove == RemoveAll:
			return true
		case m.cfg.Remove == RemoveUntrusted && m.Trusted:
			return false
		}
		return m.claimed(value)
	})
}

// claimed reports whether the value of a field says that we have made it. One that cannot be
// read says so if it has a name of ours anywhere.
func (m *Mail) claimed(value string) bool {
	id, err := authn.ServID(value)
	id = strings.ToLower(id)
	for _, own := range m.ids {
		switch {
		case err != nil && strings.Contains(strings.ToLower(value), own), id == own:
			return true
		case strings.HasPrefix(own, ".") && strings.HasSuffix(id, own):
			return true
		}
	}
	return false
}
