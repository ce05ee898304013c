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
)

// answers is a fake DNS by "name TYPE". Values are records in zone file form without owner and
// type, separated by commas, behind flags: "+" secure, "!" a temporary failure, "@name" the name
// at the end of an alias.
type answers map[string]string

func (answers) Cached(string, uint16) *Answer { return nil }

func (z answers) Lookup(_ context.Context, name string, qtype uint16) *Answer {
	name = mdns.CanonicalName(name)
	a := &Answer{Status: NXDomain, Name: name, Expires: time.Now().Add(time.Hour)}
	kind := mdns.TypeToString[qtype]
	text, ok := z[strings.TrimSuffix(name, ".")+" "+kind]
	if !ok {
		return a
	}
	text, a.Secure = strings.CutPrefix(text, "+")
	if text, ok = strings.CutPrefix(text, "!"); ok {
		a.Status, a.Err = Temporary, text
		return a
	}
	if rest, ok := strings.CutPrefix(text, "@"); ok {
		end, value, _ := strings.Cut(rest, " ")
		a.Name, text = end+".", value
	}
	a.Status = NoData
	for value := range strings.SplitSeq(text, ",") {
		if value == "" {
			continue
		}
		rr, err := mdns.NewRR(a.Name + " 300 IN " + kind + " " + value)
		if err != nil {
			panic(err)
		}
		a.Status, a.RRs = Success, append(a.RRs, rr)
	}
	return a
}

