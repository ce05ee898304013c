package ciphers

import (
	"crypto/tls"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestTable: each line of the table is read, and each suite of Go is in it.
func TestTable(t *testing.T) {
	lines := 0
	for line := range strings.Lines(suitesText) {
		if !strings.HasPrefix(line, "#") {
			lines++
		}
	}
	seen := map[uint16]bool{}
	for _, s := range suites() {
		if seen[s.id] || s.id == 0 || s.bits == 0 && s.enc != "None" {
			t.Errorf("suite %+v", s)
		}
		seen[s.id] = true
	}
	if len(seen) != lines {
		t.Errorf("%d suites in %d lines", len(seen), lines)
	}
	names := Names()
	for id := range supported() {
		if !seen[id] {
			t.Errorf("%s is not in the table", tls.CipherSuiteName(id))
		}
	}
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range list {
			if n := names[s.ID]; n.Name == "" || n.Bits < 112 {
				t.Errorf("%s is called %+v", s.Name, n)
			}
		}
	}
	if n := names[tls.TLS_RSA_WITH_AES_256_CBC_SHA]; n != (Suite{"AES256-SHA", 256}) {
		t.Errorf("README 10.5 calls it AES256-SHA, we call it %+v", n)
	}
}

// shown are the names of suites.
func shown(ids []uint16) string {
	names := Names()
	var list []string
	for _, id := range ids {
		list = append(list, names[id].Name)
	}
	return strings.Join(list, " ")
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ text, suites, unknown, unsupported string }{
		{"ECDHE+AESGCM", "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384 ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256", "", ""},
		{"ECDHE-RSA-AES128-GCM-SHA256 AES256-SHA", "ECDHE-RSA-AES128-GCM-SHA256 AES256-SHA", "", ""},
		{"TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA", "", ""},
		{"kRSA:!SHA256:!SHA1:@STRENGTH", "AES256-GCM-SHA384 AES128-GCM-SHA256", "", ""},
		{"aECDSA:-AES:AES128+aECDSA+AESGCM:+HIGH", "ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-RC4-SHA", "", ""},
		{"AESGCM:!ECDHE:ECDHE", "AES256-GCM-SHA384 AES128-GCM-SHA256", "", ""},
		{"SUITEB128ONLY,SUITEB192", "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-AES128-GCM-SHA256", "", ""},
		{"DHE-RSA-AES256-GCM-SHA384:AES128-SHA:DHE:@SECLEVEL=2", "AES128-SHA", "", "DHE-RSA-AES256-GCM-SHA384 DHE @SECLEVEL=2"},
		{"HUGE:RC4-SHA:ECDHE+TINY:@WEAK:RC4:DEFAULT", "ECDHE-ECDSA-RC4-SHA ECDHE-RSA-RC4-SHA RC4-SHA", "HUGE ECDHE+TINY @WEAK DEFAULT", ""},
		{"", "", "", ""},
		{"::,", "", "", ""},
		{"!", "", "!", ""},
	} {
		l := Parse(tt.text)
		if got := shown(l.Suites); got != tt.suites {
			t.Errorf("%q: suites %s, want %s", tt.text, got, tt.suites)
		}
		if got := strings.Join(l.Unknown, " "); got != tt.unknown {
			t.Errorf("%q: unknown %s, want %s", tt.text, got, tt.unknown)
		}
		if got := strings.Join(l.Unsupported, " "); got != tt.unsupported {
			t.Errorf("%q: unsupported %s, want %s", tt.text, got, tt.unsupported)
		}
	}
}

