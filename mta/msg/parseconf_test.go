package msg

import (
	"reflect"
	"strings"
	"testing"
)

// README 3.8.1, 3.10.1, 3.13 and 3.10 items 4i and 25; the host names that its
// conversion to text lost are restored.
func TestParseConf(t *testing.T) {
	for text, want := range map[string]Conf{
		"":                       {},
		"session_feature=notls;": {SessionFeature: "notls"},
		"connection_limits=low;": {ConnectionLimits: "low"},
		"source = net10;":        {Source: "net10"},
		"flags = greylisting;":   {Flags: []string{"greylisting"}},
		"flags = { A, b }":       {Flags: []string{"a", "b"}},
		"Source=a; Flags={};":    {Source: "a", Flags: []string{}},
		`tls_requirements { cert_issuer="/C=US/ST=Berkeley/L=Endmail+20Org/O=MTA/CN=Claus+20Assmann+20CA+20RSA+202007/"; }`: {
			TLS: &TLSRequirements{CertIssuer: "/C=US/ST=Berkeley/L=Endmail+20Org/O=MTA/CN=Claus+20Assmann+20CA+20RSA+202007/"},
		},
		"tls_requirements { flags={verified}; hostnames={mx.example.org, .example.net}}": {
			TLS: &TLSRequirements{Verified: true, Hostnames: []string{"mx.example.org", ".example.net"}},
		},
		`session_feature=x; tls_requirements { cert_fps={"aa:bb" "cc"}; cert_subject=s; cipher_bits_min=128; common_name="a \"b\""; flags=encrypted; root_ca_subjects=r; violation={tempfail, delay}; };`: {
			SessionFeature: "x", TLS: &TLSRequirements{
				CertFingerprints: []string{"aa:bb", "cc"}, CertSubject: "s", CipherBitsMin: 128, CommonName: `a "b"`,
				Encrypted: true, RootCASubjects: []string{"r"}, Violation: "tempfail", Delay: true,
			},
		},
	} {
		got, err := ParseConf(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"source":                `expected "="`,
		"source = a; # b":       "unexpected character",
		"include x;":            "unknown option",
		"session_features = a;": "did you mean session_feature",
		`source = "\q";`:        "bad escape",
		"tls_requirements { violation = { permfail, abort }; }": "both",
		"source = ;":                              "expected a value",
		"source = a b":                            "several words",
		"source = { a, b };":                      "one value",
		"source = a; source = b;":                 "twice",
		"sauce = a;":                              "unknown option",
		"= a;":                                    "expected the name of an option",
		`source = "a`:                             "not closed",
		"source = {a":                             "expected a value",
		"tls_requirements { x = y; }":             "unknown option",
		"tls_requirements { flags = x; }":         "not one of the flags",
		"tls_requirements { violation = x; }":     "violation",
		"tls_requirements { cipher_bits_min=a; }": "no number",
		"tls_requirements { flags = encrypted;":   "not closed",
		"tls_requirements {} tls_requirements {}": "twice",
		strings.Repeat("x", maxConf+1):            "longer",
		"flags={" + strings.Repeat("x ", 300):     "too many",
	} {
		if c, err := ParseConf(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %+v, %v; want %q", text, c, err, want)
		}
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add(`session_feature=x; tls_requirements { cert_fps={"aa:bb" "cc"}; violation={tempfail, delay}; };`)
	f.Add("flags = { A, b }")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseConf(s); err == nil && len(c.Flags) > maxValues {
			t.Error("too many flags")
		}
	})
}
