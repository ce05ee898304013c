package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// arrival is one message that a sink has taken.
type arrival struct {
	from  string
	rcpts []string
	// data is the message as sent: header and body with CRLF, dots unstuffed.
	data []byte
	at   time.Time
	tls  string // version of TLS by which it came; "" for none
}

// sink is an SMTP server for the other end of meta1. Its behaviour can change
// while it runs.
type sink struct {
	t    *testing.T
	addr string

	// reply, if set, is asked at each command and at the final dot (verb ".") and
	// gives the reply instead of the sink's own; "" for the own, hang to be silent
	// for good. It is called by many goroutines.
	reply atomic.Pointer[func(verb, argument string) string]
	// keep, if set, takes each message instead of the list.
	keep func(arrival)
	// tls, if set, has the sink offer STARTTLS. It is set before the sink is told of.
	tls atomic.Pointer[tls.Config]

	mu       sync.Mutex // guards what follows
	listener net.Listener
	conns    map[net.Conn]bool
	got      []arrival
	sessions int
	wg       sync.WaitGroup
}

// hang as a reply makes the sink silent.
const hang = "hang"

// newSink starts a sink on addr ("" for a free port). It ends with the test.
func newSink(t *testing.T, addr string) *sink {
	t.Helper()
	if addr == "" {
		addr = freeAddr(t)
	}
	s := &sink{t: t, addr: addr, conns: map[net.Conn]bool{}}
	s.open()
	t.Cleanup(s.close)
	return s
}

// answer sets the sink's behaviour.
func (s *sink) answer(f func(verb, argument string) string) { s.reply.Store(&f) }

// open starts to listen, again after close.
func (s *sink) open() {
	s.t.Helper()
	var l net.Listener
	err := within(func() (err error) {
		l, err = net.Listen("tcp", s.addr)
		return err
	})
	if err != nil {
		s.t.Fatalf("sink: %v", err)
	}
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	s.wg.Add(1)
	go s.accept(l)
}

// close stops to listen and drops all connections, so that a connect is refused.
func (s *sink) close() {
	s.mu.Lock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *sink) accept(l net.Listener) {
	defer s.wg.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.listener != l {
			c.Close()
		} else {
			s.conns[c] = true
			s.sessions++
			s.wg.Add(1)
			go s.serve(c)
		}
		s.mu.Unlock()
	}
}

func (s *sink) serve(c net.Conn) {
	defer s.wg.Done()
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	d := &sinkDialogue{sink: s, c: c, r: bufio.NewReaderSize(c, 32<<10), w: bufio.NewWriter(c)}
	if !d.say("connect", c.RemoteAddr().String(), "220 sink.test ESMTP") {
		return
	}
	for d.command() {
	}
}

// sinkDialogue is one session of a sink.
type sinkDialogue struct {
	sink *sink
	c    net.Conn
	tls  string // version, "" for none
	r    *bufio.Reader
	w    *bufio.Writer
	msg  arrival
	mail bool // MAIL was accepted
}

// decide chooses the reply to a command.
func (d *sinkDialogue) decide(verb, argument, own string) string {
	if f := d.sink.reply.Load(); f != nil {
		if r := (*f)(verb, argument); r != "" {
			return r
		}
	}
	return own
}

// send writes a reply, and reports whether the session goes on.
func (d *sinkDialogue) send(reply string) bool {
	if reply == hang {
		d.w.Flush()
		_, _ = io.Copy(io.Discard, d.r)
		return false
	}
	fmt.Fprintf(d.w, "%s\r\n", reply)
	end := strings.HasPrefix(reply, "421") || strings.HasPrefix(reply, "221")
	if end || d.r.Buffered() == 0 {
		return d.w.Flush() == nil && !end
	}
	return true
}

func (d *sinkDialogue) say(verb, argument, own string) bool {
	return d.send(d.decide(verb, argument, own))
}

