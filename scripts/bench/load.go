//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// quiet is how long nothing arrives before what is missing is called lost.
const quiet = time.Minute

// content is message id, with the header that tells which it is.
func content(id, size int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <source@bench.test>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <%d@bench.test>\r\nSubject: %[1]d\r\n\r\n", id)
	for line := 0; b.Len() < size; line++ {
		fmt.Fprintf(&b, "%07d.%07d: the quick brown fox jumps over the lazy dog\r\n", id, line)
	}
	return b.Bytes()
}

// source sends the messages of a scenario and notes when.
type source struct {
	sc   scenario
	addr string
	sink *sink

	mu      sync.Mutex // guards the rest
	next    int
	sent    map[int]time.Time // when MAIL was sent of those that were acknowledged
	resumed int               // TLS sessions
	fails   int
	first   string // reason of a failure
}

func newSource(sc scenario, addr string, s *sink) *source {
	return &source{sc: sc, addr: addr, sink: s, sent: map[int]time.Time{}}
}

// send sends all messages.
func (s *source) send() {
	var wg sync.WaitGroup
	for range s.sc.sessions {
		wg.Go(s.session)
	}
	wg.Wait()
}

func (s *source) take() (id int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return s.next - 1, s.next <= s.sc.n+s.sc.hanging
}

func (s *source) session() {
	var c *smtp.Client
	begin := time.Now()
	for {
		id, ok := s.take()
		if !ok {
			break
		}
		at := time.Now()
		if s.sc.every > 0 { // what is late counts from when it should have been sent
			at = begin.Add(time.Duration(id) * s.sc.every)
			time.Sleep(time.Until(at))
		}
		err := s.message(&c, id)
		if err != nil && c != nil {
			_ = c.Close()
			c = nil
		}
		s.note(id, at, err)
		if s.sc.reconnect && c != nil {
			_ = c.Quit()
			c = nil
		}
	}
	if c != nil {
		_ = c.Quit()
	}
}

// hangs reports whether a message goes to the host that hangs: every nth one.
func (s *source) hangs(id int) bool {
	return s.sc.hanging > 0 && id%((s.sc.n+s.sc.hanging)/s.sc.hanging) == 0
}

// message sends message id, over a connection that is kept in c.
func (s *source) message(c **smtp.Client, id int) (err error) {
	if *c == nil {
		if *c, err = smtp.Dial(s.addr); err != nil {
			return err
		}
		if err = (*c).Hello("source.bench.test"); err != nil {
			return err
		}
		resumed, err := s.sink.keys.startTLS(*c)
		if err != nil {
			return err
		}
		s.noteTLS(resumed)
	}
	rcpt := "u" + strconv.Itoa(id) + "@sink.test"
	if s.hangs(id) {
		rcpt = "u" + strconv.Itoa(id) + "@hang.test"
	}
	if err = (*c).Mail("source@bench.test"); err != nil {
		return err
	}
	if err = (*c).Rcpt(rcpt); err != nil {
		return err
	}
	w, err := (*c).Data()
	if err != nil {
		return err
	}
	if _, err = w.Write(content(id, s.sc.size)); err != nil {
		return err
	}
	return w.Close()
}

func (s *source) note(id int, at time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		if s.fails++; s.first == "" {
			s.first = err.Error()
		}
	case !s.hangs(id):
		s.sent[id] = at
	}
}

// noteTLS counts TLS sessions that were resumed.
func (s *source) noteTLS(resumed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if resumed {
		s.resumed++
	}
}

// acknowledged counts the messages for the sink that were taken.
func (s *source) acknowledged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

// compare fills in what became of the messages.
func (s *source) compare(r *result) {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	var took []time.Duration
	for id, at := range s.sent {
		if arrived, ok := s.sink.arrived[id]; ok {
			took = append(took, arrived.Sub(at))
		} else {
			r.lost++
		}
	}
	r.twice, r.damaged, r.damage = s.sink.twice, s.sink.damaged, s.sink.damage
	r.failures, r.firstFailure, r.plain, r.resumed = s.fails, s.first, s.sink.plain, s.resumed
	if slices.Sort(took); len(took) > 0 {
		r.median, r.p99 = took[len(took)/2], took[len(took)*99/100]
	}
}

// sink takes the mail. A second socket, on another address, belongs to the host that
// hangs: it accepts connections and says nothing.
type sink struct {
	sc                scenario
	keys              *keys      // nil: no TLS
	milter            milterAddr // that the MTA asks; "": none
	addr, hangingAddr string
	listeners         []net.Listener

	mu        sync.Mutex // guards the rest
	conns     map[net.Conn]struct{}
	arrived   map[int]time.Time
	refused   map[string]bool // recipients that got 451
	refuses   bool
	last      time.Time // when something happened
	twice     int
	damaged   int
	plain     int // came without TLS though it was offered
	damage    string
	isClosing bool
}

