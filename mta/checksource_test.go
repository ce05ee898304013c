package mta

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meta1/queue/conf"
	"meta1/resolver/dns"
)

// sourceZone is what DNS says of source addresses.
var sourceZone = []string{
	"mx.test. 60 IN A 198.51.100.1", "mx.test. 60 IN A 198.51.100.5", "mx.test. 60 IN AAAA 2001:db8::1",
	"1.100.51.198.in-addr.arpa. 60 IN PTR mx.test.",
	"2.100.51.198.in-addr.arpa. 60 IN PTR mx.test.",    // and mx.test is another host
	"4.100.51.198.in-addr.arpa. 60 IN PTR other.test.", // a name of its own
	"other.test. 60 IN A 198.51.100.4",
	"5.100.51.198.in-addr.arpa. 60 IN PTR out.test.", // one name of many, and so is mx.test
	"out.test. 60 IN A 198.51.100.5",
	"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR mx.test.",
}

// TestSourceNames: "config check" warns of source addresses that other hosts may hold against the
// mail, with file and line, and of no others.
func TestSourceNames(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "")
	dnsAt := fmt.Sprintf("smar { DNS { nameservers = { 127.0.0.1 }; port = %d; }", serveDNS(t, sourceZone))
	text := strings.Replace(config(dir, ""), "smar {", dnsAt, 1)
	check := func(smtpc, extra string) (warnings []string) {
		t.Helper()
		write(t, dir+"/meta1.conf", strings.Replace(text, "qmgr {", "qmgr { smtpc {\n"+smtpc+"\n}", 1)+extra)
		r, err := CheckAll(t.Context(), dir+"/meta1.conf")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range r.Warnings {
			if strings.Contains(w.Message, "source address") {
				warnings = append(warnings, fmt.Sprintf("%d: %s", w.Line, w.Message))
			}
		}
		return warnings
	}
	const all = `source a { ips = { 198.51.100.1, 198.51.100.2, 127.0.0.1, 10.0.0.1, 100.64.0.1, "::1", "fd00::1", "fe80::1" }; }
source b { ips = { 198.51.100.3, 198.51.100.4, 198.51.100.5, 198.51.100.2, "2001:db8::1", "2001:db8::2" }; }`
	got := check(all, "")
	want := []string{
		"4: other hosts may refuse mail from source address 198.51.100.2: no name of the address has that address (",
		"5: other hosts may refuse mail from source address 198.51.100.3: the address has no name (",
		"5: other hosts may trust mail from source address 198.51.100.4 less: its name is other.test, and mx.test, which SMTPC says in EHLO, does not have that address",
		"5: other hosts may refuse mail from source address 2001:db8::2: the address has no name (",
	}
	if len(got) != len(want) {
		t.Fatalf("%d warnings, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
	}
	if got := check(all, "smtpc { proxy { address = 127.0.0.1; port = 1080; } }"); len(got) > 0 {
		t.Errorf("the proxy chooses the address: %s", got)
	}
	if got := check("", ""); len(got) > 0 {
		t.Errorf("without a source: %s", got)
	}
}

// TestSourceNamesUnanswered: a name server that does not answer holds nothing up for longer than
// the time there is, and says nothing against an address.
func TestSourceNamesUnanswered(t *testing.T) {
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	c, r, text := checkIn(t, fmt.Sprintf("smar { DNS { nameservers = { 127.0.0.1 }; port = %d; } }", mute.LocalAddr().(*net.UDPAddr).Port), nil)
	if text != "" {
		t.Fatal(text)
	}
	c.Resolver.DNS.Timeout = time.Hour // the test would not end
	c.Queue.SMTPC.Sources = append(c.Queue.SMTPC.Sources, conf.Source{
		Name: "a", IPs: []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := sourceNames(ctx, c, r); len(got) > 0 {
		t.Error(got)
	}
}

// TestSourceNameFails: a lookup that fails for now is no reason for a warning.
func TestSourceNameFails(t *testing.T) {
	got := sourceName(netip.MustParseAddr("198.51.100.1"), "mx.test", func(string, uint16) *dns.Answer {
		return &dns.Answer{Status: dns.Temporary, Err: "refused", Refused: true}
	})
	if got != "" {
		t.Error(got)
	}
}