// TestTLSA: where TLSA records are looked for, which count, and which names a certificate may
// have (RFC 7672 sections 2.2 and 3.2.2).
func TestTLSA(t *testing.T) {
	const data = "3 1 1 0102"
	for _, c := range []struct {
		name   string
		zone   answers
		addr   string // 192.0.2.1:25
		domain string
		mode   DANE
		want   string // "base secure names: records", or the beginning of the reply
	}{
		{"secure", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "+" + data}, "", "", DANESecure, "mx.test true [mx.test]: [3 1 1]"},
		{"two", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "+3 1 1 0102,2 0 2 0304"}, "", "", DANESecure, "mx.test true [mx.test]: [3 1 1 2 0 2]"},
		{"another port", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "+" + data, "_2525._tcp.mx.test TLSA": "+2 0 1 07"}, "192.0.2.1:2525", "", DANESecure, "mx.test true [mx.test]: [2 0 1]"},
		{"IPv6", answers{"mx.test A": "192.0.2.1", "mx.test AAAA": "+2001:db8::1", "_25._tcp.mx.test TLSA": "+" + data}, "[2001:db8::1]:25", "", DANESecure, "mx.test true [mx.test]: [3 1 1]"},
		{"the other family is insecure", answers{"mx.test A": "192.0.2.1", "mx.test AAAA": "+2001:db8::1", "_25._tcp.mx.test TLSA": "+" + data}, "", "", DANESecure, "none"},
		{"with a domain", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "+" + data, "d.test MX": "+10 mx.test."}, "", "d.test", DANESecure, "mx.test true [mx.test d.test]: [3 1 1]"},
		{"with a domain that is an alias", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "+" + data, "d.test MX": "+@e.test 10 mx.test."}, "", "d.test", DANESecure, "mx.test true [mx.test d.test e.test]: [3 1 1]"},
		{"the domain itself", answers{"d.test A": "+192.0.2.1", "_25._tcp.d.test TLSA": "+" + data, "d.test MX": "+"}, "d", "d.test", DANESecure, "d.test true [d.test]: [3 1 1]"},
		{"none", answers{"mx.test A": "+192.0.2.1"}, "", "", DANESecure, "none"},
		{"insecure address", answers{"mx.test A": "192.0.2.1", "_25._tcp.mx.test TLSA": "+" + data}, "", "", DANESecure, "none"},
		{"insecure records", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": data}, "", "", DANESecure, "none"},
		{"bogus records", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "!answered SERVFAIL"}, "", "", DANESecure, "451 4.7.5 lookup of TLSA records failed: _25._tcp.mx.test: answered SERVFAIL"},
		{"bogus address", answers{"mx.test A": "!answered SERVFAIL"}, "", "", DANESecure, "451 4.7.5 lookup of TLSA records failed: mx.test: answered SERVFAIL"},
		{"alias", answers{"mx.test A": "+@real.test 192.0.2.1", "_25._tcp.real.test TLSA": "+" + data, "_25._tcp.mx.test TLSA": "+2 0 1 07"}, "", "", DANESecure, "real.test true [real.test]: [3 1 1]"},
		{"alias with records of its own", answers{"mx.test A": "+@real.test 192.0.2.1", "_25._tcp.mx.test TLSA": "+2 0 1 07"}, "", "", DANESecure, "mx.test true [mx.test]: [2 0 1]"},
		{"alias, records insecure there", answers{"mx.test A": "+@real.test 192.0.2.1", "_25._tcp.real.test TLSA": data, "_25._tcp.mx.test TLSA": "+2 0 1 07"}, "", "", DANESecure, "mx.test true [mx.test]: [2 0 1]"},
		{"alias, records bogus there", answers{"mx.test A": "+@real.test 192.0.2.1", "_25._tcp.real.test TLSA": "!bogus", "_25._tcp.mx.test TLSA": "+2 0 1 07"}, "", "", DANESecure, "451 4.7.5"},
		{"secure alias of what is insecure", answers{"mx.test A": "@real.test 192.0.2.1", "mx.test CNAME": "+real.test.", "_25._tcp.real.test TLSA": "+" + data, "_25._tcp.mx.test TLSA": "+2 0 1 07"}, "", "", DANESecure, "mx.test true [mx.test]: [2 0 1]"},
		{"insecure alias", answers{"mx.test A": "@real.test 192.0.2.1", "mx.test CNAME": "real.test.", "_25._tcp.mx.test TLSA": "+2 0 1 07"}, "", "", DANESecure, "none"},
		{"bogus alias", answers{"mx.test A": "@real.test 192.0.2.1", "mx.test CNAME": "!bogus"}, "", "", DANESecure, "451 4.7.5"},
		{"always", answers{"mx.test A": "192.0.2.1", "_25._tcp.mx.test TLSA": data}, "", "", DANEAlways, "mx.test false [mx.test]: [3 1 1]"},
		{"always and secure", answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "+" + data}, "", "", DANEAlways, "mx.test true [mx.test]: [3 1 1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, addr := "mx.test", netip.MustParseAddrPort("192.0.2.1:25")
			switch c.addr {
			case "":
			case "d":
				host = "d.test"
			default:
				addr = netip.MustParseAddrPort(c.addr)
			}
			f := NewFinder(FinderConfig{Hostname: "me.example", DANE: c.mode}, c.zone)
			a := f.TLSA(t.Context(), host, addr, c.domain)
			if !strings.HasPrefix(printTLSA(&a), c.want) {
				t.Errorf("%s, want %s", printTLSA(&a), c.want)
			}
			if len(a.Trace) == 0 {
				t.Error("no reason is given")
			}
			if _, ok := f.TLSACached(host, addr, c.domain); ok {
				t.Error("answered from an empty cache")
			}
		})
	}
}

func printTLSA(a *msg.TLSAA) string {
	if !a.Reply.IsZero() {
		return a.Reply.String()
	}
	if len(a.Records) == 0 {
		return "none"
	}
	var kinds []string
	for _, r := range a.Records {
		kinds = append(kinds, fmt.Sprint(r.Usage, " ", r.Selector, " ", r.Matching))
	}
	return fmt.Sprint(a.Base, " ", a.Secure, " ", a.Names, ": ", kinds)
}

// TestTLSABounded: of very many records some are kept.
func TestTLSABounded(t *testing.T) {
	z := answers{"mx.test A": "+192.0.2.1", "_25._tcp.mx.test TLSA": "+" + strings.TrimSuffix(strings.Repeat("3 1 1 01,", 500), ",")}
	f := NewFinder(FinderConfig{}, z)
	if a := f.TLSA(t.Context(), "mx.test", netip.MustParseAddrPort("192.0.2.1:25"), ""); len(a.Records) != tlsaMax {
		t.Errorf("%d records", len(a.Records))
	}
}

