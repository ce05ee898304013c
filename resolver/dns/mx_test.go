package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// zone is a fake DNS: records in zone file form; "name! TYPE" fails for now.
type zone struct {
	t       *testing.T
	records []mdns.RR
	broken  map[string]bool // "name TYPE"
	names   map[string]bool
}

func newZone(t *testing.T, lines ...string) *zone {
	z := &zone{t: t, broken: map[string]bool{}, names: map[string]bool{}}
	for _, l := range lines {
		if b, ok := strings.CutPrefix(l, "broken "); ok {
			z.broken[b] = true
			continue
		}
		rr, err := mdns.NewRR(l)
		if err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		z.records = append(z.records, rr)
		z.names[rr.Header().Name] = true
	}
	return z
}

func (z *zone) Cached(string, uint16) *Answer { return nil }

func (z *zone) Lookup(_ context.Context, name string, qtype uint16) *Answer {
	name = mdns.CanonicalName(name)
	a := &Answer{Status: NXDomain, Name: name, Secure: true, Expires: time.Now().Add(time.Hour)}
	if z.broken[name+" "+mdns.TypeToString[qtype]] {
		a.Status, a.Err = Temporary, "broken"
		return a
	}
	if z.names[name] {
		a.Status = NoData
	}
	for _, rr := range z.records {
		if h := rr.Header(); h.Name == name && h.Rrtype == qtype {
			a.Status = Success
			a.RRs = append(a.RRs, rr)
			a.Expires = time.Now().Add(time.Duration(h.Ttl) * time.Second)
		}
	}
	return a
}

func hops(r *Route) string {
	var words []string
	for _, h := range r.Hops(msg.ProtoSMTP, 25) {
		words = append(words, h.String())
	}
	return strings.Join(words, " ")
}

