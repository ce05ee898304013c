package auth

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serveOn gives each connection that is dialled to serve.
func serveOn(serve func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			defer b.Close()
			serve(b)
		}()
		return a, nil
	}
}

const dovecotHello = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nMECH\tSCRAM-SHA-256\tmutual-auth\nMECH\tSCRAM-SHA-256-PLUS\n" +
	"MECH\tGSSAPI\tmutual-auth\nMECH\tDOVECOT-TOKEN\tprivate\nMECH\tANONYMOUS\tanonymous\nMECH\tb a\tplaintext\nSPID\t1\nCUID\t2\nCOOKIE\tabc\nDONE\n"

// fakeDovecot answers each line of a client, behind the handshake, with what answers has.
func fakeDovecot(answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		for range 2 {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
		}
		fmt.Fprint(c, dovecotHello)
		for _, a := range answers {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			fmt.Fprint(c, a)
		}
		_, _ = io.Copy(io.Discard, c)
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestDovecotAnswers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []string
		want    []Step
	}{
		{"OK", []string{"OK\t1\tuser=jane\n"}, []Step{{Outcome: Granted, Account: "jane"}}},
		{"two questions", []string{"CONT\t1\t" + b64("Username:") + "\n", "CONT\t1\t" + b64("Password:") + "\n", "OK\t1\tuser=a b\tx\n"}, []Step{
			{Outcome: Continue, Challenge: []byte("Username:")},
			{Outcome: Continue, Challenge: []byte("Password:")},
			{Outcome: Unavailable, Reason: "asking Dovecot: an answer OK without an account"},
		}},
		{"FAIL", []string{"FAIL\t1\tuser=jane\n"}, []Step{{Outcome: Refused, Account: "jane", Reason: "Dovecot refuses"}}},
		{"disabled", []string{"FAIL\t1\tuser=jane\tcode=user_disabled\n"}, []Step{{Outcome: Refused, Account: "jane", Reason: "Dovecot refuses: user_disabled"}}},
		{"for now", []string{"FAIL\t1\tuser=jane\ttemp\n"}, []Step{{Outcome: Unavailable, Reason: "asking Dovecot: a temporary failure"}}},
		{"other exchanges", []string{"OK\t7\tuser=eve\nFAIL\t2\nCUID\nOK\t1\tuser=jane\n"}, []Step{{Outcome: Granted, Account: "jane"}}},
		{"escapes", []string{"OK\t1\tuser=ja\x01tne\n"}, []Step{{Outcome: Unavailable, Reason: "asking Dovecot: an answer OK without an account"}}},
		{"no base64", []string{"CONT\t1\t!\n"}, []Step{{Outcome: Unavailable, Reason: "asking Dovecot: a challenge that is not base64"}}},
		{"a long line", []string{"CONT\t1\t" + strings.Repeat("A", 40000) + "\n"}, []Step{{Outcome: Unavailable, Reason: "asking Dovecot: a line that is too long"}}},
		{"much noise", []string{strings.Repeat("X\n", 1000)}, []Step{{Outcome: Unavailable, Reason: "asking Dovecot: no answer among many lines"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuth(t, Config{Dovecot: Dovecot{Path: "x"}}, Deps{Dial: serveOn(fakeDovecot(tt.answers...))})
			e, err := a.Begin(Login, Client{IP: netip.MustParseAddr("192.0.2.1")})
			if err != nil {
				t.Fatal(err)
			}
			var response []byte
			for i, want := range tt.want {
				got := e.Next(t.Context(), response)
				got.Delay = 0
				if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
					t.Errorf("step %d: %+v, want %+v", i, got, want)
				}
				response = []byte("x")
			}
			e.Close()
		})
	}
}

