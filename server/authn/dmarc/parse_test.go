package dmarc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"v=DMARC1", "p= sp= np= 0 false 0"},
		{"v=DMARC1;", "p= sp= np= 0 false 0"},
		{"V = DMARC1 ; p = reject", "p=reject sp= np= 0 false 0"},
		{"v=DMARC1;p=none;;sp=quarantine; np=reject;psd=y;t=y;fo=1:d:s;adkim=s", "p=none sp=quarantine np=reject 1 true 1:d:s adkim=s"},
		{"v=DMARC1; p=reject; p=none", "p=reject sp= np= 0 false 0 [the tag p stands twice]"},
		{"v=DMARC1; p=reject; v=DMARC2", "p=reject sp= np= 0 false 0 [the tag v stands twice]"},
		{"v=DMARC1; p=reject; future=\"x; y\"; z1=1", "p=reject sp= np= 0 false 0 [a part is no tag a part is no tag]"},
		{"v=DMARC1; p=reject; psd=q; t=1; fo=0:1; adkim=relaxed; aspf=", "p=reject sp= np= 0 false 0 [the value of the tag psd is not valid the value of the tag t is not valid the value of the tag fo is not valid the value of the tag adkim is not valid the value of the tag aspf is not valid]"},
		{"v=DMARC1; p=reject; rua=nonsense", "p=reject sp= np= 0 false 0 [the value of the tag rua is not valid]"},
		{"v=DMARC1; p=none; rua=mailto:a%2Cb@example.com!10M , https://x.test/r,mailto:\"q\"@x.test, mailto:b@example.net?subject=x", "p=none sp= np= 0 false 0 rua=a,b@example.com/10485760 - - b@example.net/0"},
		{"v=DMARC1 p=none", ""},
		{" v=DMARC1; p=none", ""},
		{"v=dmarc1; p=none", ""},
		{"v=DMARC12; p=none", ""},
		{"p=none; v=DMARC1", ""},
		{"", ""},
		{"v=DMARC1;" + strings.Repeat(" ", recordMax), ""},
	} {
		got := ""
		if r, ok := ParseRecord(c.text); ok {
			got = fmt.Sprintf("p=%s sp=%s np=%s %d %v %s", r.P, r.SP, r.NP, r.PSD, r.Testing, r.FO)
			if r.StrictDKIM {
				got += " adkim=s"
			}
			if len(r.RUA) > 0 {
				got += " rua="
				var all []string
				for _, u := range r.RUA {
					if u.To.IsNull() {
						all = append(all, "-")
						continue
					}
					all = append(all, fmt.Sprintf("%s/%d", u.To.Addr(), u.Max))
				}
				got += strings.Join(all, " ")
			}
			if len(r.Problems) > 0 {
				got += fmt.Sprint(" ", r.Problems)
			}
		}
		if c.want == "" != (got == "") || !strings.Contains(c.text, `"q"`) && got != c.want {
			t.Errorf("%q:\n%s, want\n%s", c.text, got, c.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"10": 10, "50k": 50 << 10, "10m": 10 << 20, "1G": 1 << 30, "2t": 2 << 40, "99999999999999t": 1 << 62, "": -1, "m": -1, "-1": -1, "+1": -1, "1.5m": -1, "1x": -1} {
		got, ok := parseSize(s)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

func TestParseFrom(t *testing.T) {
	for _, c := range []struct {
		from []string
		want string
	}{
		{[]string{"sender@example.com"}, "example.com"},
		{[]string{" \"Sender, the @ one\" <sender@Example.COM>"}, "example.com"},
		{[]string{"user@bank.test (a comment (nested) \\) ) <x@evil.test>"}, "evil.test"},
		{[]string{"\"user@bank.test\" <x@evil.test>"}, "evil.test"},
		{[]string{"user@bank.test <x@evil.test>"}, "evil.test"},
		{[]string{"<x@evil.test> <user@bank.test>"}, "evil.test bank.test"},
		{[]string{"<x@evil.test"}, "evil.test"},
		{[]string{"a@x.test, b@x.test, c@y.test"}, "x.test y.test"},
		{[]string{"a@x.test", "b@y.test"}, "x.test y.test"},
		{[]string{"Friends: a@x.test, B <b@y.test>;, c@z.test"}, "x.test y.test z.test"},
		{[]string{"Undisclosed:;"}, ""},
		{[]string{"<@relay.test,@other.test:a@x.test>"}, "x.test"},
		{[]string{"\"a@b\"@x.test"}, "x.test"},
		{[]string{"a@x.test."}, "x.test"},
		{[]string{"a @ x\r\n .test"}, "x.test"},
		{[]string{"a@b@x.test"}, "x.test"},
		{[]string{"user@bücher.test"}, "xn--bcher-kva.test"},
		{[]string{"a@[192.0.2.1]"}, "unusable"},
		{[]string{"a@[IPv6:2001:db8::1]"}, "unusable"},
		{[]string{"<a@[IPv6:2001:db8::1]>"}, "unusable"},
		{[]string{"a@x..test"}, "unusable"},
		{[]string{"a@"}, "unusable"},
		{[]string{"a@x.test\xff"}, "unusable"},
		{[]string{"(unclosed a@x.test"}, "x.test"},
		{[]string{"\"unclosed <a@x.test>"}, "x.test"},
		{[]string{"=?utf-8?q?a=40bank.test?= <b@x.test>"}, "x.test"},
		{[]string{"a@1.test,a@2.test,a@3.test,a@4.test,a@5.test,a@6.test"}, "1.test 2.test 3.test 4.test 5.test more"},
		{[]string{strings.Repeat("a", fromMax), "a@x.test"}, "more"},
		{[]string{"nobody"}, ""},
		{nil, ""},
	} {
		a := ParseFrom(c.from)
		got := slices.Clone(a.Domains)
		if a.Unusable {
			got = append(got, "unusable")
		}
		if a.More {
			got = append(got, "more")
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%.80q: %s, want %s", c.from, s, c.want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, s := range []string{"v=DMARC1; p=reject; sp=none; rua=mailto:a@example.com!10m,https://x", "v=DMARC1", "v=DMARC1;p=none;psd=y;t=y;fo=0:d", ";;;", "v=DMARC1;=;a=;=b;;x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := ParseRecord(s)
		if !ok {
			return
		}
		if len(r.RUA) > urisMax || len(r.Problems) > problemsMax || !isFO(r.FO) {
			t.Fatalf("%+v", r)
		}
		for _, p := range r.Problems {
			if clean(p) != p {
				t.Fatalf("%q", p)
			}
		}
		for _, u := range r.RUA {
			if u.Max < 0 || u.To.Domain != "" && strings.ContainsAny(u.To.Addr(), "\r\n\x00") {
				t.Fatalf("%+v", u)
			}
		}
		z := zone{"_dmarc.example.com": {s}}
		e := Evaluate(t.Context(), &Input{Authors: Authors{Domains: []string{"a.example.com"}}, SPF: Identifier{"b.example.com", "pass"}}, z.lookup)[0]
		if e.Value == ValuePass && e.Policy != None || e.Policy > e.Published && e.Value == ValueFail || len(e.Queries) > 20 {
			t.Fatalf("%+v", e)
		}
	})
}

func FuzzFrom(f *testing.F) {
	for _, s := range []string{"a@b.c", "\"x\" <a@b>, (c) d@e;", "<@a:b@c>", "a:b@[c:d];"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a := ParseFrom([]string{s})
		for i, d := range a.Domains {
			if !isDomain(d) || slices.Contains(a.Domains[:i], d) {
				t.Fatalf("%q in %q", d, a.Domains)
			}
		}
		if len(a.Domains) > AuthorsMax {
			t.Fatal(len(a.Domains))
		}
	})
}
