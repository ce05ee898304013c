package dmarc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// zone is DNS: names with "!" give no answer, those that are not there do not exist.
type zone map[string][]string

func (z zone) lookup(_ context.Context, name string) TXT {
	if _, ok := z["!"+name]; ok {
		return TXT{Err: errors.New("timeout")}
	}
	texts, ok := z[name]
	if !ok {
		for other := range z { // an empty non-terminal exists
			if strings.HasSuffix(other, "."+name) {
				return TXT{}
			}
		}
		return TXT{NoDomain: true}
	}
	return TXT{Texts: texts}
}

func names(list ...string) []string { return list }

// TestOrganization: the tree walk asks for what RFC 9989 section 4.10 says, in that order, and the
// organizational domain is that of section 4.10.2. Where that section and section 5.1.8 have
// an example, it is here.
func TestOrganization(t *testing.T) {
	const r = "v=DMARC1; p=none"
	cases := []struct {
		name, start string
		zone        zone
		org         string
		queries     []string
	}{
		{
			"4.10: eight queries for twelve labels", "a.b.c.d.e.f.g.h.i.j.mail.example.com",
			zone{},
			"a.b.c.d.e.f.g.h.i.j.mail.example.com",
			names("a.b.c.d.e.f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com", "h.i.j.mail.example.com", "i.j.mail.example.com",
				"j.mail.example.com", "mail.example.com", "example.com", "com"),
		},
		{
			"5.1.8: a zone cut that is never found", "mail.a.b.c.d.e.f.g.example.com",
			zone{"_dmarc.b.c.d.e.f.g.example.com": {"v=DMARC1; p=reject; psd=n"}, "_dmarc.example.com": {r}},
			"example.com",
			names("mail.a.b.c.d.e.f.g.example.com", "c.d.e.f.g.example.com", "d.e.f.g.example.com", "e.f.g.example.com", "f.g.example.com", "g.example.com", "example.com", "com"),
		},
		{
			"4.10.2: the fewest labels", "a.mail.example.com",
			zone{"_dmarc.mail.example.com": {r}, "_dmarc.example.com": {r}},
			"example.com",
			names("a.mail.example.com", "mail.example.com", "example.com", "com"),
		},
		{
			"4.10.2: psd=n ends it", "a.mail.example.com",
			zone{"_dmarc.mail.example.com": {r + ";psd=n"}, "_dmarc.example.com": {r}},
			"mail.example.com",
			names("a.mail.example.com", "mail.example.com"),
		},
		{
			"4.10.2: psd=y above", "a.mail.example.com",
			zone{"_dmarc.com": {r + "; psd=y"}},
			"example.com",
			names("a.mail.example.com", "mail.example.com", "example.com", "com"),
		},
		{
			"4.10.2: psd=y one label above the start", "mail.example.com",
			zone{"_dmarc.example.com": {r + "; psd=y"}},
			"mail.example.com",
			names("mail.example.com", "example.com"),
		},
		{
			"psd=y at the start is no suffix above it", "gov.example",
			zone{"_dmarc.gov.example": {r + "; psd=y"}, "_dmarc.example": {r}},
			"gov.example",
			names("gov.example"),
		},
		{
			"psd=y above a record without psd", "a.b.c.bank",
			zone{"_dmarc.b.c.bank": {r}, "_dmarc.bank": {r + "; psd=y"}},
			"c.bank",
			names("a.b.c.bank", "b.c.bank", "c.bank", "bank"),
		},
		{
			"psd=u is like none", "a.example.com",
			zone{"_dmarc.a.example.com": {r + "; psd=u"}, "_dmarc.com": {r}},
			"com",
			names("a.example.com", "example.com", "com"),
		},
		{
			"a psd that is not valid is like none", "a.example.com",
			zone{"_dmarc.a.example.com": {r + "; psd=x"}},
			"a.example.com",
			names("a.example.com", "example.com", "com"),
		},
		{
			"several records are none", "a.example.com",
			zone{"_dmarc.a.example.com": {r + "; psd=n", r}, "_dmarc.example.com": {r}},
			"example.com",
			names("a.example.com", "example.com", "com"),
		},
		{
			"other records do not count", "a.example.com",
			zone{"_dmarc.a.example.com": {"v=spf1 -all", r + "; psd=n", "V=dmarc1; p=none"}},
			"a.example.com",
			names("a.example.com"),
		},
		{"eight labels", "1.2.3.4.5.6.7.8", zone{}, "1.2.3.4.5.6.7.8", names("1.2.3.4.5.6.7.8", "2.3.4.5.6.7.8", "3.4.5.6.7.8", "4.5.6.7.8", "5.6.7.8", "6.7.8", "7.8", "8")},
		{"nine labels", "0.1.2.3.4.5.6.7.8", zone{}, "0.1.2.3.4.5.6.7.8", names("0.1.2.3.4.5.6.7.8", "2.3.4.5.6.7.8", "3.4.5.6.7.8", "4.5.6.7.8", "5.6.7.8", "6.7.8", "7.8", "8")},
		{"one label", "com", zone{}, "com", names("com")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			org, queries, err := Organization(t.Context(), c.start, c.zone.lookup)
			for i := range c.queries {
				c.queries[i] = "_dmarc." + c.queries[i]
			}
			if err != nil || org != c.org || !slices.Equal(queries, c.queries) {
				t.Errorf("%v: %s, asked for\n%q, want %s and\n%q", err, org, queries, c.org, c.queries)
			}
		})
	}
	t.Run("a failure ends it", func(t *testing.T) {
		_, queries, err := Organization(t.Context(), "a.b.example", zone{"!_dmarc.b.example": nil}.lookup)
		if err == nil || len(queries) != 2 {
			t.Errorf("%v after %q", err, queries)
		}
	})
	t.Run("a name too long for _dmarc", func(t *testing.T) {
		label := strings.Repeat("x", 60)
		long := strings.Join([]string{label, label, label, label, "example"}, ".") // 251 bytes
		org, queries, err := Organization(t.Context(), long, zone{"_dmarc.example": {r}}.lookup)
		if err != nil || org != "example" || len(queries) != 4 {
			t.Errorf("%s, %v after %d queries", org, err, len(queries))
		}
	})
}

