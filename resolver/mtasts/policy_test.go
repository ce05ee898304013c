package mtasts

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParsePolicy(t *testing.T) {
	const good = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.Example.NET.\r\nmax_age: 604800\r\n"
	for text, want := range map[string]string{
		good:                               "enforce 168h0m0s mail.example.com *.example.net",
		strings.ReplaceAll(good, "\r", ""): "enforce 168h0m0s mail.example.com *.example.net",
		"version:STSv1\nmode:testing\nmx:a.test\nmax_age:1\nmode: enforce\nx-y: z\n": "testing 1s a.test",
		"version: STSv1\nmode: none\nmax_age: 9999999999":                            "none 8766h0m0s ",
		"version: STSv1\n\n  \nmode: none\nmax_age: 0\n":                             "none 0s ",
		"":                                       "! the policy has no version",
		"version: STSv2\nmode: none\nmax_age: 1": `! version "STSv2" is not known`,
		"version: STSv1\nmode: maybe\nmax_age: 1":                      `! mode "maybe" is not known`,
		"version: STSv1\nmode: none":                                   "! the policy has no max_age",
		"version: STSv1\nmode: none\nmax_age: -1":                      `! max_age "-1" is no number of seconds`,
		"version: STSv1\nmode: none\nmax_age: 99999999999":             `! max_age "99999999999" is no number of seconds`,
		"version: STSv1\nmode: enforce\nmax_age: 1":                    "! the policy names no mx",
		"version: STSv1\nmode: enforce\nmx: *.*.test\nmax_age: 1":      `! mx "*.*.test" is no domain name`,
		"version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1":           `! mx "a b" is no domain name`,
		"version: STSv1\nnonsense\n":                                   "! line 2 is no pair of key and value",
		"version: STSv1\n" + strings.Repeat("mx: a.test\n", linesKept): "! the policy has more than 512 lines",
		"version: STSv1\n" + strings.Repeat("x", textMax):              "! the policy has more than 65536 bytes",
		"<html>": "! line 1 is no pair of key and value",
	} {
		p, err := ParsePolicy([]byte(text))
		got := ""
		if err != nil {
			got = "! " + err.Error()
		} else {
			got = fmt.Sprintf("%s %s %s", p.Mode, p.MaxAge, strings.Join(p.MX, " "))
		}
		if got != want {
			t.Errorf("%.60q: %s, want %s", text, got, want)
		}
	}
}

func TestMatches(t *testing.T) {
	p := &Policy{Mode: Enforce, MaxAge: time.Hour, MX: []string{"mail.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.Example.Com.": true, "a.example.net": true,
		"example.net": false, "a.b.example.net": false, "example.com": false, "x.mail.example.com": false,
		"": false, ".example.net": false, "net": false, "example.com.evil.test": false,
	} {
		if got := p.Matches(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestParseRecords(t *testing.T) {
	for texts, want := range map[string]string{
		"v=STSv1; id=20160831085700Z;":           "20160831085700Z",
		"v=STSv1;id=1":                           "1",
		"v=spf1 -all|v=STSv1; id=2; x=y":         "2",
		"":                                       "! there is no MTA-STS record",
		"v=STSv2; id=1":                          "! there is no MTA-STS record",
		"v=STSv1":                                "! the MTA-STS record has no valid id",
		"v=STSv1; id=a-b":                        "! the MTA-STS record has no valid id",
		"v=STSv1; id=" + strings.Repeat("1", 33): "! the MTA-STS record has no valid id",
		"v=STSv1; nonsense; id=1":                "! the MTA-STS record is malformed",
		"v=STSv1; id=1|v=STSv1; id=2":            "! there are several MTA-STS records",
	} {
		got, err := parseRecords(strings.Split(texts, "|"))
		if err != nil {
			got = "! " + err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", texts, got, want)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("version: STSv1\nmode: enforce\nmx: *.a.test\nmax_age: 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		if p.MaxAge < 0 || p.MaxAge > maxAge || p.Mode != None && len(p.MX) == 0 {
			t.Errorf("%+v", p)
		}
		for _, mx := range p.MX {
			if host, wild := strings.CutPrefix(mx, "*."); !isDomain(host) || !p.Matches(strings.Repeat("a.", map[bool]int{true: 1}[wild])+host) {
				t.Errorf("mx %q", mx)
			}
		}
	})
}
