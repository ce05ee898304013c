package pmilter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/smtp"
	wire "meta1/pmilter"
)

// fake is a policy milter that answers as a test wants: frames as they are; nil is silence.
type fake struct {
	agree  wire.Agreement
	answer func(f wire.Frame) []wire.Frame

	mu    sync.Mutex // guards the following
	told  []wire.FrameType
	dials int
	wg    sync.WaitGroup
}

func newFake(answer func(f wire.Frame) []wire.Frame) *fake {
	return &fake{answer: answer, agree: wire.Agreement{Version: 1, Options: wire.Options{Cap: wire.CapAll, Fct: wire.FctAll}, Program: "fake"}}
}

// goesOn answers everything with Continue.
func goesOn(f wire.Frame) []wire.Frame {
	if f.Type >= wire.FrameRplcStatus {
		return nil
	}
	return []wire.Frame{answerTo(f, wire.Continue)}
}

func answerTo(f wire.Frame, c wire.Code) wire.Frame {
	a := wire.Answer{To: f.Type, Code: c}
	return wire.Frame{Type: wire.FrameAnswer, Session: f.Session, Data: a.Append(nil)}
}

func (p *fake) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.mu.Lock()
	p.dials++
	p.mu.Unlock()
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer func() { _ = theirs.Close() }()
		r, buf := bufio.NewReader(theirs), bytes.Buffer{}
		for {
			f, err := wire.ReadFrame(r, &buf)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.told = append(p.told, f.Type)
			p.mu.Unlock()
			frames := []wire.Frame{{Type: wire.FrameAgree, Data: p.agree.Append(nil)}}
			if f.Type != wire.FrameOffer {
				frames = p.answer(f)
			}
			for _, f := range frames {
				if _, err := theirs.Write(wire.AppendFrame(nil, f)); err != nil {
					return
				}
			}
		}
	}()
	return ours, nil
}

func testFilter(p *fake, how Failure) *Filter {
	return New(Config{Timeout: 10 * time.Second, Failure: how}, Deps{Dial: p.dial})
}

func nothing(string) string { return "" }

var client = Client{Name: "c.example", IP: netip.MustParseAddr("192.0.2.1"), Port: 4711}

// TestOneConnection: all sessions are on one connection, and one that waits delays no other.
func TestOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(func(f wire.Frame) []wire.Frame {
			if f.Session == 1 && f.Type == wire.FrameMail {
				return nil // it never answers
			}
			return goesOn(f)
		})
		f := testFilter(p, AbortSession)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				s := f.Begin(t.Context())
				defer s.Close()
				v := s.Connect(client, nothing)
				first := s.box != nil && s.box.id == 1
				if m := s.Mail("a@b", nil, nothing); v.Action != Continue || (m.Action == Abort) != first {
					t.Errorf("session %d: %+v %+v", i, v, m)
				}
				if first {
					return
				}
				time.Sleep(30 * time.Second) // the connection outlives the session that had no answer
				if v := s.Rcpt("c@d", nil, smtp.Reply{}, nothing); v.Action != Continue {
					t.Errorf("session %d: %+v", i, v)
				}
			})
			if i == 0 {
				synctest.Wait()
			}
			if i == 25 {
				time.Sleep(9 * time.Second)
			}
		}
		wg.Wait()
		f.Close()
		p.wg.Wait()
		if p.dials != 1 {
			t.Errorf("%d connections", p.dials)
		}
	})
}

