package smtp

import (
	"math"
	"strings"
	"testing"
)

func TestCutKeyword(t *testing.T) {
	tests := []struct {
		arg   string
		space bool
		rest  string
		ok    bool
	}{
		{"FROM:<a@b>", false, "<a@b>", true},
		{"from:<a@b>", false, "<a@b>", true},
		{"FROM: <a@b>", false, " <a@b>", true},
		{"FROM:  <a@b>", true, "<a@b>", true},
		{"FROM <a@b>", true, "", false},
		{"FRO", true, "", false},
		{"", false, "", false},
	}
	for _, tt := range tests {
		rest, ok := CutKeyword(tt.arg, "FROM:", tt.space)
		if ok != tt.ok || ok && rest != tt.rest {
			t.Errorf("%q, %v: %q, %v", tt.arg, tt.space, rest, ok)
		}
	}
}

func TestNextParam(t *testing.T) {
	tests := []struct {
		in   string
		want Param
		rest string
		err  error
	}{
		{" SIZE=5", Param{"SIZE", "5"}, "", nil},
		{" size=5 Body=8BITMIME", Param{"SIZE", "5"}, " Body=8BITMIME", nil},
		{" XVERP", Param{"XVERP", ""}, "", nil},
		{" 8-X", Param{"8-X", ""}, "", nil},
		{"SIZE=5", Param{}, "", errParamSpace},
		{" ", Param{}, "", errParamSpace},
		{"  A", Param{}, "", errParamSpace},
		{" =5", Param{}, "", errParamName},
		{" -A=5", Param{}, "", errParamName},
		{" A_B=5", Param{}, "", errParamName},
		{" A=", Param{}, "", errParamValue},
		{" A=b=c", Param{}, "", errParamValue},
		{" A=\x7f", Param{}, "", errParamValue},
		{" A=\xc3", Param{}, "", errParamValue},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			p, rest, err := NextParam(tt.in, ASCII)
			if err != tt.err || p != tt.want || err == nil && rest != tt.rest {
				t.Errorf("got %v, rest %q, %v", p, rest, err)
			}
		})
	}
}

