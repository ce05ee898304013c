package client

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

var update = flag.Bool("update", false, "rewrite the expected answers in testdata")

// A dialogue is a file of directives, one a line:
//
//	# text               a comment
//	proto lmtp           the hop's protocol (default smtp)
//	reuse                connections are reused
//	flag NAME            a flag of section smtpc
//	hostname NAME        of the client
//	mail ADDR [PARAM…]   sender and 8BITMIME, BINARYMIME, SMTPUTF8, RET=, ENVID= as received
//	rcpt ADDR [PARAM…]   one recipient and its NOTIFY=, ORCPT=
//	rcptconf TEXT        entry of smtpc_rcpt_conf: of the last recipient
//	session TEXT         entry of smtpc_session_conf: of the host
//	class NAME FLAG…     a section session_features; a negated flag begins with no_
//	violation WORD       option violation of section tls
//	eightbit WORD        option without_8bitmime
//	auth OPTION…         options and flags of section auth, NAME=VALUE or NAME; ca: trust
//	                     the CA of certs_test.go
//	account KEY VALUE    an entry of the map with the accounts
//	body "text"          content, a Go string
//	file                 the content is not in memory
//	deliver              ask for the delivery of what stands above
//	S: line              the server sends it
//	C: line              the server expects it; consecutive lines may come in one write
//	W: line              as C:, and it must begin a new write
//	S2: "text"           the server sends it in one write, a Go string
//	close                the server closes the connection
//	T: CERT [WORD…]      the TLS handshake, with a certificate of certs_test.go; 1.2 or 1.1
//	                     are the most that the server knows, askcert and needcert ask for ours
//	Tfail: CERT [WORD…]  the same, and it fails; nothing follows
//	Tgarbage             the server answers the handshake with what is not TLS
//	connect              the next connection begins here
//	unconnected          there is no connection
//	=> text              the answer to a deliver, in the order of delivers
type dialogue struct {
	cfg       Config
	hostname  string
	reuse     bool
	accounts  map[string]string
	questions []msg.DeliverQ
	scripts   [][]string
	tls       bool
	input     []string // all lines but the answers
	answers   string
}

func readDialogue(t *testing.T, file string) *dialogue {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := &dialogue{hostname: "client.example", scripts: [][]string{nil}, accounts: map[string]string{}}
	q := newQuestion(msg.ProtoSMTP)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if a, ok := strings.CutPrefix(line, "=> "); ok {
			d.answers += "=> " + a + "\n"
			continue
		}
		d.input = append(d.input, line)
		word, arg, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
		case "proto":
			q = newQuestion(msg.ProtoLMTP)
		case "reuse":
			d.reuse = true
		case "hostname":
			d.hostname = arg
		case "rcptconf":
			q.RcptConf = append(q.RcptConf, make([]*msg.Conf, len(q.Rcpts)-len(q.RcptConf))...)
			q.RcptConf[len(q.Rcpts)-1] = parseConf(t, arg)
		case "session":
			q.SessionConf = parseConf(t, arg)
		case "class":
			words := strings.Fields(arg)
			d.cfg.SessionFeatures = append(d.cfg.SessionFeatures, SessionFeature{Name: words[0], Flags: words[1:]})
		case "violation":
			d.cfg.TLS.Violation = arg
		case "eightbit":
			d.cfg.Without8BITMIME = arg
		case "auth":
			setAuth(t, &d.cfg, strings.Fields(arg))
		case "account":
			key, value, _ := strings.Cut(arg, " ")
			d.accounts[key] = value
		case "unconnected":
			d.scripts = nil
		case "flag":
			setFlag(t, &d.cfg, arg)
		case "mail":
			setMail(&q.Mail, strings.Fields(arg))
		case "rcpt":
			q.Rcpts = append(q.Rcpts, makeRcpt(strings.Fields(arg)))
		case "body":
			var s string
			if _, err := fmt.Sscanf(arg, "%q", &s); err != nil {
				t.Fatalf("%s: body %s: %v", file, arg, err)
			}
			q.Body = memBody(s)
		case "file":
			q.Body = fileBody{data: q.Body.Bytes()}
		case "deliver":
			if q.Rcpts == nil {
				q.Rcpts = question().Rcpts
			}
			if q.RcptConf != nil {
				q.RcptConf = append(q.RcptConf, make([]*msg.Conf, len(q.Rcpts)-len(q.RcptConf))...)
			}
			d.questions = append(d.questions, q)
			q = newQuestion(q.Hop.Protocol)
		case "connect":
			d.scripts = append(d.scripts, nil)
		case "S:", "S2:", "C:", "W:", "close", "T:", "Tfail:", "Tgarbage":
			d.tls = d.tls || word[0] == 'T'
			last := len(d.scripts) - 1
			d.scripts[last] = append(d.scripts[last], line)
		default:
			t.Fatalf("%s: unknown directive %q", file, line)
		}
	}
	return d
}

