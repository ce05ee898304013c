package dsn

import (
	"bufio"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"

	"meta1/mta/smtp"
)

func TestStatus(t *testing.T) {
	tests := []struct {
		kind     Kind
		code     int
		enhanced string
		want     string
	}{
		{Failed, 550, "5.1.1", "5.1.1"},
		{Failed, 550, "", "5.0.0"},
		{Failed, 451, "", "4.0.0"},
		{Failed, 451, "4.4.7", "4.4.7"},
		{Failed, 550, "4.2.1", "5.2.1"},
		{Failed, 450, "5.2.1", "4.2.1"},
		{Failed, 0, "", "5.0.0"},
		{Failed, 0, "4.4.7", "4.4.7"},
		{Failed, 250, "2.0.0", "5.0.0"},
		{Delayed, 450, "4.2.2", "4.2.2"},
		{Delayed, 550, "5.7.1", "4.7.1"},
		{Delayed, 0, "", "4.0.0"},
		{Delivered, 250, "2.1.5", "2.1.5"},
		{Relayed, 250, "", "2.0.0"},
		{Relayed, 250, "5.1.1", "2.0.0"},
		{Expanded, 0, "", "2.0.0"},
	}
	for _, tt := range tests {
		f := Failure{Kind: tt.kind, Reply: smtp.NewReply(tt.code, tt.enhanced, "")}
		if got := f.status().String(); got != tt.want {
			t.Errorf("%s, %d %s: got %s, want %s", tt.kind, tt.code, tt.enhanced, got, tt.want)
		}
	}
}

func TestExplain(t *testing.T) {
	tests := map[string]string{
		"5.1.1": "no such address", "5.1.10": "domain", "5.2.1": "switched off", "5.2.2": "full",
		"5.3.4": "larger", "4.4.1": "does not answer", "5.4.4": "which host", "5.4.6": "circle",
		"4.4.7": "time", "5.7.23": "rule", "5.0.0": "", "5.5.1": "",
	}
	for code, want := range tests {
		e, _, _ := smtp.ParseEnhancedCode(code)
		if got := explain(e); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q", code, got)
		}
	}
}

func TestOriginalRecipient(t *testing.T) {
	tests := []struct{ orcpt, utf8, ascii string }{
		{"", "", ""},
		{"rfc822;a+2Bb@c", "rfc822; a+b@c", "rfc822; a+b@c"},
		{"rfc822;a+0D+0AX:@c", "", ""},
		{"rfc822;", "", ""},
		{"a@b", "", ""},
		{"bad type;a@b", "", ""},
		{"X400;/C=de", "", ""}, // "=" must be encoded
		{"X400;/C+3Dde", "X400; /C=de", "X400; /C=de"},
		{`utf-8;j\x{F6}rg@b`, "utf-8; jörg@b", `utf-8; j\x{F6}rg@b`},
		{`UTF-8;jörg@b`, "utf-8; jörg@b", `utf-8; j\x{F6}rg@b`},
		{`utf-8;a\x{2B}b\x{5C}@c`, `utf-8; a+b\@c`, `utf-8; a\x{2B}b\x{5C}@c`},
		{`utf-8;a\x{1F600}@c`, "utf-8; a\U0001F600@c", `utf-8; a\x{1F600}@c`},
		{`utf-8;a\x{E9}\x{20}\x{3d}@c`, "utf-8; aé =@c", `utf-8; a\x{E9}\x{20}\x{3D}@c`},
		// What is no such encoding is not altered.
		{`utf-8;\x{E9}\x{zz}@c`, `utf-8; \x{E9}\x{zz}@c`, `utf-8; \x{E9}\x{zz}@c`},
		{`utf-8;\x{E9}\x{110000}@c`, `utf-8; \x{E9}\x{110000}@c`, `utf-8; \x{E9}\x{110000}@c`},
		{`utf-8;\x{E9}\x{D800}@c`, `utf-8; \x{E9}\x{D800}@c`, `utf-8; \x{E9}\x{D800}@c`},
		{`utf-8;\x{E9}\x{0E9}@c`, `utf-8; \x{E9}\x{0E9}@c`, `utf-8; \x{E9}\x{0E9}@c`},
		{`utf-8;\x{E9}\x{41}@c`, `utf-8; \x{E9}\x{41}@c`, `utf-8; \x{E9}\x{41}@c`},
		{`utf-8;\x{E9}\x{2B@c`, `utf-8; \x{E9}\x{2B@c`, `utf-8; \x{E9}\x{2B@c`},
		{`utf-8;\x{E9}+2B@c`, `utf-8; \x{E9}+2B@c`, `utf-8; \x{E9}+2B@c`},
		{`utf-8;\x{E9}\x{0D}\x{0A}X:y`, `utf-8; \x{E9}\x{0D}\x{0A}X:y`, `utf-8; \x{E9}\x{0D}\x{0A}X:y`},
	}
	for _, tt := range tests {
		if got := originalRecipient(tt.orcpt, false); got != tt.utf8 {
			t.Errorf("%q: got %q, want %q", tt.orcpt, got, tt.utf8)
		}
		if got := originalRecipient(tt.orcpt, true); got != tt.ascii {
			t.Errorf("%q in ASCII: got %q, want %q", tt.orcpt, got, tt.ascii)
		}
	}
	// What the notation hides is foreign text when it has been decoded.
	w := writer{}
	w.field("Original-Recipient", originalRecipient(`utf-8;a\x{85}\x{202E}X:y`, false))
	if got := string(w.b); got != "Original-Recipient: utf-8; a??X:y\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestMTAName(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name string
		ip   netip.Addr
		want string
	}{
		{"mx.test", netip.Addr{}, "dns; mx.test"},
		{"[192.0.2.1]", netip.Addr{}, "dns; [192.0.2.1]"},
		{"/run/lmtp", netip.Addr{}, "x-unix; /run/lmtp"},
		{"what_ever (x)", netip.Addr{}, "x-unknown; what_ever (x)"},
		{"", netip.Addr{}, ""},
		{"mx.test", ip, "dns; mx.test ([192.0.2.1])"},
		{"", ip, "dns; [192.0.2.1]"},
		{"[192.0.2.1]", ip, "dns; [192.0.2.1]"},
		{"mx.test", netip.MustParseAddr("2001:db8::1"), "dns; mx.test ([IPv6:2001:db8::1])"},
	}
	for _, tt := range tests {
		if got := receivedFrom(tt.name, tt.ip); got != tt.want {
			t.Errorf("%q, %v: got %q, want %q", tt.name, tt.ip, got, tt.want)
		}
	}
}

