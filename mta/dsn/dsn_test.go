package dsn

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/mta/smtp"
)

var update = flag.Bool("update", false, "rewrite the expected output")

// at is a time of the tests, some minutes after noon.
func at(minutes int) time.Time {
	return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC).Add(time.Duration(minutes) * time.Minute)
}

// sample is a notification of two failures, one of them hostile.
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

// full is sample with all that can be known.
func full(format Format, kind Kind) Notification {
	n := sample()
	n.Format = format
	n.EnvID, n.Arrival = "QQ+2B314159", at(0)
	n.ReceivedFrom, n.ReceivedIP = "client.test", netip.MustParseAddr("192.0.2.1")
	for i := range n.Failures {
		f := &n.Failures[i]
		f.Kind, f.LastAttempt, f.Remote = kind, at(5+i), "mx.b.test"
		switch kind {
		case Delayed:
			f.Reply.Code, f.RetryUntil = 450, at(5*24*60)
			f.Reply.Enhanced = smtp.EnhancedCode{4, 2, 2}
		case Delivered, Relayed:
			f.Reply, f.During = smtp.NewReply(250, "2.1.5", "ok"), ""
		case Expanded:
			f.Reply, f.During, f.Remote, f.LastAttempt = smtp.Reply{}, "", "", time.Time{}
		}
	}
	n.Failures[0].ORcpt = "rfc822;first+2Btry@b.test"
	n.Failures[1].Remote = ""
	return n
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	file = "testdata/" + file + ".eml"
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
}

func TestText(t *testing.T) {
	check(t, "text", sample())
}

// TestBuild compares each format and kind with a file, and parses it.
func TestBuild(t *testing.T) {
	formats := map[Format]string{Plain: "plain", MIME: "mime", RFC: "rfc"}
	for format, name := range formats {
		for kind := Failed; kind <= Expanded; kind++ {
			check(t, name+"-"+kind.String(), full(format, kind))
		}
	}
}

func check(t *testing.T, name string, n Notification) Message {
	t.Helper()
	var m Message
	t.Run(name, func(t *testing.T) {
		var err error
		if m, err = Build(n); err != nil {
			t.Fatal(err)
		}
		golden(t, name, m.Content)
		checkMessage(t, n, m)
	})
	return m
}

// TestOriginals: what is returned of the message, and how it is encoded.
func TestOriginals(t *testing.T) {
	const latin = "Subject: caf\xe9\r\n\r\n\xe9\r\n"
	const greek = "Subject: \u03b1\u03b2\r\n\r\n\u03b3\r\n"
	long := "Subject: hi\r\n\r\n" + strings.Repeat("x", 999) + "\r\n"
	tests := []struct {
		name           string
		original       string
		change         func(*Notification)
		kind, encoding string // of the part; "": none
		eightBit, utf8 bool   // of the message
	}{
		{"plain", "A: b\r\n\r\nc\r\n", nil, "message/rfc822", "7bit", false, false},
		{"no line end", "A: b\r\n\r\nc", nil, "message/rfc822", "7bit", false, false},
		{"8 bit", "Subject: cafe\r\n\r\n\xe9\r\n", nil, "message/rfc822", "7bit", false, false},
		{"8 bit, SMTPUTF8 sender", "Subject: cafe\r\n\r\n\xe9\r\n", func(n *Notification) { n.To = utf8Sender }, "message/rfc822", "8bit", true, true},
		{"8-bit header", latin, nil, "text/rfc822-headers", "quoted-printable", false, false},
		{"header only", "A: b\r\n\r\nc\r\n", func(n *Notification) { n.HeaderOnly = true }, "text/rfc822-headers", "7bit", false, false},
		{"8-bit header only", latin, func(n *Notification) { n.HeaderOnly = true }, "text/rfc822-headers", "quoted-printable", false, false},
		{"UTF-8 header only", greek, func(n *Notification) { n.HeaderOnly = true }, "text/rfc822-headers", "quoted-printable", false, false},
		{"success", "A: b\r\n\r\nc\r\n", func(n *Notification) { n.Failures[0].Kind, n.Failures[1].Kind = Delivered, Relayed }, "text/rfc822-headers", "7bit", false, false},
		{"delay and failure", "A: b\r\n\r\nc\r\n", func(n *Notification) { n.Failures[0].Kind = Delayed }, "message/rfc822", "7bit", false, false},
		{"long line", long, nil, "text/rfc822-headers", "7bit", false, false},
		{"long header line", "A: " + strings.Repeat("x", 999) + "\r\n\r\n", nil, "text/rfc822-headers", "quoted-printable", false, false},
		{"NUL", "A: b\r\n\r\n\x00", nil, "text/rfc822-headers", "7bit", false, false},
		{"CR alone", "A: b\rc\r\n\r\n", nil, "text/rfc822-headers", "quoted-printable", false, false},
		{"LF at the end", "A: b\n", nil, "text/rfc822-headers", "quoted-printable", false, false},
		{"too large", "A: b\r\n\r\n" + strings.Repeat("x\r\n", ReturnMax/3), nil, "text/rfc822-headers", "7bit", false, false},
		{"SMTPUTF8, all ASCII", "A: b\r\n\r\nc\r\n", func(n *Notification) { n.UTF8 = true }, "message/rfc822", "7bit", false, false},
		{"SMTPUTF8", greek, func(n *Notification) { n.UTF8 = true }, "message/global", "base64", false, false},
		{"SMTPUTF8, header", greek, func(n *Notification) { n.UTF8, n.HeaderOnly = true, true }, "message/global-headers", "quoted-printable", false, false},
		{"SMTPUTF8 sender", greek, func(n *Notification) { n.UTF8, n.To = true, utf8Sender }, "message/global", "8bit", true, true},
		{"SMTPUTF8 sender, header", greek, func(n *Notification) { n.UTF8, n.HeaderOnly, n.To = true, true, utf8Sender }, "message/global-headers", "8bit", true, true},
		{"SMTPUTF8 sender, long line", greek + long, func(n *Notification) { n.UTF8, n.To = true, utf8Sender }, "message/global", "base64", true, true},
		{"nothing", "", nil, "", "", false, false},
		{"no header", "\r\nbody", func(n *Notification) { n.HeaderOnly = true }, "", "", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := full(RFC, Failed)
			n.Original = []byte(tt.original)
			if tt.change != nil {
				tt.change(&n)
			}
			m, err := Build(n)
			if err != nil || m.EightBit != tt.eightBit || m.UTF8 != tt.utf8 {
				t.Errorf("8 bit %v, UTF-8 %v, %v", m.EightBit, m.UTF8, err)
			}
			got := checkMessage(t, n, m)
			if got.returnedKind != tt.kind || got.returnedEncoding != tt.encoding {
				t.Errorf("got %q as %q, want %q as %q", got.returnedKind, got.returnedEncoding, tt.kind, tt.encoding)
			}
		})
	}
}

