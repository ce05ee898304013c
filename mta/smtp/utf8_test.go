package smtp

import (
	"errors"
	"strings"
	"testing"
)

func TestUTF8Path(t *testing.T) {
	tests := []struct {
		in, addr, lower string
		err             error
	}{
		{"<jürgen@münchen.example>", "jürgen@münchen.example", "xn--mnchen-3ya.example", nil},
		{"<u@MÜNCHEN.Example>", "u@MÜNCHEN.Example", "xn--mnchen-3ya.example", nil},
		{"<u@mu\u0308nchen.example>", "u@mu\u0308nchen.example", "xn--mnchen-3ya.example", nil},
		{"<u@xn--mnchen-3ya.EXAMPLE>", "u@xn--mnchen-3ya.EXAMPLE", "xn--mnchen-3ya.example", nil},
		{"<用户@例え.テスト>", "用户@例え.テスト", "xn--r8jz45g.xn--zckzah", nil},
		{"<u@a。example>", "u@a。example", "a.example", nil}, // an ideographic full stop separates labels
		{"<\"ü \\\" ö\"@a.example>", "\"ü \\\" ö\"@a.example", "a.example", nil},
		{"<ü.ö@a.example>", "ü.ö@a.example", "a.example", nil},
		{"<@größe.example:u@a.example>", "u@a.example", "a.example", nil},
		{"<ü@[192.0.2.1]>", "ü@[192.0.2.1]", "[192.0.2.1]", nil},
		{"<ü..ö@a>", "", "", errLocalDot},
		{"<ü.@a>", "", "", errLocalDot},
		{"<.ü@a>", "", "", errLocalDot},
		{"<\xc3@a>", "", "", errUTF8},
		{"<a\xff@a>", "", "", errUTF8},
		{"<\xc0\xbc@a>", "", "", errUTF8},              // an overlong "<"
		{"<\xed\xa0\x80@a>", "", "", errUTF8},          // a surrogate
		{"<a\u0085b@a>", "", "", errUTF8},              // NEL, a line end to some
		{"<a\u2028b@a>", "", "", errUTF8},              // LINE SEPARATOR
		{"<\"a\u0085\"@a>", "", "", errUTF8},           // also in quotes
		{"<a@\xc3.example>", "", "", errIDN},           // bad UTF-8
		{"<a@ü-.example>", "", "", errIDN},             // a hyphen at the end
		{"<a@ü..example>", "", "", errDomainSyntax},    // an empty label
		{"<a@☃\u0085.example>", "", "", errIDN},        // a control character
		{"<a@ab\u0661\u05d0.example>", "", "", errIDN}, // RFC 5893's rule of direction
		{"<a@＜.example>", "", "", errIDN},              // would become "<"
		{"<a@" + strings.Repeat("ü", 64) + ".example>", "", "", errDomainSyntax},
		{"<a@" + strings.Repeat("üüüüüüüü.", 100) + "example>", "", "", errDomainLong},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			p, rest, err := CutForwardPath(tt.in, UTF8)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && (p.Addr() != tt.addr || rest != "" || p.LowerDomain() != tt.lower) {
				t.Errorf("got %q, domain %q, rest %q", p.Addr(), p.LowerDomain(), rest)
			}
			if _, _, err := CutForwardPath(tt.in, ASCII); !IsASCII(tt.in) && err == nil {
				t.Error("accepted without SMTPUTF8")
			}
		})
	}
}

func TestToASCII(t *testing.T) {
	for in, want := range map[Path]string{
		{"u", "münchen.example"}: "u@xn--mnchen-3ya.example",
		{"ü", "münchen.example"}: "ü@xn--mnchen-3ya.example",
		{"u", "A.Example"}:       "u@A.Example",
		{}:                       "",
	} {
		if got := in.ToASCII().Addr(); got != want {
			t.Errorf("%v gave %q, want %q", in, got, want)
		}
	}
}

func TestUTF8Param(t *testing.T) {
	p, rest, err := NextParam(" ORCPT=utf-8;jürgen@münchen.example X=1", UTF8)
	if err != nil || p.Value != "utf-8;jürgen@münchen.example" || rest != " X=1" {
		t.Errorf("%v, rest %q, %v", p, rest, err)
	}
	for _, bad := range []string{" ORCPT=utf-8;a\xff", " ORCPT=utf-8;a\u0085", " ORCPT=utf-8;a\u2028"} {
		if p, _, err := NextParam(bad, UTF8); err == nil {
			t.Errorf("%q gave %v", bad, p)
		}
	}
	for in, ok := range map[string]bool{
		`utf-8;j\x{FC}rgen@a`: true, "UTF-8;jürgen@a": true, "utf-8;a\u0085": false, "utf-8;": false, "rfc822;jürgen@a": false,
	} {
		if _, err := ParseORcpt(in, UTF8); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
	// Postfix sends UTF-8 as xtext.
	for in, want := range map[string]string{
		"rfc822;+C3+BC@gr+C3+B6+C3+9Fe.example": "utf-8;ü@größe.example",
		"RFC822;+C3+BC+20+2B@a":                 `utf-8;ü\x{20}\x{2B}@a`,
		"rfc822;a+2Bb@a":                        "rfc822;a+2Bb@a",
		"rfc822;+C3@a":                          "",
		"rfc822;+C3+BC+0D@a":                    "",
		"rfc822;+C3+BC+4@a":                     "",
		"x400;+C3+BC@a":                         "",
	} {
		if got, err := ParseORcpt(in, UTF8); err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q gave %q, %v, want %q", in, got, err, want)
		}
		if _, err := ParseORcpt(in, ASCII); err == nil && want != in {
			t.Errorf("%q was accepted without SMTPUTF8", in)
		}
	}
}
