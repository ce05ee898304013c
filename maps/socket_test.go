package maps

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mapServer answers the protocol of README 10.2. answer gives the raw bytes to send;
// nil closes the connection.
type mapServer struct {
	network, address string
	conns, asked     atomic.Int64
}

func serveMap(t *testing.T, network string, answer func(question string) []byte) *mapServer {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &mapServer{network: network, address: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					q, err := readNetstring(r, 1<<20)
					if err != nil {
						return
					}
					s.asked.Add(1)
					a := answer(q)
					if a == nil {
						return
					}
					c.Write(a)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

func netstring(s string) []byte { return appendNetstring(nil, s) }

// client is a client of the server that waits for an answer however slow the machine is.
func (s *mapServer) client(t *testing.T) *Socket {
	t.Helper()
	return s.impatient(t, time.Hour)
}

func (s *mapServer) impatient(t *testing.T, timeout time.Duration) *Socket {
	t.Helper()
	m, err := NewSocket(SocketConfig{Network: s.network, Address: s.address, MapName: "aliases", Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestSocketReplies(t *testing.T) {
	replies := map[string]string{
		"found":    "14:OK <root@host>,",
		"empty":    "3:OK ,",
		"bare":     "2:OK,",
		"notfound": "9:NOTFOUND ,", // README 10.2
		"nomore":   "6:NOMORE,",
		"temp":     "55:TEMP this text explains that we had a temporary failure,", // README 10.2
		"timeout":  "7:TIMEOUT,",
		"perm":     "8:PERM bad,",
		"unknown":  "5:WHAT ,",
		"control":  "6:OK a\nb,",
		"letters":  "abc",
		"nocomma":  "2:OKx",
		"huge":     "100001:",
		"zeros":    "002:OK,",
		"two":      "2:OK,2:OK,",
		"silent":   "",
		"close":    "close",
	}
	for _, network := range []string{"tcp", "unix"} {
		s := serveMap(t, network, func(q string) []byte {
			name, ok := strings.CutPrefix(q, "aliases ")
			if !ok {
				t.Errorf("question %q", q)
			}
			if replies[name] == "close" {
				return nil
			}
			return []byte(replies[name])
		})
		m := s.client(t)
		for key, want := range map[string]struct {
			r Result
			v string
		}{
			"found": {OK, "<root@host>"}, "FOUND": {OK, "<root@host>"}, "empty": {OK, ""}, "bare": {OK, ""}, "notfound": {NotFound, ""},
			"nomore": {NoMore, ""}, "temp": {Temp, "this text explains that we had a temporary failure"}, "timeout": {Timeout, ""},
			"perm": {Perm, "bad"}, "unknown": {Temp, "not a status"}, "control": {Temp, "control"}, "letters": {Temp, "not a netstring"},
			"nocomma": {Temp, "comma"}, "huge": {Temp, "longer"}, "zeros": {Temp, "not a netstring"}, "two": {Temp, "more than one"},
			"silent": {Timeout, ""}, "close": {Temp, "reading"},
		} {
			t.Run(network+"/"+key, func(t *testing.T) {
				m := m
				if key == "silent" {
					m = s.impatient(t, 100*time.Millisecond)
				}
				v, r := m.Lookup(t.Context(), key)
				if r != want.r || !strings.Contains(v, want.v) || r == OK && v != want.v {
					t.Errorf("%q %v, want %q %v", v, r, want.v, want.r)
				}
			})
		}
	}
}

func TestSocketReuse(t *testing.T) {
	var drop atomic.Bool
	s := serveMap(t, "unix", func(q string) []byte {
		if drop.CompareAndSwap(true, false) {
			return nil // as a server that was restarted
		}
		return netstring("OK " + q)
	})
	m := s.client(t)
	for i := range 100 {
		if v, r := m.Lookup(t.Context(), "k"); r != OK || v != "aliases k" {
			t.Fatalf("%d: %q %v", i, v, r)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections for 100 lookups", n)
	}
	drop.Store(true)
	if v, r := m.Lookup(t.Context(), "k"); r != OK {
		t.Errorf("after the server closed the connection: %q %v", v, r)
	}
	if n := s.conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if v, r := m.Lookup(t.Context(), "k"); r != OK {
				t.Errorf("%q %v", v, r)
			}
		})
	}
	wg.Wait()
	if len(m.idle) > maxSocketIdle || s.conns.Load() > 2+200 {
		t.Errorf("%d idle, %d opened", len(m.idle), s.conns.Load())
	}
}

func TestSocketGone(t *testing.T) {
	m, err := NewSocket(SocketConfig{Network: "unix", Address: filepath.Join(t.TempDir(), "none"), MapName: "m", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if v, r := m.Lookup(t.Context(), "k"); r != Temp || !strings.Contains(v, "connecting") {
		t.Errorf("%q %v", v, r)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, r := m.Lookup(ended, "k"); !r.Failed() {
		t.Errorf("%v after the end of the context", r)
	}
	if _, r := m.Lookup(t.Context(), strings.Repeat("k", maxSocketKey+1)); r != NotFound {
		t.Errorf("%v for a huge key", r)
	}
	for _, bad := range []SocketConfig{{Timeout: 1}, {MapName: "a b", Timeout: 1}, {MapName: "a"}} {
		if _, err := NewSocket(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// Postfix's socketmap client speaks the same protocol: what it asks our server code
// reads, and what our client's server answers it takes.
func TestSocketPostmap(t *testing.T) {
	s := serveMap(t, "unix", func(q string) []byte {
		switch q {
		case "aliases known":
			return netstring("OK the value")
		case "aliases temp":
			return netstring("TEMP later")
		}
		return netstring("NOTFOUND ")
	})
	m := s.client(t)
	for key, want := range map[string]string{"known": "the value", "unknown": "", "temp": ""} {
		out, err := postmap(t, "-q", key, "socketmap:unix:"+s.address+":aliases").Output()
		if got := strings.TrimSpace(string(out)); got != want || (err == nil) != (want != "") {
			t.Errorf("postmap %s: %q %v", key, got, err)
		}
		v, r := m.Lookup(t.Context(), key)
		if (r == OK) != (want != "") || r == OK && v != want {
			t.Errorf("we %s: %q %v", key, v, r)
		}
	}
}

func TestSequence(t *testing.T) {
	text := func(s string) Map {
		m, err := ReadText(strings.NewReader(s), "t", false)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	s := serveMap(t, "tcp", func(q string) []byte {
		switch q {
		case "aliases stop":
			return netstring("NOMORE ")
		case "aliases temp":
			return netstring("TEMP x")
		}
		return netstring("NOTFOUND ")
	})
	seq := Sequence{text("a first\n"), s.client(t), text("a last\nb last\nstop last\ntemp last\n")}
	for key, want := range map[string]struct {
		r Result
		v string
	}{"a": {OK, "first"}, "b": {OK, "last"}, "c": {NotFound, ""}, "stop": {NoMore, ""}, "temp": {Temp, "x"}} {
		if v, r := seq.Lookup(t.Context(), key); r != want.r || v != want.v {
			t.Errorf("%s: %q %v, want %q %v", key, v, r, want.v, want.r)
		}
	}
	if !seq.Blocking() || seq[:1].Blocking() {
		t.Error("Blocking is wrong")
	}
}

// README 10.2: foo* is not found, and NOMORE keeps foo from being tried.
func TestNoMoreEndsDerivedKeys(t *testing.T) {
	var asked []string
	s := serveMap(t, "unix", func(q string) []byte {
		asked = append(asked, q)
		if q == "aliases foo*" {
			return netstring("NOMORE ")
		}
		return netstring("OK false positive")
	})
	_, _, v, r := FindAddress(t.Context(), s.client(t), "", ParseAddress("foo", "", "+"), LocalPart)
	if r != NoMore || v != "" || len(asked) != 1 {
		t.Errorf("%q %v after %q", v, r, asked)
	}
}

func TestPasswd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	os.WriteFile(path, []byte("# c\nroot:x:0:0:root:/root:/bin/sh\nMixed:x:1:1::/:\n+::::::\n\n"), 0o600)
	m, err := OpenPasswd(path, false)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]Result{"root": OK, "ROOT": OK, "mixed": OK, "nobody": NotFound, "": NotFound} {
		if v, r := m.Lookup(t.Context(), key); r != want || r == OK && v != PasswdValue {
			t.Errorf("%q: %q %v, want %v", key, v, r, want)
		}
	}
	os.WriteFile(path, []byte("root:x:0:0::/root:\nadded:x:5:5::/:\n"), 0o600)
	m.refresh(time.Now().Add(2 * passwdCheck))
	if _, r := m.Lookup(t.Context(), "added"); r != OK {
		t.Errorf("an account that was added: %v", r)
	}
	os.Remove(path)
	m.refresh(time.Now().Add(10 * passwdCheck))
	if _, r := m.Lookup(t.Context(), "added"); r != OK {
		t.Errorf("when the file is gone: %v", r)
	}
	if _, err := OpenPasswd(path, false); err == nil {
		t.Error("a missing file was opened")
	}
}

func FuzzSocketReply(f *testing.F) {
	for _, s := range []string{"5:OK ab,", "9:NOTFOUND ,", "0:,", "999999999999:", "6:OK a\nb,"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := readNetstring(bufio.NewReader(bytes.NewReader(raw)), maxSocketReply)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(raw, fmt.Appendf(nil, "%d:%s,", len(s), s)) {
			t.Errorf("%q read as %q", raw, s)
		}
		if v, r := parseSocketReply(s); r == OK && strings.ContainsAny(v, "\x00\r\n") {
			t.Errorf("value %q", v)
		}
	})
}

var _ io.Closer = (*Socket)(nil)
