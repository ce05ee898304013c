package server

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

func TestParseGreeting(t *testing.T) {
	tests := []struct{ option, want string }{
		{"", "220 h ESMTP meta1-1\r\n"},
		{"ESMTP", "220 h ESMTP\r\n"},
		{" ready\r\n", "220 h ready\r\n"},
		{"220 me\r\n", "220 me\r\n"},
		{"220", "220 h 220\r\n"},
		{"220-me\r\n220 you\r\n", "220-me\r\n220 you\r\n"},
		{"220 me\r\nyou\r\n", "220-me\r\n220 you\r\n"},
		{"a\r\n220-b\r\n220 c\r\n", "220-h a\r\n220-b\r\n220 c\r\n"},
	}
	for _, tt := range tests {
		r, err := parseGreeting(tt.option, "h", "1")
		if got := string(r.AppendWire(nil)); err != nil || got != tt.want {
			t.Errorf("%q: %q, %v", tt.option, got, err)
		}
	}
	for _, bad := range []string{"a\nb", "a\rb", "\x00", "ä", strings.Repeat("x", 501)} {
		if _, err := parseGreeting(bad, "h", "1"); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// FuzzReceived checks that no text of the client's can break our header: it stays
// three lines, short and printable.
func FuzzReceived(f *testing.F) {
	f.Add("client.example.net", "client.example.net.", []byte{192, 0, 2, 1})
	f.Add("a\r\nX: y", "(\"\\", []byte{})
	f.Add(strings.Repeat("x", 2000), strings.Repeat("\xff", 2000), make([]byte, 16))
	f.Fuzz(func(t *testing.T, helo, name string, ip []byte) {
		addr, _ := netip.AddrFromSlice(ip)
		c := msg.Client{Helo: helo, Name: name, IP: addr, Protocol: "ESMTP"}
		b := appendReceived(nil, &c, "mx.example.org", "1.0")
		b = appendID(b, smtp.ID{Counter: 1}, nil, time.Unix(0, 0).UTC())
		lines := strings.SplitAfter(string(b), "\r\n")
		if len(lines) != 4 || lines[3] != "" || !strings.HasPrefix(lines[0], "Received: from ") ||
			!strings.HasPrefix(lines[1], "\tby mx.example.org") || !strings.HasPrefix(lines[2], "\tid S") {
			t.Fatalf("%q", b)
		}
		for _, line := range lines {
			if len(line) > 998+2 {
				t.Fatalf("line of %d bytes", len(line))
			}
			for _, ch := range []byte(strings.TrimSuffix(line, "\r\n")) {
				if ch != '\t' && (ch < ' ' || ch > '~') {
					t.Fatalf("%q", line)
				}
			}
		}
		if strings.Count(string(b), "(") != 2 || strings.Count(string(b), ";") != 1 {
			t.Fatalf("%q", b)
		}
	})
}
