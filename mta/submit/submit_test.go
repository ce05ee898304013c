package submit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is an SMTP server for one session: it answers by the first word of a command,
// "." for the end of the content, and keeps what was said.
type peer struct {
	replies map[string]string
	said    []string
	content string
}

func (p *peer) serve(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	reply := func(word, other string) bool {
		text, ok := p.replies[word]
		if !ok {
			text = other
		}
		if text == "hang" {
			_, _ = io.Copy(io.Discard, r)
			return false
		}
		if text == "close" {
			return false
		}
		_, err := io.WriteString(nc, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
		return err == nil
	}
	if !reply("greeting", "220 mta.example ESMTP") {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		word, _, _ := strings.Cut(line, " ")
		if word == "QUIT" {
			return
		}
		p.said = append(p.said, line)
		other := map[string]string{"EHLO": "250-mta.example\n250-SIZE\n250-8BITMIME\n250-SMTPUTF8\n250 DSN", "DATA": "354 go"}[word]
		if other == "" {
			other = "250 2.0.0 ok"
		}
		if word == "RCPT" {
			if _, ok := p.replies[line]; ok {
				word = line
			}
		}
		if !reply(word, other) {
			return
		}
		if word == "DATA" && p.replies["DATA"] == "" {
			for {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				p.content += strings.TrimPrefix(line, ".")
			}
			if !reply(".", "250 2.0.0 queued") {
				return
			}
		}
	}
}

// submit runs Submit against p.
func (p *peer) submit(o Options) error {
	g := supervise.NewGroup(context.Background())
	o.Addr = "127.0.0.1:25"
	o.Dial = func(_ context.Context, network, addr string) (net.Conn, error) {
		if network != "tcp" || addr != o.Addr {
			return nil, fmt.Errorf("dialled %s %s", network, addr)
		}
		ours, theirs := net.Pipe()
		g.Go(func(context.Context) error { p.serve(theirs); return nil })
		return ours, nil
	}
	if o.Hostname == "" {
		o.Hostname = "host.example"
	}
	if o.User == "" {
		o.User = "me"
	}
	err := Submit(context.Background(), o)
	if gerr := g.Wait(); gerr != nil {
		return gerr
	}
	return err
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.FixedZone("", 3600))

// TestMessages compares what arrives; "ID" stands for the Message-ID that is made.
func TestMessages(t *testing.T) {
	const added = "From: <me@host.example>\r\nDate: Fri, 20 Nov 2026 12:00:00 +0100\r\nMessage-ID: ID\r\n"
	cases := []struct {
		name, in string
		o        Options
		want     string
		said     string // commands, joined by "|"; "" to skip
	}{
		{"empty", "", Options{}, added + "\r\n", "EHLO host.example|MAIL FROM:<me@host.example> SIZE=SIZE|RCPT TO:<to@x.example>|DATA"},
		{"no header", "hello\nworld", Options{}, added + "\r\nhello\r\nworld\r\n", ""},
		{"header", "Subject: x\n\nbody\n", Options{}, "Subject: x\r\n" + added + "\r\nbody\r\n", ""},
		{"header alone", "Subject: x\n", Options{}, "Subject: x\r\n" + added + "\r\n", ""},
		{"CRLF", "Subject: x\r\n\r\nbody\r\n", Options{}, "Subject: x\r\n" + added + "\r\nbody\r\n", ""},
		{"folded", "Subject: x\n y\n\tz\n\nb\n", Options{}, "Subject: x\r\n y\r\n\tz\r\n" + added + "\r\nb\r\n", ""},
		{"complete", "from: a@b\ndate: d\nmessage-id: <i@j>\n\nb\n", Options{}, "from: a@b\r\ndate: d\r\nmessage-id: <i@j>\r\n\r\nb\r\n", ""},
		{"mailbox line", "From me Fri Nov 20\nSubject: x\n\nFrom here\n", Options{}, "Subject: x\r\n" + added + "\r\nFrom here\r\n", ""},
		{"header ends without an empty line", "Subject: x\nnot a field\n", Options{}, "Subject: x\r\n" + added + "\r\nnot a field\r\n", ""},
		{"bare CR", "Subject: x\ry\n\na\rBcc: z\n", Options{}, "Subject: x y\r\n" + added + "\r\na Bcc: z\r\n", ""},
		{"dot ends", "\na\n.\nb\n", Options{}, added + "\r\na\r\n", ""},
		{"dot ends in the header", "Subject: x\n.\nb\n", Options{}, "Subject: x\r\n" + added + "\r\n", ""},
		{"dots ignored", "\na\n.\n..\n.b\n", Options{IgnoreDots: true}, added + "\r\na\r\n.\r\n..\r\n.b\r\n", ""},
		{"Bcc is dropped", "Bcc: secret@x.example,\n more@x.example\nReturn-Path: <x@y>\nTo: a\n\nb\n", Options{}, "To: a\r\n" + added + "\r\nb\r\n", ""},
		{
			"recipients of the header", "To: a@x.example, \"B, C\" <b@x.example>\nCc: friends: c@x.example;\nBcc: local\nSubject: x\n\nb\n",
			Options{FromHeader: true},
			"To: a@x.example, \"B, C\" <b@x.example>\r\nCc: friends: c@x.example;\r\nSubject: x\r\n" + added + "\r\nb\r\n",
			"EHLO host.example|MAIL FROM:<me@host.example> SIZE=SIZE|RCPT TO:<to@x.example>|RCPT TO:<a@x.example>|RCPT TO:<b@x.example>|RCPT TO:<c@x.example>|RCPT TO:<local@host.example>|DATA",
		},
		{
			"resent", "To: a@x.example\nResent-To: b@x.example\nResent-Bcc: c@x.example\n\nb\n",
			Options{FromHeader: true},
			"To: a@x.example\r\nResent-To: b@x.example\r\n" + added + "\r\nb\r\n",
			"EHLO host.example|MAIL FROM:<me@host.example> SIZE=SIZE|RCPT TO:<to@x.example>|RCPT TO:<b@x.example>|RCPT TO:<c@x.example>|DATA",
		},
		{
			"sender and name", "\nb\n",
			Options{Sender: "boss@y.example", FullName: `The "Boss"`},
			"From: \"The \\\"Boss\\\"\" <boss@y.example>\r\n" + strings.SplitAfterN(added, "\r\n", 2)[1] + "\r\nb\r\n",
			"EHLO host.example|MAIL FROM:<boss@y.example> SIZE=SIZE|RCPT TO:<to@x.example>|DATA",
		},
		{
			"null sender", "\nb\n",
			Options{Sender: "<>"},
			"From: <MAILER-DAEMON@host.example>\r\n" + strings.SplitAfterN(added, "\r\n", 2)[1] + "\r\nb\r\n",
			"EHLO host.example|MAIL FROM:<> SIZE=SIZE|RCPT TO:<to@x.example>|DATA",
		},
		{
			"name with a line end", "\nb\n",
			Options{FullName: "a\r\nBcc: x@y"},
			"From: =?utf-8?b?YQ0KQmNjOiB4QHk=?= <me@host.example>\r\n" + strings.SplitAfterN(added, "\r\n", 2)[1] + "\r\nb\r\n", "",
		},
		{
			"8 bit and DSN", "\ngr\xfcn\n",
			Options{Notify: "success,failure", Ret: "hdrs", EnvID: "x1"},
			added + "\r\ngr\xfcn\r\n",
			"EHLO host.example|MAIL FROM:<me@host.example> SIZE=SIZE BODY=8BITMIME RET=HDRS ENVID=x1|RCPT TO:<to@x.example> NOTIFY=SUCCESS,FAILURE|DATA",
		},
		{
			"address beyond ASCII", "\nb\n",
			Options{Rcpts: []string{"grün@x.example"}},
			added + "\r\nb\r\n",
			"EHLO host.example|MAIL FROM:<me@host.example> SIZE=SIZE SMTPUTF8|RCPT TO:<grün@x.example>|DATA",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &peer{}
			c.o.Input, c.o.Now = strings.NewReader(c.in), noon
			if c.o.Rcpts == nil {
				c.o.Rcpts = []string{"to@x.example"}
			}
			if err := p.submit(c.o); err != nil {
				t.Fatal(err)
			}
			said := strings.ReplaceAll(strings.Join(p.said, "|"), fmt.Sprintf("SIZE=%d", len(p.content)), "SIZE=SIZE")
			if c.said != "" && said != c.said {
				t.Errorf("said %s\nwant %s", said, c.said)
			}
			if got := hideID(p.content); got != c.want {
				t.Errorf("content %q\nwant    %q", got, c.want)
			}
		})
	}
}

