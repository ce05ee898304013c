package resolver

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/mtasts"
)

// TestParseTLSRPT: which records ask for reports (RFC 8460 section 3).
func TestParseTLSRPT(t *testing.T) {
	long := "mailto:" + strings.Repeat("x", uriMax) + "@b"
	for _, c := range []struct {
		texts []string
		want  string
	}{
		{[]string{"v=TLSRPTv1;rua=mailto:reports@example.com"}, "mailto:reports@example.com"},
		{[]string{"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"}, "https://reporting.example.com/v1/tlsrpt"},
		{[]string{"v = TLSRPTv1 ; rua = mailto:a@b , https://c.example:444/x?y=z ;ext=1;"}, "mailto:a@b https://c.example:444/x?y=z"},
		{[]string{"v=spf1 -all", "v=TLSRPTv1;rua=mailto:a@b"}, "mailto:a@b"},
		{[]string{"v=TLSRPTv1;rua=mailto:a@b", "v=TLSRPTv1;rua=mailto:a@b"}, ""},
		{[]string{"v=TLSRPTv1;rua=mailto:a@b;rua=mailto:c@d"}, ""},
		{[]string{"v=TLSRPTv10;rua=mailto:a@b"}, ""},
		{[]string{"rua=mailto:a@b;v=TLSRPTv1"}, ""},
		{[]string{"v=TLSRPTv1;"}, ""},
		{[]string{"v=TLSRPTv1;rua=ftp://a/b,http://a.example/b,https:///x,https://u:p@a.example/,https://127.0.0.1/,https://[::1]/,mailto:,a@b,mailto:a b@c," + long}, ""},
		{[]string{"v=TLSRPTv1;rua=" + strings.Repeat("mailto:a@b,", 100)}, strings.TrimSpace(strings.Repeat("mailto:a@b ", ruaMax))},
		{nil, ""},
	} {
		rua, err := parseTLSRPT(c.texts)
		if got := strings.Join(rua, " "); got != c.want {
			t.Errorf("%q: %q %v, want %q", c.texts, got, err, c.want)
		}
	}
}

// FuzzParseTLSRPT: whatever a record says, what it gives is bounded and of the two schemes.
func FuzzParseTLSRPT(f *testing.F) {
	f.Add("v=TLSRPTv1;rua=mailto:a@b,https://c.example/x")
	f.Fuzz(func(t *testing.T, text string) {
		rua, err := parseTLSRPT([]string{text})
		if err != nil && rua != nil || len(rua) > ruaMax {
			t.Errorf("%q %v", rua, err)
		}
		for _, uri := range rua {
			if len(uri) > uriMax || strings.ContainsAny(uri, " \r\n,") {
				t.Errorf("%q", uri)
			}
		}
	})
}

// sessions remembers what was counted.
type sessions []*msg.TLSSession

func (s *sessions) CountTLS(one *msg.TLSSession) { *s = append(*s, one) }

// TestCountUnnamed: mail that an enforced policy keeps from every host is counted, and a mere
// question for a route is not.
func TestCountUnnamed(t *testing.T) {
	var got sessions
	r := &Resolver{hall: &hall{log: slog.New(slog.DiscardHandler)}, deps: Deps{TLSReports: &got}}
	f := mtasts.Found{Policy: &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"a.test"}}, Expires: time.Now().Add(time.Hour)}
	route := func(ta smtp.ID, host string) {
		hops := []msg.Hop{{Host: host, Addr: netip.MustParseAddrPort("192.0.2.1:25")}}
		r.applySTS(&msg.RouteQ{TA: ta}, "d.test", f, msg.RouteA{Hops: hops})
	}
	route(smtp.ID{}, "b.test")
	route(smtp.ID{Counter: 1}, "a.test")
	if len(got) > 0 {
		t.Errorf("%+v", got[0])
	}
	route(smtp.ID{Counter: 1}, "b.test")
	if len(got) != 1 || got[0].Domain != "d.test" || got[0].MX != "b.test" || got[0].Policy != msg.TLSPolicySTS || got[0].Result != msg.TLSValidationFailure {
		t.Errorf("%+v", got)
	}
}

// TestPolicyLines: a policy is told as its host would have it.
func TestPolicyLines(t *testing.T) {
	text := "version: STSv1\nmode: testing\nmx: *.a.test\nmx: b.test\nmax_age: 86400"
	p, err := mtasts.ParsePolicy([]byte(text))
	if err != nil || !slices.Equal(p.Lines(), strings.Split(text, "\n")) {
		t.Errorf("%q %v", p.Lines(), err)
	}
}