func parseConf(t *testing.T, text string) *msg.Conf {
	t.Helper()
	c, err := msg.ParseConf(text)
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

func newQuestion(p msg.Protocol) msg.DeliverQ {
	q := question()
	q.Hop.Protocol = p
	q.Rcpts = nil
	return q
}

func setFlag(t *testing.T, c *Config, name string) {
	t.Helper()
	for _, o := range c.Options().Options {
		if into, ok := o.Into.(*bool); ok && o.Name == name {
			*into = true
			return
		}
	}
	t.Fatalf("no flag %q", name)
}

func setAuth(t *testing.T, c *Config, options []string) {
	t.Helper()
	c.AuthPresent, c.Auth.PasswordMap = true, "accounts"
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "tls":
			c.Auth.TLS = value
		case "on_failure":
			c.Auth.OnFailure = value
		case "mechanisms":
			c.Auth.Mechanisms = strings.Split(value, ",")
		case "optional":
			c.Auth.Optional = true
		case "sender_dependent":
			c.Auth.SenderDependent = true
		case "ca": // that of certs_test.go is trusted
			c.TLS = trusting(t).TLS
		case "failure_time":
			c.Auth.FailureTime = time.Hour
		default:
			t.Fatalf("no option %q", o)
		}
	}
}

// serveAccounts answers questions for entries of the map until the test ends.
func serveAccounts(t *testing.T, ports *msg.Ports, entries map[string]string) {
	t.Helper()
	lookups, stop := ports.Lookup.Open()
	done := make(chan struct{})
	g := supervise.NewGroup(context.Background())
	g.Go(func(context.Context) error {
		for {
			select {
			case r := <-lookups:
				value, found := entries[r.Q.Key]
				if value == "(fails)" {
					r.Answer(msg.LookupA{Err: "map " + r.Q.Map + " cannot be used"})
					continue
				}
				r.Answer(msg.LookupA{Value: value, Found: found})
			case <-done:
				return nil
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		stop()
	})
}

func parseAddr(s string) smtp.Path {
	local, domain, _ := strings.Cut(s, "@")
	if s == "<>" {
		return smtp.Path{}
	}
	return smtp.Path{Local: local, Domain: domain}
}

func setMail(m *msg.Mail, words []string) {
	m.From = parseAddr(words[0])
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case smtp.Body8Bit, smtp.BodyBinary:
			m.Body = w
		case "SMTPUTF8":
			m.UTF8 = true
		case "RET":
			m.Ret = value
		case "ENVID":
			m.EnvID = value
		}
	}
}

func makeRcpt(words []string) msg.Rcpt {
	r := msg.Rcpt{To: parseAddr(words[0])}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "NOTIFY":
			r.Notify = value
		case "ORCPT":
			r.ORcpt = value
		}
	}
	return r
}

// writes remembers where the client's writes began, seen from the server: net.Pipe
// gives one write to one read, or to several.
type writes struct {
	net.Conn
	mu    sync.Mutex
	sizes []int // of each write
}

func (w *writes) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sizes = append(w.sizes, n)
	return n, err
}

// startsWrite reports whether a write began after n bytes.
func (w *writes) startsWrite(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := 0
	for _, s := range w.sizes {
		if sum == n {
			return true
		}
		sum += s
	}
	return false
}

