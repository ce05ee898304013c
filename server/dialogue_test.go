package server

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

var update = flag.Bool("update", false, "rewrite testdata with what the server says")

// TestDialogue runs the dialogues in testdata/dialogue. A file has lines of the form
// "key: value":
//
//	O: options of the smtps section
//	P: address of the client
//	I: InlineMax of transactions
//	A: session|name|transaction CODE ENHANCED TEXT    QMGR refuses it
//	V: STAGE KEY [quick] [relay] [greylist] accept|discard|reject [CODE ENHANCED TEXT]
//	U: ACCOUNT ENTRY                             an account, for AUTH
//	K: CODE ENHANCED TEXT                        QMGR refuses Commit
//	D: PORT                                      nobody serves the port
//	E: create|write|commit enospc|eio            the content store fails
//	R: a structured right hand side             smtps_session_conf: has it for the client
//	T: [1.1|1.2|1.3] [cert|stranger] [untrusting] the client makes a TLS handshake
//	C: a line from the client; in double quotes raw bytes as in Go
//	W: duration                                  the client waits
//	X:                                           the client closes the connection
//	S: a line from the server (expected)
//	Z:                                           the server closes (expected)
//	H: what the handshake gave the client (expected)
//	M: a committed message (expected)
//	L: a line of the log (expected, if the file has any L:)
//
// C: lines without anything between them are sent in one piece. An empty S: ends a
// piece in a new file.
func TestDialogue(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			synctest.Test(t, func(t *testing.T) { got = playDialogue(t, string(text)) })
			if got == string(text) {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s: the dialogue went otherwise:\n%s", file, got)
		})
	}
}

// player runs one dialogue and writes down how it went.
type player struct {
	t       *testing.T
	fake    *fakeMTA
	options string
	peer    string
	down    []string
	wantLog bool

	out       strings.Builder
	pending   strings.Builder // C: lines not sent yet
	client    *client
	logged    int
	committed int
	group     *supervise.Group
	stop      func()
}

func playDialogue(t *testing.T, text string) string {
	p := &player{t: t, fake: newFakeMTA(), peer: "192.0.2.1", wantLog: strings.Contains(text, "\nL: ")}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case key == "S" || key == "Z" || key == "M" || key == "L" || key == "H":
			p.send()
			continue
		case key != "C":
			p.send()
		}
		if strings.Contains("CWXT", key) && key != "" {
			p.connect()
		}
		p.out.WriteString(line + "\n")
		p.step(key, value)
	}
	p.connect()
	p.send()
	p.stop()
	if n := p.fake.store.unfinished(); n > 0 {
		t.Errorf("%d content files are left", n)
	}
	if p.fake.sessions != 0 {
		t.Errorf("%d sessions were not ended", p.fake.sessions)
	}
	return p.out.String()
}

func (p *player) step(key, value string) {
	f := p.fake
	switch key {
	case "C":
		p.queue(value)
	case "T":
		p.handshake(strings.Fields(value))
	case "R":
		p.addSessionConf(value)
	case "W":
		d, err := time.ParseDuration(value)
		if err != nil {
			p.t.Fatal(err)
		}
		time.Sleep(d)
		p.collect()
	case "X":
		p.client.conn.Close()
		p.collect()
	case "O":
		p.options += value + "\n"
	case "P":
		p.peer = value
	case "I":
		f.inlineMax, _ = strconv.ParseInt(value, 10, 64)
	case "D":
		p.down = append(p.down, value)
	case "A":
		kind, reply, _ := strings.Cut(value, " ")
		want := map[string]msg.AdmitKind{"session": msg.NewSession, "name": msg.NameSession, "transaction": msg.NewTransaction}[kind]
		f.askName = want == msg.NameSession
		f.admit = func(q msg.AdmitQ) smtp.Reply {
			if q.Kind == want {
				return parseReply(reply)
			}
			return smtp.Reply{}
		}
	case "U":
		name, entry, _ := strings.Cut(value, " ")
		f.users[name] = entry
	case "K":
		f.commit = func(msg.CommitQ) smtp.Reply { return parseReply(value) }
	case "V":
		p.addVerdict(strings.Fields(value))
	case "E":
		p.failStore(value)
	case "", "#":
	default:
		if !strings.HasPrefix(key, "#") {
			p.t.Fatalf("unknown key %q", key)
		}
	}
}

