package tlsconf

import (
	"strings"
	"testing"

	"meta1/mta/msg"
)

// TestViolations: README 3.13, item by item. want is the beginning of each violation.
func TestViolations(t *testing.T) {
	good := &msg.TLS{
		Version: "TLSv1.3", Bits: 128, Verify: msg.VerifyOK, Subject: "/O=A B/CN=mx (1)", Issuer: "/CN=Sub CA", CN: "mx (1)",
		Names: []string{"mx.example.org", "*.wild.example.org"}, Fingerprint: "01:AB:CD", RootCNs: []string{"Old Root", "Root"},
	}
	with := func(change func(*msg.TLS)) *msg.TLS {
		c := *good
		change(&c)
		return &c
	}
	failed := with(func(c *msg.TLS) {
		c.Verify, c.Reason, c.RootCNs = msg.VerifyFail, "no trusted CA has signed the certificate", nil
	})
	none := &msg.TLS{Bits: 256, Verify: msg.VerifyNo}
	for name, tt := range map[string]struct {
		need msg.TLSRequirements
		t    *msg.TLS
		want []string
	}{
		"nothing asked, no TLS":   {msg.TLSRequirements{Violation: "abort", Delay: true}, nil, nil},
		"encrypted":               {msg.TLSRequirements{Encrypted: true}, good, nil},
		"no TLS":                  {msg.TLSRequirements{Encrypted: true, Verified: true}, nil, []string{"the connection is not encrypted"}},
		"no TLS, by hostnames":    {msg.TLSRequirements{Hostnames: []string{"a"}}, nil, []string{"the connection is not encrypted"}},
		"no encryption":           {msg.TLSRequirements{Encrypted: true}, with(func(c *msg.TLS) { c.Bits = 0 }), []string{"encrypted: "}},
		"bits":                    {msg.TLSRequirements{CipherBitsMin: 128}, good, nil},
		"more bits":               {msg.TLSRequirements{CipherBitsMin: 129}, good, []string{"cipher_bits_min: the cipher has 128 bits, not 129"}},
		"verified":                {msg.TLSRequirements{Verified: true}, good, nil},
		"verified by DANE":        {msg.TLSRequirements{Verified: true}, with(func(c *msg.TLS) { c.Verify = msg.VerifyDANE }), nil},
		"not verified":            {msg.TLSRequirements{Verified: true}, failed, []string{"verified: no trusted CA has signed"}},
		"none presented":          {msg.TLSRequirements{Verified: true}, none, []string{"verified: no certificate was presented"}},
		"none asked for":          {msg.TLSRequirements{Verified: true}, with(func(c *msg.TLS) { c.Verify = msg.VerifyNot }), []string{"verified: no certificate was asked for"}},
		"fingerprint":             {msg.TLSRequirements{CertFingerprints: []string{"00", "01abcd"}}, good, nil},
		"another fingerprint":     {msg.TLSRequirements{CertFingerprints: []string{"01:AB:CE", ""}}, good, []string{"cert_fps: the certificate's fingerprint is 01:AB:CD"}},
		"fingerprint of none":     {msg.TLSRequirements{CertFingerprints: []string{"", ":"}}, none, []string{"cert_fps: the certificate's fingerprint is none"}},
		"issuer":                  {msg.TLSRequirements{CertIssuer: "/CN=Sub CA"}, good, nil},
		"issuer as in maps":       {msg.TLSRequirements{CertIssuer: "/CN=Sub+20CA"}, good, nil},
		"another issuer":          {msg.TLSRequirements{CertIssuer: "/CN=sub CA"}, good, []string{"cert_issuer: the certificate has /CN=Sub CA"}},
		"subject":                 {msg.TLSRequirements{CertSubject: "/O=A+20B/CN=mx+20+281+29"}, good, nil},
		"another subject":         {msg.TLSRequirements{CertSubject: "/CN=mx"}, good, []string{"cert_subject: the certificate has /O=A B/CN=mx (1)"}},
		"common name":             {msg.TLSRequirements{CommonName: "mx (1)"}, good, nil},
		"another common name":     {msg.TLSRequirements{CommonName: "mx"}, good, []string{"common_name: the certificate has mx (1)"}},
		"no names":                {msg.TLSRequirements{CommonName: "mx", CertSubject: "x"}, none, []string{"cert_subject: the certificate has none", "common_name: the certificate has none"}},
		"a bad name is no name":   {msg.TLSRequirements{CommonName: "BadCert:Unknown"}, with(func(c *msg.TLS) { c.CN = "BadCert:Unknown" }), []string{"common_name: "}},
		"root":                    {msg.TLSRequirements{RootCASubjects: []string{"X", "Root"}}, good, nil},
		"another root":            {msg.TLSRequirements{RootCASubjects: []string{"X", "Sub CA"}}, good, []string{"root_ca_subjects: the root CA is Old Root, Root"}},
		"root of no verification": {msg.TLSRequirements{RootCASubjects: []string{"Root"}}, failed, []string{"root_ca_subjects: the root CA is none"}},
		"host name":               {msg.TLSRequirements{Hostnames: []string{"other.example", "MX.example.org."}}, good, nil},
		"another host name":       {msg.TLSRequirements{Hostnames: []string{"mx.example.com"}}, good, []string{"hostnames: the certificate is for mx.example.org, *.wild.example.org, CN mx (1)"}},
		"all": {
			msg.TLSRequirements{Verified: true, CipherBitsMin: 512, CommonName: "x", RootCASubjects: []string{"Root"}},
			failed,
			[]string{"cipher_bits_min: ", "verified: ", "common_name: ", "root_ca_subjects: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Violations(&tt.need, tt.t)
			if len(got) != len(tt.want) {
				t.Fatalf("%q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
	if v := Violations(nil, nil); v != nil {
		t.Errorf("no requirements: %q", v)
	}
	if text := (&Provider{}).Unmet(&msg.TLSRequirements{CipherBitsMin: 512, CommonName: "x"}, good); strings.Count(text, "; ") != 1 {
		t.Errorf("%q", text)
	}
}

// TestHostMatches: the three rules of README 3.13, item 7.
func TestHostMatches(t *testing.T) {
	for _, tt := range []struct {
		want, name string
		ok         bool
	}{
		{"mx.example.org", "mx.example.org", true},
		{"mx.example.org", "example.org", false},
		{"mx.example.org", "*.example.org", true},
		{"a.mx.example.org", "*.example.org", false},
		{"example.org", "*.example.org", false},
		{"example.org", "*.org", false},
		{".org", "*.org", false},
		{"a.b", "*.b", false},
		{"mx.example.org", "m*.example.org", false},
		{"mx.example.org", "*.*.org", false},
		{"mx.example.org", "*", false},
		{".example.org", "mx.example.org", true},
		{".example.org", "a.mx.example.org", true},
		{".example.org", "*.example.org", true},
		{".example.org", "*.mx.example.org", true},
		{".example.org", "example.org", false},
		{".example.org", ".example.org", false},
		{".example.org", "mx.badexample.org", false},
		{".", "a.b", false},
		{"", "", false},
		{"", "*.b.c", false},
		{"*.example.org", "*.example.org", false}, // hostnames has no wildcards
	} {
		if got := hostMatches(tt.want, tt.name); got != tt.ok {
			t.Errorf("%q and %q of a certificate: %v", tt.want, tt.name, got)
		}
	}
}

// TestTooManyNames: what is shown of a certificate is bounded.
func TestTooManyNames(t *testing.T) {
	c := &msg.TLS{Bits: 1}
	for range 1000 {
		c.Names = append(c.Names, strings.Repeat("x", 250)+".example")
	}
	if v := Violations(&msg.TLSRequirements{Hostnames: []string{"a.example"}}, c); len(v) != 1 || len(v[0]) > 400 {
		t.Errorf("%d bytes", len(v[0]))
	}
}
