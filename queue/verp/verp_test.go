package verp

import (
	"cmp"
	"strings"
	"testing"
	"unicode"
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

// parse is the reverse of Sender: whose message it was and to whom it went. The
// first delimiter1 ends the sender's local part, since a list's is chosen without
// one and a recipient's may well have it (user+detail); the last delimiter2 begins
// the recipient's domain, in which it cannot occur unless it was chosen badly. Local
// parts come back quoted only where they need it. ok is false if verp is no such
// address; that it is one does not prove that we made it.
func parse(verp smtp.Path, delimiter1, delimiter2 string) (mail, rcpt smtp.Path, ok bool) {
	d2 := cmp.Or(delimiter2, Delimiter2)
	lm, rest, found := strings.Cut(smtp.UnquoteLocal(verp.Local), cmp.Or(delimiter1, Delimiter1))
	i := strings.LastIndex(rest, d2)
	if !found || lm == "" || i <= 0 || verp.Domain == "" {
		return smtp.Path{}, smtp.Path{}, false
	}
	mail.Domain, rcpt.Domain = verp.Domain, rest[i+len(d2):]
	if !isDomain(rcpt.Domain) {
		return smtp.Path{}, smtp.Path{}, false
	}
	mailLocal, ok1 := smtp.QuoteLocal(lm)
	rcptLocal, ok2 := smtp.QuoteLocal(rest[:i])
	if !ok1 || !ok2 || !fits(mailLocal, mail.Domain) || !fits(rcptLocal, rcpt.Domain) {
		return smtp.Path{}, smtp.Path{}, false
	}
	mail.Local, rcpt.Local = mailLocal, rcptLocal
	return mail, rcpt, true
}

// isDomain reports a domain name, one in UTF-8 as well, or an address literal.
func isDomain(s string) bool {
	ascii := strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf && !unicode.IsControl(r) && r != utf8.RuneError {
			return 'x'
		}
		return r
	}, s)
	return smtp.CheckHelo(ascii) == nil
}

func TestSender(t *testing.T) {
	long := strings.Repeat("x", 239)
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
		{"local part of 65 octets", "lm@mail", long[:55] + "@rcpt.r", "+", "=", "lm+" + long[:55] + "=rcpt.r@mail"},
		{"long local part, path of 256 octets", "lm@mail", long[:238] + "@rcpt.rr", "+", "=", "lm+" + long[:238] + "=rcpt.rr@mail"},
		{"long local part, path of 257 octets", "lm@mail", long[:239] + "@rcpt.rr", "+", "=", ""},
		{"long local part with quotes, path of 256 octets", "lm@mail", `"` + long[:236] + ` "@rcpt.r`, "+", "=", `"lm+` + long[:236] + ` =rcpt.r"@mail`},
		{"long local part with quotes, path of 257 octets", "lm@mail", `"` + long[:237] + ` "@rcpt.r`, "+", "=", ""},
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
			got, ok := (&Config{Delimiter1: tt.d1, Delimiter2: tt.d2}).Sender(path(t, tt.mail), path(t, tt.rcpt))
			if ok != (tt.want != "") || ok && got.Addr() != tt.want {
				t.Errorf("got %q, %v, want %q", got.Addr(), ok, tt.want)
			}
			if _, err := smtp.ParseMailbox(got.Addr(), smtp.ASCII); ok && err != nil && err != smtp.ErrNonASCII {
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
			mail, rcpt, ok := parse(path(t, tt.verp), tt.d1, tt.d2)
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
		sender, ok := (&Config{Delimiter1: d1, Delimiter2: d2}).Sender(mail, rcpt)
		if !ok {
			return
		}
		if mail.IsNull() || sender.Domain != dm || len(sender.String()) > pathMax {
			t.Fatalf("%q and %q gave %q", mail, rcpt, sender)
		}
		if strings.ContainsFunc(sender.Local, func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.ValidString(sender.Local) {
			t.Fatalf("bad character in %q", sender)
		}
		if isASCII(sender.Local) {
			if _, err := smtp.ParseMailbox(sender.Local+"@x", smtp.ASCII); err != nil {
				t.Fatalf("%q is no local part: %v", sender.Local, err)
			}
		}
		d1, d2 = cmp.Or(d1, Delimiter1), cmp.Or(d2, Delimiter2)
		m, r := smtp.UnquoteLocal(lm), smtp.UnquoteLocal(lr)
		switch {
		case strings.Index(m+d1+r, d1) != len(m), strings.LastIndex(r+d2+dr, d2) != len(r), m == "", r == "":
			return // ambiguous
		case strings.Index(m+d1+r+d2+dr, d1) != len(m), !isDomain(dr):
			return
		}
		wantM, ok1 := smtp.QuoteLocal(m)
		wantR, ok2 := smtp.QuoteLocal(r)
		if !ok1 || !ok2 || !fits(wantM, dm) || !fits(wantR, dr) {
			return
		}
		gotMail, gotRcpt, ok := parse(sender, d1, d2)
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

// TestApplies: a bounce keeps its null sender, whatever is configured.
func TestApplies(t *testing.T) {
	sender := smtp.Path{Local: "list", Domain: "example.org"}
	for _, tt := range []struct {
		when         string
		mail         smtp.Path
		asked, wants bool
	}{
		{"", sender, false, false},
		{"", sender, true, true},
		{WhenAlways, sender, false, true},
		{WhenNever, sender, true, false},
		{WhenAlways, smtp.Path{}, true, false},
	} {
		if got := (&Config{When: tt.when}).Applies(tt.mail, tt.asked); got != tt.wants {
			t.Errorf("when %q, sender %v, asked %v: %v", tt.when, tt.mail, tt.asked, got)
		}
	}
}