// hideID replaces a Message-ID of ours.
func hideID(s string) string {
	const mark = "Message-ID: <20261120110000."
	at := strings.Index(s, mark)
	if at < 0 {
		return s
	}
	end := strings.Index(s[at:], "@host.example>")
	if end < len(mark)+20 {
		return s
	}
	return s[:at] + "Message-ID: ID" + s[at+end+len("@host.example>"):]
}

// TestRefused: each refusal has its exit status, and nothing is sent to anybody.
func TestRefused(t *testing.T) {
	cases := []struct {
		name    string
		replies map[string]string
		exit    int
		text    string
	}{
		{"greeting 4xx", map[string]string{"greeting": "421 4.3.2 busy"}, ExTempFail, "421 4.3.2 busy"},
		{"greeting 5xx", map[string]string{"greeting": "554 5.7.1 no"}, ExUnavailable, "554 5.7.1 no"},
		{"greeting garbage", map[string]string{"greeting": "hello there"}, ExTempFail, "reading from the server"},
		{"greeting close", map[string]string{"greeting": "close"}, ExTempFail, "reading from the server"},
		{"ehlo 4xx", map[string]string{"EHLO": "421 4.3.2 busy"}, ExTempFail, "421 4.3.2 busy"},
		{"mail 550", map[string]string{"MAIL": "550 5.7.1 not you"}, ExUnavailable, "550 5.7.1 not you"},
		{"mail 452", map[string]string{"MAIL": "452 4.3.1 disk full"}, ExTempFail, "452 4.3.1 disk full"},
		{"mail too large", map[string]string{"MAIL": "552 5.3.4 too large"}, ExDataErr, "552 5.3.4 too large"},
		{"rcpt unknown", map[string]string{"RCPT TO:<two@x.example>": "550 5.1.1 unknown"}, ExNoUser, "recipient <two@x.example>: server refuses: 550 5.1.1 unknown"},
		{"rcpt unknown to an old server", map[string]string{"RCPT TO:<two@x.example>": "550 unknown"}, ExNoUser, "550 unknown"},
		{"rcpt relay denied", map[string]string{"RCPT": "550 5.7.1 no relay"}, ExUnavailable, "550 5.7.1 no relay"},
		{"rcpt greylisted", map[string]string{"RCPT": "450 4.7.1 later"}, ExTempFail, "450 4.7.1 later"},
		{"data refused", map[string]string{"DATA": "554 5.5.1 no"}, ExUnavailable, "554 5.5.1 no"},
		{"data lost", map[string]string{"DATA": "close"}, ExTempFail, "reading from the server"},
		{"content refused", map[string]string{".": "554 5.6.0 malformed"}, ExDataErr, "554 5.6.0 malformed"},
		{"content for now", map[string]string{".": "451 4.3.0 later"}, ExTempFail, "451 4.3.0 later"},
		{"control bytes", map[string]string{"MAIL": "550-5.7.1 a\x1b[31m\n550 5.7.1 b"}, ExUnavailable, "a?[31m b"},
		{"250 to DATA", map[string]string{"DATA": "250 ok"}, ExTempFail, "250 ok"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &peer{replies: c.replies}
			err := p.submit(Options{Input: strings.NewReader("Subject: x\n\nb\n"), Rcpts: []string{"one@x.example", "two@x.example"}})
			if ExitCode(err) != c.exit || !strings.Contains(err.Error(), c.text) {
				t.Errorf("exit %d, want %d: %v", ExitCode(err), c.exit, err)
			}
			if _, refusesContent := c.replies["."]; !refusesContent && p.content != "" {
				t.Errorf("content was sent: %q", p.content)
			}
		})
	}
}

