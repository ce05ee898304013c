package smtp

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode"
)

func TestCutReversePath(t *testing.T) {
	long64, long65, long900 := strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("a", 900)
	label63 := strings.Repeat("d", 63)
	tests := []struct {
		in, addr, rest string
		err            error
	}{
		{"<>", "", "", nil},
		{"<> SIZE=1", "", " SIZE=1", nil},
		{"<a@b>", "a@b", "", nil},
		{"<A.B+c@Example.ORG> X", "A.B+c@Example.ORG", " X", nil},
		{"<!#$%&'*+-/=?^_`{|}~@x-y.z>", "!#$%&'*+-/=?^_`{|}~@x-y.z", "", nil},
		{`<"a b\"@>"@c.d>`, `"a b\"@>"@c.d`, "", nil},
		{`<""@c>`, `""@c`, "", nil},
		{"<u@[192.0.2.1]>", "u@[192.0.2.1]", "", nil},
		{"<u@[IPv6:2001:db8::1]>", "u@[IPv6:2001:db8::1]", "", nil},
		{"<@a.b,@[192.0.2.1]:u@c>", "u@c", "", nil},
		{"<" + long64 + "@d>", long64 + "@d", "", nil},
		{"<" + long65 + "@d>", long65 + "@d", "", nil},
		{"<" + long900 + "@d> SIZE=1", long900 + "@d", " SIZE=1", nil},
		{`<"` + long900 + `"@d>`, `"` + long900 + `"@d`, "", nil},
		{"<@" + strings.Repeat("abcdefg.", 20) + "x:" + long64 + "@" + strings.Repeat("abcdefg.", 10) + "x>", long64 + "@" + strings.Repeat("abcdefg.", 10) + "x", "", nil},
		{"<u@" + label63 + ".x>", "u@" + label63 + ".x", "", nil},
		{"", "", "", errNoBracket},
		{"a@b", "", "", errNoBracket},
		{" <a@b>", "", "", errNoBracket},
		{"<a@b", "", "", errNoEnd},
		{"<a@b SIZE=1", "", "", errNoEnd},
		{"<a@b >", "", "", errDomainChar},
		{"<root@web_server.x>", "", "", errDomainChar},
		{"<root@_web.x>", "", "", errDomainChar},
		{"<root@web,x>", "", "", errDomainChar},
		{"<a@b@>", "", "", errTwoAts},
		{"<a@@b>", "", "", errNoDomain},
		{"<a@[192.0.2.1]x>", "", "", errDomainChar},
		{"<a b@c>", "", "", errLocalSyntax},
		{"<a>", "", "", errNoDomain},
		{"<a@>", "", "", errNoDomain},
		{"<@b>", "", "", errLocalEmpty},
		{"<@a,b:u@c>", "", "", errRoute},
		{"<@a:>", "", "", errLocalEmpty},
		{"<.a@b>", "", "", errLocalDot},
		{"<a.@b>", "", "", errLocalDot},
		{"<a..b@c>", "", "", errLocalDot},
		{"<(a)@b>", "", "", errLocalSyntax},
		{"<a@b@c>", "", "", errTwoAts},
		{`<"a@b>`, "", "", errLocalQuote},
		{`<"a\`, "", "", errLocalQuote},
		{"<\"a\tb\"@c>", "", "", errLocalQuote},
		{`<"a"b@c>`, "", "", errLocalSyntax},
		{"<a@-b>", "", "", errDomainSyntax},
		{"<a@b->", "", "", errDomainSyntax},
		{"<a@b..c>", "", "", errDomainSyntax},
		{"<a@b.>", "", "", errDomainSyntax},
		{"<a@b_c>", "", "", errDomainChar},
		{"<a@[1.2.3]>", "", "", errLiteral},
		{"<a@[192.0.2.1>", "", "", errLiteral},
		{"<a@[2001:db8::1]>", "", "", errLiteral},
		{"<a@[IPv6:192.0.2.1]>", "", "", errLiteral},
		{"<a@[IPv6:fe80::1%eth0]>", "", "", errLiteral},
		{"<a@[x-tag:y]>", "", "", errLiteral},
		{"<u@d" + label63 + ".x>", "", "", errDomainSyntax},
		{"<u@" + strings.Repeat("abcdefg.", 32) + "x>", "", "", errDomainLong},
		{"<\xc3\xa4@b>", "", "", ErrNonASCII},
		{"<a\xc3\xa4@b>", "", "", ErrNonASCII},
		{"<\"\xc3\xa4\"@b>", "", "", ErrNonASCII},
		{"<a@b\xc3\xa4>", "", "", ErrNonASCII},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			p, rest, err := CutReversePath(tt.in, ASCII)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && (p.Addr() != tt.addr || rest != tt.rest) {
				t.Errorf("got %q and rest %q", p.Addr(), rest)
			}
		})
	}
}

func TestCutForwardPath(t *testing.T) {
	tests := []struct {
		in, addr, rest string
		err            error
	}{
		{"<>", "", "", errNullForward},
		{"<postmaster>", "postmaster", "", nil},
		{"<PostMaster> NOTIFY=NEVER", "PostMaster", " NOTIFY=NEVER", nil},
		{"<postmaster@x>", "postmaster@x", "", nil},
		{"<root>", "", "", errNoDomain},
		{"<@r:u@d>", "u@d", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			p, rest, err := CutForwardPath(tt.in, ASCII)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && (p.Addr() != tt.addr || rest != tt.rest) {
				t.Errorf("got %q and rest %q", p.Addr(), rest)
			}
		})
	}
}

func TestParseMailbox(t *testing.T) {
	for _, s := range []string{"a@b", `"x y"@[192.0.2.1]`} {
		if p, err := ParseMailbox(s, ASCII); err != nil || p.Addr() != s {
			t.Errorf("%q: %v %v", s, p, err)
		}
	}
	for s, want := range map[string]error{
		"": errLocalEmpty, "a": errNoDomain, "<a@b>": errLocalSyntax, "a@b ": errTrailing, "a@b,c@d": errTrailing,
		"@b": errLocalEmpty, "postmaster": errNoDomain, "a@b@c": errTwoAts, "root@web_server.x": errDomainChar, "a@b>": errTrailing,
	} {
		if p, err := ParseMailbox(s, ASCII); err != want || p != (Path{}) {
			t.Errorf("%q gave %v, %v, want %v", s, p, err, want)
		}
	}
}

func TestCheckHelo(t *testing.T) {
	for _, s := range []string{"localhost", "mx.example.org", "[192.0.2.1]", "[IPv6:::1]", "1.2.3.4"} {
		if err := CheckHelo(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "a b", "mx_1", "[192.0.2.1", "-", "a.", "b\xff"} {
		if CheckHelo(s) == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestAppendAddressLiteral(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "[192.0.2.1]", "::ffff:192.0.2.1": "[192.0.2.1]",
		"2001:db8::1": "[IPv6:2001:db8::1]", "fe80::1%eth0": "[IPv6:fe80::1]",
	} {
		got := string(AppendAddressLiteral(nil, netip.MustParseAddr(in)))
		if got != want {
			t.Errorf("%s gave %s", in, got)
		}
		if _, err := ParseAddressLiteral(got); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}

// FuzzPath checks that a path that was accepted is printable, within its limits,
// and read again as the same.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"<>", "<a@b>", `<"a\" b"@[192.0.2.1]>`, "<@a,@b:c@d> X", "<postmaster>", "<a@[IPv6:::1]>",
		"<\xc3\xa4@b>", "<a@\xc3\xa4.b>", "<a..b@c>", "<@", "<\"", "<a@[",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, cs := range []Charset{ASCII, UTF8} {
			checkPath(t, s, cs, CutReversePath)
			checkPath(t, s, cs, CutForwardPath)
		}
	})
}

func checkPath(t *testing.T, s string, cs Charset, cut func(string, Charset) (Path, string, error)) {
	p, rest, err := cut(s, cs)
	if err != nil {
		if p != (Path{}) {
			t.Fatalf("%q: path %v with error %v", s, p, err)
		}
		return
	}
	if !strings.HasSuffix(s, ">"+rest) || len(p.LowerDomain()) > DomainMax || !IsASCII(p.LowerDomain()) {
		t.Fatalf("%q gave %v and rest %q", s, p, rest)
	}
	for _, c := range p.Addr() {
		if unicode.IsControl(c) || c > '~' && cs == ASCII {
			t.Fatalf("%q gave character %#x", s, c)
		}
	}
	if again, rest, err := cut(p.String(), cs); again != p || rest != "" || err != nil {
		t.Fatalf("%v was read again as %v, rest %q, %v", p, again, rest, err)
	}
}
