package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	form "meta1/pmilter"
)

// withPolicyMilter runs a dialogue with a server that has the policy milter p, and returns what
// was committed and logged.
func withPolicyMilter(t *testing.T, p form.Pmilter, setup func(*Config, *fakeMTA), talk func(*talker)) (*fakeMTA, string) {
	t.Helper()
	var fake *fakeMTA
	synctest.Test(t, func(t *testing.T) {
		g, err := form.New(p)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		milters, done := newPipeListener(), make(chan error, 1)
		go func() { done <- g.Serve(ctx, milters) }()
		l := newPipeListener()
		fake = newFakeMTA()
		cfg := Config{MilterPresent: true, PolicyMilter: PolicyMilter{Socket: Socket{Type: "inet", Address: netip.MustParseAddr("127.0.0.1"), Port: 1}}}
		if setup != nil {
			setup(&cfg, fake)
		}
		deps := fake.deps(l)
		deps.Dial = func(context.Context, string, string) (net.Conn, error) { return milters.dial("") }
		deps.Memory = msg.NewMemory(1 << 20)
		b := startDeps(t, cfg, fake, deps)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(fake.log.String())
			}
		})
		talk(l.talker(t))
		b.end(t)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if used := deps.Memory.Used(); used != 0 || fake.store.unfinished() != 0 {
			t.Errorf("%d bytes of the budget, %d files are left", used, fake.store.unfinished())
		}
	})
	return fake, fake.log.String()
}

// TestPolicyMilterChanges: sender, recipients and header are changed, and nothing else, octet by
// octet, in memory and in files.
func TestPolicyMilterChanges(t *testing.T) {
	for _, inlineMax := range []int64{0, 1 << 20} {
		var seen strings.Builder
		fake, log := withPolicyMilter(t, form.Pmilter{
			Name: "changes",
			Msg:  func(_ *form.Session, p []byte) form.Code { seen.Write(p); return form.Continue },
			EOM: func(s *form.Session) form.Code {
				if err := errors.Join(
					s.MailReplace("<new@sender.example>"), s.RcptAdd("<add@rcpt.example>"), s.RcptDel("<bob@example.org>", 0),
					s.RcptDel("<not.there@example.org>", 0),
					s.HeaderMod(form.HeaderPrepend, 0, "X-Top: 1\r\n"), s.HeaderMod(form.HeaderInsert, 2, "X-Before-2: 1\r\n"),
					s.HeaderMod(form.HeaderRemove, 2, ""), s.HeaderMod(form.HeaderReplace, 3, "C: new\r\n fold\r\n"),
					s.HeaderMod(form.HeaderAppend, 0, "X-Last: 1\r\n"), s.HeaderMod(form.HeaderInsert, 99, "X-Beyond: 1\r\n"), s.HeaderMod(form.HeaderRemove, 98, ""),
				); err != nil {
					t.Error(err)
				}
				return form.OK
			},
		}, func(_ *Config, f *fakeMTA) { f.inlineMax = inlineMax }, func(c *talker) {
			c.begin()
			c.say("A:  odd \t\r\nB: gone\r\nC: old\r\n old\r\nD : d\r\n\r\nbody\r\n..dot\r\n.", "250")
			c.say("QUIT", "221")
		})
		q := fake.committed[0]
		got, err := fake.content(q)
		top, rest, _ := strings.Cut(string(got), "Received:")
		_, rest, _ = strings.Cut(rest, "\r\nA:")
		if want := "  odd \t\r\nX-Before-2: 1\r\nC: new\r\n fold\r\nD : d\r\nX-Last: 1\r\nX-Beyond: 1\r\n\r\nbody\r\n.dot\r\n"; err != nil || top != "X-Top: 1\r\n" || rest != want || int64(len(got)) != q.Size {
			t.Errorf("%q, %v", got, err)
		}
		if want := "A:  odd \t\r\nB: gone\r\nC: old\r\n old\r\nD : d\r\n\r\nbody\r\n.dot\r\n"; seen.String() != want {
			t.Errorf("it saw %q", seen.String())
		}
		if from, rcpts := q.Envelope.Mail.From.Addr(), q.Envelope.Rcpts; from != "new@sender.example" || len(rcpts) != 1 || rcpts[0].To.Addr() != "add@rcpt.example" {
			t.Errorf("from %s to %v", from, rcpts)
		}
		if !strings.Contains(log, "policy milter changes the message") || strings.Count(log, "impossible change") != 1 {
			t.Errorf("log %s", log)
		}
	}
}

