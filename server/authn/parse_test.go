package authn

import (
	"reflect"
	"strings"
	"testing"
)

// TestParse reads the examples of RFC 8601 appendix B, and what others write.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        Field
		wrong       bool
	}{
		{"B.2", " example.org 1; none", Field{ID: "example.org", Version: 1}, false},
		{"B.3", " example.com;\r\n spf=pass smtp.mailfrom=example.net", Field{ID: "example.com", Results: []Result{
			{Method: SPF, Value: Pass, Props: []Prop{{"smtp", "mailfrom", "example.net"}}},
		}}, false},
		{"B.4", " example.com;\r\n auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n spf=pass smtp.mailfrom=example.net", Field{ID: "example.com", Results: []Result{
			{Method: Auth, Value: Pass, Props: []Prop{{"smtp", "auth", "sender@example.net"}}},
			{Method: SPF, Value: Pass, Props: []Prop{{"smtp", "mailfrom", "example.net"}}},
		}}, false},
		{"B.6", " example.com;\r\n dkim=pass reason=\"good signature\"\r\n   header.i=@mail-router.example.net;\r\n dkim=fail reason=\"bad signature\"\r\n   header.i=@newyork.example.com", Field{ID: "example.com", Results: []Result{
			{Method: DKIM, Value: Pass, Reason: "good signature", Props: []Prop{{"header", "i", "@mail-router.example.net"}}},
			{Method: DKIM, Value: Fail, Reason: "bad signature", Props: []Prop{{"header", "i", "@newyork.example.com"}}},
		}}, false},
		{"B.7", "foo.example.net (foobar) 1 (baz);\r\n dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n   policy (A dot can go here) . (like that) expired\r\n   (this surprised me) = (as I wasn't expecting it) 1362471462", Field{ID: "foo.example.net", Version: 1, Results: []Result{
			{Method: DKIM, Version: 1, Value: Fail, Props: []Prop{{"policy", "expired", "1362471462"}}},
		}}, false},
		{"Gmail", " mx.google.com;\r\n       dkim=pass header.i=@example.com header.s=20230601 header.b=\"ab/c+d==\";\r\n       arc=none;\r\n spf=pass (google.com: domain of a@b.c designates 2001:db8::1 as permitted sender) smtp.mailfrom=\"a b\"@example.com; dmarc=pass (p=NONE sp=REJECT) header.from=example.com;", Field{ID: "mx.google.com", Results: []Result{
			{Method: DKIM, Value: Pass, Props: []Prop{{"header", "i", "@example.com"}, {"header", "s", "20230601"}, {"header", "b", "ab/c+d=="}}},
			{Method: ARC, Value: None},
			{Method: SPF, Value: Pass, Props: []Prop{{"smtp", "mailfrom", "a b@example.com"}}},
			{Method: DMARC, Value: Pass, Props: []Prop{{"header", "from", "example.com"}}},
		}}, false},
		{"not quoted", "x; iprev=pass policy.iprev=2001:db8::1 smtp.remote-ip=192.0.2.1", Field{ID: "x", Results: []Result{
			{Method: IPRev, Value: Pass, Props: []Prop{{"policy", "iprev", "2001:db8::1"}, {"smtp", "remote-ip", "192.0.2.1"}}},
		}}, false},
		{"quoted id", ` "a \"b;" ; none`, Field{ID: `a "b;`}, false},
		{"only an id", " example.org", Field{ID: "example.org"}, false},

		{"empty", " ", Field{}, true},
		{"no method", "x; =pass", Field{ID: "x"}, true},
		{"open comment", "x (y; none", Field{ID: "x"}, true},
		{"open quote", `x; spf=pass reason="y`, Field{ID: "x"}, true},
		{"version 2", "x 2; none", Field{ID: "x", Version: 2}, true},
		{"two ids", "x y; none", Field{ID: "x"}, true},
		{"NUL", "x; spf=pass\x00", Field{ID: "x"}, true},
		{"long", strings.Repeat("x", fieldMax+1), Field{}, true},
		{"many", "x" + strings.Repeat("; spf=pass", resultsMax+1), Field{ID: "x"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(c.value)
			if c.wrong {
				got.Results, c.want.Results = nil, nil
			}
			if !reflect.DeepEqual(got, c.want) || (err != nil) != c.wrong {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestRemoveFields(t *testing.T) {
	const header = "Subject: a\r\nAuthentication-Results: ours;\r\n spf=pass\r\nX: y\r\nauthentication-results \t:\r\n ours; none\r\n" +
		"Authentication-Results: theirs; none\r\nX-Authentication-Results: ours; none\r\n\r\n"
	got := RemoveFields([]byte(header), func(value string) bool {
		id, err := ServID(value)
		return err == nil && id == "ours"
	})
	const want = "Subject: a\r\nX: y\r\nAuthentication-Results: theirs; none\r\nX-Authentication-Results: ours; none\r\n\r\n"
	if string(got.Header) != want || got.Fields != 2 {
		t.Errorf("%d removed, left %q", got.Fields, got.Header)
	}
}

func TestWord(t *testing.T) {
	results := []Result{{Method: DKIM, Value: Fail}, {Method: SPF, Value: SoftFail}, {Method: DKIM, Value: Pass}}
	if got := Summary(results); got != "dkim=pass spf=softfail" || Word(results, DMARC) != "" || len(Of(results, DKIM)) != 2 {
		t.Error(got)
	}
}

// FuzzParse: what was read is written so that it is read as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{" example.org 1; none", "x; dkim (a) / 1 = fail policy . b = \"c\\\"\"@d reason=e", "\"a;\"; spf=pass smtp.helo=2001:db8::1;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err != nil {
			return
		}
		text := string(Append(nil, got.ID, got.Results))
		for i, line := range strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n") {
			if strings.ContainsAny(line, "\r\n\x00") || (i > 0) != strings.HasPrefix(line, "\t") {
				t.Fatalf("%q", text)
			}
		}
		again, err := Parse(text[len(FieldName)+1:])
		if err != nil || len(again.Results) != len(got.Results) {
			t.Fatalf("%q is written as %q: %v", s, text, err)
		}
		for i := range got.Results {
			if a, b := &got.Results[i], &again.Results[i]; a.Method != b.Method || a.Value != b.Value {
				t.Fatalf("%q is written as %q", s, text)
			}
		}
	})
}
