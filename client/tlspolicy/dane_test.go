package tlspolicy

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/tlsconf/tlstest"
)

// issue makes a certificate for names, signed by a CA or by itself. The first name is the
// common name, too; one that begins with "CN:" is nothing else.
func issue(t testing.TB, by *tlstest.Cert, ca bool, until time.Time, names ...string) *tlstest.Cert {
	t.Helper()
	cn, only := strings.CutPrefix(names[0], "CN:")
	s := tlstest.Spec{CN: cn, CA: ca, From: until.AddDate(-2, 0, 0), To: until}
	if !only {
		s.Names = names
	}
	if by == nil {
		return tlstest.SelfSigned(t, s)
	}
	return by.Issue(t, s)
}

// record is a TLSA record for a certificate.
func record(usage, selector, matching uint8, c *tlstest.Cert) msg.TLSA {
	data := c.Raw
	if selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return msg.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: string(data)}
}

// TestMatch: which certificates match which records (RFC 7671, 7672).
func TestMatch(t *testing.T) {
	year := time.Now().AddDate(1, 0, 0)
	ca := issue(t, nil, true, year, "CN:CA")
	otherCA := issue(t, nil, true, year, "CN:Other CA")
	between := issue(t, ca, true, year, "CN:Between")
	mx := issue(t, between, false, year, "mx.example")
	wild := issue(t, between, false, year, "*.example")
	byCN := issue(t, ca, false, year, "CN:mx.example")
	wildCN := issue(t, ca, false, year, "CN:*.example")
	expired := issue(t, ca, false, time.Now().Add(-time.Hour), "mx.example")
	self := issue(t, nil, false, year, "self.example")
	named := issue(t, ca, false, year, "other.example")
	chain := func(list ...*tlstest.Cert) (out []*x509.Certificate) {
		for _, c := range list {
			out = append(out, c.Certificate)
		}
		return out
	}
	whole := chain(mx, between, ca)
	names := []string{"mx.example", "domain.example"}
	type match struct {
		name    string
		records []msg.TLSA
		chain   []*x509.Certificate
		want    string // the record that matches
	}
	cases := []match{
		{"nothing is sent", []msg.TLSA{record(3, 1, 1, mx)}, nil, ""},
		{"EE of another", []msg.TLSA{record(3, 1, 1, named)}, whole, ""},
		{"EE, expired", []msg.TLSA{record(3, 1, 1, expired)}, chain(expired), "3 1 1"},
		{"EE, other name", []msg.TLSA{record(3, 0, 1, named)}, chain(named, ca), "3 0 1"},
		{"EE, self-signed", []msg.TLSA{record(3, 1, 2, self)}, chain(self), "3 1 2"},
		{"EE is not looked for in the chain", []msg.TLSA{record(3, 1, 1, ca)}, whole, ""},
		{"one of several", []msg.TLSA{record(3, 1, 1, named), record(2, 0, 1, otherCA), record(3, 1, 1, mx)}, whole, "3 1 1"},
		{"TA of another", []msg.TLSA{record(2, 0, 1, otherCA)}, whole, ""},
		{"TA between", []msg.TLSA{record(2, 1, 1, between)}, chain(mx, between), "2 1 1"},
		{"TA that is not sent", []msg.TLSA{record(2, 1, 1, ca)}, chain(mx, between), ""},
		{"TA that stands in the record", []msg.TLSA{record(2, 0, 0, ca)}, chain(mx, between), "2 0 0"},
		{"TA and a link is missing", []msg.TLSA{record(2, 0, 1, ca)}, chain(mx, ca), ""},
		{"TA, expired", []msg.TLSA{record(2, 0, 1, ca)}, chain(expired, ca), ""},
		{"TA, other name", []msg.TLSA{record(2, 0, 1, ca)}, chain(named, ca), ""},
		{"TA, wildcard", []msg.TLSA{record(2, 0, 1, ca)}, chain(wild, between, ca), "2 0 1"},
		{"TA, common name", []msg.TLSA{record(2, 0, 1, ca)}, chain(byCN, ca), "2 0 1"},
		{"TA, wildcard as common name", []msg.TLSA{record(2, 0, 1, ca)}, chain(wildCN, ca), "2 0 1"},
		{"TA is sent and has signed nothing", []msg.TLSA{record(2, 0, 1, otherCA)}, chain(mx, between, ca, otherCA), ""},
	}
	for _, usage := range []uint8{2, 3} {
		c := mx
		if usage == 2 {
			c = ca
		}
		for selector := range uint8(2) {
			for matching := range uint8(3) {
				r := record(usage, selector, matching, c)
				kind := string('0'+usage) + " " + string('0'+selector) + " " + string('0'+matching)
				cases = append(cases, match{kind, []msg.TLSA{r}, whole, kind})
				r.Data = r.Data[:len(r.Data)-1] + string(r.Data[len(r.Data)-1]^1)
				if matching > 0 {
					cases = append(cases, match{kind + " with another bit", []msg.TLSA{r}, whole, ""})
				}
			}
		}
	}
	for _, c := range cases {
		s := Usable(c.records, names)
		if got, ok := s.Match(c.chain, time.Now()); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %v, want %q", c.name, got, ok, c.want)
		}
	}
	s := Usable([]msg.TLSA{record(2, 0, 1, ca)}, []string{"domain.example"})
	if _, ok := s.Match(whole, time.Now()); ok {
		t.Error("a certificate for no name that counts")
	}
	s = Usable([]msg.TLSA{record(2, 0, 1, ca)}, names)
	if _, ok := s.Match(whole, year.AddDate(1, 0, 0)); ok {
		t.Error("a certificate after its time")
	}
}