// positive reports whether a reply accepts.
func positive(reply string) bool { return reply[0] == '2' || reply[0] == '3' }

// command reads one command and answers it.
func (d *sinkDialogue) command() bool {
	line, err := d.r.ReadString('\n')
	if err != nil {
		return false
	}
	line = strings.TrimSuffix(line, "\r\n")
	verb, argument, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "EHLO", "LHLO":
		if d.tls == "" && d.sink.tls.Load() != nil {
			return d.say(verb, argument, "250-sink.test\r\n250-PIPELINING\r\n250 STARTTLS")
		}
		return d.say(verb, argument, "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 100000000")
	case "HELO", "RSET", "NOOP":
		d.msg = arrival{}
		return d.say(verb, argument, "250 2.0.0 ok")
	case "MAIL":
		reply := d.decide(verb, argument, "250 2.1.0 ok")
		d.msg, d.mail = arrival{from: address(argument)}, positive(reply)
		return d.send(reply)
	case "RCPT":
		if !d.mail {
			return d.send("503 5.5.1 no sender")
		}
		reply := d.decide(verb, argument, "250 2.1.5 ok")
		if positive(reply) {
			d.msg.rcpts = append(d.msg.rcpts, address(argument))
		}
		return d.send(reply)
	case "STARTTLS":
		return d.say(verb, argument, "220 2.0.0 go on") && d.secure()
	case "DATA":
		return d.data()
	case "QUIT":
		return d.say(verb, argument, "221 2.0.0 bye")
	}
	return d.say(verb, argument, "500 5.5.1 unknown")
}

// secure makes the sink's side of a TLS handshake.
func (d *sinkDialogue) secure() bool {
	c := tls.Server(d.c, d.sink.tls.Load())
	if c.Handshake() != nil {
		return false
	}
	d.tls = tls.VersionName(c.ConnectionState().Version)
	d.r.Reset(c)
	d.w.Reset(c)
	return true
}

// data reads a message to its final dot. What is accepted is taken before the
// reply is sent.
func (d *sinkDialogue) data() bool {
	if len(d.msg.rcpts) == 0 {
		return d.say("DATA", "", "503 5.5.1 no recipients")
	}
	if reply := d.decide("DATA", "", "354 go on"); !positive(reply) {
		return d.send(reply)
	} else if !d.send(reply) {
		return false
	}
	var data bytes.Buffer
	for {
		line, err := d.r.ReadBytes('\n')
		if err != nil {
			return false
		}
		if string(line) == ".\r\n" {
			break
		}
		data.Write(bytes.TrimPrefix(line, []byte(".")))
	}
	msg := d.msg
	d.msg = arrival{}
	reply := d.decide(".", strings.Join(msg.rcpts, " "), "250 2.0.0 taken")
	if positive(reply) {
		msg.data, msg.at, msg.tls = data.Bytes(), time.Now(), d.tls
		d.sink.take(msg)
	}
	return d.send(reply)
}

func (s *sink) take(a arrival) {
	if s.keep != nil {
		s.keep(a)
		return
	}
	s.mu.Lock()
	s.got = append(s.got, a)
	s.mu.Unlock()
}

// arrivals is what has arrived so far.
func (s *sink) arrivals() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.got...)
}

// count is how many messages have arrived.
func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// waitFor fails the test unless n messages arrive before long.
func (s *sink) waitFor(n int) {
	s.t.Helper()
	err := within(func() error {
		if got := s.count(); got < n {
			return fmt.Errorf("%d of %d messages arrived", got, n)
		}
		return nil
	})
	if err != nil {
		s.t.Fatalf("sink %s: %v", s.addr, err)
	}
}

// address is the path between the angle brackets of a MAIL or RCPT argument.
func address(argument string) string {
	_, rest, _ := strings.Cut(argument, "<")
	path, _, _ := strings.Cut(rest, ">")
	return path
}