func TestParseValues(t *testing.T) {
	text := func(f func(string) (string, error)) func(string) (any, error) {
		return func(v string) (any, error) { return f(v) }
	}
	size := func(v string) (any, error) { return ParseSize(v) }
	tests := []struct {
		name  string
		parse func(string) (any, error)
		in    string
		want  any // nil: an error
	}{
		{"size", size, "0", int64(0)},
		{"size", size, "1024", int64(1024)},
		{"size", size, "99999999999999999999", int64(math.MaxInt64)},
		{"size", size, "999999999999999999999", nil},
		{"size", size, "", nil},
		{"size", size, "-1", nil},
		{"size", size, "1k", nil},
		{"body", text(ParseBody), "8bitmime", "8BITMIME"},
		{"body", text(ParseBody), "7BIT", "7BIT"},
		{"body", text(ParseBody), "BINARYMIME", nil},
		{"ret", text(ParseRet), "full", "FULL"},
		{"ret", text(ParseRet), "HDRS", "HDRS"},
		{"ret", text(ParseRet), "", nil},
		{"envid", text(ParseEnvID), "QQ314159", "QQ314159"},
		{"envid", text(ParseEnvID), "a+20b", "a+20b"},
		{"envid", text(ParseEnvID), "a+0D+0Ab", nil},
		{"envid", text(ParseEnvID), "a+2", nil},
		{"envid", text(ParseEnvID), "a+2b", nil},
		{"envid", text(ParseEnvID), "", nil},
		{"envid", text(ParseEnvID), strings.Repeat("x", 101), nil},
		{"notify", text(ParseNotify), "never", "NEVER"},
		{"notify", text(ParseNotify), "delay,Success", "SUCCESS,DELAY"},
		{"notify", text(ParseNotify), "SUCCESS,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"},
		{"notify", text(ParseNotify), "NEVER,DELAY", nil},
		{"notify", text(ParseNotify), "DELAY,DELAY", nil},
		{"notify", text(ParseNotify), "DELAY,", nil},
		{"notify", text(ParseNotify), "", nil},
		{"orcpt", text(func(v string) (string, error) { return ParseORcpt(v, ASCII) }), "rfc822;a+2Bb@c", "rfc822;a+2Bb@c"},
		{"orcpt", text(func(v string) (string, error) { return ParseORcpt(v, ASCII) }), "rfc822;", nil},
		{"orcpt", text(func(v string) (string, error) { return ParseORcpt(v, ASCII) }), "a@b", nil},
		{"orcpt", text(func(v string) (string, error) { return ParseORcpt(v, ASCII) }), ";a@b", nil},
		{"orcpt", text(func(v string) (string, error) { return ParseORcpt(v, ASCII) }), "rfc822;a+00b", nil},
		{"orcpt", text(func(v string) (string, error) { return ParseORcpt(v, ASCII) }), "rfc822;" + strings.Repeat("x", 500), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name+"="+tt.in, func(t *testing.T) {
			got, err := tt.parse(tt.in)
			if (err != nil) != (tt.want == nil) || err == nil && got != tt.want {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestXtext(t *testing.T) {
	for in, want := range map[string]string{"": "", "ab": "ab", "a+20+2B+3D": "a +=", "+41+7E": "A~"} {
		if got, err := DecodeXtext(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"+", "+4", "+4g", "+4a", "+0A", "+7F", "+FF", "=", " ", "\xc3"} {
		if got, err := DecodeXtext(in); err == nil {
			t.Errorf("%q gave %q", in, got)
		}
	}
}

func TestEnhancedAppend(t *testing.T) {
	for _, s := range []string{"2.0.0", "5.7.10", "4.123.999"} {
		e, _, ok := ParseEnhancedCode(s)
		if got := string(e.Append(nil)); !ok || got != s || got != e.String() {
			t.Errorf("%s printed as %s", s, got)
		}
	}
}

// appendXtext adds s to b as xtext. Octets that are not printable ASCII are encoded
// as well, although DecodeXtext refuses to give them back.
func appendXtext(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > ' ' && c <= '~' && c != '+' && c != '=' {
			b = append(b, c)
		} else {
			b = append(b, '+', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}

// FuzzXtext checks that what is printable comes back as it was.
func FuzzXtext(f *testing.F) {
	for _, s := range []string{"", "a b", "a+=b", "+41", "\r\n", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		enc := string(appendXtext(nil, s))
		dec, err := DecodeXtext(enc)
		if isPrintable(s) != (err == nil) {
			t.Fatalf("%q as %q: %v", s, enc, err)
		}
		if err == nil && dec != s {
			t.Fatalf("%q came back as %q", s, dec)
		}
		if dec, err := DecodeXtext(s); err == nil && !isPrintable(dec) {
			t.Fatalf("%q was decoded to %q", s, dec)
		}
	})
}

func isPrintable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// FuzzParams checks that each parameter takes at least its space and one
// character, and that nothing unprintable gets through.
func FuzzParams(f *testing.F) {
	for _, s := range []string{" SIZE=1 BODY=8BITMIME", " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c", " ENVID=a+20b RET=HDRS", "  ", " A="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for s != "" {
			p, rest, err := NextParam(s, ASCII)
			if err != nil {
				return
			}
			if len(rest) > len(s)-2 || !isPrintable(p.Name) || !isPrintable(p.Value) {
				t.Fatalf("%q gave %v and %q", s, p, rest)
			}
			checkValue(t, p.Value)
			s = rest
		}
	})
}

func checkValue(t *testing.T, v string) {
	if n, err := ParseSize(v); err == nil && n < 0 {
		t.Fatalf("size %q is %d", v, n)
	}
	if id, err := ParseEnvID(v); err == nil {
		if _, err := DecodeXtext(id); err != nil {
			t.Fatalf("envid %q: %v", v, err)
		}
	}
	if o, err := ParseORcpt(v, ASCII); err == nil {
		_, x, _ := strings.Cut(o, ";")
		if _, err := DecodeXtext(x); err != nil {
			t.Fatalf("orcpt %q: %v", v, err)
		}
	}
	if n, err := ParseNotify(v); err == nil {
		if again, err := ParseNotify(n); again != n || err != nil {
			t.Fatalf("notify %q, then %q, %v", n, again, err)
		}
	}
}