// TestLikeOpenSSL compares the reading of lists with that of openssl ciphers, in what
// Go has.
func TestLikeOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not here")
	}
	for _, list := range []string{
		"ALL", "DEFAULT", "DEFAULT:!kRSA", "HIGH", "HIGH:!aNULL:!MD5", "HIGH:MEDIUM:!aNULL:!eNULL:!kRSA", "ECDHE", "EECDH+AESGCM:EDH+AESGCM",
		"ECDHE+AESGCM:ECDHE+CHACHA20:!aDSS", "kEECDH+aRSA+AES256", "aRSA:!kECDHE", "RSA+AES:-SHA", "AES128:-AES128-SHA", "AES256+ECDHE:+AES",
		"CBC:!SHA1", "SHA1", "SHA:!ECDSA", "SHA256", "SHA384", "TLSv1.2:!AEAD", "TLSv1.2:!CHACHA20", "TLSv1", "SSLv3:!PSK:!SRP",
		"COMPLEMENTOFDEFAULT:AES128-SHA", "CHACHA20:AESCCM:ARIA:CAMELLIA:DH:ECDH:aDSS:kPSK:SRP:DSS", "AECDH:ADH:ECDSA",
		"!AES:ALL", "SUITEB128", "SUITEB192", "ECDHE-RSA-AES128-SHA:AES256:!ECDHE-RSA-AES256-SHA:@STRENGTH",
	} {
		out, err := exec.Command("openssl", "ciphers", "-v", list+":@SECLEVEL=0").CombinedOutput()
		if err != nil && strings.HasPrefix(list, "SUITEB") { // it must stand alone there
			out, err = exec.Command("openssl", "ciphers", "-v", list).CombinedOutput()
		}
		if err != nil {
			t.Errorf("%s: %v: %s", list, err, out)
			continue
		}
		compiled := map[string]bool{}
		all, err := exec.Command("openssl", "ciphers", "ALL:eNULL:@SECLEVEL=0").Output()
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.SplitSeq(strings.TrimSpace(string(all)), ":") {
			compiled[name] = true
		}
		has := map[string]bool{}
		names := Names()
		for id := range supported() {
			has[names[id].Name] = true
		}
		var want, got []string
		for line := range strings.Lines(string(out)) {
			if name, _, _ := strings.Cut(line, " "); has[name] {
				want = append(want, name)
			}
		}
		for _, id := range Parse(list).Suites {
			if name := names[id].Name; compiled[name] {
				got = append(got, name)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s is\n%v here\n%v for openssl", list, got, want)
		}
	}
}

func TestParseOptions(t *testing.T) {
	for _, tt := range []struct {
		text     string
		min, max uint16
		ticket   bool
		wrong    string
		unknown  string
		cannot   string
	}{
		{"", tls.VersionTLS12, tls.VersionTLS13, true, "", "", ""},
		{"no_TLSv1 SSL_OP_NO_TLSv1_1 no_TLSv1_2", tls.VersionTLS13, tls.VersionTLS13, true, "", "", ""},
		{"-no_TLSv1 !SSL_OP_NO_TLSv1_1 +no_tlsv1_3", tls.VersionTLS10, tls.VersionTLS12, true, "", "", ""},
		{"-no_TLSv1", tls.VersionTLS10, tls.VersionTLS10, true, "TLSv1.1", "", ""},
		{"no_TLSv1_2 no_TLSv1_3", 0, 0, true, "no version", "", ""},
		{"no_ticket cipher_server_preference all single_dh_use", tls.VersionTLS12, tls.VersionTLS13, false, "", "", ""},
		{"no_ticket -no_ticket", tls.VersionTLS12, tls.VersionTLS13, true, "", "", ""},
		{"no_TLSv1_4 -x", tls.VersionTLS12, tls.VersionTLS13, true, "", "no_TLSv1_4 -x", ""},
		{"-cipher_server_preference legacy_server_connect -no_anti_replay -", tls.VersionTLS12, tls.VersionTLS13, true, "", "-", "-cipher_server_preference legacy_server_connect"},
	} {
		o := ParseOptions(strings.Fields(tt.text))
		var cannot []string
		for _, u := range o.Unsupported {
			if cannot = append(cannot, u.Word); u.Reason == "" {
				t.Errorf("%s: no reason", u.Word)
			}
		}
		wrong := o.Wrong == tt.wrong || tt.wrong != "" && strings.Contains(o.Wrong, tt.wrong)
		if o.Min != tt.min || o.Max != tt.max || o.NoTicket == tt.ticket || !wrong ||
			strings.Join(o.Unknown, " ") != tt.unknown || strings.Join(cannot, " ") != tt.cannot {
			t.Errorf("%s: %+v", tt.text, o)
		}
	}
}

func TestParseCurves(t *testing.T) {
	c := ParseCurves([]string{"prime256v1:X25519", "secp384r1", "x448", "curve9"})
	if !slices.Equal(c.IDs, []tls.CurveID{tls.CurveP256, tls.X25519, tls.CurveP384}) ||
		!slices.Equal(c.Unsupported, []string{"x448"}) || !slices.Equal(c.Unknown, []string{"curve9"}) {
		t.Errorf("%+v", c)
	}
	if c := ParseCurves(nil); c.IDs != nil {
		t.Errorf("%+v", c)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("HIGH:!aNULL:ECDHE+AESGCM @STRENGTH -x +")
	has := supported()
	f.Fuzz(func(t *testing.T, text string) {
		seen := map[uint16]bool{}
		for _, id := range Parse(text).Suites {
			if seen[id] || !has[id] {
				t.Errorf("%q: suite %x", text, id)
			}
			seen[id] = true
		}
	})
}