// utf8Sender is a sender to whom only SMTPUTF8 leads.
var utf8Sender = smtp.Path{Local: "é", Domain: "here.test"}

// TestUTF8 compares the forms of RFC 6533 with files.
func TestUTF8(t *testing.T) {
	n := full(RFC, Failed)
	n.UTF8 = true
	n.Failures[0].Rcpt = smtp.Path{Local: "jörg+x", Domain: "bücher.test"}
	n.Failures[0].ORcpt = `utf-8;j\x{F6}rg\x{2B}x@b\x{FC}cher.test`
	n.Failures[0].Reply.Lines[0] = "Zugriff verweigert für jörg"
	n.Original = []byte("Subject: Grüße\r\n\r\nhallo\r\n")
	if m := check(t, "rfc-utf8-ascii-sender", n); m.UTF8 || m.EightBit {
		t.Error("cannot be sent without SMTPUTF8 or 8BITMIME")
	}
	n.To = utf8Sender
	if m := check(t, "rfc-utf8-sender", n); !m.UTF8 || !m.EightBit {
		t.Error("a sender in UTF-8 was downgraded")
	}
	n.Format = Plain
	if m := check(t, "plain-utf8", n); !m.UTF8 || !m.EightBit {
		t.Error("can be sent without SMTPUTF8")
	}
}

// TestExpired: who is given up because of the time is told the last reply, with its
// code.
func TestExpired(t *testing.T) {
	n := full(RFC, Failed)
	f := &n.Failures[0]
	f.Expired, f.Reply = true, smtp.Reply{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 0}, Lines: []string{"not now", "nor later"}}
	m := check(t, "rfc-expired", n)
	for _, want := range []string{
		"Action: failed\r\nStatus: 4.3.0\r\n", "Diagnostic-Code: smtp; 451-4.3.0 not now\r\n 451 4.3.0 nor later\r\n",
		"given up: maximum time in queue exceeded\r\n",
	} {
		if !bytes.Contains(m.Content, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	for format := Plain; format <= RFC; format++ {
		n := full(format, Failed)
		n.To = smtp.Path{}
		if _, err := Build(n); !errors.Is(err, ErrNullSender) {
			t.Errorf("null sender: %v", err)
		}
		n = full(format, Failed)
		n.Failures = nil
		if _, err := Build(n); !errors.Is(err, ErrNoRecipient) {
			t.Errorf("no recipient: %v", err)
		}
	}
}

// TestManyRecipients: a DSN for all recipients of a large list, each with a reply of
// several long lines.
func TestManyRecipients(t *testing.T) {
	for format := Plain; format <= RFC; format++ {
		n := full(format, Failed)
		f := n.Failures[0]
		n.Failures = nil
		for i := range 300 {
			f.Rcpt = smtp.Path{Local: fmt.Sprintf("u%d", i), Domain: strings.Repeat("long.", 20) + "test"}
			f.Reply.Lines = []string{strings.Repeat("word ", 90), strings.Repeat("x", 400), fmt.Sprint("last of ", i)}
			n.Failures = append(n.Failures, f)
		}
		m, err := Build(n)
		if err != nil {
			t.Fatal(err)
		}
		checkMessage(t, n, m)
		for i := range n.Failures {
			if want := fmt.Sprint("last of ", i, "\r\n"); !bytes.Contains(m.Content, []byte(want)) {
				t.Errorf("%q is missing", want)
			}
		}
	}
}

// TestBoundary puts the boundary of a message into it, so that it must change.
func TestBoundary(t *testing.T) {
	p := []part{{body: []byte("a")}}
	b := boundary(p)
	if got := boundary(p); got != b {
		t.Errorf("not the same twice: %q, %q", b, got)
	}
	n := full(RFC, Failed)
	m, _ := Build(n)
	for range 3 {
		old := checkMessage(t, n, m).boundary
		n.Original = append(n.Original, "\r\n--"+old+"--\r\n\r\n--"+old+"\r\nX-Forged: yes\r\n\r\n"...)
		m, _ = Build(n)
		if got := checkMessage(t, n, m).boundary; got == old {
			t.Error("the boundary is in the message")
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
		{"\r\nbody\r\n\r\nmore", 100, ""},
		{"", 100, ""},
	} {
		if got := Header([]byte(c.content), c.limit); string(got) != c.want {
			t.Errorf("Header(%q, %d) = %q, want %q", c.content, c.limit, got, c.want)
		}
	}
}
