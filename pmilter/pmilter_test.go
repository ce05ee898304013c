package pmilter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// hangs is the limit after which a test hangs.
const hangs = time.Minute

// server is the SMTP server's end of a connection.
type server struct {
	t     *testing.T
	nc    net.Conn
	r     *bufio.Reader
	buf   bytes.Buffer
	agree Agreement
	offer Offer
}

// listen serves a policy milter on a Unix socket and returns its path.
func listen(t *testing.T, p Pmilter, setup ...func(*Global)) string {
	t.Helper()
	g, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range setup {
		f(g)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func dial(t *testing.T, path string) *server {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(hangs))
	return &server{t: t, nc: nc, r: bufio.NewReader(nc), offer: Offer{
		Min: VersionMin, Max: VersionMax, Options: Options{Cap: CapAll, Fct: FctAll, Feat: FeatPRDR},
		Timeout: time.Minute, Host: "mx.example", Program: "meta1-test",
	}}
}

func (s *server) send(f Frame) {
	s.t.Helper()
	if _, err := s.nc.Write(AppendFrame(nil, f)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) read() (Frame, error) { return ReadFrame(s.r, &s.buf) }

// negotiate makes the offer.
func (s *server) negotiate() *server {
	s.t.Helper()
	s.send(Frame{Type: FrameOffer, Data: s.offer.Append(nil)})
	f, err := s.read()
	if err != nil || f.Type != FrameAgree {
		s.t.Fatalf("frame 0x%x %q, %v", uint8(f.Type), f.Data, err)
	}
	if s.agree, err = ParseAgreement(f.Data, &s.offer); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func (s *server) tell(session uint32, k Command) {
	s.t.Helper()
	s.send(Frame{Type: k.Type, Session: session, Data: k.Append(nil)})
}

// ask sends a command and reads changes and the answer.
func (s *server) ask(session uint32, k Command) (Answer, []Change) {
	s.t.Helper()
	s.tell(session, k)
	var changes []Change
	for {
		f, err := s.read()
		if err != nil || f.Session != session {
			s.t.Fatalf("session %d: frame 0x%x of session %d, %v", session, uint8(f.Type), f.Session, err)
		}
		if f.Type == FrameAnswer {
			a, err := ParseAnswer(f.Data, k.Type)
			if err != nil {
				s.t.Fatal(err)
			}
			return a, changes
		}
		c, err := ParseChange(f)
		if err != nil {
			s.t.Fatal(err)
		}
		c.Chunk = slices.Clone(c.Chunk)
		changes = append(changes, c)
	}
}

// code asks and returns the code.
func (s *server) code(session uint32, k Command) Code {
	s.t.Helper()
	a, _ := s.ask(session, k)
	return a.Code
}

// TestDialogue: all callbacks with what they are told, and the contexts.
func TestDialogue(t *testing.T) {
	said := make(chan string, 100)
	say := func(s string) { said <- s }
	path := listen(t, Pmilter{
		Name: "all",
		Negotiate: func(ss *Server, o Offer) (Options, error) {
			ss.SetContext("server of " + ss.Global().Context().(string))
			if err := errors.Join(ss.SetMacros(StageConnect, MacroSrvHostname, MacroSeID, MacroEnd, MacroAuthType), ss.AddMacrosByName(StageMail, "mail_taid"), ss.AddMacrosByName(StageMail, "PMM_AUTH_AUTHOR")); err != nil {
				return o.Options, err
			}
			if err := ss.SetMacros(StageConnect, MacroSeID); !errors.Is(err, ErrMacrosSet) {
				t.Errorf("macros of a stage set twice: %v", err)
			}
			if err := ss.AddMacrosByName(StageDot, "nonsense"); !errors.Is(err, ErrNoMacro) {
				t.Errorf("a macro that is none: %v", err)
			}
			if err := ss.SetMacros(StageDot, slices.Repeat([]Macro{MacroSeID}, MacrosMax+1)...); !errors.Is(err, ErrMacros) {
				t.Errorf("too many macros: %v", err)
			}
			return o.Options, nil
		},
		Connect: func(s *Session) Code {
			host, ok, err := s.Macro(MacroSrvHostname)
			if _, none, err := s.Macro(MacroSeID); none || err != nil {
				t.Errorf("a macro without value: %v, %v", none, err)
			}
			if _, _, err := s.Macro(MacroAuthType); !errors.Is(err, ErrNotAsked) {
				t.Errorf("a macro behind MacroEnd: %v", err)
			}
			if err := s.Server().SetMacros(StageDot, MacroSeID); !errors.Is(err, ErrNegotiated) {
				t.Errorf("macros after the negotiation: %v", err)
			}
			s.SetContext("session")
			say("connect " + s.Client().Name + " " + s.Client().Addr + " " + host)
			if !ok || err != nil {
				t.Error(ok, err)
			}
			return Continue
		},
		Helo: func(_ *Session, name string, ehlo bool) Code {
			if !ehlo {
				return Perm
			}
			say("helo " + name)
			return OK
		},
		Mail: func(s *Session, from string, args []string) Code {
			author, ok, err := s.Macro(MacroAuthAuthor)
			if err != nil {
				t.Error(err)
			}
			say("mail " + from + " " + strings.Join(args, " "))
			if ok {
				say("author " + author)
			}
			return Continue
		},
		Rcpt: func(s *Session, to string, _ []string) Code {
			i, err := s.RcptIndex()
			code, text, err2 := s.Status()
			if err := errors.Join(err, err2); err != nil {
				t.Error(err)
			}
			say("rcpt " + to + " " + string(rune('0'+i)) + " " + code.String() + " " + text)
			return Quick(Accept)
		},
		Data:    func(*Session) Code { say("data"); return Continue },
		Unknown: func(_ *Session, line string) Code { say("unknown " + line); return Continue },
		Msg:     func(_ *Session, p []byte) Code { say("msg " + string(p)); return Continue },
		EOM: func(s *Session) Code {
			say("eom " + s.Context().(string) + " " + s.Server().Context().(string))
			return OK
		},
		Abort: func(*Session) { say("abort") },
		Close: func(*Session) { say("close") },
	}, func(g *Global) { g.SetContext("all") })
	s := dial(t, path).negotiate()
	if s.agree.Program != "all" || s.agree.Cap != CapAll || s.agree.Fct != FctAll&^FctReplace || s.agree.Version != VersionMax {
		t.Errorf("agreement %+v", s.agree)
	}
	if !slices.Equal(s.agree.Macros[StageConnect], []Macro{MacroSrvHostname, MacroSeID}) || !slices.Equal(s.agree.Macros[StageMail], []Macro{MacroMailTAID, MacroAuthAuthor}) {
		t.Errorf("macros %v", s.agree.Macros)
	}
	var codes []Code
	for _, k := range []Command{
		{Type: FrameConnect, Name: "c.example", Addr: "192.0.2.1", Port: 4711, Macros: []MacroValue{{MacroSrvHostname, "mx.example"}, {MacroTLSVersion, "not asked for"}}},
		{Type: FrameHelo, Name: "x.example", ESMTP: true},
		{Type: FrameHelo, Name: "x.example"},
		{Type: FrameUnknown, Name: "ETRN x"},
		{Type: FrameMail, Addr: "<a@b>", Args: []string{"SIZE=5", "PRDR"}, Macros: []MacroValue{{MacroAuthAuthor, "<x@y>"}}},
		{Type: FrameRcpt, Addr: "<c@d>", Status: 250},
		{Type: FrameRcpt, Addr: "<e@f>", Index: 1, Status: 550, Reply: "550 5.1.1 no\r\n"},
		{Type: FrameData},
		{Type: FrameMsg, Chunk: []byte("A: b\r\n\r\n")},
		{Type: FrameEOM, Index: 1},
		{Type: FrameMail, Addr: "<>"},
	} {
		codes = append(codes, s.code(7, k))
	}
	s.tell(7, Command{Type: FrameAbort})
	s.tell(7, Command{Type: FrameAbort}) // of nothing
	s.tell(7, Command{Type: FrameClose})
	if want := []Code{Continue, OK, Perm, Continue, Continue, Quick(Accept), Quick(Accept), Continue, Continue, OK, Continue}; !slices.Equal(codes, want) {
		t.Errorf("codes %v", codes)
	}
	for _, want := range []string{
		"connect c.example 192.0.2.1 mx.example", "helo x.example", "unknown ETRN x", "mail <a@b> SIZE=5 PRDR", "author <x@y>",
		"rcpt <c@d> 0 ok ", "rcpt <e@f> 1 550 550 5.1.1 no\r\n", "data", "msg A: b\r\n\r\n", "eom session server of all", "mail <> ", "abort", "close",
	} {
		if got := <-said; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestChanges: the functions of EOM, with their checks.
func TestChanges(t *testing.T) {
	chunks := []string{"New: header\r\n", "\r\nbody\r\n"}
	stat := make(chan bool, 1)
	path := listen(t, Pmilter{
		Name: "changes",
		Mail: func(s *Session, _ string, _ []string) Code {
			if err := s.MailReplace("<x@y>"); !errors.Is(err, ErrNotEOM) {
				t.Errorf("a change before the end: %v", err)
			}
			return Continue
		},
		EOM: func(s *Session) Code {
			if err := errors.Join(
				s.MailReplace("<new@sender>", "RET=HDRS"), s.RcptAdd("<add@rcpt>"), s.RcptDel("<one@rcpt>", 0), s.RcptDel("<two@rcpt>", 1),
				s.HeaderMod(HeaderPrepend, 0, "A: 1\r\n"), s.HeaderMod(HeaderInsert, 3, "B: 2\r\n\tfold\r\n"), s.HeaderMod(HeaderRemove, 1, ""),
				s.SetReplies([]int{250, 550}, nil), s.Hold("why not"),
			); err != nil {
				t.Error(err)
			}
			for name, err := range map[string]error{
				"another recipient": s.RcptDel("<x@y>", 2), "replies": s.SetReplies([]int{250}, nil), "code": s.SetReplies([]int{250, 354}, nil),
				"no line end": s.HeaderMod(HeaderAppend, 0, "A: b"), "header": s.HeaderMod(HeaderAppend, 0, "A: b\r\nC: d\r\n"),
				"end of header": s.HeaderMod(HeaderAppend, 0, "A: b\r\n\r\n"), "kind": s.HeaderMod(9, 0, "A: b\r\n"),
				"text": s.SetReply("550 5.7.1 no"), "class": s.SetReply("550 4.7.1 no\r\n"), "accepts": s.SetReply("250 2.0.0 ok\r\n"),
				"lines": s.SetReply("550 5.7.1 a\r\n550 5.7.1 b\r\n"), "codes": s.SetReply("550-5.7.1 a\r\n551 5.7.1 b\r\n"), "control": s.SetReply("550 5.7.1 a\x00\r\n"),
				"enhanced": s.SetReply("550 no such\r\n"),
			} {
				if err == nil {
					t.Errorf("%s was taken", name)
				}
			}
			return Replace
		},
		MsgReplace: func(*Session) ([]byte, Code) {
			c := chunks[0]
			if chunks = chunks[1:]; len(chunks) == 0 {
				return []byte(c), OK
			}
			return []byte(c), Continue
		},
		MsgReplaced: func(_ *Session, done bool) { stat <- done },
	})
	s := dial(t, path).negotiate()
	s.ask(1, Command{Type: FrameConnect})
	s.ask(1, Command{Type: FrameMail, Addr: "<a@b>"})
	a, changes := s.ask(1, Command{Type: FrameEOM, Index: 2})
	if a.Code != Replace || len(changes) != 9 {
		t.Fatalf("%v %+v", a, changes)
	}
	if c := changes[0]; c.Type != FrameMailReplace || c.Addr != "<new@sender>" || !slices.Equal(c.Args, []string{"RET=HDRS"}) {
		t.Errorf("%+v", c)
	}
	if c := changes[3]; c.Type != FrameRcptDel || c.Addr != "<two@rcpt>" || c.Index != 1 {
		t.Errorf("%+v", c)
	}
	if c := changes[5]; c.Mod != HeaderInsert || c.Pos != 3 || c.Header != "B: 2\r\n\tfold\r\n" {
		t.Errorf("%+v", c)
	}
	if c := changes[7]; len(c.Replies) != 2 || c.Replies[1].Code != 550 {
		t.Errorf("%+v", c)
	}
	for _, want := range []struct {
		code Code
		text string
	}{{Continue, "New: header\r\n"}, {OK, "\r\nbody\r\n"}} {
		a, changes = s.ask(1, Command{Type: FrameNext})
		if a.Code != want.code || len(changes) != 1 || string(changes[0].Chunk) != want.text {
			t.Errorf("%v %+v", a, changes)
		}
	}
	s.tell(1, Command{Type: FrameRplcStatus, Done: true})
	if !<-stat {
		t.Error("not replaced")
	}
}

// TestReplies: a text goes with the code that it has, and with no other.
func TestReplies(t *testing.T) {
	const text = "451-4.7.1 one\r\n451 4.7.1 two\r\n"
	path := listen(t, Pmilter{
		Name: "reply",
		Helo: func(s *Session, name string, _ bool) Code {
			if err := s.SetReply(text); err != nil {
				t.Error(err)
			}
			switch name {
			case "same":
				return 451
			case "impossible":
				return 123
			case "panic":
				panic("on purpose")
			}
			return 550
		},
		Msg: func(*Session, []byte) Code { return 550 },
	})
	s := dial(t, path).negotiate()
	s.ask(1, Command{Type: FrameConnect})
	for name, want := range map[string]Answer{"same": {FrameHelo, 451, text}, "other": {FrameHelo, 550, ""}, "impossible": {FrameHelo, Temp, ""}} {
		if a, _ := s.ask(1, Command{Type: FrameHelo, Name: name}); a != want {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if c := s.code(1, Command{Type: FrameMsg, Chunk: []byte("x")}); c != Continue {
		t.Errorf("a chunk decides without CapMsgCode: %v", c)
	}
	if c := s.code(1, Command{Type: FrameHelo, Name: "panic"}); c != Temp {
		t.Errorf("panic: %v", c)
	}
	if c := s.code(1, Command{Type: FrameHelo, Name: "same"}); c != Continue {
		t.Errorf("after a panic: %v", c)
	}
	s.ask(2, Command{Type: FrameConnect})
	if c := s.code(2, Command{Type: FrameHelo, Name: "same"}); c != 451 {
		t.Errorf("another session: %v", c)
	}
}

// TestSessionsWaitForThemselves: one that is slow delays no other.
func TestSessionsWaitForThemselves(t *testing.T) {
	hold := make(chan struct{})
	path := listen(t, Pmilter{Name: "slow", Helo: func(_ *Session, name string, _ bool) Code {
		if name == "slow" {
			<-hold
		}
		return Continue
	}})
	s := dial(t, path).negotiate()
	s.ask(1, Command{Type: FrameConnect})
	s.ask(2, Command{Type: FrameConnect})
	s.tell(1, Command{Type: FrameHelo, Name: "slow"})
	for range 10 {
		s.ask(2, Command{Type: FrameHelo, Name: "fast"})
	}
	close(hold)
	if f, err := s.read(); err != nil || f.Session != 1 {
		t.Errorf("session %d, %v", f.Session, err)
	}
}

// TestBadServers: what a server must not send ends its connection, and Close is called.
func TestBadServers(t *testing.T) {
	closed := make(chan struct{}, 10)
	path := listen(t, Pmilter{Name: "x", Close: func(*Session) { closed <- struct{}{} }, Helo: func(*Session, string, bool) Code { return OK }},
		func(g *Global) { _ = g.SetTimeout(hangs) })
	helo := Command{Type: FrameHelo, Name: "x"}
	for name, f := range map[string]Frame{
		"unknown type":   {Type: 0x42, Session: 1},
		"not open":       {Type: FrameHelo, Session: 2, Data: helo.Append(nil)},
		"cut short":      {Type: FrameHelo, Session: 1, Data: []byte{1, 0}},
		"opened twice":   {Type: FrameConnect, Session: 1, Data: (&Command{Type: FrameConnect}).Append(nil)},
		"many macros":    {Type: FrameHelo, Session: 1, Data: []byte{255}},
		"large chunk":    {Type: FrameMsg, Session: 1, Data: make([]byte, ChunkSize)},
		"an answer":      {Type: FrameAnswer, Session: 1},
		"a second offer": {Type: FrameOffer},
	} {
		s := dial(t, path).negotiate()
		s.ask(1, Command{Type: FrameConnect})
		s.send(f)
		if _, err := s.read(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		<-closed
	}
	for name, raw := range map[string]string{
		"4 GB": "\xff\xff\xff\xff\x01", "nothing": "\x00\x00\x00\x00", "SMTP": "EHLO x\r\n",
		"no offer": string(AppendFrame(nil, Frame{Type: FrameHelo})), "bad magic": string(AppendFrame(nil, Frame{Type: FrameOffer, Data: make([]byte, 40)})),
	} {
		s := dial(t, path)
		if _, err := s.nc.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.read(); err == nil {
			t.Errorf("%s: no end", name)
		}
	}
}

// TestNegotiation: versions and capabilities.
func TestNegotiation(t *testing.T) {
	path := listen(t, Pmilter{Name: "x", Negotiate: func(_ *Server, o Offer) (Options, error) {
		if o.Cap&CapRcptStatus == 0 {
			return Options{Cap: CapRcptStatus}, nil
		}
		return Options{Cap: CapHelo | CapMail, Fct: FctHeader}, nil
	}, Helo: func(*Session, string, bool) Code { return OK }})
	s := dial(t, path)
	s.offer.Max, s.offer.Cap, s.offer.Fct = 99, 0xffffffff, FctRcptAdd
	s.negotiate()
	if s.agree.Version != VersionMax || s.agree.Cap != CapHelo || s.agree.Fct != 0 {
		t.Errorf("%+v", s.agree)
	}
	for name, change := range map[string]func(*Offer){
		"later versions": func(o *Offer) { o.Min, o.Max = VersionMax+1, VersionMax+2 },
		"less offered":   func(o *Offer) { o.Cap = CapHelo },
	} {
		s := dial(t, path)
		change(&s.offer)
		s.send(Frame{Type: FrameOffer, Data: s.offer.Append(nil)})
		if f, err := s.read(); err != nil || f.Type != FrameRefuse {
			t.Errorf("%s: 0x%x %v", name, uint8(f.Type), err)
		}
	}
}

// TestStart: the socket, a dead one in its way, backlog, Stop.
func TestStart(t *testing.T) {
	g, err := New(Pmilter{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	for _, bad := range []string{"", "http://x/y", "inet://127.0.0.1"} {
		if g.SetConn(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if err := errors.Join(g.SetConn("inet://127.0.0.1:3333"), g.SetConn("unix://"+path), g.SetBacklog(5)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Start(t.Context()) }()
	for {
		nc, err := net.Dial("unix", path)
		if err == nil {
			_ = nc.Close()
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
	g.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := g.Start(t.Context()); err != nil { // ends at once
		t.Error(err)
	}
}

// TestNumbers: the numbers of the wire form, which never change.
func TestNumbers(t *testing.T) {
	if MacroAuthAuthor != 17 || MacroDaemonName != 100 || MacroClientPtr != 105 || CapMsgCode != 0x200 || FctHold != 0x40 || HeaderAppend != 5 || StageDot != 5 {
		t.Error("a number has changed")
	}
	if n := len(Macros()); n != len(macroNames()) || n > MacrosMax {
		t.Errorf("%d macros, %d names", n, len(macroNames()))
	}
	for _, m := range Macros() {
		if back, ok := MacroByName(m.String()); !ok || back != m {
			t.Errorf("%v", m)
		}
	}
}