// handshake makes TLS of the connection.
func (p *player) handshake(words []string) {
	c, err := clientTLS(p.client, p.group, words)
	if err != nil {
		p.out.WriteString("H: " + err.Error() + "\n")
		synctest.Wait()
		p.client.take() // what of TLS came meanwhile
		p.collect()
		return
	}
	s := c.conn.(*tls.Conn).ConnectionState()
	fmt.Fprintf(&p.out, "H: %s\n", tls.VersionName(s.Version))
	p.client = c
	p.collect()
}

// addSessionConf gives the client an entry of smtps_session_conf:.
func (p *player) addSessionConf(value string) {
	conf, err := msg.ParseConf(value)
	if err != nil {
		p.t.Fatal(err)
	}
	earlier := p.fake.check
	p.fake.check = func(q msg.CheckQ) msg.Verdict {
		v := earlier(q)
		if q.Stage == msg.StageConnect {
			v.SessionConf = &conf
			v.Trace = append(v.Trace, msg.Step{Check: "smtps_session_conf", Map: "access", Key: "smtps_session_conf:192.0.2.", Value: value})
		}
		return v
	}
}

func parseReply(s string) smtp.Reply {
	code, rest, _ := strings.Cut(s, " ")
	enhanced, text, _ := strings.Cut(rest, " ")
	n, _ := strconv.Atoi(code)
	return smtp.NewReply(n, enhanced, text)
}

// addVerdict adds a rule of the form STAGE KEY [quick] [relay] [greylist] ACTION [REPLY].
func (p *player) addVerdict(words []string) {
	stage, key, words := words[0], words[1], words[2:]
	v := msg.Verdict{}
	for i, w := range words {
		switch w {
		case "quick":
			v.Quick = true
		case "relay":
			v.Relay = true
		case "greylist":
			v.Greylisted = true
		case "discard":
			v.Action = msg.Discard
		case "reject":
			v.Action = msg.Reject
			v.Reply = parseReply(strings.Join(words[i+1:], " "))
		}
		if w == "reject" {
			break
		}
	}
	if v.Action != msg.Accept {
		v.Trace, v.DecidedBy = msg.Trace{{Check: "first"}, {Check: stage, Map: "access", Key: key, Effect: "as in V:"}}, 2
	}
	if stage == "connect" {
		v.ClientName, v.ClientResolve = "client.example.net.", "ok"
	}
	earlier := p.fake.check
	p.fake.check = func(q msg.CheckQ) msg.Verdict {
		subject := map[msg.Stage]string{
			msg.StageConnect: q.Client.IP.String(), msg.StageEhlo: q.Client.Helo,
			msg.StageTLS: q.CertSubject, msg.StageMail: q.Mail.From.String(), msg.StageSender: q.Client.Auth.User, msg.StageRcpt: q.Rcpt.To.String(),
		}[q.Stage]
		if q.Stage == msg.StageRcpt && q.Relaying {
			subject += "relaying"
		}
		if q.Stage.String() == stage && (key == "*" || key == subject) {
			return v
		}
		return earlier(q)
	}
}

func (p *player) failStore(value string) {
	call, kind, _ := strings.Cut(value, " ")
	err := error(&fs.PathError{Op: call, Path: "x", Err: errors.New("input/output error")})
	if kind == "enospc" {
		err = &fs.PathError{Op: call, Path: "x", Err: syscall.ENOSPC}
	}
	switch s := p.fake.store; call {
	case "create":
		s.createErr = err
	case "write":
		s.writeErr = err
	case "commit":
		s.commitErr = err
	}
}

