package milter

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"meta1/mta/smtp"
)

const plain = "Subject: x\r\nTo:  a,\r\n\tb\r\n\r\nbody\r\n"

// TestDialogue: a filter is told of each step, with the macros that it asks for.
func TestDialogue(t *testing.T) {
	f := &fake{symbols: string(binary.BigEndian.AppendUint32(nil, uint32(StageMail))) + "i {mail_addr} auth_type x\x00"}
	s := begin(t, Tempfail, patientTimes, f)
	macros := func(name string) string {
		return map[string]string{"i": "ID", "{mail_addr}": "a@b.test", "{auth_type}": "PLAIN", "j": "host.test"}[name]
	}
	s.Connect(Client{Name: "c.test", IP: netip.MustParseAddr("192.0.2.1"), Port: 258}, macros)
	s.Helo("h.test", macros)
	s.Unknown("FOO bar", macros)
	s.Mail("a@b.test", []string{"SIZE=10", "BODY=8BITMIME"}, macros)
	s.Rcpt("c@d.test", nil, smtp.Reply{}, macros)
	s.Rcpt("no@d.test", nil, smtp.NewReply(550, "5.1.1", "no"), macros) // it did not ask for these
	s.Data(macros)
	s.Abort()
	s.Abort()
	s.Mail("", nil, macros)
	s.Close()
	f.wg.Wait()
	want := []string{
		"C c.test|4\x01\x02192.0.2.1", "H h.test", "U FOO bar", "M <a@b.test>|SIZE=10|BODY=8BITMIME", "R <c@d.test>", "T ", "A ", "M <>", "A ", "Q ",
	}
	if got := f.took(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if !slices.Contains(f.told, "D Mi|ID|{mail_addr}|a@b.test|auth_type|PLAIN") || !slices.Contains(f.told, "D Cj|host.test") {
		t.Errorf("macros: %q", f.told)
	}
}

// TestConnectData: the forms of a client.
func TestConnectData(t *testing.T) {
	for ip, want := range map[string]string{
		"2001:db8::1":      "C [IPv6:2001:db8::1]|6||IPv6:2001:db8::1",
		"::ffff:192.0.2.1": "C [192.0.2.1]|4||192.0.2.1",
		"":                 "C localhost|L||local",
	} {
		f := &fake{}
		s := begin(t, Tempfail, patientTimes, f)
		a, _ := netip.ParseAddr(ip)
		s.Connect(Client{IP: a}, noMacros)
		got := strings.ReplaceAll(f.took()[0], "|||", "||")
		if got != want {
			t.Errorf("%s: %q, want %q", ip, got, want)
		}
	}
}

// TestQuiet: what a filter does not want it does not get, and where it does not answer nothing
// is waited for.
func TestQuiet(t *testing.T) {
	f := &fake{options: []uint32{6, 0, noConnect | noHelo | noData | noEOH | noReplyMail | noReplyRcpt | noReplyHeader | noReplyBody | rejectedRcpts}}
	f.answer = func(kind byte, _ []byte) [][]byte {
		if strings.IndexByte("MRLB", kind) >= 0 {
			return [][]byte{}
		}
		return nil
	}
	s := begin(t, Tempfail, patientTimes, f)
	s.Connect(Client{}, noMacros)
	s.Helo("h", noMacros)
	s.Mail("a@b", nil, noMacros)
	s.Rcpt("no@d", nil, smtp.NewReply(550, "5.1.1", "no such user"), noMacros)
	s.Data(noMacros)
	s.Close()
	f.wg.Wait()
	if got, want := f.took(), []string{"M <a@b>", "R <no@d>", "A ", "Q "}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	f.told = nil
	_, body, v, err := message(s, plain)
	if err != nil || v.Action != Continue || body != "Subject: x\r\nTo:  a,\r\n\tb\r\n|" {
		t.Fatalf("%q %+v %v", body, v, err)
	}
	if got, want := f.took(), []string{"M <a@b.test>", "L Subject|x", "L To|a,\n\tb", "B body\r\n", "E "}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestVerdicts: each reply at each step.
func TestVerdicts(t *testing.T) {
	for reply, want := range map[string]string{
		"c":                                   "continue",
		"a":                                   "accept",
		"d":                                   "discard",
		"r":                                   "refuse 550 5.7.1 Command rejected",
		"t":                                   "refuse 451 4.7.1 Please try again later",
		"4":                                   "abort 421 4.7.0 Closing connection",
		"y550 5.1.1 no, 50%% sure\x00":        "refuse 550 5.1.1 no, 50% sure",
		"y451-4.0.0 one\r\n451 4.0.0 two\x00": "refuse 451 4.0.0 one two",
		"y421 4.3.2 gone\x00":                 "abort 421 4.3.2 gone",
		"y554 a\x01b\xff":                     "refuse 554 a?b?",
		"y250 ok":                             "refuse 451 4.7.1 Service unavailable, try again later",
		"?":                                   "refuse 451 4.7.1 Service unavailable, try again later",
		"h":                                   "refuse 451 4.7.1 Service unavailable, try again later",
	} {
		f := &fake{answer: func(kind byte, _ []byte) [][]byte {
			if kind == cmdRcpt {
				return [][]byte{packetOf(repProgress, ""), packetOf(reply[0], reply[1:])}
			}
			return nil
		}}
		s := begin(t, Tempfail, patientTimes, f)
		s.Connect(Client{}, noMacros)
		s.Mail("a@b", nil, noMacros)
		v := s.Rcpt("c@d", nil, smtp.Reply{}, noMacros)
		got := v.Action.String()
		if !v.Reply.IsZero() {
			got += " " + v.Reply.String()
		}
		if reply == "a" { // other filters are asked
			if got != "continue" || s.Rcpt("e@d", nil, smtp.Reply{}, noMacros).Action != Continue || len(f.took()) != 3 {
				t.Errorf("accept: %s, told %q", got, f.took())
			}
		} else if got != want || got != "continue" && v.Filter != "f0" {
			t.Errorf("%q: %s, want %s", reply, got, want)
		}
	}
}

// TestChanges: all changes, of two filters one after the other.
func TestChanges(t *testing.T) {
	one := &fake{answer: func(kind byte, _ []byte) [][]byte {
		if kind != cmdEOM {
			return nil
		}
		return [][]byte{
			packetOf(repAddHeader, "X-Last\x00a\nb\n\n\tc\r\n\r\nBcc: d\x00"),
			packetOf(repInsertHeader, "\x00\x00\x00\x00X-First\x00v\x00"),
			packetOf(repChangeHeader, "\x00\x00\x00\x01subject\x00new\x00"),
			packetOf(repChangeHeader, "\x00\x00\x00\x02Subject\x00\x00"), // there is no second one
			packetOf(repBody, "first "), packetOf(repProgress, ""), packetOf(repBody, "body"),
			packetOf(repAddRcpt, "<x@y>\x00"), packetOf(repAddRcptArgs, "<z@y>\x00NOTIFY=NEVER\x00"), packetOf(repDelRcpt, "<c@d>\x00"),
			packetOf(repChangeFrom, "<n@m>\x00SIZE=1\x00"), packetOf(repQuarantine, "odd\x00"),
			packetOf(repContinue, ""),
		}
	}}
	two := &fake{answer: func(kind byte, data []byte) [][]byte {
		switch kind {
		case cmdBody:
			return [][]byte{packetOf(repSkip, "")}
		case cmdEOM:
			return [][]byte{packetOf(repChangeHeader, "\x00\x00\x00\x01X-First\x00\x00"), packetOf(repAccept, "")}
		}
		return nil
	}}
	s := begin(t, Tempfail, patientTimes, one, two)
	list, out, v, err := message(s, plain)
	if err != nil || v.Action != Continue {
		t.Fatal(v, err)
	}
	if want := "Subject: new\r\nTo:  a,\r\n\tb\r\nX-Last: a\r\n\tb\r\n\tc\r\n\tBcc: d\r\n|first body"; out != want {
		t.Errorf("got  %q\nwant %q", out, want)
	}
	c := list[0]
	if !c.Body || c.Quarantine != "odd" || list[1].Body {
		t.Errorf("%+v", list)
	}
	var got []string
	for _, ch := range c.List[4:] {
		got = append(got, ch.Kind.String()+" "+ch.Value+" "+ch.Args)
	}
	if want := []string{"addrcpt <x@y> ", "addrcpt <z@y> NOTIFY=NEVER", "delrcpt <c@d> ", "chgfrom <n@m> SIZE=1"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if told := two.took(); !slices.Contains(told, "L X-First|v") || !slices.Contains(told, "L Subject|new") {
		t.Errorf("the second filter was told %q", told)
	}
}

// TestFailures: a filter that hangs, hangs up, says what it may not say, or never comes to an
// end has failed, and in bounded time and memory.
func TestFailures(t *testing.T) {
	at := func(when byte, replies ...[]byte) *fake {
		return &fake{answer: func(kind byte, _ []byte) [][]byte {
			if kind == when {
				return append([][]byte{}, replies...)
			}
			return nil
		}}
	}
	endless := make([][]byte, 0, 1000)
	for range cap(endless) {
		endless = append(endless, packetOf(repProgress, ""))
	}
	many := make([][]byte, 0, changesMax+1)
	for range cap(many) {
		many = append(many, packetOf(repDelRcpt, "a@b\x00"))
	}
	huge := packetOf(repAddHeader, "X\x00"+strings.Repeat("x", packetMax-10)+"\x00")
	for name, f := range map[string]*fake{
		"no connection":   {refuse: errors.New("refused")},
		"hangs at once":   at(cmdOptions),
		"hangs at mail":   at(cmdMail),
		"hangs at eom":    at(cmdEOM),
		"garbage":         at(cmdOptions, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")),
		"4 GB":            at(cmdMail, []byte{0xff, 0xff, 0xff, 0xff, 'c'}),
		"length 0":        at(cmdMail, []byte{0, 0, 0, 0}),
		"version 1":       {options: []uint32{1, 0, 0}},
		"version 7":       {options: []uint32{7, 0, 0}},
		"unknown action":  {options: []uint32{6, 0x200, 0}},
		"unknown flag":    {options: []uint32{6, 0, 1 << 28}},
		"not agreed on":   {options: []uint32{6, 0, 0}, answer: at(cmdEOM, packetOf(repDelRcpt, "a@b\x00")).answer},
		"cut short":       at(cmdEOM, packetOf(repChangeHeader, "\x00\x00")),
		"odd name":        at(cmdEOM, packetOf(repAddHeader, "X: y\x00z\x00")),
		"many changes":    at(cmdEOM, many...),
		"large changes":   at(cmdEOM, huge, huge, huge, huge, huge),
		"endless":         at(cmdEOM, endless...),
		"change too soon": at(cmdHeader, packetOf(repDelRcpt, "a@b\x00")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := begin(t, Tempfail, quick, f)
			_, _, v, err := message(s, plain)
			if err != nil || v.Action != Refuse || v.Reply.Code != 451 || v.Failed == nil {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

// TestFailureActions: what becomes of the client is what the configuration says.
func TestFailureActions(t *testing.T) {
	for how, want := range map[Failure]string{
		Ignore: "continue", Reconnect: "continue", AbortSession: "abort 421", Tempfail: "refuse 451", Reject: "refuse 550", Quarantine: "continue",
	} {
		s := begin(t, how, quick, &fake{refuse: errors.New("refused")})
		if v := s.Connect(Client{}, noMacros); (v.Action == Abort) != (how == AbortSession) || v.Action == Refuse {
			t.Errorf("%d: connect %+v", how, v)
		}
		v := s.Mail("a@b", nil, noMacros)
		got := v.Action.String()
		if !v.Reply.IsZero() {
			got += " " + v.Reply.String()[:3]
		}
		if got != want {
			t.Errorf("%d: %s, want %s", how, got, want)
		}
		changes, v, _ := s.Message(0, &Content{})
		if (changes.Quarantine != "") != (how == Quarantine) || how == Quarantine && v.Action != Continue {
			t.Errorf("%d: at the end %+v %+v", how, changes, v)
		}
	}
}

// TestComesBack: a filter that is there again takes part from the next MAIL on, and hears what
// it has missed.
func TestComesBack(t *testing.T) {
	f := &fake{refuse: errors.New("refused")}
	s := begin(t, Tempfail, patientTimes, f)
	s.Connect(Client{}, noMacros)
	s.Helo("h", noMacros)
	if v := s.Mail("a@b", nil, noMacros); v.Action != Refuse {
		t.Fatalf("%+v", v)
	}
	f.refuse = nil
	if v := s.Mail("a@b", nil, noMacros); v.Action != Continue {
		t.Fatalf("%+v", v)
	}
	if got, want := f.took(), []string{"C localhost|L||local", "H h", "M <a@b>"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestKept: a connection is kept for the next session if the filter begins again on it, and
// none is kept of one that does not.
func TestKept(t *testing.T) {
	for _, again := range []bool{true, false} {
		var n atomic.Int64
		f := &fake{answer: func(kind byte, _ []byte) [][]byte {
			if kind == cmdOptions {
				if n.Add(1) == 2 && !again {
					return [][]byte{}
				}
			}
			return nil
		}}
		filter := New(Config{Name: "f", Timeouts: patientTimes, Kept: 1}, Deps{Dial: f.dial})
		for range 3 {
			s := Begin(t.Context(), []*Filter{filter})
			if v := s.Connect(Client{}, noMacros); v.Action != Continue {
				t.Fatalf("%+v", v)
			}
			s.Close()
		}
		filter.Close()
		f.wg.Wait()
		if want := map[bool]int{true: 1, false: 3}[again]; f.conns != want {
			t.Errorf("again %v: %d connections, want %d", again, f.conns, want)
		}
	}
}

// TestContentFails: a content that cannot be read, or a new body that cannot be taken, is no
// failure of the filter.
func TestContentFails(t *testing.T) {
	f := &fake{answer: func(kind byte, _ []byte) [][]byte {
		if kind == cmdEOM {
			return [][]byte{packetOf(repBody, "x"), packetOf(repContinue, "")}
		}
		return nil
	}}
	s := begin(t, Tempfail, patientTimes, f)
	s.Mail("a@b", nil, noMacros)
	full := errors.New("disk is full")
	_, v, err := s.Message(0, &Content{
		Body:    func() io.Reader { return strings.NewReader("body") },
		Replace: func([]byte) error { return full },
	})
	if !errors.Is(err, full) || v.Failed != nil {
		t.Errorf("%+v, %v", v, err)
	}
}
