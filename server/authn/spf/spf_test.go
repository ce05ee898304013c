package spf

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/authn"
)

func TestIdentities(t *testing.T) {
	z := zone{
		"example.net":      {Txt: []string{"v=spf1 ip4:192.0.2.0/24 -all"}},
		"mail.example.net": {Txt: []string{"v=spf1 a -all"}, A: []string{"192.0.2.9"}},
		"xn--bcher-kva.ch": {Txt: []string{"v=spf1 ip6:2001:db8::/32 -all"}},
		"exists.example":   {Txt: []string{"v=spf1 exists:%{i}.ok.example -all"}},
		"loop.example":     {Txt: []string{"v=spf1 include:loop.example -all"}},
		"broken.example":   {Txt: []string{"v=spf1 ip4:192.0.2.1 nonsense"}},
		"down.example":     {Fails: true},
	}
	inside, outside := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("198.51.100.1")
	for _, c := range []struct {
		name   string
		q      Query
		want   string
		domain string
	}{
		{"permitted", Query{inside, "mail.example.net", smtp.Path{Local: "joe", Domain: "Example.NET"}}, authn.Pass, "example.net"},
		{"mapped", Query{netip.MustParseAddr("::ffff:192.0.2.9"), "mail.example.net", smtp.Path{Local: "joe", Domain: "example.net"}}, authn.Pass, "example.net"},
		{"forbidden", Query{outside, "mail.example.net", smtp.Path{Local: "joe", Domain: "example.net"}}, authn.Fail, "example.net"},
		{"bounce", Query{outside, "mail.example.net", smtp.Path{}}, authn.Fail, "mail.example.net"},
		{"bounce of a short name", Query{inside, "localhost", smtp.Path{}}, authn.None, "localhost"},
		{"literal", Query{inside, "[192.0.2.9]", smtp.Path{Local: "joe", Domain: "[192.0.2.9]"}}, authn.None, "[192.0.2.9]"},
		{"at sign in the local part", Query{outside, "x", smtp.Path{Local: "a@down.example", Domain: "example.net"}}, authn.Fail, "example.net"},
		{"IDN", Query{netip.MustParseAddr("2001:db8::1"), "x", smtp.Path{Local: "joe", Domain: "bücher.ch"}}, authn.Pass, "xn--bcher-kva.ch"},
		{"recursion", Query{inside, "x", smtp.Path{Local: "joe", Domain: "loop.example"}}, authn.PermError, "loop.example"},
		{"error behind a match", Query{netip.MustParseAddr("192.0.2.1"), "x", smtp.Path{Local: "joe", Domain: "broken.example"}}, authn.PermError, "broken.example"},
		{"DNS down", Query{inside, "x", smtp.Path{Local: "joe", Domain: "down.example"}}, authn.TempError, "down.example"},
		{"no record", Query{inside, "x", smtp.Path{Local: "joe", Domain: "nothing.example"}}, authn.None, "nothing.example"},
		{"socket", Query{netip.Addr{}, "x", smtp.Path{Local: "joe", Domain: "example.net"}}, authn.None, "example.net"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Check(t.Context(), z.lookup, c.q, Limits{10, 2})
			if r.Value != c.want || Domain(&r) != c.domain {
				t.Errorf("%s (%s) of %q", r.Value, r.Reason, Domain(&r))
			}
		})
	}
}

// TestTime: a name server that does not answer ends the check in time.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		slow := func(ctx context.Context, _ string, _ msg.RecordType) msg.DNSA {
			<-ctx.Done()
			return msg.DNSA{Status: msg.DNSUnavailable, Err: "gave up"}
		}
		start := time.Now()
		r := Check(ctx, slow, Query{netip.MustParseAddr("192.0.2.1"), "x", smtp.Path{Local: "joe", Domain: "example.net"}}, Limits{10, 2})
		if r.Value != authn.TempError || time.Since(start) != 20*time.Second {
			t.Errorf("%s (%s) after %v", r.Value, r.Reason, time.Since(start))
		}
	})
}

// FuzzRecord: no record makes more lookups than the limits allow, or fails.
func FuzzRecord(f *testing.F) {
	f.Add("v=spf1 a mx:%{d1r+}.example ptr exists:%{i}.x.example include:example.net redirect=%{h} exp=x.y")
	f.Add("v=spf1 ip4:1.2.3.4/33 ip6:::/129 -all")
	f.Fuzz(func(t *testing.T, record string) {
		n := 0
		lookup := func(_ context.Context, _ string, kind msg.RecordType) msg.DNSA {
			n++
			switch kind {
			case msg.RecordTXT:
				return msg.DNSA{Texts: []string{record}}
			case msg.RecordMX:
				return msg.DNSA{Hosts: []msg.MXHost{{Host: "a.example."}, {Host: "b.example."}}}
			case msg.RecordPTR:
				return msg.DNSA{Names: []string{"a.example."}}
			}
			return msg.DNSA{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
		}
		r := Check(t.Context(), lookup, Query{netip.MustParseAddr("2001:db8::1"), "h.example", smtp.Path{Local: "joe", Domain: "example.net"}}, Limits{10, 2})
		if n > 1+10*(1+10*2) || r.Value == "" {
			t.Errorf("%d lookups: %+v", n, r)
		}
	})
}