func TestReportingMTA(t *testing.T) {
	for host, want := range map[string]string{
		"mta.test": "dns; mta.test", "[192.0.2.1]": "dns; [192.0.2.1]",
		"localhost": "x-local-hostname; localhost", "a_b.test": "x-local-hostname; a_b.test",
	} {
		if got := reportingMTA(host); got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

// TestField folds values, and unfolds them as a reader would.
func TestField(t *testing.T) {
	words := strings.TrimSpace(strings.Repeat("word ", 100))
	long := strings.Repeat("x", 2000)
	tests := []struct {
		name, value string
		want        string // unfolded, "" for value
	}{
		{"short", "a b", ""},
		{"empty", "", ""},
		{"blank", "   ", ""},
		{"words", words, ""},
		{"one word", long[:800], ""},
		{"too long a word", long, long[:900] + " " + long[900:1800] + " " + long[1800:]},
		{"word, long word", "a " + long[:850] + " b", ""},
		{"only spaces between", "a" + strings.Repeat(" ", 2000) + "b", "a b"},
		{"controls", "a\r\n\r\nX: y\x00\u0085\u202e\xff", "a????X: y????"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w writer
			w.field("Name", tt.value)
			checkLines(t, w.b)
			w.line("")
			h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(string(w.b)))).ReadMIMEHeader()
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want == "" {
				want = strings.TrimSpace(tt.value)
			}
			if got := h.Get("Name"); squeeze(got) != want || len(h) > 1 {
				t.Errorf("got %q, want %q", h, want)
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(string(w.b), "\r\n\r\n"), "\r\n") {
				if strings.TrimSpace(line) == "" && strings.TrimSpace(tt.value) != "" {
					t.Errorf("blank line in %q", w.b)
				}
			}
		})
	}
}

func TestKeptLines(t *testing.T) {
	many := make([]string, 150)
	for i := range many {
		many[i] = "line"
	}
	tests := []struct {
		name  string
		lines []string
		n     int
		last  string
	}{
		{"none", nil, 1, ""},
		{"two", []string{"a", "b"}, 2, "b"},
		{"many", many, 101, "(the rest of this reply is left out)"},
		{"long", []string{strings.Repeat("é", 5000), "b"}, 2, "(the rest of this reply is left out)"},
		{"long second", []string{"a", strings.Repeat("x", 9000)}, 2, "(the rest of this reply is left out)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := keptLines(smtp.Reply{Lines: tt.lines})
			if len(got) != tt.n || got[len(got)-1] != tt.last || len(got[0]) > replyTextMax {
				t.Errorf("%d lines, last %q", len(got), got[len(got)-1])
			}
		})
	}
}

// TestRaw: a message that is returned as text keeps its lines within the limit.
func TestRaw(t *testing.T) {
	tests := []struct{ in, want string }{
		{"a\r\nb\r\n", "a\r\nb\r\n"},
		{"a", "a\r\n"},
		{"\r\n\r\n", "\r\n\r\n"},
		{"a\rb\nc\x00d\r", "a?b?c?d?\r\n"},
		{strings.Repeat("x", 998) + "\r\n", strings.Repeat("x", 998) + "\r\n"},
		{strings.Repeat("x", 999) + "\r\n", strings.Repeat("x", 998) + "\r\nx\r\n"},
		{strings.Repeat("x", 997) + "é\r\n", strings.Repeat("x", 997) + "\r\né\r\n"},
	}
	for _, tt := range tests {
		var w writer
		if w.raw([]byte(tt.in)); string(w.b) != tt.want {
			t.Errorf("%q: got %q", tt.in, w.b)
		}
	}
}
