package e2e

import (
	"bufio"
	"bytes"
	wirenumber "encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// oddFilter is a filter that writes down what it is told, and answers as a test wants.
type oddFilter struct {
	addr string
	// answer is the reply to a command; nil: continue. ok false: the connection ends.
	answer func(kind byte, data []byte, sender string) (reply []byte, ok bool)

	mu   sync.Mutex // guards told
	told []string
}

// newOddFilter starts a filter; it ends with the test.
func newOddFilter(t *testing.T, answer func(byte, []byte, string) ([]byte, bool)) *oddFilter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &oddFilter{addr: l.Addr().String(), answer: answer}
	var conns sync.WaitGroup
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				f.serve(c)
			})
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return f
}

// serve is one connection. A packet without a reply is one that has none.
func (f *oddFilter) serve(c net.Conn) {
	r, sender := bufio.NewReader(c), ""
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		data := make([]byte, wirenumber.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(r, data); err != nil {
			return
		}
		kind := head[4]
		f.mu.Lock()
		f.told = append(f.told, string(kind)+string(data))
		f.mu.Unlock()
		if kind == 'M' {
			sender, _, _ = strings.Cut(string(data), "\x00")
		}
		reply, ok := []byte(nil), true
		switch kind {
		case 'Q':
			return
		case 'D', 'A', 'K':
			continue
		case 'O':
			reply = []byte("\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x00\x00\x00")
		default:
			if f.answer != nil {
				reply, ok = f.answer(kind, data, sender)
			}
			if reply == nil {
				reply = []byte("\x00\x00\x00\x01c")
			}
		}
		if !ok {
			return
		}
		if _, err := c.Write(reply); err != nil {
			return
		}
	}
}

// commands are those that it was told, without the negotiation, macros, aborts and the end.
func (f *oddFilter) commands() (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.told {
		if !strings.ContainsRune("ODAQK", rune(s[0])) {
			list = append(list, s)
		}
	}
	return list
}

const miltertestScript = `
conn = mt.connect("inet:@PORT@@127.0.0.1")
if conn == nil then error "no connection" end
function check(err) if err ~= nil then error(err) end end
check(mt.conninfo(conn, "localhost", "127.0.0.1"))
check(mt.helo(conn, "client.test"))
check(mt.mailfrom(conn, "<jane@x.test>", "SIZE=100", "BODY=8BITMIME"))
check(mt.rcptto(conn, "<joe@sink.test>", "NOTIFY=NEVER"))
check(mt.rcptto(conn, "<jim@sink.test>"))
check(mt.data(conn))
check(mt.header(conn, "From", "jane@x.test"))
check(mt.header(conn, "Subject", "two\n\tlines  "))
check(mt.header(conn, "X-Empty", ""))
check(mt.eoh(conn))
check(mt.bodystring(conn, "a line\r\n.a dot\r\n\r\n"))
check(mt.eom(conn))
check(mt.disconnect(conn))
`

