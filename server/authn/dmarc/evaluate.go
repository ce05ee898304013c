package dmarc

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// IdentifiersMax bounds the domains of signatures that are compared with one domain of From:.
// Those that are the same as it come first, and others in the order of the message.
const IdentifiersMax = 10

// Value is the result of an evaluation.
type Value uint8

// The results (RFC 8601, and section 9 of RFC 9989).
const (
	ValueNone Value = iota
	ValuePass
	ValueFail
	ValueTempError
	ValuePermError
)

// String is the word for Authentication-Results.
func (v Value) String() string {
	return [...]string{"none", "pass", "fail", "temperror", "permerror"}[v]
}

// Identifier is a domain that SPF or DKIM has looked at.
type Identifier struct {
	Domain string // of the sender for SPF, d= for DKIM
	// Result is the word of RFC 8601 for the method: pass, fail, temperror and so on.
	Result string
}

// Input is what is known of a message.
type Input struct {
	Authors Authors
	// SPF is the result for the sender, or for the name in HELO if that is empty. A Domain
	// of "" says that SPF was not looked at.
	SPF  Identifier
	DKIM []Identifier // one for each signature
}

// Result is the evaluation for one domain of From:.
type Result struct {
	Value  Value
	Reason string // in few words; nothing in it needs escaping but as a comment or a quoted string
	From   string // the author domain; "" if there is none
	// Domain is where the record was found, and Record what it says; nil if none applies.
	Domain string
	Record *Record
	// Published is the policy that the record has for From, by the tag Tag. Policy is what
	// follows for this message: None unless it has failed, and one step below Published with t=y.
	Published Policy
	Tag       string
	Policy    Policy
	// SPF: the identifier of SPF is aligned and has passed. DKIM says so of each signature.
	SPF  bool
	DKIM []bool
	// Problems are what is wrong with the records, for their owner.
	Problems []string
	// Queries are the names for whose TXT records DNS was asked, in their order.
	Queries []string
}

// DKIMPass reports that a signature is aligned and has passed.
func (r *Result) DKIMPass() bool { return slices.Contains(r.DKIM, true) }

// Stepped reports that the policy is below the published one because of t=y.
func (r *Result) Stepped() bool { return r.Value == ValueFail && r.Policy != r.Published }

// Evaluate evaluates DMARC for each domain of From:. The worst result comes first: it is the one
// of the message. There is always one.
func Evaluate(ctx context.Context, in *Input, lookup Lookup) []Result {
	if len(in.Authors.Domains) == 0 {
		r := Result{Value: ValueNone, Reason: "no domain in From"}
		if in.Authors.Unusable {
			r.Value, r.Reason = ValuePermError, "no usable domain in From"
		}
		return []Result{r}
	}
	var all []Result
	w := &walker{ctx: ctx, lookup: lookup, known: map[string]answer{}}
	for _, domain := range in.Authors.Domains {
		w.queries, w.problems = nil, nil
		r := w.evaluate(domain, in)
		r.Queries = w.queries
		r.Problems = append(w.problems, r.Problems...)
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b Result) int { return b.badness() - a.badness() })
	switch worst := &all[0]; {
	case worst.Value != ValuePass && worst.Value != ValueNone:
	case in.Authors.More:
		worst.Value, worst.Reason = ValuePermError, "too many domains in From"
	case in.Authors.Unusable:
		worst.Value, worst.Reason = ValuePermError, "a domain in From cannot be used"
	}
	return all
}

// badness orders results: what is to be done counts first.
func (r *Result) badness() int {
	return 10*int(r.Policy) + [...]int{ValueNone: 1, ValuePass: 0, ValueFail: 3, ValueTempError: 4, ValuePermError: 2}[r.Value]
}

