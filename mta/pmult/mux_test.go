package pmult

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/logfmt"
	"meta1/mta/supervise"
	"meta1/pmilter"
)

// patient bounds waits of tests for what does not fail.
const patient = 2 * time.Minute

// packet is one message of the milter protocol.
func packet(kind byte, data string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data)+1)), append([]byte{kind}, data...)...)
}

// filter is a Sendmail milter that answers as a test wants.
type filter struct {
	addr   string
	answer func(kind byte, data string) [][]byte // nil: continue where an answer is due
}

// newFilter starts a filter.
func newFilter(t *testing.T, answer func(kind byte, data string) [][]byte) *filter {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &filter{addr: "inet://" + l.Addr().String(), answer: answer}
	group := supervise.NewGroup(context.Background())
	group.Go(func(context.Context) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return nil //nolint:nilerr // the test is over
			}
			group.Go(func(ctx context.Context) error {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				f.serve(c)
				return nil
			})
		}
	})
	t.Cleanup(func() { l.Close(); group.Stop(); _ = group.Wait() })
	return f
}

func (f *filter) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(r, data); err != nil {
			return
		}
		var replies [][]byte
		if f.answer != nil {
			replies = f.answer(head[4], string(data))
		}
		switch {
		case replies != nil:
		case head[4] == 'O':
			b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 6), 0x1ff), 1<<11)
			replies = [][]byte{packet('O', string(b))}
		case head[4] == 'Q':
			return
		case strings.IndexByte("DAK", head[4]) < 0:
			replies = [][]byte{packet('c', "")}
		}
		for _, p := range replies {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}
}

// smtpd is the SMTP server's side of one pmilter connection.
type smtpd struct {
	t     *testing.T
	c     net.Conn
	r     *bufio.Reader
	buf   bytes.Buffer
	agree pmilter.Agreement
}

// start starts a multiplexer.
func start(t *testing.T, conf string, log io.Writer) (addr string, reload chan<- *Loaded) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := load("listen inet:1@127.0.0.1;\n" + conf)
	if err != nil {
		t.Fatal(err)
	}
	if log == nil {
		log = io.Discard
	}
	again := make(chan *Loaded)
	o := Options{
		Config: loaded, Version: "test", Listener: l, TempDir: t.TempDir(), Reload: again,
		Log: slog.New(logfmt.NewHandler(logfmt.NewWriter(log), logfmt.Options{Level: slog.LevelDebug})),
	}
	group := supervise.NewGroup(context.Background())
	group.Go(func(ctx context.Context) error { return Run(ctx, o) })
	t.Cleanup(func() {
		group.Stop()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), again
}