// TestPolicyMilterReplaces: the whole message is another one, or stays as it was.
func TestPolicyMilterReplaces(t *testing.T) {
	for _, c := range []struct {
		name   string
		chunks []string
		last   form.Code
		reply  string
		want   string // "": nothing is committed
		done   bool
	}{
		{"replaced", []string{"New: 1\r\n", "\r\nlone\nline", " ends\r\n"}, form.OK, "250", "New: 1\r\nX-Last: 1\r\n\r\nlone\r\nline ends\r\n", true},
		{"empty", []string{""}, form.OK, "250", "X-Last: 1\r\n\r\n", true},
		{"given up", []string{"New: 1\r\n"}, 451, "451", "", false},
		{"too large", []string{strings.Repeat("x", 60000), strings.Repeat("x", 60000)}, form.OK, "552", "", false},
	} {
		for _, inlineMax := range []int64{0, 1 << 20} {
			t.Run(c.name, func(t *testing.T) {
				var told []bool
				chunks := c.chunks
				fake, log := withPolicyMilter(t, form.Pmilter{
					Name: "replaces",
					EOM: func(s *form.Session) form.Code {
						if err := s.HeaderMod(form.HeaderAppend, 0, "X-Last: 1\r\n"); err != nil {
							t.Error(err)
						}
						return form.Replace
					},
					MsgReplace: func(*form.Session) ([]byte, form.Code) {
						p := []byte(chunks[0])
						if chunks = chunks[1:]; len(chunks) == 0 {
							return p, c.last
						}
						return p, form.Continue
					},
					MsgReplaced: func(_ *form.Session, ok bool) { told = append(told, ok) },
				}, func(cfg *Config, f *fakeMTA) { f.inlineMax, cfg.MessageSizeMax = inlineMax, 100_000 }, func(t *talker) {
					t.begin()
					t.say("Old: 1\r\n\r\nold\r\n.", c.reply)
					t.say("QUIT", "221")
					synctest.Wait() // nothing waits for what it is told, and a server that ends does not tell it
				})
				if c.want == "" {
					if len(fake.committed) != 0 {
						t.Error("it was committed")
					}
				} else if got, err := fake.content(fake.committed[0]); err != nil || !strings.HasSuffix(string(got), "\r\n"+c.want) || !strings.HasPrefix(string(got), "Received:") {
					t.Errorf("%q, %v; log %s", got, err, log)
				}
				if len(told) != 1 || told[0] != c.done {
					t.Errorf("it was told %v", told)
				}
			})
		}
	}
}