// connect starts the server and the client at the first line that needs them.
func (p *player) connect() {
	if p.client != nil {
		return
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	mtaCtx, mtaCancel := context.WithCancel(p.t.Context())
	g := supervise.NewGroup(context.WithoutCancel(p.t.Context()))
	l := newPipeListener()
	p.fake.serve(mtaCtx, g, p.down...)
	cfg, deps := loadConfig(p.t, p.options), p.fake.deps(l)
	if cfg.TLSPresent {
		deps.TLS = newFakeTLS(&cfg.TLS)
	}
	s := mustNew(p.t, cfg, deps)
	run := supervise.NewGroup(ctx)
	run.Go(s.Run)
	conn, err := l.dial(p.peer)
	if err != nil {
		p.t.Fatal(err)
	}
	p.client, p.group = newClient(conn, g), g
	p.stop = func() {
		conn.Close()
		synctest.Wait()
		cancel()
		if err := run.Wait(); err != nil {
			p.t.Error(err)
		}
		mtaCancel()
		if err := g.Wait(); err != nil {
			p.t.Error(err)
		}
	}
	p.collect()
}

// queue keeps a line of the client until the next other line.
func (p *player) queue(value string) {
	if strings.HasPrefix(value, `"`) {
		raw, err := strconv.Unquote(value)
		if err != nil {
			p.t.Fatalf("%s: %v", value, err)
		}
		p.pending.WriteString(raw)
		return
	}
	p.pending.WriteString(value + "\r\n")
}

func (p *player) send() {
	if p.pending.Len() == 0 {
		return
	}
	text := p.pending.String()
	p.pending.Reset()
	_ = p.client.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := p.client.conn.Write([]byte(text)); err != nil {
		fmt.Fprintf(&p.out, "# %v\n", err)
	}
	p.collect()
}

// collect waits until the server has nothing left to do, and writes down what it
// did.
func (p *player) collect() {
	synctest.Wait()
	text, closed := p.client.take()
	for line := range strings.Lines(text) {
		if line == string(alertRefused) {
			line = "alert of TLS\r\n"
		}
		if !strings.HasSuffix(line, "\r\n") {
			p.t.Errorf("line without CR LF: %q", line)
		}
		p.out.WriteString("S: " + strings.TrimSuffix(line, "\r\n") + "\n")
	}
	p.fake.mu.Lock()
	for ; p.committed < len(p.fake.committed); p.committed++ {
		p.writeMessage(p.fake.committed[p.committed])
	}
	p.fake.mu.Unlock()
	if p.wantLog {
		log := p.fake.log.String()
		for line := range strings.Lines(log[p.logged:]) {
			p.out.WriteString("L: " + strings.TrimPrefix(line, "msg="))
		}
		p.logged = len(log)
	}
	if closed && !strings.HasSuffix(p.out.String(), "Z:\n") {
		p.out.WriteString("Z:\n")
	}
}

// writeMessage writes a committed message down: the envelope on one line, then the
// content line by line.
func (p *player) writeMessage(q msg.CommitQ) {
	e := q.Envelope
	where := "file"
	if q.Inline != nil {
		where = "memory"
	}
	fmt.Fprintf(&p.out, "M: %v se=%v %s from %v %s=%s size=%d", e.TA, e.Session, where, e.Client.IP, e.Client.Protocol, e.Client.Helo, q.Size)
	m := e.Mail
	fmt.Fprintf(&p.out, " mail=%v SIZE=%d BODY=%s RET=%s ENVID=%s XVERP=%v", m.From, m.Size, m.Body, m.Ret, m.EnvID, m.VERP)
	for _, f := range []struct {
		word string
		set  bool
	}{{"SMTPUTF8", m.UTF8}, {"REQUIRETLS", m.RequireTLS}, {"TLS-Required:no", m.TLSOptional}} {
		if f.set {
			p.out.WriteString(" " + f.word)
		}
	}
	if e.Client.Auth.User != "" {
		fmt.Fprintf(&p.out, " %s user=%s AUTH=%s", e.Client.Auth.Mechanism, e.Client.Auth.User, m.Auth)
	}
	for _, r := range e.Rcpts {
		fmt.Fprintf(&p.out, " rcpt=%v NOTIFY=%s ORCPT=%s", r.To, r.Notify, r.ORcpt)
	}
	p.out.WriteString("\n")
	data, err := p.fake.content(q)
	if err != nil {
		p.t.Error(err)
	}
	if int64(len(data)) != q.Size {
		p.t.Errorf("content has %d bytes, size is %d", len(data), q.Size)
	}
	if len(data) > 2000 {
		fmt.Fprintf(&p.out, "M: ... %d bytes\n", len(data))
		return
	}
	for line := range strings.Lines(string(data)) {
		p.out.WriteString("M: " + strings.Trim(strconv.Quote(line), `"`) + "\n")
	}
}