// evaluate evaluates DMARC for one domain (RFC 9989 section 5.3).
func (w *walker) evaluate(author string, in *Input) (r Result) {
	r = Result{From: author, Policy: None, DKIM: make([]bool, len(in.DKIM))}
	f, err := w.policyRecord(author)
	if err != nil {
		r.Value, r.Reason = ValueTempError, "no answer about the policy: "+clean(err.Error())
		return r
	}
	if f == nil {
		r.Reason = "no policy"
		return r
	}
	rec := *f.record
	r.Domain, r.Record, r.Problems = f.domain, &rec, rec.Problems
	if rec.invalid || rec.P == Unset {
		if len(rec.RUA) == 0 {
			r.Reason = "the record has no policy and no address for reports"
			if rec.invalid {
				r.Value, r.Reason = ValuePermError, "the record has no valid policy"
			}
			r.Record, r.Domain = nil, ""
			return r
		}
		rec.P, rec.SP, rec.NP = None, Unset, Unset
	}
	r.Published, r.Tag, err = rec.policy(author != f.domain, func() (bool, error) { return w.exists(author) })
	if err != nil {
		r.Value, r.Reason, r.Published = ValueTempError, "no answer whether the domain exists: "+clean(err.Error()), None
		return r
	}
	pending := w.align(&r, in)
	switch {
	case r.SPF || r.DKIMPass():
		r.Value = ValuePass
	case pending != "":
		r.Value, r.Reason = ValueTempError, pending
	default:
		r.Value, r.Policy = ValueFail, r.Published
		if r.Reason = "no identifier is aligned"; rec.Testing {
			r.Policy = r.Published.relaxed()
		}
	}
	return r
}

// align finds the identifiers that are aligned and have passed. pending says why a message that
// has none may have one at another time; "" if not.
func (w *walker) align(r *Result, in *Input) (pending string) {
	try := func(method string, id *Identifier, strict bool) bool {
		temporary := id.Result == "temperror"
		if id.Result != "pass" && !temporary {
			return false
		}
		ok, err := w.aligned(r.From, strings.ToLower(strings.TrimSuffix(id.Domain, ".")), strict)
		switch {
		case err != nil:
			pending = "no answer about alignment: " + clean(err.Error())
		case ok && temporary:
			pending = fmt.Sprintf("%s of %s had a temporary error", method, clean(id.Domain))
		}
		return err == nil && ok && !temporary
	}
	r.SPF = try("SPF", &in.SPF, r.Record.StrictSPF)
	order := make([]int, 0, len(in.DKIM))
	for i := range in.DKIM {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return boolInt(!strings.EqualFold(in.DKIM[a].Domain, r.From)) - boolInt(!strings.EqualFold(in.DKIM[b].Domain, r.From))
	})
	seen := map[string]bool{}
	for _, i := range order {
		domain := strings.ToLower(in.DKIM[i].Domain)
		if !seen[domain] && len(seen) == IdentifiersMax {
			continue
		}
		seen[domain] = true
		r.DKIM[i] = try("DKIM", &in.DKIM[i], r.Record.StrictDKIM)
	}
	return pending
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// aligned reports whether an identifier is aligned with the author domain (RFC 9989 section
// 4.4).
func (w *walker) aligned(author, domain string, strict bool) (bool, error) {
	switch {
	case domain == author:
		return true, nil
	case strict || !isDomain(domain) || !isBelow(domain, top(author)) && domain != top(author):
		return false, nil
	}
	list, err := w.walk(author)
	if err != nil {
		return false, err
	}
	org, _ := organization(author, list)
	if domain != org && !isBelow(domain, org) {
		return false, nil // its organization is not above it: no need to ask
	}
	if list, err = w.walk(domain); err != nil {
		return false, err
	}
	other, _ := organization(domain, list)
	return org == other, nil
}

// top is the last label of a domain: names that do not share it have nothing in common.
func top(domain string) string { return domain[strings.LastIndexByte(domain, '.')+1:] }

// Organization is the organizational domain of a domain (RFC 9989 section 4.10.2). queries are
// the names for which DNS was asked.
func Organization(ctx context.Context, domain string, lookup Lookup) (org string, queries []string, err error) {
	w := &walker{ctx: ctx, lookup: lookup, known: map[string]answer{}}
	list, err := w.walk(domain)
	if err != nil {
		return "", w.queries, err
	}
	org, _ = organization(domain, list)
	return org, w.queries, nil
}

// clean bounds a text and takes what is no printable ASCII out of it.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 200)]
}