// TestPolicyMilterCodes: what each code does at each step.
func TestPolicyMilterCodes(t *testing.T) {
	at := func(stage string, code form.Code) form.Pmilter {
		is := func(s string) form.Code {
			if s == stage {
				return code
			}
			return form.Continue
		}
		return form.Pmilter{
			Name:    "codes",
			Connect: func(*form.Session) form.Code { return is("connect") },
			Helo:    func(*form.Session, string, bool) form.Code { return is("helo") },
			Mail:    func(*form.Session, string, []string) form.Code { return is("mail") },
			Rcpt: func(s *form.Session, to string, _ []string) form.Code {
				if strings.Contains(to, "one") {
					_ = s.SetReply("554-5.7.9 a\r\n554 5.7.9 b\r\n")
					return is("rcpt")
				}
				return form.OK
			},
			Data:    func(*form.Session) form.Code { return is("data") },
			Unknown: func(*form.Session, string) form.Code { return is("unknown") },
			Msg:     func(*form.Session, []byte) form.Code { return is("msg") },
			EOM:     func(*form.Session) form.Code { return is("eom") },
		}
	}
	delayed := func(c *Config, _ *fakeMTA) { c.Flags.DelayChecks = true }
	for _, c := range []struct {
		stage   string
		code    form.Code
		setup   func(*Config, *fakeMTA)
		talk    string // commands and codes
		rcpts   int    // that were committed; -1: nothing was
		discard bool
	}{
		{"connect", 550, nil, "- 554", -1, false},
		{"connect", 451, nil, "- 421", -1, false},
		{"connect", form.SSD, nil, "- 421", -1, false},
		{"connect", form.Discard, nil, "- 220|EHLO x 250|M 250|R 250|D 250", -1, true},
		{"connect", form.Accept, nil, "- 220|EHLO x 250|M 250|R 250|D 250", 1, false},
		{"connect", 550, delayed, "- 220|EHLO x 250|M 250|R 550", -1, false},
		{"connect", form.Quick(550), delayed, "- 554", -1, false},
		{"helo", 550, nil, "- 220|EHLO x 550|M 250", -1, false},
		{"mail", 452, nil, "- 220|EHLO x 250|M 452|R 503", -1, false},
		{"mail", 452, delayed, "- 220|EHLO x 250|M 250|R 452", -1, false},
		{"mail", form.Quick(452), delayed, "- 220|EHLO x 250|M 452", -1, false},
		{"mail", form.Discard, nil, "- 220|EHLO x 250|M 250|R 250|D 250", -1, true},
		{"rcpt", 554, nil, "- 220|EHLO x 250|M 250|RCPT TO:<one@x.example> 554|R 250|D 250", 1, false},
		{"rcpt", form.Discard, nil, "- 220|EHLO x 250|M 250|RCPT TO:<one@x.example> 250|R 250|D 250", 1, false},
		{"rcpt", form.Quick(form.Discard), nil, "- 220|EHLO x 250|M 250|RCPT TO:<one@x.example> 250|R 250|D 250", -1, true},
		{"rcpt", form.SSD, nil, "- 220|EHLO x 250|M 250|RCPT TO:<one@x.example> 421", -1, false},
		{"data", 550, nil, "- 220|EHLO x 250|M 250|R 250|DATA 550", -1, false},
		{"unknown", 521, nil, "- 220|EHLO x 250|XYZZY 521|M 250|R 250|D 250", 1, false},
		{"eom", 450, nil, "- 220|EHLO x 250|M 250|R 250|D 450|M 250|R 250", -1, false},
		{"eom", form.Discard, nil, "- 220|EHLO x 250|M 250|R 250|D 250", -1, true},
		{"msg", 550, nil, "- 220|EHLO x 250|M 250|R 250|D 250", 1, false}, // without SM_SCAP_PM_MSG_RC
	} {
		t.Run(c.stage+" "+c.code.String(), func(t *testing.T) {
			fake, log := withPolicyMilter(t, at(c.stage, c.code), c.setup, func(s *talker) {
				for _, step := range strings.Split(c.talk, "|") {
					i := strings.LastIndex(step, " ")
					what, code := step[:i], step[i+1:]
					switch what {
					case "-":
						s.reply(code)
					case "M":
						s.say("MAIL FROM:<a@example.org>", code)
					case "R":
						s.say("RCPT TO:<b@example.org>", code)
					case "D":
						s.say("DATA", "354")
						s.say("A: b\r\n\r\nc\r\n.", code)
					default:
						s.say(what, code)
					}
				}
			})
			switch n := len(fake.committed); {
			case c.rcpts < 0 && n > 0, c.rcpts >= 0 && n != 1:
				t.Errorf("%d messages; log %s", n, log)
			case c.rcpts >= 0 && len(fake.committed[0].Envelope.Rcpts) != c.rcpts:
				t.Errorf("recipients %v", fake.committed[0].Envelope.Rcpts)
			}
			if c.discard != strings.Contains(log, "message discarded") {
				t.Errorf("log %s", log)
			}
			if c.code.Refuses() && c.stage != "msg" && !strings.Contains(log, "policy_milter") {
				t.Errorf("the log does not say who refused: %s", log)
			}
		})
	}
}

// TestPolicyMilterPRDR: recipients refuse the message one by one, if the client understands it.
func TestPolicyMilterPRDR(t *testing.T) {
	for name, c := range map[string]struct {
		codes []int
		param string
		want  []string // replies to the final dot
		rcpts string
	}{
		"some":     {[]int{250, 452, 550}, " PRDR", []string{"353", "250", "452", "250", "550", "250"}, "one"},
		"none":     {[]int{550, 452, 550}, " PRDR", []string{"550"}, ""},
		"not PRDR": {[]int{250, 452, 550}, "", []string{"250"}, "one two three"},
	} {
		t.Run(name, func(t *testing.T) {
			fake, _ := withPolicyMilter(t, form.Pmilter{Name: "prdr", EOM: func(s *form.Session) form.Code {
				if err := s.SetReplies(c.codes, nil); err != nil {
					t.Error(err)
				}
				return form.OK
			}}, nil, func(s *talker) {
				s.reply("220")
				s.say("EHLO x", "250")
				s.say("MAIL FROM:<a@example.org>"+c.param, "250")
				for _, to := range []string{"one", "two", "one", "three"} {
					s.say("RCPT TO:<"+to+"@example.org>", "250")
				}
				s.say("DATA", "354")
				s.send("A: b\r\n\r\nc\r\n.\r\n")
				for _, code := range c.want {
					s.reply(code)
				}
			})
			got := ""
			for _, q := range fake.committed {
				for _, r := range q.Envelope.Rcpts {
					got += " " + r.To.Local
				}
			}
			if got = strings.TrimSpace(got); got != c.rcpts {
				t.Errorf("recipients %q, want %q", got, c.rcpts)
			}
		})
	}
}

