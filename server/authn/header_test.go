package authn

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// fields are values as Append writes them.
var fields = []struct {
	name    string
	id      string
	results []Result
	want    string
}{
	{"none", "mx.example.org", nil, "Authentication-Results: mx.example.org; none\r\n"},
	{"several", "mx.example.org", []Result{
		{Method: Auth, Value: Pass, Props: []Prop{{"smtp", "auth", "joe"}}},
		{Method: SPF, Value: Pass, Props: []Prop{{"smtp", "mailfrom", "example.net"}}},
		{Method: DKIM, Value: Fail, Reason: `the "body" was changed`, Props: []Prop{{"header", "d", "example.net"}, {"header", "i", "joe@example.net"}, {"header", "b", "dHJ1ZQ=="}}},
	}, "Authentication-Results: mx.example.org;\r\n\tauth=pass smtp.auth=joe;\r\n\tspf=pass smtp.mailfrom=example.net;\r\n" +
		"\tdkim=fail reason=\"the \\\"body\\\" was changed\" header.d=example.net\r\n\theader.i=joe@example.net header.b=\"dHJ1ZQ==\"\r\n"},
	{"forged", "mx.example.org", []Result{
		{Method: SPF, Value: Fail, Comment: "a) dkim=pass (", Reason: "x\r\nFrom: y", Props: []Prop{{"smtp", "helo", "a;b\r\nc\x00\xff"}}},
	}, "Authentication-Results: mx.example.org;\r\n\tspf=fail (a] dkim=pass [) reason=\"x??From: y\" smtp.helo=\"a;b??c??\"\r\n"},
}

func TestAppend(t *testing.T) {
	for _, c := range fields {
		t.Run(c.name, func(t *testing.T) {
			if got := string(Append(nil, c.id, c.results)); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestAppendThenParse(t *testing.T) {
	for _, c := range fields[:2] {
		f, err := Parse(string(Append(nil, c.id, c.results)[len(FieldName)+1:]))
		if err != nil || f.ID != c.id || !reflect.DeepEqual(f.Results, c.results) {
			t.Errorf("%s: %+v, %v", c.name, f, err)
		}
	}
}

// TestLongValues: a value is cut between characters, and is never empty for that.
func TestLongValues(t *testing.T) {
	for _, s := range []string{strings.Repeat("é", 1000), "x" + strings.Repeat("é", 1000), strings.Repeat("\xbf", 1000), strings.Repeat("😀", 1000)} {
		if got := clean(s, valueMax); len(got) > valueMax || len(got) < valueMax-3 || !utf8.ValidString(got) {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
}
