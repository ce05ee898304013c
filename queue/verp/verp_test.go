package verp

import (
	"strings"
	"testing"
	"unicode/utf8"

	"meta1/mta/smtp"
)

func path(t *testing.T, s string) smtp.Path {
	t.Helper()
	if s == "" {
		return smtp.Path{}
	}
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return smtp.Path{Local: s}
	}
	return smtp.Path{Local: s[:i], Domain: s[i+1:]}
}

func TestSender(t *testing.T) {
	long := strings.Repeat("x", 54)
	tests := []struct {
		name, mail, rcpt, d1, d2 string
		want                     string // "": none
	}{
		{"README 3.8", "lm@mail", "lr@rcpt", "+", "=", "lm+lr=rcpt@mail"},
		{"the defaults", "lm@mail", "lr@rcpt", "", "", "lm+lr=rcpt@mail"},
		{"own delimiters", "lm@mail", "lr@rcpt", "--", "_at_", "lm--lr_at_rcpt@mail"},
		{"case is kept", "Lm@Mail", "LR@Rcpt.Example", "+", "=", "Lm+LR=Rcpt.Example@Mail"},
		{"delimiters in the recipient", "lm@mail", "lr+a=b@rcpt", "+", "=", "lm+lr+a=b=rcpt@mail"},
		{"quotes that are needed", "lm@mail", `"l r"@rcpt`, "+", "=", `"lm+l r=rcpt"@mail`},
		{"quotes that are not needed", `"l.m"@mail`, `"lr"@rcpt`, "+", "=", "l.m+lr=rcpt@mail"},
		{"escapes", `"l\"m"@mail`, `"l\\r\ x"@rcpt`, "+", "=", `"l\"m+l\\r x=rcpt"@mail`},
		{"an at sign in the local part", "lm@mail", `"l@r"@rcpt`, "+", "=", `"lm+l@r=rcpt"@mail`},
		{"dots that meet", `"lm."@mail`, "lr@rcpt", ".", "=", `"lm..lr=rcpt"@mail`},
		{"address literal", "lm@mail", "lr@[192.0.2.1]", "+", "=", `"lm+lr=[192.0.2.1]"@mail`},
		{"sender at a literal", "lm@[IPv6:2001:db8::1]", "lr@rcpt", "+", "=", "lm+lr=rcpt@[IPv6:2001:db8::1]"},
		{"UTF-8", "lm@mail", "jürgen@bücher.example", "+", "=", "lm+jürgen=bücher.example@mail"},
		{"64 octets", "lm@mail", long + "@rcpt.r", "+", "=", "lm+" + long[:54] + "=rcpt.r@mail"},
		{"65 octets", "lm@mail", long + "x@rcpt.r", "+", "=", ""},
		{"64 octets with quotes", "lm@mail", `"` + long[:51] + ` "@rcpt.r`, "+", "=", `"lm+` + long[:51] + ` =rcpt.r"@mail`},
		{"65 octets with quotes", "lm@mail", `"` + long[:52] + ` "@rcpt.r`, "+", "=", ""},
		{"path of 256 octets", "lm@" + strings.Repeat("a.", 121) + "a", "lr@rcpt", "+", "=", "lm+lr=rcpt@" + strings.Repeat("a.", 121) + "a"},
		{"path of 257 octets", "lm@" + strings.Repeat("a.", 121) + "aa", "lr@rcpt", "+", "=", ""},
		{"null sender", "", "lr@rcpt", "+", "=", ""},
		{"null recipient", "lm@mail", "", "+", "=", ""},
		{"postmaster", "lm@mail", "postmaster", "+", "=", ""},
		{"control character in a delimiter", "lm@mail", "lr@rcpt", "\r\n", "=", ""},
		{"bad UTF-8", "lm@mail", "l\xffr@rcpt", "+", "=", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Sender(path(t, tt.mail), path(t, tt.rcpt), tt.d1, tt.d2)
			if ok != (tt.want != "") || ok && got.Addr() != tt.want {
				t.Errorf("got %q, %v, want %q", got.Addr(), ok, tt.want)
			}
			if _, err := smtp.ParseMailbox(got.Addr()); ok && err != nil && err != smtp.ErrNonASCII {
				t.Errorf("%q is no address: %v", got.Addr(), err)
			}
		})
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, verp, d1, d2 string
		mail, rcpt         string // "": none
	}{
		{"README 3.8", "lm+lr=rcpt@mail", "+", "=", "lm@mail", "lr@rcpt"},
		{"the defaults", "lm+lr=rcpt@mail", "", "", "lm@mail", "lr@rcpt"},
		{"own delimiters", "lm--lr_at_rcpt.x@mail", "--", "_at_", "lm@mail", "lr@rcpt.x"},
		{"first delimiter1, last delimiter2", "lm+lr+a=b=rcpt@mail", "+", "=", "lm@mail", "lr+a=b@rcpt"},
		{"quotes", `"lm+l r=rcpt"@mail`, "+", "=", "lm@mail", `"l r"@rcpt`},
		{"escapes", `"l\"m+l\\r=rcpt"@mail`, "+", "=", `"l\"m"@mail`, `"l\\r"@rcpt`},
		{"address literal", `"lm+lr=[192.0.2.1]"@mail`, "+", "=", "lm@mail", "lr@[192.0.2.1]"},
		{"UTF-8", "lm+jürgen=bücher.example@mail", "+", "=", "lm@mail", "jürgen@bücher.example"},
		{"no delimiter1", "lr=rcpt@mail", "+", "=", "", ""},
		{"no delimiter2", "lm+lr@mail", "+", "=", "", ""},
		{"delimiters the wrong way round", "lm=rcpt+lr@mail", "+", "=", "", ""},
		{"no sender", "+lr=rcpt@mail", "+", "=", "", ""},
		{"no recipient", "lm+=rcpt@mail", "+", "=", "", ""},
		{"no domain", "lm+lr=@mail", "+", "=", "", ""},
		{"bad domain", "lm+lr=-rcpt-@mail", "+", "=", "", ""},
		{"bad literal", `"lm+lr=[192.0.2]"@mail`, "+", "=", "", ""},
		{"control character", "\"lm+l\r\nr=rcpt\"@mail", "+", "=", "", ""},
		{"null", "", "+", "=", "", ""},
		{"bare", "lm+lr=rcpt", "+", "=", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mail, rcpt, ok := Parse(path(t, tt.verp), tt.d1, tt.d2)
			if ok != (tt.mail != "") || mail.Addr() != tt.mail || rcpt.Addr() != tt.rcpt {
				t.Errorf("got %q, %q, %v", mail.Addr(), rcpt.Addr(), ok)
			}
		})
	}
}