// connect negotiates as an SMTP server does.
func connect(t *testing.T, addr string) *smtpd {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patient))
	s := &smtpd{t: t, c: c, r: bufio.NewReader(c)}
	offer := pmilter.Offer{Min: 1, Max: 1, Options: pmilter.Options{Cap: pmilter.CapAll, Fct: pmilter.FctAll}, Host: "mx.test", Program: "test"}
	s.write(pmilter.Frame{Type: pmilter.FrameOffer, Data: offer.Append(nil)})
	f := s.read()
	if f.Type != pmilter.FrameAgree {
		t.Fatalf("%x %q", f.Type, f.Data)
	}
	if s.agree, err = pmilter.ParseAgreement(f.Data, &offer); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *smtpd) write(f pmilter.Frame) {
	s.t.Helper()
	if _, err := s.c.Write(pmilter.AppendFrame(nil, f)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *smtpd) read() pmilter.Frame {
	s.t.Helper()
	f, err := pmilter.ReadFrame(s.r, &s.buf)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// say tells of a step of session 1; it gives the changes and the answer as text.
func (s *smtpd) say(k pmilter.Command) string {
	s.t.Helper()
	s.write(pmilter.Frame{Type: k.Type, Session: 1, Data: k.Append(nil)})
	if k.Type == pmilter.FrameAbort || k.Type == pmilter.FrameClose || k.Type == pmilter.FrameRplcStatus {
		return ""
	}
	var said []string
	for {
		f := s.read()
		if f.Type == pmilter.FrameAnswer {
			a, err := pmilter.ParseAnswer(f.Data, k.Type)
			if err != nil {
				s.t.Fatal(err)
			}
			return strings.Join(append(said, strings.TrimRight(a.Code.String()+" "+a.Reply, "\r\n ")), "; ")
		}
		c, err := pmilter.ParseChange(f)
		if err != nil {
			s.t.Fatal(err)
		}
		switch f.Type {
		case pmilter.FrameChunk:
			said = append(said, fmt.Sprintf("chunk %q", c.Chunk))
		case pmilter.FrameMailReplace:
			said = append(said, fmt.Sprintf("from %s %v", c.Addr, c.Args))
		case pmilter.FrameRcptAdd:
			said = append(said, fmt.Sprintf("add %s %v", c.Addr, c.Args))
		case pmilter.FrameRcptDel:
			said = append(said, fmt.Sprintf("del %s %d", c.Addr, c.Index))
		case pmilter.FrameHeader:
			said = append(said, fmt.Sprintf("%s %d %q", c.Mod, c.Pos, c.Header))
		case pmilter.FrameHold:
			said = append(said, "hold "+c.Reason)
		}
	}
}

// want says a step and checks the answer.
func (s *smtpd) want(k pmilter.Command, want string) {
	s.t.Helper()
	if got := s.say(k); got != want {
		s.t.Errorf("command 0x%x is answered with\n%s\nwant\n%s", uint8(k.Type), got, want)
	}
}

func (s *smtpd) greet() {
	s.t.Helper()
	s.want(pmilter.Command{Type: pmilter.FrameConnect, Name: "client.test", Addr: "192.0.2.1", Port: 25, Macros: []pmilter.MacroValue{
		{Macro: pmilter.MacroSeID, Value: "S1"}, {Macro: pmilter.MacroSrvHostname, Value: "mx.test"},
	}}, "continue")
	s.want(pmilter.Command{Type: pmilter.FrameHelo, Name: "helo.test", ESMTP: true}, "continue")
}

func (s *smtpd) envelope(from string, to ...string) {
	s.t.Helper()
	s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<" + from + ">", Macros: []pmilter.MacroValue{{Macro: pmilter.MacroAuthType, Value: "PLAIN"}}}, "continue")
	for i, r := range to {
		s.want(pmilter.Command{Type: pmilter.FrameRcpt, Addr: "<" + r + ">", Index: uint32(i), Status: 250}, "continue")
	}
	s.want(pmilter.Command{Type: pmilter.FrameData}, "continue")
}

func (s *smtpd) message(text string, rcpts int) string {
	s.t.Helper()
	for len(text) > 0 {
		n := min(len(text), 30000)
		s.want(pmilter.Command{Type: pmilter.FrameMsg, Chunk: []byte(text[:n])}, "continue")
		text = text[n:]
	}
	return s.say(pmilter.Command{Type: pmilter.FrameEOM, Index: uint32(rcpts)})
}

// rest reads a message that replaces another one.
func (s *smtpd) rest() (text string) {
	s.t.Helper()
	for {
		s.write(pmilter.Frame{Type: pmilter.FrameNext, Session: 1})
		f := s.read()
		text += string(f.Data)
		a, err := pmilter.ParseAnswer(s.read().Data, pmilter.FrameNext)
		if err != nil || a.Code != pmilter.Continue && a.Code != pmilter.OK {
			s.t.Fatal(a, err)
		}
		if a.Code == pmilter.OK {
			s.say(pmilter.Command{Type: pmilter.FrameRplcStatus, Done: true})
			return text
		}
	}
}

func number32(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

// TestChanges has two filters change a message: the second sees what the first has made.
func TestChanges(t *testing.T) {
	seen := make(chan string, 1)
	var got []string
	first := newFilter(t, func(kind byte, data string) [][]byte {
		if kind != 'E' {
			return nil
		}
		return [][]byte{
			packet('h', "X-First\x00one\x00"), packet('i', number32(0)+"X-Top\x00two\x00"), packet('m', number32(1)+"Subject\x00new\x00"),
			packet('m', number32(2)+"A\x00\x00"), packet('+', "<added@x.test>\x00"), packet('2', "<more@x.test>\x00NOTIFY=NEVER\x00"), packet('-', "<b@X.test>\x00"),
			packet('+', "a@x.test\x00"), packet('+', "no address\x00"), packet('-', "nobody@x.test\x00"), packet('e', "<>\x00RET=HDRS\x00"),
			packet('q', "odd"), packet('c', ""),
		}
	})
	second := newFilter(t, func(kind byte, data string) [][]byte {
		switch kind {
		case 'L', 'B':
			got = append(got, strings.ReplaceAll(data, "\x00", "|"))
		case 'E':
			seen <- strings.Join(got, " ")
			got = nil
			return [][]byte{packet('-', "added@x.test\x00"), packet('c', "")}
		}
		return nil
	})
	addr, _ := start(t, "client one { url "+first.addr+"; } client two { url "+second.addr+"; }", nil)
	s := connect(t, addr)
	s.greet()
	s.envelope("joe@x.test", "a@x.test", "b@x.test")
	want := `from <> [RET=HDRS]; add <more@x.test> [NOTIFY=NEVER]; del <b@x.test> 1; hold quarantined by milter one: odd; ` +
		`insert 2 "X-Top: two\r\n"; insert 2 "Subject: new\r\n"; remove 1 ""; append 0 "X-First: one\r\n"; remove 3 ""; continue`
	if answer := s.message("Subject: old\r\nA: 1\r\nA: 2\r\n\r\nbody\r\n", 2); answer != want {
		t.Errorf("%s\nwant\n%s", answer, want)
	}
	if text := <-seen; text != "X-Top|two| Subject|new| A|1| X-First|one| body\r\n" {
		t.Errorf("the second filter has seen %q", text)
	}
}

// TestReplace has filters replace the body of small and large messages, and remove all recipients.
func TestReplace(t *testing.T) {
	f := newFilter(t, func(kind byte, data string) [][]byte {
		if kind == 'E' {
			return [][]byte{packet('b', "new\n"), packet('b', "lines\r"), packet('b', "\nend"), packet('c', "")}
		}
		return nil
	})
	big := newFilter(t, func(kind byte, data string) [][]byte {
		if kind == 'E' {
			return append(slices.Repeat([][]byte{packet('b', strings.Repeat("0123456789abcdef\r\n", 3000))}, 20), packet('c', ""))
		}
		return nil
	})
	for _, c := range []struct{ url, body string }{{f.addr, "new\r\nlines\r\nend\r\n"}, {big.addr, strings.Repeat("0123456789abcdef\r\n", 60000)}} {
		addr, _ := start(t, "client one { url "+c.url+"; }", nil)
		s := connect(t, addr)
		s.greet()
		for _, text := range []string{"Subject: old\r\n\r\nbody\r\n", "Subject: old\r\n\r\n" + strings.Repeat("long\r\n", 200000)} {
			s.envelope("joe@x.test", "a@x.test")
			if answer := s.message(text, 1); answer != "replace" {
				t.Fatal(answer)
			}
			if text := s.rest(); text != "Subject: old\r\n\r\n"+c.body {
				t.Errorf("the message has %d bytes", len(text))
			}
		}
	}
}

// TestRefusals has filters decide at each step.
func TestRefusals(t *testing.T) {
	f := newFilter(t, func(kind byte, data string) [][]byte {
		switch {
		case kind == 'C' && strings.HasPrefix(data, "bad"):
			return [][]byte{packet('y', "550 5.7.1 100%% bad\x00")}
		case kind == 'H' && strings.HasPrefix(data, "bad"):
			return [][]byte{packet('y', "421 4.3.2 gone\x00")}
		case kind == 'M' && strings.HasPrefix(data, "<bad"):
			return [][]byte{packet('y', "550-first\r\n550 second\x00")}
		case kind == 'R' && strings.HasPrefix(data, "<bad"):
			return [][]byte{packet('t', "")}
		case kind == 'R' && strings.HasPrefix(data, "<drop"):
			return [][]byte{packet('d', "")}
		case kind == 'E':
			return [][]byte{packet('r', "")}
		case kind == 'U':
			return [][]byte{packet('y', "502 5.5.1 unheard of\x00")}
		}
		return nil
	})
	addr, _ := start(t, "client { url "+f.addr+"; }", nil)
	s := connect(t, addr)
	s.want(pmilter.Command{Type: pmilter.FrameConnect, Name: "bad.test", Addr: "192.0.2.1"}, "550 550 5.7.1 100% bad")
	s.say(pmilter.Command{Type: pmilter.FrameClose})
	s.greet()
	s.want(pmilter.Command{Type: pmilter.FrameHelo, Name: "bad"}, "421 421 4.3.2 gone")
	s.want(pmilter.Command{Type: pmilter.FrameUnknown, Name: "XYZ"}, "502 502 5.5.1 unheard of")
	s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<bad@x.test>"}, "550 550-5.0.0 first\r\n550 5.0.0 second")
	s.envelope("joe@x.test")
	s.want(pmilter.Command{Type: pmilter.FrameRcpt, Addr: "<bad@x.test>", Status: 250}, "451 451 4.7.1 Please try again later")
	s.want(pmilter.Command{Type: pmilter.FrameRcpt, Addr: "<unknown@x.test>", Status: 550, Reply: "550 5.1.1 unknown\r\n"}, "continue")
	s.want(pmilter.Command{Type: pmilter.FrameRcpt, Addr: "<joe@x.test>", Status: 250}, "continue")
	if answer := s.message("a: b\r\n\r\nc\r\n", 1); answer != "550 550 5.7.1 Command rejected" {
		t.Error(answer)
	}
	s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<joe@x.test>"}, "continue")
	s.want(pmilter.Command{Type: pmilter.FrameRcpt, Addr: "<drop@x.test>", Status: 250}, "discard")
	s.say(pmilter.Command{Type: pmilter.FrameAbort})
	s.envelope("joe@x.test")
	if answer := s.message(strings.Repeat("x", 10)+": "+strings.Repeat("y\r\n ", headerMax/4)+"\r\n\r\n", 1); answer != "552 552 5.3.4 Header is too big" {
		t.Error(answer)
	}
}

// TestFails: what becomes of mail when a filter hangs or is gone is what on-failure says, and
// the reason is in the log.
func TestFails(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	f := newFilter(t, func(kind byte, data string) [][]byte {
		if kind == 'M' {
			<-hang
		}
		return nil
	})
	gone, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := "inet://" + gone.Addr().String()
	gone.Close()
	for word, want := range map[string]string{
		"accept": "continue", "tempfail": "451 451 4.7.1 Service unavailable, try again later", "reject": "550 550 5.7.1 Service unavailable",
		"abort": "421 421 4.7.1 Service unavailable, closing connection", "quarantine": "continue",
	} {
		t.Run(word, func(t *testing.T) {
			var log lockedBuffer
			addr, _ := start(t, "client mf { url "+f.addr+"; read-timeout 1; on-failure "+word+"; }", &log)
			s := connect(t, addr)
			s.greet()
			s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<joe@x.test>"}, want)
			if !strings.Contains(log.String(), "event=milter failed, milter=mf, where=mail, error=read ") {
				t.Errorf("the log has no reason: %s", log.String())
			}
			if word == "quarantine" {
				s.want(pmilter.Command{Type: pmilter.FrameRcpt, Addr: "<a@x.test>", Status: 250}, "continue")
				if answer := s.message("a: b\r\n\r\nc\r\n", 1); !strings.HasPrefix(answer, "hold quarantined by milter mf: milter mf failed: ") {
					t.Error(answer)
				}
			}
		})
	}
	addr, _ := start(t, "client mf { url "+nowhere+"; on-failure tempfail; }", nil)
	s := connect(t, addr)
	s.greet()
	s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<joe@x.test>"}, "451 451 4.7.1 Service unavailable, try again later")
}

// TestMacros: filters see what the manual lists, and what define-macros adds.
func TestMacros(t *testing.T) {
	macros := make(chan string, 100)
	f := newFilter(t, func(kind byte, data string) [][]byte {
		switch {
		case kind == 'O':
			b := number32(6) + number32(0) + number32(0) + number32(2) + "i {auth_type} {auth_authen} f {client_addr} {client_port} j s {multiplexer} {mult_version} {ntries} {nrcpts}\x00"
			return [][]byte{packet('O', b)}
		case kind == 'D' && data[0] == 'M':
			macros <- strings.ReplaceAll(data[1:], "\x00", "|")
		}
		return nil
	})
	conf := "client { url " + f.addr + "; }"
	const always = "i|S1|f|joe@x.test|{client_addr}|192.0.2.1|{client_port}|25|j|mx.test|s|helo.test|{multiplexer}|pmult|{mult_version}|test|{ntries}|1|{nrcpts}|0|"
	for define, want := range map[string]string{
		"":                              always,
		"define-macros mail auth_type;": strings.Replace(always, "f|", "{auth_type}|PLAIN|f|", 1),
		"auth-macros yes;":              strings.Replace(always, "f|", "{auth_type}|PLAIN|f|", 1),
		"define-macros eom (hostname);": always,
		"define-macros helo auth_type;": always,
	} {
		addr, _ := start(t, define+conf, nil)
		s := connect(t, addr)
		s.greet()
		s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<joe@x.test>", Macros: []pmilter.MacroValue{{Macro: pmilter.MacroAuthType, Value: "PLAIN"}}}, "continue")
		if got := <-macros; got != want {
			t.Errorf("%s: %s\nwant %s", define, got, want)
		}
	}
}

// TestTurns: with max-threads-hard 1 a session waits for another one's filter, and nothing is lost.
func TestTurns(t *testing.T) {
	var busy atomicMax
	f := newFilter(t, func(kind byte, data string) [][]byte {
		if kind == 'H' {
			busy.enter()
			defer busy.leave()
		}
		return nil
	})
	addr, _ := start(t, "max-threads-hard 1; client { url "+f.addr+"; }", nil)
	group := supervise.NewGroup(t.Context())
	for range 4 {
		s := connect(t, addr)
		group.Go(func(context.Context) error { s.greet(); return nil })
	}
	if err := group.Wait(); err != nil || busy.most.Load() != 1 {
		t.Error(err, busy.most.Load())
	}
}

// TestReload: sessions that begin later have the new filters.
func TestReload(t *testing.T) {
	refuse := func(kind byte, data string) [][]byte {
		if kind == 'M' {
			return [][]byte{packet('r', "")}
		}
		return nil
	}
	addr, reload := start(t, "client { url "+newFilter(t, nil).addr+"; }", nil)
	s := connect(t, addr)
	s.greet()
	l, err := load("listen unix:/x; client { url " + newFilter(t, refuse).addr + "; }")
	if err != nil {
		t.Fatal(err)
	}
	reload <- l
	reload <- l // the second is taken when the first is in effect
	s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<joe@x.test>"}, "continue")
	s = connect(t, addr)
	s.greet()
	s.want(pmilter.Command{Type: pmilter.FrameMail, Addr: "<joe@x.test>"}, "550 550 5.7.1 Command rejected")
}

// lockedBuffer is a log that tests read.
type lockedBuffer struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// atomicMax counts how many are inside, and how many were at most.
type atomicMax struct{ now, most atomic.Int32 }

func (m *atomicMax) enter() {
	n := m.now.Add(1)
	for {
		old := m.most.Load()
		if n <= old || m.most.CompareAndSwap(old, n) {
			return
		}
	}
}

func (m *atomicMax) leave() { m.now.Add(-1) }