// TestUsable: PKIX usages, unknown parameters and digests of a wrong length cannot be used; of
// SHA-256 and SHA-512 the stronger counts alone (RFC 7671 section 9).
func TestUsable(t *testing.T) {
	c := issue(t, nil, true, time.Now().AddDate(1, 0, 0), "mx.example")
	short := record(3, 1, 1, c)
	short.Data = short.Data[1:]
	noKey := msg.TLSA{Usage: 3, Selector: 1, Matching: 0, Data: "no key"}
	noCert := msg.TLSA{Usage: 2, Selector: 0, Matching: 0, Data: "no certificate"}
	for name, r := range map[string]msg.TLSA{
		"PKIX-TA": record(0, 0, 1, c), "PKIX-EE": record(1, 1, 1, c), "usage 4": record(4, 1, 1, c), "PrivCert": record(255, 1, 1, c),
		"selector 2": {Usage: 3, Selector: 2, Matching: 1, Data: short.Data + "x"}, "matching 3": {Usage: 3, Selector: 1, Matching: 3, Data: short.Data + "x"},
		"short": short, "no key": noKey, "no certificate": noCert, "empty": {Usage: 3, Selector: 1, Matching: 1},
	} {
		if s := Usable([]msg.TLSA{r}, nil); len(s.Records) > 0 {
			t.Errorf("%s is usable", name)
		}
	}
	weak, strong := record(3, 1, 1, c), record(3, 1, 2, c)
	if s := Usable([]msg.TLSA{weak, strong}, nil); len(s.Records) != 1 || s.Records[0] != strong {
		t.Errorf("%+v", s)
	}
	broken := strong
	broken.Data = "x"
	if s := Usable([]msg.TLSA{weak, broken}, nil); len(s.Records) != 1 || s.Records[0] != weak {
		t.Errorf("a record that cannot be used hides one that can: %+v", s)
	}
	if s := Usable([]msg.TLSA{weak, record(3, 0, 2, c), record(2, 1, 2, c)}, []string{"mx.example"}); len(s.Records) != 3 {
		t.Errorf("records of another usage or selector hide one: %+v", s)
	}
	if s := Usable(slices.Repeat([]msg.TLSA{short}, recordsMax*2), nil); len(s.Records) > 0 {
		t.Error("usable")
	}
}

// TestKey: what wants the same has the same key, and nothing else has.
func TestKey(t *testing.T) {
	a := issue(t, nil, true, time.Now().AddDate(1, 0, 0), "a.example")
	b := issue(t, nil, true, time.Now().AddDate(1, 0, 0), "b.example")
	key := func(names string, records ...msg.TLSA) string {
		s := Usable(records, strings.Fields(names))
		return s.Key()
	}
	ee, ta := record(3, 1, 1, a), record(2, 1, 1, a)
	if key("x", ee, record(3, 1, 1, b)) != key("y", record(3, 1, 1, b), ee, ee) {
		t.Error("order, copies and names of DANE-EE records matter")
	}
	seen := map[string]bool{}
	for _, k := range []string{key("x", ee), key("x", ta), key("y", ta), key("x", ee, ta), key("x", record(3, 1, 1, b)), key("x", record(3, 0, 1, a))} {
		if seen[k] {
			t.Error("two sets have one key")
		}
		seen[k] = true
	}
}

// FuzzMatch: whatever DNS says, a certificate is judged without a panic, and nothing matches
// that has no usable record.
func FuzzMatch(f *testing.F) {
	f.Add([]byte{3, 1, 1}, []byte("digest"))
	f.Add([]byte{2, 0, 0, 3, 1, 2}, []byte{0x30, 0x82})
	c := issue(f, nil, false, time.Now().Add(time.Hour), "mx.example").Certificate
	f.Fuzz(func(t *testing.T, kinds, data []byte) {
		var records []msg.TLSA
		for ; len(kinds) >= 3; kinds = kinds[3:] {
			records = append(records, msg.TLSA{Usage: kinds[0], Selector: kinds[1], Matching: kinds[2], Data: string(data)})
		}
		s := Usable(records, []string{"mx.example"})
		if _, ok := s.Match([]*x509.Certificate{c, c}, time.Now()); ok && len(s.Records) == 0 {
			t.Error("a match without a record")
		}
		_ = s.Key()
	})
}
