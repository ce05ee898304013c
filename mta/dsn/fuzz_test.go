package dsn

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"meta1/mta/smtp"
)

// FuzzBuild gives hostile replies, addresses, names and messages to each format and
// kind: what comes out must parse, say what went in, and have no field or part more.
func FuzzBuild(f *testing.F) {
	f.Add(uint16(0x2), "a", "b.test", "no such user\nreally", "QQ", "rfc822;a@b", "client.test", "mx.test", []byte("A: b\r\n\r\nc\r\n"))
	f.Add(uint16(0x52), "jörg", "bücher.test", "x\r\nX-Forged: yes", "+0D", `utf-8;\x{0D}`, "", "/sock", []byte("A: \xc3\xa9\r\n\r\n\xff"))
	f.Add(uint16(0x16), "a b", "", strings.Repeat("x ", 600), "", ";", "a (b)", "", []byte("--=_\r\n\x00\r"))
	f.Add(uint16(0xff), "\"", "\r\n\r\n--=_", strings.Repeat("é", 1200), "a+20+20b", "x;"+strings.Repeat("y", 1500), "\n", "\x00", bytes.Repeat([]byte("z"), 2000))
	f.Fuzz(func(t *testing.T, flags uint16, local, domain, reply, envID, orcpt, helo, remote string, original []byte) {
		n := sample()
		n.Format = Format(flags & 3 % 3)
		n.HeaderOnly, n.UTF8, n.Failures[0].Expired = flags&4 != 0, flags&8 != 0, flags&16 != 0
		n.EnvID, n.ReceivedFrom, n.Original = envID, helo, original
		n.Arrival = at(0)
		if flags&32 != 0 {
			n.To = smtp.Path{Local: local, Domain: "é" + domain}
		}
		if flags&64 != 0 {
			n.ReceivedIP = netip.MustParseAddr("2001:db8::1")
		}
		lines := strings.Split(reply, "\n")
		for i := range n.Failures {
			r := &n.Failures[i]
			r.Kind = Kind(flags >> 7 % 5)
			r.Rcpt = smtp.Path{Local: local, Domain: domain}
			r.ORcpt, r.Remote, r.RetryUntil = orcpt, remote, at(i)
			r.Reply = smtp.Reply{Code: 400 + int(flags>>8), Lines: lines, Enhanced: smtp.EnhancedCode{flags % 6, flags % 1000, 1}}
		}
		m, err := Build(n)
		if err != nil {
			t.Fatal(err)
		}
		checkMessage(t, n, m)
	})
}

func BenchmarkBuild(b *testing.B) {
	for format, name := range []string{"plain", "mime", "rfc"} {
		n := full(Format(format), Failed)
		n.Original = append(n.Original, bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n"), 16)...)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Build(n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