func find(t *testing.T, z *zone, target Target) *Route {
	t.Helper()
	f := NewFinder(FinderConfig{Hostname: "Me.example", MXMax: 5, AddrMax: 3}, z)
	target.Port = 25
	r := f.Find(t.Context(), target)
	if r.Reply.IsZero() == (len(r.Hosts) == 0) {
		t.Errorf("%v with %d hosts", r.Reply, len(r.Hosts))
	}
	if len(r.Trace) == 0 {
		t.Error("no trace")
	}
	return r
}

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		zone   string
		target Target
		hops   string
		reply  string // code and enhanced code
	}{
		"preference order": {"d. 60 IN MX 20 b.|d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1|b. 60 IN A 10.0.0.2", Target{Name: "d"}, "a[10.0.0.1]:25 b[10.0.0.2]:25", ""},
		"both families":    {"d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1|a. 60 IN AAAA 2001:db8::1", Target{Name: "d"}, "a[10.0.0.1]:25 a[2001:db8::1]:25", ""},
		"families in turn": {"d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1|a. 60 IN A 10.0.0.2|a. 60 IN A 10.0.0.3|a. 60 IN AAAA 2001:db8::1", Target{Name: "d", Family: IPv6Preferred}, "a[2001:db8::1]:25 a[10.0.0.1]:25 a[10.0.0.2]:25 a[10.0.0.3]:25", ""},
		"four first":       {"d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1|a. 60 IN AAAA 2001:db8::1|a. 60 IN AAAA 2001:db8::2", Target{Name: "d", Family: IPv4Preferred}, "a[10.0.0.1]:25 a[2001:db8::1]:25 a[2001:db8::2]:25", ""},
		"ipv6 preferred":   {"d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1|a. 60 IN AAAA 2001:db8::1", Target{Name: "d", Family: IPv6Preferred}, "a[2001:db8::1]:25 a[10.0.0.1]:25", ""},
		"ipv4 only":        {"d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1|broken a. AAAA", Target{Name: "d", Family: IPv4Only}, "a[10.0.0.1]:25", ""},
		"ipv6 only":        {"d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1", Target{Name: "d", Family: IPv6Only}, "", "550 5.4.4"},
		"implicit mx":      {"d. 60 IN A 10.0.0.1", Target{Name: "d"}, "d[10.0.0.1]:25", ""},
		"no such domain":   {"x. 60 IN A 10.0.0.1", Target{Name: "d"}, "", "550 5.1.2"},
		"nothing at all":   {"d. 60 IN TXT x", Target{Name: "d"}, "", "550 5.4.4"},
		"mx broken":        {"broken d. MX", Target{Name: "d"}, "", "451 4.4.3"},
		"address broken":   {"d. 60 IN MX 10 a.|broken a. A|broken a. AAAA", Target{Name: "d"}, "", "451 4.4.3"},
		"one host broken":  {"d. 60 IN MX 10 a.|d. 60 IN MX 20 b.|broken a. A|b. 60 IN A 10.0.0.2", Target{Name: "d"}, "b[10.0.0.2]:25", ""},
		"broken and none":  {"d. 60 IN MX 10 a.|d. 60 IN MX 20 b.|broken a. A", Target{Name: "d"}, "", "451 4.4.3"},
		"mx without host":  {"d. 60 IN MX 10 a.", Target{Name: "d"}, "", "550 5.4.4"},
		"null mx":          {"d. 60 IN MX 0 .|d. 60 IN A 10.0.0.1", Target{Name: "d"}, "", "556 5.1.10"},
		"null mx and host": {"d. 60 IN MX 0 .|d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1", Target{Name: "d"}, "a[10.0.0.1]:25", ""},
		"mx is ip":         {"d. 60 IN MX 10 10.0.0.9.|d. 60 IN A 10.0.0.1", Target{Name: "d"}, "", "550 5.4.4"},
		"mx is ip too":     {"d. 60 IN MX 10 10.0.0.9.|d. 60 IN MX 20 a.|a. 60 IN A 10.0.0.1", Target{Name: "d"}, "a[10.0.0.1]:25", ""},
		"we are best":      {"d. 60 IN MX 10 me.example.|d. 60 IN MX 20 a.|a. 60 IN A 10.0.0.1", Target{Name: "d"}, "", "554 5.4.6"},
		"we are second":    {"d. 60 IN MX 10 a.|d. 60 IN MX 20 ME.example.|d. 60 IN MX 20 c.|d. 60 IN MX 30 b.|a. 60 IN A 10.0.0.1|b. 60 IN A 10.0.0.2|c. 60 IN A 10.0.0.3", Target{Name: "d"}, "a[10.0.0.1]:25", ""},
		"we ourselves":     {"me.example. 60 IN A 10.0.0.1", Target{Name: "me.example"}, "", "554 5.4.6"},
		"localhost":        {"", Target{Name: "localhost"}, "", "550 5.4.6"},
		"given localhost":  {"", Target{Name: "localhost", Given: true}, "localhost[127.0.0.1]:25 localhost[::1]:25", ""},
		"no mx lookup":     {"d. 60 IN MX 10 a.|a. 60 IN A 10.0.0.1|d. 60 IN A 10.0.0.2", Target{Name: "d", NoMX: true}, "d[10.0.0.2]:25", ""},
		"no such host":     {"", Target{Name: "d", NoMX: true}, "", "550 5.1.2"},
		"international":    {"xn--bcher-kva.example. 60 IN A 10.0.0.1", Target{Name: "bücher.example"}, "xn--bcher-kva.example[10.0.0.1]:25", ""},
		"not valid":        {"", Target{Name: "a\u200b.ex\u00b2ample"}, "", "550 5.1.2"},
		"unspecified":      {"d. 60 IN A 0.0.0.0", Target{Name: "d"}, "", "550 5.4.4"},
		"many addresses":   {"d. 60 IN A 10.0.0.1|d. 60 IN A 10.0.0.2|d. 60 IN A 10.0.0.3|d. 60 IN A 10.0.0.4", Target{Name: "d"}, "d[10.0.0.1]:25 d[10.0.0.2]:25 d[10.0.0.3]:25", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			if c.zone != "" {
				lines = strings.Split(c.zone, "|")
			}
			r := find(t, newZone(t, lines...), c.target)
			reply := ""
			if !r.Reply.IsZero() {
				reply = fmt.Sprintf("%d %s", r.Reply.Code, r.Reply.Enhanced)
			}
			if hops(r) != c.hops || reply != c.reply {
				t.Errorf("got %q %q, want %q %q; trace %+v", hops(r), reply, c.hops, c.reply, r.Trace)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	var lines []string
	for i := range 20 {
		lines = append(lines, fmt.Sprintf("d. 60 IN MX %d h%d.", 100-i, i), fmt.Sprintf("h%d. 60 IN A 10.0.0.%d", i, i))
	}
	r := find(t, newZone(t, lines...), Target{Name: "d"})
	if got := hops(r); got != "h19[10.0.0.19]:25 h18[10.0.0.18]:25 h17[10.0.0.17]:25 h16[10.0.0.16]:25 h15[10.0.0.15]:25" {
		t.Errorf("got %s, want the five best", got)
	}
}

func TestExpires(t *testing.T) {
	for _, c := range []struct {
		zone string
		want time.Duration
	}{
		{"d. 7200 IN MX 10 a.|a. 300 IN A 10.0.0.1", 300 * time.Second},
		{"d. 200 IN MX 10 a.|a. 300 IN A 10.0.0.1", 200 * time.Second},
		{"d. 0 IN MX 10 a.|a. 300 IN A 10.0.0.1", minRouteTTL},
		{"d. 7200 IN MX 10 a.|d. 7200 IN MX 10 b.|a. 300 IN A 10.0.0.1|broken b. A", partialTTL},
		{"broken d. MX", retryTTL},
		{"d. 7200 IN MX 10 a.|broken a. A", retryTTL},
	} {
		r := find(t, newZone(t, strings.Split(c.zone, "|")...), Target{Name: "d"})
		if left := time.Until(r.Expires); left > c.want || left < c.want-2*time.Second {
			t.Errorf("%s: expires in %v, want %v", c.zone, left, c.want)
		}
	}
}

// RFC 5321 section 5.1: hosts of equal preference are used in random order, others
// never change places.
func TestShuffle(t *testing.T) {
	r := &Route{Hosts: []Host{
		{Name: "a", Preference: 10, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		{Name: "b", Preference: 10, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}},
		{Name: "c", Preference: 20, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}},
	}}
	seen := map[string]int{}
	for range 200 {
		h := r.Hops(msg.ProtoSMTP, 25)
		if h[2].Host != "c" {
			t.Fatalf("preference 20 came before 10: %v", h)
		}
		seen[h[0].Host]++
	}
	if seen["a"] < 50 || seen["b"] < 50 {
		t.Errorf("first hosts: %v", seen)
	}
}

func TestDest(t *testing.T) {
	for _, c := range []struct {
		t    Target
		want string
	}{
		{Target{Name: "d.example", Port: 25}, "mx:d.example"},
		{Target{Name: "d.example", Port: 2525}, "mx:d.example:2525"},
		{Target{Name: "d.example", Port: 25, NoMX: true}, "esmtp:d.example:25"},
		{Target{Name: "d.example", Port: 25, Family: IPv4Only}, "mx:d.example/IPv4_Only"},
	} {
		if got := c.t.Dest(25); got != c.want {
			t.Errorf("%+v: %s, want %s", c.t, got, c.want)
		}
	}
}

func TestReplyIsAnError(t *testing.T) {
	r := find(t, newZone(t), Target{Name: "d"})
	var err error = r.Reply
	if _, ok := err.(smtp.Reply); !ok || !r.Reply.Permanent() {
		t.Errorf("%v", err)
	}
}
