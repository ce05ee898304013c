package mailertable

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"meta1/mta/msg"
)

func show(r Rule) string {
	var b strings.Builder
	b.WriteString(r.Protocol.String())
	if r.Port != 0 {
		fmt.Fprintf(&b, " port=%d", r.Port)
	}
	if r.Host != "" {
		b.WriteString(" host=" + r.Host)
	}
	for _, a := range r.Addrs {
		b.WriteString(" [" + a.String() + "]")
	}
	if r.NoMX {
		b.WriteString(" no_MX")
	}
	if r.Select != Unset {
		b.WriteString(" " + r.Select.String())
	}
	return b.String()
}

// The first group are README 3.9.3's examples, with the addresses restored that its
// conversion to text lost.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"lmtp:": "lmtp",
		"{ port=2525; protocol=esmtp; ip={10.1.2.3} }":        "esmtp port=2525 [10.1.2.3]",
		"{ protocol=lmtp; port = 525; ip= { 10.1.2.4 } }":     "lmtp port=525 [10.1.2.4]",
		"{ host = SERVER.OTHER.DOMAIN; flags=no_MX_lookup; }": "esmtp host=server.other.domain no_MX",
		"esmtp:[10.1.2.5]":                 "esmtp [10.1.2.5]",
		"{ host = GATE.WAY }":              "esmtp host=gate.way",
		"esmtp:SMART.HOST":                 "esmtp host=smart.host",
		"{ protocol=lmtp; }":               "lmtp",
		"host.example":                     "esmtp host=host.example",
		"host.example.":                    "esmtp host=host.example",
		"[10.0.0.1] [10.0.0.2]":            "esmtp [10.0.0.1] [10.0.0.2]",
		"2525^[10.0.0.1]":                  "esmtp port=2525 [10.0.0.1]",
		"2525^esmtp:host.example":          "esmtp port=2525 host=host.example",
		"24^lmtp:[127.0.0.1]":              "lmtp port=24 [127.0.0.1]",
		"24^lmtp:host.example":             "lmtp port=24 host=host.example no_MX",
		"LMTP:":                            "lmtp",
		"[IPv6:2001:db8::1] [2001:db8::2]": "esmtp [2001:db8::1] [2001:db8::2]",
		"{ ip = { 10.0.0.1, 10.0.0.2 }; }": "esmtp [10.0.0.1] [10.0.0.2]",
		"{ ip = { 10.0.0.1 10.0.0.2, } }":  "esmtp [10.0.0.1] [10.0.0.2]",
		`{ host = "quoted.example"; flags = { MX_lookup }; }`:        "esmtp host=quoted.example",
		"{ IPv_Select = IPv6_Only; }":                                "esmtp IPv6_Only",
		"{ protocol=esmtp; host=a.b; IPv_Select = ipv4_preferred; }": "esmtp host=a.b IPv4_Preferred",
		"{ protocol=lmtp; port=24; host=a.b; }":                      "lmtp port=24 host=a.b no_MX",
		"{protocol=esmtp;port=25;host=a;flags={dont_mx_lookup};}":    "esmtp port=25 host=a no_MX",
	} {
		r, err := Parse(text)
		if err != nil || show(r) != want {
			t.Errorf("%s: %s, %v; want %s", text, show(r), err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "empty",
		"esmtp:":                          "host is missing",
		"0^host":                          "port",
		"65536^host":                      "port",
		"x^host":                          "port",
		"^host":                           "port",
		"lmtp:host":                       "needs a port",
		"lmtp:[127.0.0.1]":                "needs a port",
		"24^lmtp:":                        "needs a host",
		"10.0.0.1":                        "must stand in brackets",
		"[10.0.0.1":                       "not an IP address in brackets",
		"[host]":                          "not an IP address",
		"[IPv6:10.0.0.1]":                 "not an IP address",
		"[10.0.0.1] host":                 "not an IP address in brackets",
		"a b":                             "bad character",
		"-a.example":                      "bad label",
		"a..b":                            "bad label",
		"smtp:host":                       "neither esmtp: nor lmtp:",
		"smtp:[192.0.2.1]":                "neither esmtp: nor lmtp:",
		"host.example:2525":               "as in 25^esmtp:host.example",
		"{":                               "closing brace",
		"{}":                              "host is missing",
		"{ host }":                        `expected "="`,
		"{ host = a; host = b; }":         "twice",
		"{ host = a; ip = {1.2.3.4}; }":   "exclude each other",
		"{ ip = {}; }":                    "no address",
		"{ port = 25; }":                  "port without host",
		"{ host = a } x":                  "the last character",
		"{ host = a port = 1 }":           "is missing",
		"{ flags = x; host = a; }":        "not one of the flags",
		"{ hots = a; }":                   "unknown option",
		"{ protocol = smtp; }":            "protocol",
		"{ IPv_Select = IPv5; }":          "IPv_Select",
		`{ host = "\x"; }`:                "bad escape",
		"{ host = a # } }":                "unexpected character",
		"{ host = a; } { host = b; }":     "could close",
		`{ host = "a; }`:                  "string is not closed",
		"{ protocol=lmtp; port=24; }":     "needs a host",
		strings.Repeat("a", 5000):         "longer than",
		strings.Repeat("[10.0.0.1] ", 65): "more than 64",
	} {
		if r, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %s, %v; want error %q", text, show(r), err, want)
		}
	}
}

func TestCheckKey(t *testing.T) {
	for key, ok := range map[string]bool{
		".": true, "localhost": true, ".tld": true, "a.b": true, "user@a.b": true, "user++@.b": true, "user@.": true,
		"[10.0.0.1]": true, "[ipv6:2001:db8::1]": true, "ex_ample.org": true, "xn--a.org": true, "bücher.example": true,
		"": false, "..": false, "@a.b": false, "a..b": false, "a b": false, "[x]": false, "[10.0.0.1": false, "a:b": false,
	} {
		if err := CheckKey(key); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"lmtp:", "24^lmtp:[127.0.0.1]", "{ host = a; ip = {1.2.3.4,}; }", "{\"", "[", "{ip={::1}}", "a^b^c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if r.Host != "" && len(r.Addrs) > 0 {
			t.Errorf("host and addresses: %q", text)
		}
		if !r.IsSocket() && r.Host == "" && len(r.Addrs) == 0 && r.Select == Unset {
			t.Errorf("leads nowhere: %q", text)
		}
		for _, a := range r.Addrs {
			if !a.IsValid() || a.Zone() != "" || a == (netip.Addr{}) {
				t.Errorf("bad address: %q", text)
			}
		}
		if r.Protocol == msg.ProtoLMTP && !r.IsSocket() && r.Port == 0 {
			t.Errorf("lmtp without port: %q", text)
		}
	})
}