// TestHopsDANE: SMAR is asked for the records of hosts to which a secure way leads.
func TestHopsDANE(t *testing.T) {
	secure := answers{"d.test MX": "+10 mx.test.", "mx.test A": "192.0.2.1"}
	insecure := answers{"d.test MX": "10 mx.test.", "mx.test A": "+192.0.2.1"}
	noMX := answers{"d.test MX": "+", "d.test A": "+192.0.2.1"}
	given := answers{"mx.test A": "192.0.2.1"}
	for _, c := range []struct {
		name   string
		zone   answers
		target Target
		mode   DANE
		want   bool
	}{
		{"secure", secure, Target{Name: "d.test"}, DANESecure, true},
		{"insecure", insecure, Target{Name: "d.test"}, DANESecure, false},
		{"without MX", noMX, Target{Name: "d.test"}, DANESecure, true},
		{"always", insecure, Target{Name: "d.test"}, DANEAlways, true},
		{"never", secure, Target{Name: "d.test"}, DANENever, false},
		{"host of the mailertable", given, Target{Name: "mx.test", NoMX: true, Given: true}, DANESecure, true},
		{"host of the mailertable, never", given, Target{Name: "mx.test", NoMX: true, Given: true}, DANENever, false},
		{"localhost", given, Target{Name: "localhost", Given: true}, DANEAlways, false},
	} {
		f := NewFinder(FinderConfig{Hostname: "me.example", MXMax: 5, AddrMax: 5, DANE: c.mode}, c.zone)
		r := f.Find(t.Context(), c.target)
		hops := r.Hops(msg.ProtoSMTP, 25)
		if len(hops) == 0 || hops[0].DANE != c.want {
			t.Errorf("%s: %+v", c.name, hops)
		}
		if hops = r.Hops(msg.ProtoLMTP, 25); hops[0].DANE {
			t.Errorf("%s: by LMTP, too", c.name)
		}
	}
}

// TestMXDomain: a destination gives back the domain of which it was made.
func TestMXDomain(t *testing.T) {
	for _, c := range []struct {
		target Target
		want   string
	}{
		{Target{Name: "d.test", Port: 25}, "d.test"},
		{Target{Name: "d.test", Port: 2525}, "d.test"},
		{Target{Name: "d.test", Port: 2525, Family: IPv6Only}, "d.test"},
		{Target{Name: "d.test", Port: 25, Family: IPv4Only}, "d.test"},
		{Target{Name: "d.test", Port: 25, NoMX: true}, ""},
	} {
		if got := MXDomain(c.target.Dest(25)); got != c.want {
			t.Errorf("%s is of %q, want %q", c.target.Dest(25), got, c.want)
		}
	}
	if got := MXDomain("lmtp:lmtpsock"); got != "" {
		t.Errorf("a socket is of %q", got)
	}
}

// TestTrusted: the AD bit of a server counts only if it is on this machine or is named.
func TestTrusted(t *testing.T) {
	for _, c := range []struct {
		servers []string
		trusted string
		want    int
	}{
		{[]string{"127.0.0.1:53", "[::1]:53", "127.0.0.53:53"}, "", 3},
		{[]string{"192.0.2.53:53", "127.0.0.1:53"}, "", 1},
		{[]string{"192.0.2.53:53", "192.0.2.54:53"}, "192.0.2.54", 1},
	} {
		cfg := Config{Timeout: time.Second, DNSSEC: true}
		for _, s := range c.servers {
			cfg.Servers = append(cfg.Servers, netip.MustParseAddrPort(s))
		}
		if c.trusted != "" {
			cfg.Trusted = []netip.Addr{netip.MustParseAddr(c.trusted)}
		}
		client, err := New(cfg, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if trusted, all := client.Trusts(); trusted != c.want || all != len(c.servers) {
			t.Errorf("%v: %d of %d are trusted", c.servers, trusted, all)
		}
	}
}