// TestFailures: whatever it does, a session ends in time and the next one connects anew.
func TestFailures(t *testing.T) {
	chunk := func(f wire.Frame) wire.Frame {
		return wire.Frame{Type: wire.FrameChunk, Session: f.Session, Data: []byte("x")}
	}
	for name, answer := range map[string]func(wire.Frame) []wire.Frame{
		"silence":      func(wire.Frame) []wire.Frame { return nil },
		"unknown type": func(f wire.Frame) []wire.Frame { return []wire.Frame{{Type: 0x42, Session: f.Session}} },
		"other command": func(f wire.Frame) []wire.Frame {
			return []wire.Frame{answerTo(wire.Frame{Type: 0x18, Session: f.Session}, 1)}
		},
		"unknown code":   func(f wire.Frame) []wire.Frame { return []wire.Frame{answerTo(f, 77)} },
		"accepts as 354": func(f wire.Frame) []wire.Frame { return []wire.Frame{answerTo(f, 354)} },
		"answers twice":  func(f wire.Frame) []wire.Frame { return []wire.Frame{answerTo(f, 1), answerTo(f, 1)} },
		"a change now":   func(f wire.Frame) []wire.Frame { return []wire.Frame{chunk(f), answerTo(f, 1)} },
		"session 0":      func(wire.Frame) []wire.Frame { return []wire.Frame{{Type: wire.FrameAnswer}} },
		"unborn session": func(f wire.Frame) []wire.Frame { return []wire.Frame{{Type: wire.FrameAnswer, Session: f.Session + 9}} },
		"wrong reply": func(f wire.Frame) []wire.Frame {
			a := wire.Answer{To: f.Type, Code: 550, Reply: "451 4.0.0 no\r\n"}
			return []wire.Frame{{Type: wire.FrameAnswer, Session: f.Session, Data: a.Append(nil)}}
		},
		"reply that forges": func(f wire.Frame) []wire.Frame {
			a := wire.Answer{To: f.Type, Code: 550, Reply: "550 5.0.0 no\r\n250 2.0.0 ok\r\n"}
			return []wire.Frame{{Type: wire.FrameAnswer, Session: f.Session, Data: a.Append(nil)}}
		},
		"cut short": func(f wire.Frame) []wire.Frame {
			return []wire.Frame{{Type: wire.FrameAnswer, Session: f.Session, Data: []byte{0x10}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFake(nil)
				p.answer = func(f wire.Frame) []wire.Frame {
					if f.Type == wire.FrameMail {
						return answer(f)
					}
					return goesOn(f)
				}
				f := testFilter(p, AbortSession)
				for range 2 {
					s := f.Begin(t.Context())
					if v := s.Connect(client, nothing); v.Action != Continue {
						t.Errorf("connect: %+v", v)
					}
					began := time.Now()
					v := s.Mail("a@b", nil, nothing)
					if name == "answers twice" { // which is noticed later
						synctest.Wait()
						v = s.Rcpt("c@d", nil, smtp.Reply{}, nothing)
					}
					if v.Action != Abort || v.Reply.Code != 421 || v.Failed == nil || time.Since(began) > 10*time.Second {
						t.Errorf("%+v after %v", v, time.Since(began))
					}
					s.Close()
					synctest.Wait()
				}
				f.Close()
				p.wg.Wait()
				if p.dials != 2 {
					t.Errorf("%d connections", p.dials)
				}
			})
		})
	}
}

// TestTakesNothing: one that does not read costs each session no more than the timeout.
func TestTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{Timeout: 10 * time.Second, Failure: Reconnect}, Deps{Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { _ = theirs.Close() })
			return ours, nil
		}})
		began := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				s := f.Begin(t.Context())
				defer s.Close()
				if v := s.Connect(client, nothing); v.Action != Continue {
					t.Errorf("%+v", v)
				}
			})
		}
		wg.Wait()
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("%v", d)
		}
		f.Close()
	})
}

// TestChangesAreBounded: neither many changes nor a new message without an end do harm.
func TestChangesAreBounded(t *testing.T) {
	big := wire.Change{Type: wire.FrameHeader, Mod: wire.HeaderAppend, Header: "A: " + strings.Repeat("x", 60000) + "\r\n"}
	for name, answer := range map[string]func(wire.Frame) []wire.Frame{
		"large": func(f wire.Frame) []wire.Frame {
			return slices.Repeat([]wire.Frame{{Type: wire.FrameHeader, Session: f.Session, Data: big.Append(nil)}}, 100)
		},
		"many": func(f wire.Frame) []wire.Frame {
			ch := wire.Change{Type: wire.FrameHeader, Mod: wire.HeaderRemove}
			return slices.Repeat([]wire.Frame{{Type: wire.FrameHeader, Session: f.Session, Data: ch.Append(nil)}}, wire.ChangesMax+1)
		},
		"empty chunks": func(f wire.Frame) []wire.Frame {
			if f.Type == wire.FrameEOM {
				return []wire.Frame{answerTo(f, wire.Replace)}
			}
			return []wire.Frame{answerTo(f, wire.Continue)}
		},
		"endless": func(f wire.Frame) []wire.Frame {
			if f.Type == wire.FrameEOM {
				return []wire.Frame{answerTo(f, wire.Replace)}
			}
			time.Sleep(5 * time.Second)
			return []wire.Frame{{Type: wire.FrameChunk, Session: f.Session, Data: []byte("x")}, answerTo(f, wire.Continue)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFake(nil)
				p.answer = func(f wire.Frame) []wire.Frame {
					if f.Type == wire.FrameEOM || f.Type == wire.FrameNext {
						return answer(f)
					}
					return goesOn(f)
				}
				f := testFilter(p, AbortSession)
				s := f.Begin(t.Context())
				s.Connect(client, nothing)
				s.Mail("a@b", nil, nothing)
				began := time.Now()
				_, v, err := s.Message(&Content{Macros: nothing, Message: func() io.Reader { return strings.NewReader("A: b\r\n\r\nc\r\n") }, Replace: func([]byte) error { return nil }})
				if v.Action != Abort || err != nil || time.Since(began) > replaceMax+time.Minute {
					t.Errorf("%+v %v after %v", v, err, time.Since(began))
				}
				s.Close()
				f.Close()
				p.wg.Wait()
			})
		})
	}
}

