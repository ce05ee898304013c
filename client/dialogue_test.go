package client

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

var update = flag.Bool("update", false, "rewrite the expected answers in testdata")

// A dialogue is a file of directives, one a line:
//
//	# text               a comment
//	proto lmtp           the hop's protocol (default smtp)
//	reuse                connections are reused
//	flag NAME            a flag of section smtpc
//	hostname NAME        of the client
//	mail ADDR [PARAM…]   sender and 8BITMIME, SMTPUTF8, RET=, ENVID= as received
//	rcpt ADDR [PARAM…]   one recipient and its NOTIFY=, ORCPT=
//	rcptconf TEXT        entry of smtpc_rcpt_conf: of the last recipient
//	session TEXT         entry of smtpc_session_conf: of the host
//	class NAME FLAG…     a section session_features; a negated flag begins with no_
//	violation WORD       option violation of section tls
//	body "text"          content, a Go string
//	file                 the content is not in memory
//	deliver              ask for the delivery of what stands above
//	S: line              the server sends it
//	C: line              the server expects it; consecutive lines may come in one write
//	W: line              as C:, and it must begin a new write
//	close                the server closes the connection
//	connect              the next connection begins here
//	unconnected          there is no connection
//	=> text              the answer to a deliver, in the order of delivers
type dialogue struct {
	cfg       Config
	hostname  string
	reuse     bool
	questions []msg.DeliverQ
	scripts   [][]string
	input     []string // all lines but the answers
	answers   string
}

func readDialogue(t *testing.T, file string) *dialogue {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := &dialogue{hostname: "client.example", scripts: [][]string{nil}}
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
		case "S:", "C:", "W:", "close":
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
		case "8BITMIME":
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
	}{{"host_failed", a.HostFailed}, {"unknown", a.Unknown}, {"reused", a.Reused}, {"dsn", a.DSN}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	b.WriteString("\n")
	for _, r := range a.Rcpts {
		fmt.Fprintf(&b, "=>   %d %v %q\n", r.Code, r.Enhanced, r.Lines)
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
	r := start(t, d.cfg, deps, newNetwork(servers...))
	var got bytes.Buffer
	for _, q := range d.questions {
		got.WriteString(printAnswer(r.deliver(t, q)))
	}
	if err := r.stop(); err != nil {
		t.Error(err)
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