// TestOldServer: HELO, and none of the parameters.
func TestOldServer(t *testing.T) {
	p := &peer{replies: map[string]string{"EHLO": "500 what"}}
	err := p.submit(Options{Input: strings.NewReader("\n\xe4\n"), Rcpts: []string{"to@x.example"}, Ret: "FULL"})
	if err != nil || strings.Join(p.said, "|") != "EHLO host.example|HELO host.example|MAIL FROM:<me@host.example>|RCPT TO:<to@x.example>|DATA" {
		t.Errorf("%v, said %q", err, p.said)
	}
	p = &peer{replies: map[string]string{"EHLO": "500 what"}}
	if err = p.submit(Options{Input: strings.NewReader(""), Rcpts: []string{"grün@x.example"}}); ExitCode(err) != ExUnavailable {
		t.Errorf("beyond ASCII: %v", err)
	}
}

// TestBadInput: mistakes of the caller are found before anything is dialled.
func TestBadInput(t *testing.T) {
	failing := io.MultiReader(strings.NewReader("Subject: x\n\nbody"), errReader{})
	cases := []struct {
		name string
		o    Options
		exit int
	}{
		{"no recipients", Options{Input: strings.NewReader("")}, ExUsage},
		{"no recipients in the header", Options{Input: strings.NewReader("Subject: x\n\nTo: a@b\n"), FromHeader: true}, ExUsage},
		{"bad recipient", Options{Input: strings.NewReader(""), Rcpts: []string{"a@b@c"}}, ExUsage},
		{"control in recipient", Options{Input: strings.NewReader(""), Rcpts: []string{"a\r\nRCPT TO:<b>@c"}}, ExUsage},
		{"control beyond ASCII", Options{Input: strings.NewReader(""), Rcpts: []string{"ü\r\nDATA@c"}}, ExUsage},
		{"unclosed recipient", Options{Input: strings.NewReader(""), Rcpts: []string{"<a@b"}}, ExUsage},
		{"bad header recipient", Options{Input: strings.NewReader("To: a b@c d\n\n"), FromHeader: true}, ExDataErr},
		{"two senders", Options{Input: strings.NewReader(""), Sender: "a@b, c@d", Rcpts: []string{"x"}}, ExUsage},
		{"bad sender", Options{Input: strings.NewReader(""), Sender: "a b@c", Rcpts: []string{"x"}}, ExUsage},
		{"bad notify", Options{Input: strings.NewReader(""), Notify: "sometimes", Rcpts: []string{"x"}}, ExUsage},
		{"bad ret", Options{Input: strings.NewReader(""), Ret: "all", Rcpts: []string{"x"}}, ExUsage},
		{"bad envid", Options{Input: strings.NewReader(""), EnvID: "a b", Rcpts: []string{"x"}}, ExUsage},
		{"too large", Options{Input: strings.NewReader(strings.Repeat("x\n", 100)), SizeMax: 100, Rcpts: []string{"x"}}, ExDataErr},
		{"too large in one line", Options{Input: strings.NewReader(strings.Repeat("x", 1<<20)), SizeMax: 100, Rcpts: []string{"x"}}, ExDataErr},
		{"unreadable", Options{Input: failing, Rcpts: []string{"x"}}, ExIOErr},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &peer{}
			err := p.submit(c.o)
			if ExitCode(err) != c.exit || len(p.said) != 0 {
				t.Errorf("exit %d, want %d: %v; said %q", ExitCode(err), c.exit, err, p.said)
			}
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

// TestHang: a silent server ends in a temporary failure, and so does the end of the
// context.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, at := range []string{"greeting", "MAIL", "."} {
			begin := time.Now()
			p := &peer{replies: map[string]string{at: "hang"}}
			err := p.submit(Options{Input: strings.NewReader(""), Rcpts: []string{"x"}})
			if took := time.Since(begin); ExitCode(err) != ExTempFail || took != 5*time.Minute {
				t.Errorf("%s: %v after %v", at, err, took)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		ours, theirs := net.Pipe()
		defer theirs.Close()
		err := Submit(ctx, Options{
			Input: strings.NewReader(""), Rcpts: []string{"x"}, User: "me", Hostname: "h.example", Addr: "/socket",
			Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil },
		})
		if ExitCode(err) != ExTempFail {
			t.Error(err)
		}
	})
}

