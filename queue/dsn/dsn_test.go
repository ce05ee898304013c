package dsn

import (
	"bytes"
	"flag"
	"net/mail"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/mta/smtp"
)

var update = flag.Bool("update", false, "rewrite the expected output")

func sample() Notification {
	return Notification{
		Hostname: "mta.test", ID: "S000000000000000200", TA: "S000000000000000100",
		Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		To:  smtp.Path{Local: "sender", Domain: "here.test"},
		Failures: []Failure{
			{Rcpt: smtp.Path{Local: "a", Domain: "b.test"}, During: "RCPT", Reply: smtp.Reply{
				Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Lines: []string{"Access denied", "see our page"},
			}},
			{Rcpt: smtp.Path{Local: "evil", Domain: "c.test"}, Reply: smtp.NewReply(554, "", "a\r\nX-Forged: yes\x00")},
		},
		Original: []byte("Subject: hi\r\n\r\nbody\r\n"),
	}
}

func TestText(t *testing.T) {
	got := Text(sample())
	const file = "testdata/text.eml"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	m, err := mail.ReadMessage(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("X-Forged") != "" || strings.Contains(string(got), "\nX-Forged") {
		t.Error("a remote reply forged a line")
	}
	for _, l := range bytes.SplitAfter(got, []byte("\n")) {
		if len(l) > 1000 || len(l) > 0 && !bytes.HasSuffix(l, []byte("\r\n")) {
			t.Errorf("bad line %q", l)
		}
	}
}

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		content string
		limit   int
		want    string
	}{
		{"A: b\r\n\r\nbody", 100, "A: b\r\n"},
		{"A: b\r\nC: d\r\n\r\nbody", 10, "A: b\r\n"},
		{"A: b\r\n", 100, "A: b\r\n"},
		{"no line end at all", 5, ""},
	} {
		if got := Header([]byte(c.content), c.limit); string(got) != c.want {
			t.Errorf("Header(%q, %d) = %q, want %q", c.content, c.limit, got, c.want)
		}
	}
}
