package access

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"meta1/mta/msg"
)

func TestParse(t *testing.T) {
	for value, want := range map[string]string{
		"ok":                          "ok quick=false",
		"RELAY":                       "relay quick=false",
		"quick:relay":                 "relay quick=true",
		"Quick: ok":                   "ok quick=true",
		"cont":                        "cont quick=false",
		"discard":                     "discard quick=false",
		"reject":                      "error quick=false 550 5.7.0 Rejected.",
		"error:551 5.7.1 No spammers": "error quick=false 551 5.7.1 No spammers",
		"error:451 later":             "error quick=false 451 later",
		"error:421":                   "error quick=false 421",
		"quick:error:551 5.7.1 No":    "error quick=true 551 5.7.1 No",
		"list:<list1@local.dom>":      "other quick=false list:<list1@local.dom>",
		"okay":                        "other quick=false okay",
		"error:550 5.7 text":          "error quick=false 550 5.7 text",
		" relay ":                     "relay quick=false",
	} {
		r, err := Parse(value)
		got := fmt.Sprintf("%s quick=%v", r.Word, r.Quick)
		if r.Word == Error {
			got += " " + r.Reply.String()
		}
		if r.Text != "" {
			got += " " + r.Text
		}
		if err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", value, got, err, want)
		}
	}
	for _, bad := range []string{"error:", "error:200 2.0.0 fine", "error:55 x", "error:600 x", "error:550 4.7.1 x", "error:+50 x", "quick:error:abc"} {
		if r, err := Parse(bad); err == nil || r.Word != Error {
			t.Errorf("%q: %+v was accepted", bad, r)
		}
	}
}

// README 3.10, item 24o; the DNs that its conversion to text lost are restored.
func TestEncodeDN(t *testing.T) {
	for dn, want := range map[string]string{
		"/C=US/ST=Berkeley/L=Endmail Org/O=MTA/CN=Claus Assmann CA RSA 2007/": "/C=US/ST=Berkeley/L=Endmail+20Org/O=MTA/CN=Claus+20Assmann+20CA+20RSA+202007/",
		"/CN=Darth Mail (Cert)/": "/CN=Darth+20Mail+20+28Cert+29/",
		"a<b>\"+\x00\x7fé":       "a+3Cb+3E+22+2B+00+7F+C3+A9",
	} {
		if got := EncodeDN(dn); got != want {
			t.Errorf("%s: %s, want %s", dn, got, want)
		}
	}
}

// README 3.8.1, 3.10.1, 3.13 and 3.10 items 4i and 25; the host names that its
// conversion to text lost are restored.
func TestParseConf(t *testing.T) {
	for text, want := range map[string]msg.Conf{
		"":                       {},
		"session_feature=notls;": {SessionFeature: "notls"},
		"connection_limits=low;": {ConnectionLimits: "low"},
		"source = net10;":        {Source: "net10"},
		"flags = greylisting;":   {Flags: []string{"greylisting"}},
		"flags = { A, b }":       {Flags: []string{"a", "b"}},
		"Source=a; Flags={};":    {Source: "a"},
		`tls_requirements { cert_issuer="/C=US/ST=Berkeley/L=Endmail+20Org/O=MTA/CN=Claus+20Assmann+20CA+20RSA+202007/"; }`: {
			TLS: &msg.TLSRequirements{CertIssuer: "/C=US/ST=Berkeley/L=Endmail+20Org/O=MTA/CN=Claus+20Assmann+20CA+20RSA+202007/"},
		},
		"tls_requirements { flags={verified}; hostnames={mx.example.org, .example.net}}": {
			TLS: &msg.TLSRequirements{Verified: true, Hostnames: []string{"mx.example.org", ".example.net"}},
		},
		`session_feature=x; tls_requirements { cert_fps={"aa:bb" "cc"}; cert_subject=s; cipher_bits_min=128; common_name="a \"b\""; flags=encrypted; root_ca_subjects=r; violation={tempfail, delay}; };`: {
			SessionFeature: "x", TLS: &msg.TLSRequirements{
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
		"source":                              "expected =",
		"source = ;":                          "expected a value",
		"source = a b":                        "expected ;",
		"source = { a, b };":                  "one value",
		"source = a; source = b;":             "twice",
		"sauce = a;":                          "unknown option",
		"= a;":                                "expected an option",
		`source = "a`:                         "no end",
		"source = {a":                         "expected a value",
		"tls_requirements { x = y; }":         "unknown option",
		"tls_requirements { flags = x; }":     "unknown flag",
		"tls_requirements { violation = x; }": "violation",
		"tls_requirements { cipher_bits_min=a; }": "number of bits",
		"tls_requirements { flags = encrypted;":   "expected an option",
		"tls_requirements {} tls_requirements {}": "twice",
		strings.Repeat("x", maxConf+1):            "longer",
		"flags={" + strings.Repeat("x ", 300):     "more than",
	} {
		if c, err := ParseConf(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %+v, %v; want %q", text, c, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"quick:error:551 5.7.1 No", "relay", "reject", "error:", "session_feature=notls;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err == nil && r.Word == Error && (r.Reply.Code < 400 || r.Reply.Code > 599) {
			t.Errorf("%q gives the reply %v", s, r.Reply)
		}
		if strings.ContainsAny(EncodeDN(s), " <>()\"\x00\n") {
			t.Errorf("EncodeDN(%q)", s)
		}
	})
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