// TestDovecotQuestion: what Dovecot is told, and which of its mechanisms are offered.
func TestDovecotQuestion(t *testing.T) {
	asked := make(chan string, 1)
	a := newAuth(t, Config{Dovecot: Dovecot{Path: "x"}}, Deps{Dial: serveOn(func(c net.Conn) {
		in := bufio.NewReader(c)
		for range 2 {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
		}
		fmt.Fprint(c, dovecotHello)
		line, err := in.ReadString('\n')
		if err == nil {
			asked <- line
			fmt.Fprint(c, "OK\t1\tuser=jane\n")
		}
	})})
	if got := strings.Join(a.Mechanisms(&Channel{}), " "); got != "PLAIN LOGIN" {
		t.Errorf("before Dovecot has told: %s", got)
	}
	if err := a.dovecot.learn(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(a.Mechanisms(&Channel{}), " "); got != "SCRAM-SHA-256 PLAIN LOGIN GSSAPI" {
		t.Errorf("offered: %s", got)
	}
	e, err := a.Begin(Plain, Client{IP: netip.MustParseAddr("192.0.2.1"), Port: 4711, Own: netip.MustParseAddr("::ffff:192.0.2.25"), OwnPort: 587})
	if err != nil {
		t.Fatal(err)
	}
	if s := e.Next(t.Context(), []byte("\x00jane\x00x")); s.Outcome != Granted {
		t.Errorf("%+v", s)
	}
	want := "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.25\trip=192.0.2.1\tlport=587\trport=4711\tresp=" + b64("\x00jane\x00x") + "\n"
	if got := <-asked; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
}

// TestHanging: who does not answer costs the time limit, and no more.
func TestHanging(t *testing.T) {
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	refuse := func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("connection refused")
	}
	for _, tt := range []struct {
		name string
		cfg  Config
		dial func(context.Context, string, string) (net.Conn, error)
		want string
		took time.Duration
	}{
		{"Dovecot", Config{Dovecot: Dovecot{Path: "x"}}, serveOn(hang), "asking Dovecot: no answer in time", 20 * time.Second},
		{"Dovecot in the middle", Config{Dovecot: Dovecot{Path: "x"}}, serveOn(fakeDovecot()), "asking Dovecot: no answer in time", 20 * time.Second},
		{"no Dovecot", Config{Dovecot: Dovecot{Path: "x"}}, refuse, "asking Dovecot: connection refused", 0},
		{"saslauthd", Config{Saslauthd: Saslauthd{Path: "x"}}, serveOn(hang), "asking saslauthd: no answer in time", 20 * time.Second},
		{"no saslauthd", Config{Saslauthd: Saslauthd{Path: "x"}}, refuse, "asking saslauthd: connection refused", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuth(t, tt.cfg, Deps{Dial: tt.dial})
				e, err := a.Begin(Plain, Client{})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				s := e.Next(t.Context(), []byte("\x00jane\x00x"))
				if s.Outcome != Unavailable || s.Reason != tt.want || time.Since(began) != tt.took {
					t.Errorf("%+v after %v", s, time.Since(began))
				}
				e.Close()
			})
		})
	}
}

// TestStopped: an end of the server ends the wait at once.
func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuth(t, Config{Saslauthd: Saslauthd{Path: "x"}}, Deps{Dial: serveOn(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		e, err := a.Begin(Plain, Client{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if s := e.Next(ctx, []byte("\x00jane\x00x")); s.Outcome != Unavailable || time.Since(began) != time.Second {
			t.Errorf("%+v after %v", s, time.Since(began))
		}
	})
}

func TestSaslauthd(t *testing.T) {
	for _, tt := range []struct {
		answer string
		want   Outcome
	}{{"OK", Granted}, {"NO wrong", Refused}, {"", Unavailable}, {"HUH", Unavailable}, {strings.Repeat("O", 2000), Unavailable}} {
		var got []string
		a := newAuth(t, Config{Saslauthd: Saslauthd{Path: "x", Service: "smtp"}, UserRealm: "realm.test"}, Deps{Dial: serveOn(func(c net.Conn) {
			for range 4 {
				var n [2]byte
				if _, err := io.ReadFull(c, n[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(n[:]))
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				got = append(got, string(b))
			}
			if tt.answer != "" {
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(tt.answer))), tt.answer...))
			}
		})})
		e, err := a.Begin(Plain, Client{})
		if err != nil {
			t.Fatal(err)
		}
		s := e.Next(t.Context(), []byte("\x00jane\x00secret"))
		if s.Outcome != tt.want || strings.Join(got, " ") != "jane secret smtp realm.test" {
			t.Errorf("%.10q: %+v, asked %q", tt.answer, s, got)
		}
	}
	if _, err := newAuth(t, Config{Saslauthd: Saslauthd{Path: "x"}, Mechanisms: []string{CRAMMD5}}, Deps{}).Begin(CRAMMD5, Client{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("CRAM-MD5 with saslauthd: %v", err)
	}
}

