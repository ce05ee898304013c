package spf

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// suite is a part of the test suite of RFC 7208 (openspf.org, release 2014.04, as pyspf has it),
// whose YAML was turned into JSON: testdata/rfc7208.json.
type suite struct {
	Description string
	Tests       []struct {
		Name, Helo, Host, Mailfrom string
		Spec, Results              []string
	}
	Zone map[string]records
}

type records struct {
	Txt, A, AAAA, Ptr []string
	Mx                []struct {
		Pref uint16
		Host string
	}
	Cname string
	Fails bool // DNS does not answer for what is not listed
}

// zone answers as DNS would.
type zone map[string]records

func (z zone) lookup(_ context.Context, name string, t msg.RecordType) msg.DNSA {
	for range 10 {
		r, ok := z[strings.ToLower(strings.TrimSuffix(name, "."))]
		switch {
		case !ok:
			return msg.DNSA{Status: msg.DNSNoName}
		case r.Cname != "":
			name = r.Cname
			continue
		}
		return r.answer(t)
	}
	return msg.DNSA{Status: msg.DNSUnavailable, Err: "a loop"}
}

func (r *records) answer(t msg.RecordType) msg.DNSA {
	var a msg.DNSA
	switch t {
	case msg.RecordTXT:
		a.Texts = r.Txt
	case msg.RecordA:
		a.Addrs = addrs(r.A)
	case msg.RecordAAAA:
		a.Addrs = addrs(r.AAAA)
	case msg.RecordPTR:
		a.Names = r.Ptr
	case msg.RecordMX:
		for _, mx := range r.Mx {
			a.Hosts = append(a.Hosts, msg.MXHost{Pref: mx.Pref, Host: mx.Host + "."})
		}
	}
	switch {
	case len(a.Texts)+len(a.Addrs)+len(a.Names)+len(a.Hosts) > 0:
	case r.Fails:
		a.Status, a.Err = msg.DNSUnavailable, "no answer"
	default:
		a.Status = msg.DNSNoData
	}
	return a
}

func addrs(texts []string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

// differing are the cases that end otherwise here, and why.
var differing = map[string]string{
	"a-colon-domain":            slash,
	"a-colon-domain-ip4mapped":  slash,
	"mx-colon-domain":           slash,
	"mx-colon-domain-ip4mapped": slash,
	"p-macro-multiple":          "the library takes the name of a client for unknown in %{p}, which RFC 7208 section 7.3 says not to publish",
}

const slash = "the library refuses names with a slash, which no host can have: permerror in place of a match"

func TestRFC7208(t *testing.T) {
	text, err := os.ReadFile("testdata/rfc7208.json")
	if err != nil {
		t.Fatal(err)
	}
	var suites []suite
	if err := json.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	n, left := 0, maps.Clone(differing)
	for _, s := range suites {
		z := zone{}
		for name, r := range s.Zone {
			z[strings.ToLower(name)] = r
		}
		for _, c := range s.Tests {
			n++
			delete(left, c.Name)
			t.Run(s.Description+"/"+c.Name, func(t *testing.T) {
				q := Query{IP: netip.MustParseAddr(c.Host), Helo: c.Helo}
				if i := strings.LastIndexByte(c.Mailfrom, '@'); i >= 0 {
					q.From = smtp.Path{Local: c.Mailfrom[:i], Domain: c.Mailfrom[i+1:]}
				} else if c.Mailfrom != "" {
					q.From = smtp.Path{Local: c.Mailfrom, Domain: c.Helo}
				}
				r := Check(t.Context(), z.lookup, q, Limits{Lookups: 10, VoidLookups: 2})
				ok := slices.Contains(c.Results, r.Value)
				if _, known := differing[c.Name]; ok == known {
					t.Errorf("%s (%s), want %v; section %v; known to differ: %v", r.Value, r.Reason, c.Results, c.Spec, known)
				}
			})
		}
	}
	if len(left) > 0 {
		t.Errorf("not among the cases: %v", left)
	}
	if n < 200 {
		t.Errorf("the suite has %d cases: something is wrong with the test", n)
	}
}