// TestPolicyMilterCapabilities: refused recipients are told, and a chunk may decide.
func TestPolicyMilterCapabilities(t *testing.T) {
	var told []string
	fake, _ := withPolicyMilter(t, form.Pmilter{
		Name:      "caps",
		Negotiate: func(_ *form.Server, o form.Offer) (form.Options, error) { return o.Options, nil },
		Rcpt: func(s *form.Session, to string, _ []string) form.Code {
			i, err := s.RcptIndex()
			code, text, err2 := s.Status()
			if err := errors.Join(err, err2); err != nil {
				t.Error(err)
			}
			told = append(told, to+" "+string(rune('0'+i))+" "+code.String()+" "+strings.TrimSpace(text))
			return form.Continue
		},
		Msg: func(s *form.Session, _ []byte) form.Code {
			_ = s.SetReply("554 5.6.0 seen enough\r\n")
			return 554
		},
		EOM: func(*form.Session) form.Code { t.Error("EOM behind a decision"); return form.OK },
	}, func(_ *Config, f *fakeMTA) {
		f.check = func(q msg.CheckQ) msg.Verdict {
			if q.Rcpt.To.Local == "unknown" {
				return msg.Verdict{Action: msg.Reject, Reply: smtp.NewReply(550, "5.1.1", "no such user")}
			}
			return msg.Verdict{}
		}
	}, func(s *talker) {
		s.reply("220")
		s.say("EHLO x", "250")
		s.say("MAIL FROM:<a@example.org>", "250")
		for _, step := range []string{"one 250", "unknown 550", "two 250"} {
			to, code, _ := strings.Cut(step, " ")
			s.say("RCPT TO:<"+to+"@example.org>", code)
		}
		s.say("RCPT TO:<bad", "5")
		s.say("DATA", "354")
		s.say("A: b\r\n\r\nc\r\n.", "554 5.6.0 seen enough")
	})
	if want := "<one@example.org> 0 ok |<unknown@example.org> 1 550 550 5.1.1 no such user|<two@example.org> 1 ok "; strings.Join(told, "|") != want || len(fake.committed) != 0 {
		t.Errorf("%q", told)
	}
}

// TestPolicyMilterFails: one that hangs, dies or talks garbage costs no mail, unless the flag abort
// says so; and is connected to again.
func TestPolicyMilterFails(t *testing.T) {
	garbage := map[string]func(net.Conn){
		"hangs":   func(c net.Conn) { <-t.Context().Done() },
		"dies":    func(c net.Conn) { _ = c.Close() },
		"garbage": func(c net.Conn) { _, _ = c.Write([]byte("220 hello, this is SMTP\r\n")) },
		"4 GB":    func(c net.Conn) { _, _ = c.Write([]byte("\xff\xff\xff\xff\x81\x00\x00\x00\x00")) },
		"short":   func(c net.Conn) { _, _ = c.Write([]byte("\x00\x00\x10\x00\x81\x00")); _ = c.Close() },
		"wants more": func(c net.Conn) { // than was offered
			a := form.Agreement{Version: 1, Options: form.Options{Cap: 1 << 31}}
			_, _ = c.Write(form.AppendFrame(nil, form.Frame{Type: form.FrameAgree, Data: a.Append(nil)}))
		},
	}
	for name, act := range garbage {
		for _, abort := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					dials := 0
					l, fake := newPipeListener(), newFakeMTA()
					deps := fake.deps(l)
					over := make(chan struct{})
					deps.Dial = func(context.Context, string, string) (net.Conn, error) {
						dials++
						ours, theirs := net.Pipe()
						go func() {
							buf := make([]byte, 4096)
							_, _ = theirs.Read(buf)
							if name == "hangs" {
								<-over
							} else {
								act(theirs)
							}
							_, _ = theirs.Read(buf)
							_ = theirs.Close()
						}()
						return ours, nil
					}
					cfg := Config{MilterPresent: true, PolicyMilter: PolicyMilter{Timeout: 5 * time.Second, Abort: abort, AcceptButReconnect: !abort, Socket: Socket{Type: "unix", Path: "x"}}}
					b := startDeps(t, cfg, fake, deps)
					for range 2 {
						c := l.talker(t)
						if abort {
							c.reply("421")
							c.eof()
							continue
						}
						c.begin()
						c.say("A: b\r\n\r\nc\r\n.", "250")
						c.say("QUIT", "221")
					}
					close(over)
					b.end(t)
					if want := map[bool]int{false: 2, true: 0}[abort]; len(fake.committed) != want || dials != 2 {
						t.Errorf("%d messages, %d connections", len(fake.committed), dials)
					}
					if log := fake.log.String(); !strings.Contains(log, "policy milter failed") {
						t.Errorf("log %s", log)
					}
				})
			})
		}
	}
}