// TestMiltertest: miltertest of OpenDKIM, which drives filters, and meta1 tell a filter the same of the
// same message, octet by octet. The connect differs in the port alone: miltertest has none.
func TestMiltertest(t *testing.T) {
	t.Parallel()
	theirs, ours := newOddFilter(t, nil), newOddFilter(t, nil)
	script := testDir(t) + "/script.lua"
	writeFile(t, script, strings.ReplaceAll(miltertestScript, "@PORT@", port(t, theirs.addr)))
	if out, err := output(peerCommand(t, "miltertest", "-s", script)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "odd", ours.addr, "flags = { tempfail };")})
	c, _ := talk(t, "127.0.0.1", m.smtp)
	for _, line := range []string{"EHLO client.test", "MAIL FROM:<jane@x.test> SIZE=100 BODY=8BITMIME", "RCPT TO:<joe@sink.test> NOTIFY=NEVER", "RCPT TO:<jim@sink.test>"} {
		c.say(line, "250")
	}
	c.say("DATA", "354")
	c.say("From: jane@x.test\r\nSubject: two\r\n\tlines  \r\nX-Empty:\r\n\r\na line\r\n..a dot\r\n\r\n.", "250")
	c.say("QUIT", "221")
	want, got := theirs.commands(), ours.commands()
	for i := len(got) - 1; i > 0; i-- { // before it there is the session that waited for the greeting
		if got[i][0] == 'C' {
			got = got[i:]
			break
		}
	}
	for _, list := range [][]string{want, got} {
		name, rest, _ := strings.Cut(list[0], "\x00")
		if len(name) < 2 || len(rest) < 4 {
			t.Fatalf("connect: %q", list[0])
		}
		list[0] = "C" + rest[:1] + rest[3:] // without the name, for this host may have another one, and the port
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestMilterOdd: a filter that hangs, dies, says something else or a length of 4 GB, at each step: the
// client gets 451 at that step, in time, and the next message on the same session passes.
func TestMilterOdd(t *testing.T) {
	t.Parallel()
	steps := map[byte]string{'M': "mail", 'R': "rcpt", 'T': "data", 'L': "header", 'N': "eoh", 'B': "body", 'E': "eom"}
	stop := make(chan struct{})
	f := newOddFilter(t, func(kind byte, _ []byte, sender string) ([]byte, bool) {
		fault, step, _ := strings.Cut(strings.Trim(sender, "<>"), "-")
		if step, _, _ = strings.Cut(step, "@"); steps[kind] != step {
			return nil, true
		}
		switch fault {
		case "hangs":
			<-stop
			return nil, false
		case "dies":
			return nil, false
		case "garbage":
			return []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), true
		case "huge":
			return []byte{0xff, 0xff, 0xff, 0xff, 'c'}, true
		case "endless":
			return bytes.Repeat([]byte("\x00\x00\x00\x01p"), 3), true // and nothing more
		case "quarantine":
			return []byte("\x00\x00\x00\x09qstrange\x00\x00\x00\x00\x01c"), true
		}
		return nil, true
	})
	t.Cleanup(func() { close(stop) })
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "odd", f.addr, "flags = { tempfail }; timeout = 1s; content_timeout = 1s; progress_max = 2s;")})
	var all sync.WaitGroup
	sent := 0
	for _, fault := range []string{"hangs", "dies", "garbage", "huge", "endless"} {
		for _, step := range steps {
			sent++
			all.Go(func() {
				began := time.Now()
				if err := oddMessage(m.smtp, fault+"-"+step+"@x.test"); err != nil {
					t.Errorf("%s at %s: %v", fault, step, err)
				}
				if d := time.Since(began); d > hangs/2 {
					t.Errorf("%s at %s took %v", fault, step, d)
				}
			})
		}
	}
	all.Wait()
	s.waitFor(sent)
	c, _ := talk(t, "127.0.0.1", m.smtp)
	c.say("EHLO client.test", "250")
	c.send("quarantine-eom@x.test", "Subject: x\r\n\r\ny\r\n", "250", "held@sink.test")
	must(t, func() error { return m.queueShows(1, "quarantined by milter odd: strange") })
}

// oddMessage sends a message at which the filter fails: there must be one 451, and then a message must pass.
func oddMessage(addr, from string) error {
	k, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer k.Close()
	_ = k.SetDeadline(time.Now().Add(hangs))
	r := bufio.NewReader(k)
	reply := func() (string, error) {
		for {
			line, err := r.ReadString('\n')
			if err != nil || len(line) < 4 || line[3] != '-' {
				return line, err
			}
		}
	}
	if _, err := reply(); err != nil {
		return err
	}
	for round, sender := range []string{from, "fine@x.test"} {
		refused := ""
		for _, line := range []string{"EHLO client.test", "MAIL FROM:<" + sender + ">", "RCPT TO:<joe@sink.test>", "DATA", "Subject: x\r\n\r\ny\r\n."} {
			if _, err := fmt.Fprintf(k, "%s\r\n", line); err != nil {
				return err
			}
			got, err := reply()
			if err != nil {
				return fmt.Errorf("%s: %w", line, err)
			}
			if got[0] > '3' {
				refused = got
				break
			}
		}
		if want := []string{"451 4.7.1", ""}[round]; !strings.HasPrefix(refused, want) || want == "" && refused != "" {
			return fmt.Errorf("message %d: %q", round, refused)
		}
		if _, err := fmt.Fprintf(k, "RSET\r\n"); err != nil {
			return err
		}
		if _, err := reply(); err != nil {
			return err
		}
	}
	return nil
}
