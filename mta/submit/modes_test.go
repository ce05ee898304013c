package submit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

func TestModes(t *testing.T) {
	for args, want := range map[string]Mode{"-bs": ModeSMTP, "-bv a": ModeVerify, "-bm": ModeSubmit, "-bp": ModeList} {
		if _, mode, err := ParseArgs(strings.Fields(args)); err != nil || mode != want {
			t.Errorf("%s: %s %v", args, mode, err)
		}
	}
	o, _, err := ParseArgs(strings.Fields("-v -XV -Xlog -m -n -hx -Lx -G -U -x -c -e q -opm -om -oem -Am a"))
	if err != nil || !o.VERP || !o.Verbose || len(o.Rcpts) != 1 {
		t.Errorf("%+v %v", o, err)
	}
	if o, _, err := ParseArgs([]string{"-XV+=", "a"}); err != nil || !o.VERP {
		t.Errorf("%+v %v", o, err)
	}
	for _, args := range []string{"-XV+", "-bd", "-bD", "-bt", "-bh", "-b", "-Y", "-k"} {
		if _, _, err := ParseArgs(strings.Fields(args)); ExitCode(err) != ExUsage {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// session speaks with a Session.
func session(t *testing.T, keep func(*Prepared) error, said string) []string {
	t.Helper()
	var out bytes.Buffer
	s := Session{Hostname: "host.example", SizeMax: 100, Keep: keep}
	if err := s.Serve(strings.NewReader(said), &out); err != nil {
		t.Fatal(err)
	}
	var codes []string
	for line := range strings.Lines(out.String()) {
		if !strings.HasSuffix(line, "\r\n") {
			t.Errorf("%q", line)
		}
		if line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	return codes
}

func TestSession(t *testing.T) {
	var got []*Prepared
	keep := func(p *Prepared) error {
		got = append(got, p)
		return nil
	}
	for said, want := range map[string]string{
		"EHLO x\nMAIL FROM:<a@b.c> SIZE=3 BODY=8BITMIME\nRCPT TO:<joe>\r\nDATA\nSubject: x\n\n..x\n.\nQUIT\n": "220 250 250 250 354 250 221",
		"QUIT": "220 221",
		"MAIL FROM:<a@b>\nHELO x\nRCPT TO:<a@b.c>\nDATA\nMAIL FROM:<a@b.c> X=y\nMAIL FROM:a@b.c\nMAIL FROM:<>\nMAIL FROM:<>\nRCPT TO:<>\nRSET\nRCPT TO:<a@b.c>\n": "220 503 250 503 503 501 501 250 503 501 250 503",
		"EHLO x\nMAIL FROM:<>\nRCPT TO:<a@b.c>\nDATA\n" + strings.Repeat("long\n", 40) + ".\nNOOP\n":                                                              "220 250 250 250 354 552 250",
		"EHLO x\nMAIL FROM:<>\nRCPT TO:<a@b.c>\nDATA\nhalf\n":                                                                                                     "220 250 250 250 354",
		"EHLO x\nVRFY a\nSTARTTLS\n" + strings.Repeat("x", 100_000) + "\nNOOP\n":                                                                                  "220 250 252 500 500 250",
	} {
		if codes := strings.Join(session(t, keep, said), " "); codes != want {
			t.Errorf("%.60q: %s, want %s", said, codes, want)
		}
	}
	if len(got) != 1 || got[0].Sender.Addr() != "a@b.c" || got[0].Rcpts[0].Addr() != "joe@host.example" || string(got[0].Content) != "Subject: x\r\n\r\n.x\r\n" {
		t.Errorf("%d messages: %+v", len(got), got)
	}
	fails := func(*Prepared) error { return errors.New("full") }
	if codes := session(t, fails, "HELO x\nMAIL FROM:<>\nRCPT TO:<a@b.c>\nDATA\n.\n"); codes[5] != "451" {
		t.Errorf("a message that is not kept: %q", codes)
	}
	if codes := session(t, fails, strings.Repeat("FOO\n", 1000)); len(codes) > sessionErrorsMax+3 {
		t.Errorf("%d commands were refused", len(codes))
	}
}

func FuzzSession(f *testing.F) {
	f.Add("EHLO x\nMAIL FROM:<a@b.c>\nRCPT TO:<joe>\r\nDATA\nSubject: x\n\n..x\n.\nQUIT\n")
	f.Fuzz(func(t *testing.T, said string) {
		session(t, func(p *Prepared) error {
			if n := bytes.Count(p.Content, []byte("\n")); n != bytes.Count(p.Content, []byte("\r\n")) || n != bytes.Count(p.Content, []byte("\r")) || len(p.Rcpts) == 0 || int64(len(p.Content)) > 100 {
				t.Errorf("%+v", p)
			}
			return nil
		}, said)
	})
}

// TestRelay: a script that says all at once is heard in lockstep; its lines get CRLF, and chunks stay as they are.
func TestRelay(t *testing.T) {
	p := &peer{}
	ours, theirs := net.Pipe()
	g := supervise.NewGroup(context.Background())
	g.Go(func(context.Context) error { p.serve(theirs); return nil })
	var out bytes.Buffer
	long := strings.Repeat("x", lineMax-1)
	said := "EHLO x\nSTARTTLS\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\nDATA\nBDAT 9\n" + long + "\r\n" + long + long + "\n.\nQUIT\n"
	if err := Relay(context.Background(), ours, strings.NewReader(said), &out); err != nil {
		t.Error(err)
	}
	_ = g.Wait()
	if got := strings.Join(p.said, "|"); got != "EHLO x|MAIL FROM:<a@b.c>|RCPT TO:<d@e.f>|DATA" {
		t.Errorf("heard %q", got)
	}
	if want := "BDAT 9\r\n" + long + "\r\n" + long + long + "\r\n"; p.content != want {
		t.Errorf("the content is %.60q of %d bytes", p.content, len(p.content))
	}
	if !strings.Contains(out.String(), "454 4.7.0") || !strings.Contains(out.String(), "354 go\r\n250 2.0.0 queued\r\n") {
		t.Errorf("answered %q", out.String())
	}
}

// TestRelayChunk: a chunk is passed on as it is.
func TestRelayChunk(t *testing.T) {
	ours, theirs := net.Pipe()
	g := supervise.NewGroup(context.Background())
	const want = "BDAT 4 LAST\r\na\nb\n"
	heard := make([]byte, len(want))
	g.Go(func(context.Context) error {
		_, _ = io.WriteString(theirs, "220 hello\r\n")
		_, _ = io.ReadFull(theirs, heard)
		_, err := io.WriteString(theirs, "221-as\r\n221 bye\r\n")
		return err
	})
	var out bytes.Buffer
	err := Relay(context.Background(), ours, strings.NewReader("BDAT 4 LAST\na\nb\nNOOP\n"), &out)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err != nil || string(heard) != want || out.String() != "220 hello\r\n221-as\r\n221 bye\r\n" {
		t.Errorf("heard %q, answered %q, %v", heard, out.String(), err)
	}
}

// TestVerify: each recipient gets its verdict, and nothing is sent.
func TestVerify(t *testing.T) {
	p := &peer{replies: map[string]string{"RCPT TO:<b@x.example>": "550 5.1.1 nobody", "RCPT TO:<c@x.example>": "451 4.3.0 later"}}
	g := supervise.NewGroup(context.Background())
	o := Options{Addr: "x:25", Hostname: "host.example", User: "me", Rcpts: []string{"a@x.example, b@x.example", "c@x.example"}, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		g.Go(func(context.Context) error { p.serve(theirs); return nil })
		return ours, nil
	}}
	verdicts, err := Verify(context.Background(), o)
	if err != nil || len(verdicts) != 3 || verdicts[0].Err != nil || ExitCode(verdicts[1].Err) != ExNoUser || ExitCode(verdicts[2].Err) != ExTempFail {
		t.Errorf("%v %v", verdicts, err)
	}
	var r smtp.Reply
	if !errors.As(verdicts[1].Err, &r) || r.Code != 550 {
		t.Errorf("%v", verdicts[1].Err)
	}
	_ = g.Wait()
	if strings.Contains(strings.Join(p.said, " "), "DATA") {
		t.Errorf("said %q", p.said)
	}
}

// TestVERP is asked of a server that offers it alone, and -v shows the dialogue.
func TestVERP(t *testing.T) {
	for hello, want := range map[string]int{"250-mta\n250 XVERP": 0, "250 mta": ExUnavailable} {
		var trace bytes.Buffer
		p := &peer{replies: map[string]string{"EHLO": hello}}
		err := p.submit(Options{Input: strings.NewReader("Subject: x\n\n"), Rcpts: []string{"a@x.example"}, VERP: true, Trace: &trace})
		if ExitCode(err) != want {
			t.Errorf("%q: %v", hello, err)
		}
		if want == 0 && !strings.Contains(trace.String(), ">>> MAIL FROM:<me@host.example> XVERP\n250 ") {
			t.Errorf("the dialogue is %q", trace.String())
		}
	}
}