// TestOwnContent: an error of the caller's content is the caller's, and the milter is asked on.
func TestOwnContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(goesOn)
		f := testFilter(p, AbortSession)
		s := f.Begin(t.Context())
		s.Connect(client, nothing)
		s.Mail("a@b", nil, nothing)
		own := errors.New("own")
		_, v, err := s.Message(&Content{Macros: nothing, Message: func() io.Reader { return io.MultiReader(strings.NewReader("x"), failing{own}) }})
		if !errors.Is(err, own) || v.Action != Continue {
			t.Errorf("%+v %v", v, err)
		}
		if v := s.Mail("a@b", nil, nothing); v.Action != Continue || s.state != inMessage {
			t.Errorf("%+v", v)
		}
		s.Close()
		f.Close()
		p.wg.Wait()
		want := []wire.FrameType{wire.FrameOffer, wire.FrameConnect, wire.FrameMail, wire.FrameAbort, wire.FrameMail, wire.FrameClose}
		if got := slices.DeleteFunc(p.told, func(f wire.FrameType) bool { return f == wire.FrameMsg }); !slices.Equal(got, want) {
			t.Errorf("%x", got)
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestSulk: without a flag a program that is not there is left alone for a while.
func TestSulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for how, want := range map[Failure]int{Ignore: 2, Reconnect: 4} {
			dials := 0
			f := New(Config{Failure: how}, Deps{Dial: func(context.Context, string, string) (net.Conn, error) {
				dials++
				return nil, errors.New("not there")
			}})
			for range 4 {
				s := f.Begin(t.Context())
				if v := s.Connect(client, nothing); v.Action != Continue {
					t.Errorf("%+v", v)
				}
				s.Close()
				time.Sleep(6 * time.Second)
			}
			if dials != want {
				t.Errorf("flag %d: %d connections", how, dials)
			}
			f.Close()
		}
	})
}

// TestHeader: positions are those before any modification.
func TestHeader(t *testing.T) {
	fields := []string{"A: 1\r\n", "B: 2\r\n", "C: 3\r\n"}
	mod := func(m wire.HeaderMod, pos uint32, text string) wire.Change {
		return wire.Change{Type: wire.FrameHeader, Mod: m, Pos: pos, Header: text}
	}
	for _, c := range []struct {
		list      []wire.Change
		top, want string
		changed   bool
	}{
		{nil, "R: 0\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n", false},
		{[]wire.Change{mod(wire.HeaderRemove, 1, ""), mod(wire.HeaderRemove, 2, "")}, "R: 0\r\n", "C: 3\r\n", true},
		{[]wire.Change{mod(wire.HeaderRemove, 4, ""), mod(wire.HeaderReplace, 9, "X: y\r\n")}, "R: 0\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n", false},
		{[]wire.Change{mod(wire.HeaderInsert, 1, "X: 1\r\n"), mod(wire.HeaderInsert, 1, "X: 2\r\n"), mod(wire.HeaderRemove, 1, "")}, "R: 0\r\n", "X: 1\r\nX: 2\r\nB: 2\r\nC: 3\r\n", true},
		{[]wire.Change{mod(wire.HeaderPrepend, 7, "P: 1\r\n"), mod(wire.HeaderPrepend, 0, "P: 2\r\n"), mod(wire.HeaderInsert, 0, "I: 0\r\n")}, "P: 2\r\nP: 1\r\nI: 0\r\nR: 0\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n", true},
		{[]wire.Change{mod(wire.HeaderReplace, 0, "R: x\r\n"), mod(wire.HeaderReplace, 3, "C: x\r\n"), mod(wire.HeaderAppend, 0, "Z: 1\r\n"), mod(wire.HeaderInsert, 4, "Z: 2\r\n")}, "R: x\r\n", "A: 1\r\nB: 2\r\nC: x\r\nZ: 1\r\nZ: 2\r\n", true},
		{[]wire.Change{mod(wire.HeaderRemove, 0, "")}, "", "A: 1\r\nB: 2\r\nC: 3\r\n", true},
	} {
		top, out, changed := Header("R: 0\r\n", fields, c.list, func(s string) string { return s })
		if top != c.top || strings.Join(out, "") != c.want || changed != c.changed {
			t.Errorf("%+v: %q %q %v", c.list, top, out, changed)
		}
	}
}