func newSink(sc scenario, k *keys) (*sink, error) {
	s := &sink{
		sc: sc, keys: k, arrived: map[int]time.Time{}, refused: map[string]bool{}, conns: map[net.Conn]struct{}{},
		refuses: sc.deferred, last: time.Now(),
	}
	for _, l := range []struct {
		ip    string
		addr  *string
		serve func(net.Conn)
	}{{"127.0.0.1", &s.addr, s.serve}, {"127.0.0.2", &s.hangingAddr, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }}} {
		listener, err := net.Listen("tcp", l.ip+":0")
		if err != nil {
			s.close()
			return nil, err
		}
		*l.addr = listener.Addr().String()
		s.listeners = append(s.listeners, listener)
		go s.accept(listener, l.serve)
	}
	return s, nil
}

func (s *sink) accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		closing := s.isClosing
		s.mu.Unlock()
		if closing {
			_ = c.Close()
		}
		go func() {
			serve(c)
			_ = c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
	}
}

func (s *sink) close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isClosing = true
	for c := range s.conns {
		_ = c.Close()
	}
}

// serve is one session of SMTP.
func (s *sink) serve(c net.Conn) {
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	say := func(line string) { _, _ = w.WriteString(line + "\r\n") }
	say("220 sink.test ESMTP")
	rcpts := 0 // of the transaction, that were not refused
	offers := s.keys != nil
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(strings.TrimSpace(line[:min(len(line), 4)])); verb {
		case "EHLO":
			say("250-sink.test")
			if offers {
				say("250-STARTTLS")
			}
			say("250-PIPELINING\r\n250 8BITMIME")
		case "STAR":
			if !offers {
				say("503 no")
				continue
			}
			say("220 go on")
			if w.Flush() != nil {
				return
			}
			secured := tls.Server(c, s.keys.sink)
			if secured.Handshake() != nil {
				return
			}
			c, offers = secured, false
			r.Reset(c)
			w.Reset(c)
		case "RCPT":
			reply := s.recipient(strings.TrimSpace(line))
			if reply[0] == '2' {
				rcpts++
			}
			say(reply)
		case "DATA":
			if rcpts == 0 { // it came in the same packet as the recipients
				say("554 5.5.1 no recipients")
				continue
			}
			say("354 go on")
			if w.Flush() != nil {
				return
			}
			data, err := readData(r)
			if err != nil {
				return
			}
			s.arrive(data, offers)
			rcpts = 0
			say("250 taken")
		case "QUIT":
			say("221 bye")
			_ = w.Flush()
			return
		default:
			if verb == "MAIL" || verb == "RSET" {
				rcpts = 0
			}
			say("250 ok")
		}
	}
}

func (s *sink) recipient(line string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refuses {
		return "250 ok"
	}
	s.refused[line], s.last = true, time.Now()
	return "451 4.3.0 not now"
}

// readData reads up to the final dot, which it leaves out.
func readData(r *bufio.Reader) ([]byte, error) {
	var data []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if string(line) == ".\r\n" {
			return data, nil
		}
		data = append(data, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// arrive notes a message, and compares what follows its own From field. plain says that it
// came without TLS though that was offered.
func (s *sink) arrive(data []byte, plain bool) {
	at := time.Now()
	_, rest, _ := bytes.Cut(data, []byte("\r\nSubject: "))
	number, _, _ := bytes.Cut(rest, []byte("\r\n"))
	id, err := strconv.Atoi(string(number))
	intact := err == nil && bytes.HasSuffix(data, content(id, s.sc.size))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = at
	if plain {
		s.plain++
	}
	switch _, before := s.arrived[id]; {
	case !intact:
		if s.damaged++; s.damage == "" {
			s.damage = fmt.Sprintf("(%.300q)", data)
		}
	case before:
		s.twice++
	default:
		s.arrived[id] = at
	}
}

func (s *sink) arrivals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.arrived)
}

// recover lets the sink take what comes.
func (s *sink) recover() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses, s.last = false, time.Now()
}

// waitRefused waits until n recipients were refused, or nothing happens any more.
func (s *sink) waitRefused(n int) { s.wait(quiet, func() bool { return len(s.refused) >= n }) }

// waitArrived waits until n messages arrived, or nothing happens any more for a while,
// and returns when the last one came.
func (s *sink) waitArrived(n int, quiet time.Duration) time.Time {
	return s.wait(quiet, func() bool { return len(s.arrived) >= n })
}

func (s *sink) wait(quiet time.Duration, done func() bool) time.Time {
	began := time.Now()
	for {
		s.mu.Lock()
		ok, last := done(), s.last
		s.mu.Unlock()
		if ok || time.Since(last) > quiet && time.Since(began) > quiet {
			return last
		}
		time.Sleep(5 * time.Millisecond)
	}
}
