package ehlo

import (
	"bytes"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	cases := []struct {
		in   string
		want Extensions
	}{
		{"mx PIPELINING\n", Extensions{}},
		{"mx\nPIPELINING\n8BITMIME\nDSN\nSMTPUTF8\nSIZE 1000\n", Extensions{Pipelining: true, EightBit: true, DSN: true, UTF8: true, Size: true, SizeMax: 1000}},
		{"mx\nCHUNKING\nBINARYMIME\nREQUIRETLS\nPRDR\nSTARTTLS\n", Extensions{Chunking: true, Binary: true, RequireTLS: true, PRDR: true, StartTLS: true}},
		{"mx\nLIMITS MAILMAX=7 RCPTMAX=2\n", Extensions{Limits: Limits{Mails: 7, Rcpts: 2}}},
		{"mx\nsize\nPipelining \n", Extensions{Pipelining: true, Size: true}},
		{"mx\nSIZE 0\n", Extensions{Size: true}},
		{"mx\nSIZE -5\n", Extensions{Size: true}},
		{"mx\nSIZE x\nPIPELININGX\nAUTH PLAIN\n\n", Extensions{Size: true, Auth: "PLAIN"}},
		{"mx\nAUTH plain login\nAUTH=LOGIN PLAIN\n", Extensions{Auth: "PLAIN LOGIN LOGIN PLAIN"}},
		{"", Extensions{}},
	}
	for _, c := range cases {
		if got := Parse([]byte(c.in)); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestParseLimits(t *testing.T) {
	for in, want := range map[string]Limits{
		"":                                   {},
		"MAILMAX=1 RCPTMAX=2":                {Mails: 1, Rcpts: 2},
		"rcptdomainmax=3 X Y= =4 MAILMAX":    {Domains: 3},
		"MAILMAX=-1 RCPTMAX=99999999999999":  {},
		"MAILMAX=0 RCPTMAX=+5 RCPTMAX=\xff1": {},
	} {
		if got := parseLimits(in); got != want {
			t.Errorf("%q gave %+v", in, got)
		}
	}
}

// FuzzParse: no limit is negative, and what is kept of the text are mechanisms, which are no
// longer than it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "mx", "mx\nSIZE 9\nLIMITS MAILMAX=1 RCPTDOMAINMAX=2\n", "mx\nAUTH=x y\nAUTH\nAUTH=\nAUTH z", "mx\nSIZE 99999999999999999999\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		e := Parse(text)
		if !bytes.Equal(text, before) {
			t.Error("the text was changed")
		}
		if e.SizeMax < 0 || e.Limits.Mails < 0 || e.Limits.Rcpts < 0 || e.Limits.Domains < 0 || e.SizeMax > 0 && !e.Size {
			t.Errorf("%+v", e)
		}
		// A byte that is not UTF-8 takes three when it is put in upper case.
		if len(e.Auth) > 3*len(text) || strings.Contains(e.Auth, "\n") || strings.TrimSpace(e.Auth) != e.Auth {
			t.Errorf("mechanisms %q", e.Auth)
		}
	})
}
