package resolver

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/resolver/mtasts"
)

// TestWithSTS: which hosts a policy leaves, and what it asks of them.
func TestWithSTS(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		mode     mtasts.Mode
		mx       string
		optional bool // TLS-Required: no
		want     string
	}{
		"no policy":               {"", "", false, "mx:d.test a.test/0 b.test/0"},
		"none":                    {mtasts.None, "a.test", false, "mx:d.test a.test/0 b.test/0"},
		"testing":                 {mtasts.Testing, "a.test", false, "mx:d.test a.test/1 b.test/3"},
		"enforce both":            {mtasts.Enforce, "*.test", false, "mx:d.test a.test/2 b.test/2"},
		"enforce one":             {mtasts.Enforce, "b.test", false, "mx:d.test b.test/2"},
		"enforce other":           {mtasts.Enforce, "c.test", false, "mx:d.test 451 4.7.0 no MX host of the domain is one that its MTA-STS policy names"},
		"optional, no policy":     {"", "", true, "mx:d.test a.test/0 b.test/0"},
		"optional, testing":       {mtasts.Testing, "a.test", true, "mx:d.test a.test/1 b.test/3"},
		"optional, enforce both":  {mtasts.Enforce, "*.test", true, "mx:d.test a.test/2 b.test/2"},
		"optional, enforce one":   {mtasts.Enforce, "b.test", true, "mx:d.test/tls-optional a.test/0 b.test/2"},
		"optional, enforce other": {mtasts.Enforce, "c.test", true, "mx:d.test/tls-optional a.test/0 b.test/0"},
	} {
		r := &Resolver{hall: &hall{log: slog.New(slog.DiscardHandler)}}
		var hops []msg.Hop
		for i, host := range []string{"a.test", "b.test"} {
			hops = append(hops, msg.Hop{Host: host, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 25)})
		}
		f := mtasts.Found{Expires: now.Add(time.Minute), Trace: msg.Trace{{Check: "mta-sts"}}}
		if c.mode != "" {
			f.Policy = &mtasts.Policy{Mode: c.mode, MX: strings.Fields(c.mx)}
		}
		a := r.withSTS(f, msg.RouteA{Hops: hops, Dest: "mx:d.test", Expires: now.Add(time.Hour)}, c.optional)
		got := []string{a.Dest}
		for _, h := range a.Hops {
			got = append(got, fmt.Sprintf("%s/%d", h.Host, h.STS))
		}
		if !a.Reply.IsZero() {
			got = append(got, a.Reply.String())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", name, s, c.want)
		}
		if !a.Expires.Equal(f.Expires) || len(a.Trace) == 0 {
			t.Errorf("%s: expires %v, trace %v", name, a.Expires.Sub(now), a.Trace)
		}
		if hops[0].STS != msg.STSNone {
			t.Errorf("%s: the cached route was changed", name)
		}
	}
}