// evaluated is what a test wants.
type evaluated struct {
	value  Value
	policy Policy
	domain string
	tag    string
}

func TestEvaluate(t *testing.T) {
	pass := func(domains ...string) (ids []Identifier) {
		for _, d := range domains {
			ids = append(ids, Identifier{d, "pass"})
		}
		return ids
	}
	spf := func(domain string) Identifier { return Identifier{domain, "pass"} }
	cases := []struct {
		name string
		zone zone
		from string
		spf  Identifier
		dkim []Identifier
		want evaluated
	}{
		// Appendix B.1 of RFC 9989.
		{"B.1.1 example 1", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; aspf=s"}}, "example.com", spf("example.com"), nil, evaluated{ValuePass, None, "example.com", "p"}},
		{"B.1.1 example 2", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", spf("child.example.com"), nil, evaluated{ValuePass, None, "example.com", "p"}},
		{"B.1.1 example 3", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "child.example.com", spf("example.net"), nil, evaluated{ValueFail, Reject, "example.com", "p"}},
		{"B.1.2 example 1", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; adkim=s"}}, "example.com", Identifier{}, pass("example.com"), evaluated{ValuePass, None, "example.com", "p"}},
		{"B.1.2 example 2", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "child.example.com", Identifier{}, pass("example.com"), evaluated{ValuePass, None, "example.com", "p"}},
		{"B.1.2 example 3", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "child.example.com", Identifier{}, pass("example.net"), evaluated{ValueFail, Reject, "example.com", "p"}},
		// Appendix B.2 and B.3.
		{"B.2.1", zone{"_dmarc.example.com": {"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com"}}, "example.com", Identifier{}, nil, evaluated{ValueFail, None, "example.com", "p"}},
		{
			"B.2.5",
			zone{"_dmarc.test.example.com": {"v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net; t=y"}},
			"test.example.com",
			Identifier{},
			nil,
			evaluated{ValueFail, None, "test.example.com", "p"},
		},
		{
			"B.2.5 without t",
			zone{"_dmarc.test.example.com": {"v=DMARC1; p=reject; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net"}},
			"test.example.com",
			Identifier{},
			nil,
			evaluated{ValueFail, Reject, "test.example.com", "p"},
		},
		{
			"B.3.1",
			zone{"_dmarc.example.com": {"v=DMARC1; p=reject; aspf=r; rua=mailto:dmarc-feedback@example.com"}},
			"example.com", spf("mail.example.com"), pass("example.com"),
			evaluated{ValuePass, None, "example.com", "p"},
		},
		// Strict alignment.
		{"adkim=s", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; adkim=s"}}, "example.com", Identifier{}, pass("a.example.com"), evaluated{ValueFail, Reject, "example.com", "p"}},
		{"aspf=s and relaxed DKIM", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; aspf=s"}}, "example.com", spf("a.example.com"), pass("b.example.com"), evaluated{ValuePass, None, "example.com", "p"}},
		{"no pass is no alignment", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", Identifier{"example.com", "softfail"}, []Identifier{{"example.com", "fail"}}, evaluated{ValueFail, Reject, "example.com", "p"}},
		{"capitals", zone{"_dmarc.example.com": {"v=DMARC1; p=REJECT; adkim=S"}}, "example.com", Identifier{}, pass("EXAMPLE.com"), evaluated{ValuePass, None, "example.com", "p"}},
		// psd.
		{"two customers of a suffix", zone{"_dmarc.shop.example": {"v=DMARC1; p=reject; psd=y"}}, "a.shop.example", spf("b.shop.example"), nil, evaluated{ValueFail, Reject, "shop.example", "p"}},
		{"one customer of a suffix", zone{"_dmarc.shop.example": {"v=DMARC1; p=reject; psd=y"}}, "x.a.shop.example", spf("y.a.shop.example"), nil, evaluated{ValuePass, None, "shop.example", "p"}},
		{
			"a department with psd=n",
			zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}, "_dmarc.dep.example.com": {"v=DMARC1; p=none; psd=n"}},
			"example.com", spf("x.dep.example.com"), nil,
			evaluated{ValueFail, Reject, "example.com", "p"},
		},
		{
			"policy of the organization rather than of a domain between",
			zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}, "_dmarc.mail.example.com": {"v=DMARC1; p=none"}},
			"a.mail.example.com",
			Identifier{},
			nil,
			evaluated{ValueFail, Reject, "example.com", "p"},
		},
		{
			"suffix whose customer has no record, one below has",
			zone{"_dmarc.bank": {"v=DMARC1; p=quarantine; psd=y"}, "_dmarc.mail.my.bank": {"v=DMARC1; p=none"}},
			"a.mail.my.bank",
			Identifier{},
			nil,
			evaluated{ValueFail, Quarantine, "bank", "p"},
		},
		// sp and np.
		{"sp for a domain that exists", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; sp=quarantine; np=none"}, "a.example.com": nil}, "a.example.com", Identifier{}, nil, evaluated{ValueFail, Quarantine, "example.com", "sp"}},
		{"np for one that does not", zone{"_dmarc.example.com": {"v=DMARC1; p=none; sp=quarantine; np=reject"}}, "a.example.com", Identifier{}, nil, evaluated{ValueFail, Reject, "example.com", "np"}},
		{"an empty non-terminal exists", zone{"_dmarc.example.com": {"v=DMARC1; p=none; np=reject"}, "x.a.example.com": nil}, "a.example.com", Identifier{}, nil, evaluated{ValueFail, None, "example.com", "p"}},
		{"sp without np", zone{"_dmarc.example.com": {"v=DMARC1; p=none; sp=reject"}}, "a.example.com", Identifier{}, nil, evaluated{ValueFail, Reject, "example.com", "sp"}},
		{"sp is not for the domain itself", zone{"_dmarc.example.com": {"v=DMARC1; p=none; sp=reject; np=reject"}}, "example.com", Identifier{}, nil, evaluated{ValueFail, None, "example.com", "p"}},
		{"nobody knows whether it exists", zone{"_dmarc.example.com": {"v=DMARC1; p=none; np=reject"}, "!a.example.com": nil}, "a.example.com", Identifier{}, nil, evaluated{ValueTempError, None, "example.com", "p"}},
		// t.
		{"t=y with reject", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; t=y"}}, "example.com", Identifier{}, nil, evaluated{ValueFail, Quarantine, "example.com", "p"}},
		{"t=y with none", zone{"_dmarc.example.com": {"v=DMARC1; p=none; t=y"}}, "example.com", Identifier{}, nil, evaluated{ValueFail, None, "example.com", "p"}},
		{"pct is historic", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; pct=0; ri=1; rf=x"}}, "example.com", Identifier{}, nil, evaluated{ValueFail, Reject, "example.com", "p"}},
		// Section 4.10.1: records without a valid policy.
		{"no p", zone{"_dmarc.example.com": {"v=DMARC1"}}, "example.com", spf("example.com"), nil, evaluated{ValueNone, None, "", ""}},
		{"no p, with rua", zone{"_dmarc.example.com": {"v=DMARC1; rua=mailto:a@example.com"}}, "example.com", Identifier{}, nil, evaluated{ValueFail, None, "example.com", "p"}},
		{"a wrong p", zone{"_dmarc.example.com": {"v=DMARC1; p=rejekt"}}, "example.com", Identifier{}, nil, evaluated{ValuePermError, None, "", ""}},
		{"a wrong sp, with rua", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; sp=x; rua=mailto:a@example.com"}}, "example.com", Identifier{}, nil, evaluated{ValueFail, None, "example.com", "p"}},
		{"a wrong np, with a wrong rua", zone{"_dmarc.example.com": {"v=DMARC1; p=reject; np=x; rua=a@example.com"}}, "example.com", Identifier{}, nil, evaluated{ValuePermError, None, "", ""}},
		// None at all, and errors.
		{"no record", zone{}, "example.com", spf("example.com"), nil, evaluated{ValueNone, None, "", ""}},
		{"no answer about the record", zone{"!_dmarc.example.com": nil}, "example.com", spf("example.com"), nil, evaluated{ValueTempError, None, "", ""}},
		{"no answer above", zone{"!_dmarc.com": nil, "_dmarc.example.com": {"v=DMARC1; p=reject"}}, "a.example.com", spf("a.example.com"), nil, evaluated{ValueTempError, None, "", ""}},
		{"no answer above that matters", zone{"!_dmarc.com": nil, "_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", spf("a.example.com"), nil, evaluated{ValueTempError, None, "example.com", "p"}},
		{"another one passes", zone{"!_dmarc.com": nil, "_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", spf("a.example.com"), pass("example.com"), evaluated{ValuePass, None, "example.com", "p"}},
		{"temporary error of an aligned signature", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", Identifier{}, []Identifier{{"a.example.com", "temperror"}}, evaluated{ValueTempError, None, "example.com", "p"}},
		{"temporary error of a stranger's signature", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", Identifier{}, []Identifier{{"evil.test", "temperror"}}, evaluated{ValueFail, Reject, "example.com", "p"}},
		{"temporary error of SPF", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", Identifier{"example.com", "temperror"}, nil, evaluated{ValueTempError, None, "example.com", "p"}},
		{"permanent error of SPF", zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}, "example.com", Identifier{"example.com", "permerror"}, nil, evaluated{ValueFail, Reject, "example.com", "p"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			all := Evaluate(t.Context(), &Input{Authors{Domains: []string{c.from}}, c.spf, c.dkim}, c.zone.lookup)
			r := all[0]
			if got := (evaluated{r.Value, r.Policy, r.Domain, r.Tag}); got != c.want || len(all) != 1 {
				t.Errorf("%v: %s\nwant %v", got, r.Reason, c.want)
			}
			if (r.Value == ValuePass) != (r.SPF || r.DKIMPass()) {
				t.Errorf("%s with SPF %v, DKIM %v", r.Value, r.SPF, r.DKIM)
			}
		})
	}
}

// TestEvaluateQueries: no name is asked for twice, and none that cannot matter.
func TestEvaluateQueries(t *testing.T) {
	z := zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}
	for _, c := range []struct {
		name string
		in   Input
		want string
	}{
		{"the same domain", Input{SPF: Identifier{"example.com", "pass"}}, "_dmarc.example.com"},
		{"no identifier", Input{}, "_dmarc.example.com"},
		{"strangers", Input{SPF: Identifier{"example.net", "pass"}, DKIM: []Identifier{{"x.test", "pass"}}}, "_dmarc.example.com"},
		{"of another organization", Input{SPF: Identifier{"other.com", "pass"}}, "_dmarc.example.com _dmarc.com"},
		{
			"related",
			Input{SPF: Identifier{"a.example.com", "pass"}, DKIM: []Identifier{{"b.example.com", "pass"}, {"a.example.com", "pass"}}},
			"_dmarc.example.com _dmarc.com _dmarc.a.example.com _dmarc.b.example.com",
		},
	} {
		c.in.Authors.Domains = []string{"example.com"}
		if got := strings.Join(Evaluate(t.Context(), &c.in, z.lookup)[0].Queries, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// Many signatures of one organization cost no more than IdentifiersMax of them.
	in := Input{Authors: Authors{Domains: []string{"example.com"}}}
	for i := range 1000 {
		in.DKIM = append(in.DKIM, Identifier{fmt.Sprintf("s%d.example.com", i), "pass"})
	}
	in.DKIM[999].Domain = "example.com"
	r := Evaluate(t.Context(), &in, z.lookup)[0]
	if len(r.Queries) != 2+IdentifiersMax-1 || !r.DKIM[999] || r.DKIM[998] {
		t.Errorf("%d queries; %v %v", len(r.Queries), r.DKIM[999], r.DKIM[998])
	}
}

// TestSeveralAuthors: the worst result is that of the message.
func TestSeveralAuthors(t *testing.T) {
	z := zone{"_dmarc.bank.test": {"v=DMARC1; p=reject"}, "_dmarc.list.test": {"v=DMARC1; p=none"}}
	in := Input{SPF: Identifier{"evil.test", "pass"}}
	for _, c := range []struct {
		from  string
		value Value
		of    string
	}{
		{"a@evil.test, b@bank.test", ValueFail, "bank.test"},
		{"a@list.test, b@bank.test, c@evil.test", ValueFail, "bank.test"},
		{"a@bank.test, b@bank.test", ValueFail, "bank.test"},
		{"a@evil.test, b@[192.0.2.1]", ValuePermError, "evil.test"},
		{"b@[192.0.2.1]", ValuePermError, ""},
		{"nobody", ValueNone, ""},
		{"", ValueNone, ""},
		{"a@1.test, a@2.test, a@3.test, a@4.test, a@5.test, a@bank.test", ValuePermError, "1.test"},
		{"a@bank.test, a@2.test, a@3.test, a@4.test, a@5.test, a@6.test", ValueFail, "bank.test"},
	} {
		in.Authors = ParseFrom([]string{c.from})
		all := Evaluate(t.Context(), &in, z.lookup)
		if all[0].Value != c.value || all[0].From != c.of {
			t.Errorf("%q: %s of %q (%s)", c.from, all[0].Value, all[0].From, all[0].Reason)
		}
	}
}
