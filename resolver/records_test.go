package resolver

import (
	"net/netip"
	"slices"
	"testing"

	mdns "github.com/miekg/dns"

	"meta1/mta/msg"
	"meta1/resolver/dns"
)

// TestRecords: what DNS says of each type comes in the words of the port, and no more of it than
// the bound.
func TestRecords(t *testing.T) {
	parse := func(lines ...string) (rrs []mdns.RR) {
		for _, line := range lines {
			rr, err := mdns.NewRR(line)
			if err != nil {
				t.Fatal(err)
			}
			rrs = append(rrs, rr)
		}
		return rrs
	}
	a := records(&dns.Answer{RRs: parse(`x.test. 1 TXT "v=spf1 " "-all"`, `x.test. 1 TXT "a\010b"`), Secure: true})
	if a.Status != msg.DNSFound || !a.Secure || !slices.Equal(a.Texts, []string{"v=spf1 -all", "a\nb"}) {
		t.Errorf("TXT: %+v", a)
	}
	if a := records(&dns.Answer{RRs: parse("x.test. 1 MX 10 m.test.", "x.test. 1 MX 0 .")}); !slices.Equal(a.Hosts, []msg.MXHost{{Pref: 10, Host: "m.test."}, {Host: "."}}) {
		t.Errorf("MX: %+v", a)
	}
	if a := records(&dns.Answer{RRs: parse("x.test. 1 A 192.0.2.1", "x.test. 1 A 0.0.0.0")}); !slices.Equal(a.Addrs, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
		t.Errorf("A: %+v", a)
	}
	if a := records(&dns.Answer{RRs: parse("1.2.0.192.in-addr.arpa. 1 PTR h.test.")}); !slices.Equal(a.Names, []string{"h.test."}) {
		t.Errorf("PTR: %+v", a)
	}
	for status, want := range map[dns.Status]msg.DNSStatus{dns.NoData: msg.DNSNoData, dns.NXDomain: msg.DNSNoName, dns.Temporary: msg.DNSUnavailable} {
		if a := records(&dns.Answer{Status: status, Err: "why"}); a.Status != want || (a.Err == "why") != (want == msg.DNSUnavailable) {
			t.Errorf("%v: %+v", status, a)
		}
	}
	many := make([]string, 2*msg.RecordsMax)
	for i := range many {
		many[i] = `x.test. 1 TXT "y"`
	}
	if a := records(&dns.Answer{RRs: parse(many...)}); len(a.Texts) != msg.RecordsMax {
		t.Errorf("%d records", len(a.Texts))
	}
	for kind, want := range map[msg.RecordType]uint16{msg.RecordTXT: 16, msg.RecordMX: 15, msg.RecordA: 1, msg.RecordAAAA: 28, msg.RecordPTR: 12} {
		if wireType(kind) != want || mdns.TypeToString[want] != kind.String() {
			t.Errorf("%v is %d", kind, wireType(kind))
		}
	}
}