// serveScript plays one connection. What is wrong goes to report.
func serveScript(script []string, report func(string)) func(net.Conn) {
	return func(nc net.Conn) {
		w := &writes{Conn: nc}
		r := bufio.NewReaderSize(w, 1<<20)
		read := 0
		for _, step := range script {
			_ = nc.SetDeadline(time.Now().Add(5 * time.Second)) // fails once the client has closed
			word, arg, _ := strings.Cut(step, " ")
			switch word {
			case "S:":
				if _, err := io.WriteString(nc, arg+"\r\n"); err != nil {
					report(fmt.Sprintf("client does not take %q: %v", arg, err))
					return
				}
			case "S2:":
				var text string
				if _, err := fmt.Sscanf(arg, "%q", &text); err != nil {
					report(fmt.Sprintf("%s: %v", step, err))
				}
				_, _ = io.WriteString(nc, text)
			case "C:", "W:":
				line, err := r.ReadString('\n')
				if line != arg+"\r\n" {
					report(fmt.Sprintf("client sent %q (%v), want %q", line, err, arg))
					return
				}
				if word == "W:" && !w.startsWrite(read) {
					report(fmt.Sprintf("%q does not begin a write", arg))
				}
				read += len(line)
			case "T:", "Tfail:":
				tc := serveTLS(nc, strings.Fields(arg))
				if err := tc.Handshake(); (err == nil) != (word == "T:") {
					report(fmt.Sprintf("%s: %v", step, err))
					return
				}
				nc = tc
				w = &writes{Conn: nc}
				r.Reset(w)
				read = 0
			case "Tgarbage":
				_, _ = io.ReadAtLeast(nc, make([]byte, 1<<16), 1)
				_, _ = io.WriteString(nc, "454 no TLS today\r\n")
				return
			case "close":
				return
			}
		}
		rest, _ := io.ReadAll(r) // until the client closes
		if len(rest) > 0 && string(rest) != "QUIT\r\n" {
			report(fmt.Sprintf("client sent %q beyond the script", rest))
		}
	}
}

// printAnswer is an answer as the files have it.
func printAnswer(a msg.DeliverA) string {
	var b strings.Builder
	fmt.Fprintf(&b, "=> stage=%s", a.Stage)
	for _, f := range []struct {
		name string
		set  bool
	}{{"host_failed", a.HostFailed}, {"unknown", a.Unknown}, {"reused", a.Reused}, {"dsn", a.DSN}, {"tls=" + a.TLS.Level.String(), a.TLS.Level > 0}, {"tls_unmet", a.TLSUnmet}, {"own", a.Own}, {"auth=" + a.Auth, a.Auth != ""}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	b.WriteString("\n")
	for i, r := range a.Rcpts {
		fmt.Fprintf(&b, "=>   %s: %d %v %q\n", a.StageOf(i), r.Code, r.Enhanced, r.Lines)
	}
	return b.String()
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			playDialogue(t, file)
		})
	}
}

func playDialogue(t *testing.T, file string) {
	d := readDialogue(t, file)
	var servers []func(net.Conn)
	for _, s := range d.scripts {
		servers = append(servers, serveScript(s, func(wrong string) { t.Error(wrong) }))
	}
	servers = append(servers, func(net.Conn) { t.Error("one connection too many") })
	deps := Deps{Hostname: d.hostname, ReuseConnections: d.reuse}
	n := newNetwork(servers...)
	n.sockets = d.tls
	var log syncBuffer
	if len(d.accounts) > 0 {
		deps.Ports = msg.NewPorts()
		serveAccounts(t, deps.Ports, d.accounts)
		deps.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r := start(t, d.cfg, deps, n)
	var got bytes.Buffer
	for _, q := range d.questions {
		got.WriteString(printAnswer(r.deliver(t, q)))
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, secret := range []string{"sesame", "c2VzYW1l", "NlcwFtZ", "zZXNhbW"} { // also in base64
		if strings.Contains(log.String(), secret) || strings.Contains(got.String(), secret) {
			t.Errorf("a password is told:\n%s\n%s", got.String(), log.String())
		}
	}
	if want := len(d.scripts); r.net.dialed() != want {
		t.Errorf("%d connections, want %d", r.net.dialed(), want)
	}
	if *update {
		text := strings.TrimRight(strings.Join(d.input, "\n"), "\n") + "\n\n" + got.String()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != d.answers {
		t.Errorf("answers:\n%s\nwant:\n%s", got.String(), d.answers)
	}
}