func TestConnectRefused(t *testing.T) {
	err := Submit(context.Background(), Options{
		Input: strings.NewReader(""), Rcpts: []string{"x"}, User: "me", Hostname: "h.example", Addr: t.TempDir() + "/none",
	})
	if ExitCode(err) != ExTempFail || !strings.Contains(err.Error(), "connecting to") {
		t.Error(err)
	}
}

func TestParseAddresses(t *testing.T) {
	for in, want := range map[string][]string{
		"":                                    nil,
		" , ; ":                               nil,
		"a":                                   {"a"},
		"a@b.c, d":                            {"a@b.c", "d"},
		`"A, B" <a@b>, C D <c@d>`:             {"a@b", "c@d"},
		"a@b (comment, (nested \\) one))":     {"a@b"},
		"(only)a(x)":                          {"a"},
		"friends: a@b, c@d; e@f":              {"a@b", "c@d", "e@f"},
		"undisclosed-recipients:;":            nil,
		`"quoted \" local"@x`:                 {`"quoted \" local"@x`},
		"<@relay.example,@x:user@[IPv6:::1]>": {"user@[IPv6:::1]"},
		"user@[IPv6:2001:db8::1], b":          {"user@[IPv6:2001:db8::1]", "b"},
		`<"a>b"@c>`:                           {`"a>b"@c`},
		"a b":                                 {"a b"},
		"Name\t<a@b>\t":                       {"a@b"},
	} {
		if got, err := ParseAddresses(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"<a", `"a`, "(a", "a@[b", "<>", "<a><b>", "<a>: b", "<a> b", "a\nb", "a\x00"} {
		if got, err := ParseAddresses(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// FuzzAddresses: what the parser gives, made into a path, is safe in a command; and
// reading an address again gives the same.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"a@b, c", `"x" <a@b>`, "g: a, b;", "(c)a", "<@r:u@d>", "ü@x", "a\r\n@b", `"\`, "[", "<\"a>b\"@c>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseAddresses(s)
		if err != nil {
			return
		}
		for _, a := range list {
			p, err := qualify(a, "host.example")
			if err != nil {
				continue
			}
			if strings.ContainsAny(p.String(), "\r\n\x00") || p == (smtp.Path{}) {
				t.Fatalf("%q: path %q", s, p)
			}
			again, err := ParseAddresses(p.String())
			if err != nil || len(again) != 1 || again[0] != p.Addr() {
				t.Fatalf("%q: %q is read again as %q (%v)", s, p, again, err)
			}
		}
	})
}

// FuzzMessage: whatever comes in, what goes out has strict lines, one header with our
// fields, and no Bcc.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "a: b\n\nc\n", "From x\nSubject: y\n", "\r\r\n.\n", ": x\n", " x\n", "Bcc: a\n b\nBcc : c\n\n", "a\x00\xff\n"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, in string, ignoreDots bool) {
		o := Options{Input: strings.NewReader(in), IgnoreDots: ignoreDots, Hostname: "h.example", User: "me"}
		setDefaults(&o)
		m, err := read(o)
		if err != nil {
			t.Fatal(err)
		}
		m.complete(o, smtp.Path{Local: "me", Domain: "h.example"})
		out := string(m.bytes())
		if n := strings.Count(out, "\n"); n != strings.Count(out, "\r\n") || n != strings.Count(out, "\r") || !strings.HasSuffix(out, "\r\n") {
			t.Fatalf("line ends in %q", out)
		}
		again, err := read(Options{Input: strings.NewReader(out), IgnoreDots: true, SizeMax: o.SizeMax})
		if err != nil || string(again.bytes()) != out {
			t.Fatalf("read again: %q, was %q (%v)", again.bytes(), out, err)
		}
		for _, name := range []string{"From", "Date", "Message-ID"} {
			if !again.has(name) {
				t.Fatalf("no %s in %q", name, out)
			}
		}
		if again.has("Bcc") || again.has("Resent-Bcc") || again.has("Return-Path") {
			t.Fatalf("field that must not go out in %q", out)
		}
	})
}