// TestMacros: each macro has a name for its value, and values go with their commands.
func TestMacros(t *testing.T) {
	for _, m := range wire.Macros() {
		if milterName(m) == "" {
			t.Errorf("%s has no source", m)
		}
	}
	c := &conn{}
	c.agreed.Macros[wire.StageMail] = []wire.Macro{wire.MacroMailTAID, wire.MacroTLSCNIssuer, wire.MacroAuthType, 4711}
	got := c.values(wire.FrameMail, func(name string) string {
		return map[string]string{"i": "S1", "{cn_issuer}": "ca"}[name]
	})
	if want := []wire.MacroValue{{Macro: wire.MacroMailTAID, Value: "S1"}, {Macro: wire.MacroTLSCNIssuer, Value: "ca"}}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := c.values(wire.FrameRcpt, nothing); got != nil {
		t.Errorf("%v", got)
	}
}

// FuzzSession is a session with a program that says whatever comes: it ends, and no verdict has
// a reply that is none.
func FuzzSession(f *testing.F) {
	ok := func(id uint32, types ...wire.FrameType) (b []byte) {
		for _, t := range types {
			b = wire.AppendFrame(b, answerTo(wire.Frame{Type: t, Session: id}, 1))
		}
		return b
	}
	whole := ok(1, wire.FrameConnect, wire.FrameMail, wire.FrameRcpt, wire.FrameMsg)
	header := wire.Change{Type: wire.FrameHeader, Mod: wire.HeaderAppend, Header: "A: b\r\n"}
	f.Add(ok(1, wire.FrameConnect), false)
	f.Add(append(slices.Clone(whole), ok(1, wire.FrameEOM)...), true)
	f.Add(append(wire.AppendFrame(slices.Clone(whole), wire.Frame{Type: wire.FrameHeader, Session: 1, Data: header.Append(nil)}), ok(1, wire.FrameEOM)...), true)
	f.Add([]byte("\xff\xff\xff\xff"), false)
	agree := newFake(nil).agree
	f.Fuzz(func(t *testing.T, in []byte, inStep bool) {
		filter := New(Config{Timeout: 50 * time.Millisecond, Failure: AbortSession}, Deps{Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer func() { _ = theirs.Close() }()
				r, buf := bufio.NewReader(theirs), bytes.Buffer{}
				if _, err := wire.ReadFrame(r, &buf); err != nil {
					return
				}
				_, _ = theirs.Write(wire.AppendFrame(nil, wire.Frame{Type: wire.FrameAgree, Data: agree.Append(nil)}))
				if !inStep { // all at once
					go func() { _, _ = io.Copy(io.Discard, r) }()
					_, _ = theirs.Write(in)
					return
				}
				for from := bufio.NewReader(bytes.NewReader(in)); ; { // a frame for each that comes
					if _, err := wire.ReadFrame(r, &buf); err != nil {
						return
					}
					for {
						fr, err := wire.ReadFrame(from, &buf)
						if err != nil {
							return
						}
						_, _ = theirs.Write(wire.AppendFrame(nil, fr))
						if fr.Type == wire.FrameAnswer {
							break
						}
					}
				}
			}()
			return ours, nil
		}})
		defer filter.Close()
		s := filter.Begin(t.Context())
		defer s.Close()
		check := func(v Verdict) {
			if v.Action == Refuse || v.Action == Abort {
				if w := string(v.Reply.AppendWire(nil)); v.Reply.Code < 400 || v.Reply.Code > 599 || strings.Count(w, "\r\n") != len(v.Reply.Lines) {
					t.Fatalf("%q", w)
				}
			}
		}
		check(s.Connect(client, nothing))
		check(s.Mail("a@b", nil, nothing))
		check(s.Rcpt("c@d", nil, smtp.Reply{}, nothing))
		s.Took(0)
		_, v, err := s.Message(&Content{Macros: nothing, Message: func() io.Reader { return strings.NewReader("A: b\r\n\r\nc\r\n") }, Replace: func([]byte) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		check(v)
	})
}