// FuzzRoundTrip checks that a sender that was made is an address within the limits,
// and that it gives back what went in unless the delimiters make it ambiguous.
func FuzzRoundTrip(f *testing.F) {
	f.Add("lm", "mail.example", "lr", "rcpt.example", "+", "=")
	f.Add(`"l m"`, "mail", `"l\"r"`, "[192.0.2.1]", "--", "==")
	f.Add("a+b", "mail", "c=d", "rcpt", "", "")
	f.Add("a.", "m", ".b", "r", ".", "@")
	f.Add("é", "m", "b\r\n", "r", "\"", "\\")
	f.Fuzz(func(t *testing.T, lm, dm, lr, dr, d1, d2 string) {
		mail, rcpt := smtp.Path{Local: lm, Domain: dm}, smtp.Path{Local: lr, Domain: dr}
		sender, ok := Sender(mail, rcpt, d1, d2)
		if !ok {
			return
		}
		if mail.IsNull() || sender.Domain != dm || len(sender.Local) > smtp.LocalMax || len(sender.String()) > smtp.PathMax {
			t.Fatalf("%q and %q gave %q", mail, rcpt, sender)
		}
		if strings.ContainsFunc(sender.Local, func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.ValidString(sender.Local) {
			t.Fatalf("bad character in %q", sender)
		}
		if isASCII(sender.Local) {
			if _, err := smtp.ParseMailbox(sender.Local + "@x"); err != nil {
				t.Fatalf("%q is no local part: %v", sender.Local, err)
			}
		}
		d1, d2 = or(d1, Delimiter1), or(d2, Delimiter2)
		m, r := unquote(lm), unquote(lr)
		switch {
		case strings.Index(m+d1+r, d1) != len(m), strings.LastIndex(r+d2+dr, d2) != len(r), m == "", r == "":
			return // ambiguous
		case strings.Index(m+d1+r+d2+dr, d1) != len(m), !isDomain(dr):
			return
		}
		wantM, ok1 := quote(m)
		wantR, ok2 := quote(r)
		if !ok1 || !ok2 || !fits(wantM, dm) || !fits(wantR, dr) {
			return
		}
		gotMail, gotRcpt, ok := Parse(sender, d1, d2)
		if !ok || gotMail != (smtp.Path{Local: wantM, Domain: dm}) || gotRcpt != (smtp.Path{Local: wantR, Domain: dr}) {
			t.Fatalf("%q came back as %q and %q, %v", sender, gotMail, gotRcpt, ok)
		}
	})
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