func TestParseArgs(t *testing.T) {
	cases := []struct {
		args string
		want Options
		mode Mode
	}{
		{"a@b c", Options{Rcpts: []string{"a@b", "c"}}, ModeSubmit},
		{"-t -oi -fme@x", Options{FromHeader: true, IgnoreDots: true, Sender: "me@x"}, ModeSubmit},
		{"-ti -f me@x -F Name a", Options{FromHeader: true, IgnoreDots: true, Sender: "me@x", FullName: "Name", Rcpts: []string{"a"}}, ModeSubmit},
		{"-oem -odb -v -O Delivery=x -B8BITMIME -bm a", Options{Verbose: true, Rcpts: []string{"a"}}, ModeSubmit},
		{"-r <> -- -x", Options{Sender: "<>", Rcpts: []string{"-x"}}, ModeSubmit},
		{"-N never -Rhdrs -V id a", Options{Notify: "never", Ret: "hdrs", EnvID: "id", Rcpts: []string{"a"}}, ModeSubmit},
		{"-bp", Options{}, ModeList},
		{"-bi", Options{}, ModeNewaliases},
		{"-q", Options{}, ModeFlush},
		{"-q30m", Options{}, ModeFlush},
		{"", Options{}, ModeSubmit},
		{"-", Options{Rcpts: []string{"-"}}, ModeSubmit},
	}
	for _, c := range cases {
		got, mode, err := ParseArgs(strings.Fields(c.args))
		if err != nil || mode != c.mode || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v %s %v", c.args, got, mode, err)
		}
	}
	for _, args := range []string{"-f", "-bd", "-Z", "-t -F", "--foo"} {
		if _, _, err := ParseArgs(strings.Fields(args)); ExitCode(err) != ExUsage {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestExitCode(t *testing.T) {
	if ExitCode(nil) != 0 || ExitCode(errors.New("x")) != ExTempFail || ExitCode(fmt.Errorf("x: %w", fail(ExUsage, "y"))) != ExUsage {
		t.Error("wrong")
	}
	if Usage() == "" {
		t.Error("no usage")
	}
}