func TestFailures(t *testing.T) {
	f := newFailures(Limits{PerClient: 3, PerAccount: 5, Expire: time.Minute, Delay: time.Second})
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	near := netip.MustParseAddr("2001:db8::2") // the same /64
	now := time.Unix(1_000_000, 0)
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if f.clientBlocked(one, now) {
			t.Errorf("blocked after %d", i)
		}
		if d, blocked := f.failed(one, "jane", now); d != want || blocked {
			t.Errorf("failure %d: %v %v", i, d, blocked)
		}
	}
	if !f.clientBlocked(one, now.Add(59*time.Second)) || f.clientBlocked(one, now.Add(time.Minute)) || f.clientBlocked(two, now) {
		t.Error("which address is blocked, and until when")
	}
	if f.succeeded(two, "jane", now) {
		t.Error("the account is closed too early")
	}
	for range 2 {
		f.failed(near, "Jane", now)
	}
	other := netip.MustParseAddr("198.51.100.1")
	if !f.succeeded(other, "JANE", now) || f.succeeded(two, "jane", now) || f.succeeded(near, "jane", now) {
		t.Error("to whom the account is closed")
	}
	if _, blocked := f.failed(other, "jane", now); !blocked {
		t.Error("a wrong password gets another answer than the right one")
	}
	if d, _ := f.failed(other, "jane", now); d != delayMax {
		t.Errorf("delay %v", d)
	}
	for i := range 3 * tableMax {
		f.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprint("x", i), now)
	}
	if n, m := len(f.clients.index), len(f.accounts.index); n != tableMax || m != tableMax || f.clients.order.Len() != n {
		t.Errorf("%d addresses and %d accounts are remembered", n, m)
	}
	none := newFailures(Limits{})
	for range 1000 {
		none.failed(one, "jane", now)
	}
	if d, blocked := none.failed(one, "jane", now); d != 0 || blocked || none.clientBlocked(one, now) {
		t.Error("without limits")
	}
}

// TestHashesMax: passwords are hashed by few sessions at a time, and who has to wait too
// long gets no answer.
func TestHashesMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuth(t, Config{HashesMax: 1}, Deps{Lookup: entries(map[string]string{"jane": "{PLAIN}x"})})
		a.slots <- struct{}{} // somebody hashes
		e, err := a.Begin(Plain, Client{})
		if err != nil {
			t.Fatal(err)
		}
		if s := e.Next(t.Context(), []byte("\x00jane\x00x")); s.Outcome != Unavailable || !strings.Contains(s.Reason, "waiting for a processor") {
			t.Errorf("%+v", s)
		}
		time.AfterFunc(time.Second, func() { <-a.slots })
		if e, err = a.Begin(Plain, Client{}); err != nil {
			t.Fatal(err)
		}
		if s := e.Next(t.Context(), []byte("\x00jane\x00x")); s.Outcome != Granted {
			t.Errorf("%+v", s)
		}
		if len(a.slots) != 0 {
			t.Error("a slot is left")
		}
	})
}
