package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// stream is one direction of a connection in memory. It takes all that is written, so that
// nobody waits for a reader with a mutex of TLS held.
type stream struct {
	mu     sync.Mutex // guards all below
	cond   sync.Cond
	buf    []byte
	end    error // of whoever reads, behind buf; nil: not yet
	until  time.Time
	timer  *time.Timer
	broken bool // nobody reads any more
}

func newStream() *stream {
	s := &stream{}
	s.cond.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.broken:
			return 0, net.ErrClosed
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			return n, nil
		case s.end != nil:
			return 0, s.end
		case !s.until.IsZero() && !time.Now().Before(s.until):
			return 0, os.ErrDeadlineExceeded
		}
		s.cond.Wait()
	}
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken || s.end != nil {
		return 0, io.ErrClosedPipe
	}
	s.buf = append(s.buf, p...)
	s.cond.Broadcast()
	return len(p), nil
}

// finish ends what is written; stop ends the reading as well.
func (s *stream) finish(err error) { s.change(func() { s.end = err }) }
func (s *stream) stop()            { s.change(func() { s.broken = true }) }

func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.cond.Broadcast()
}

func (s *stream) deadline(t time.Time) {
	s.change(func() {
		if s.until = t; s.timer != nil {
			s.timer.Stop()
		}
		if !t.IsZero() {
			s.timer = time.AfterFunc(time.Until(t), func() { s.change(func() {}) })
		}
	})
}

// memConn is one end of a connection in memory.
type memConn struct{ in, out *stream }

func memPipe() (a, b *memConn) {
	x, y := newStream(), newStream()
	return &memConn{x, y}, &memConn{y, x}
}

func (c *memConn) Read(p []byte) (int, error)         { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error)        { return c.out.write(p) }
func (c *memConn) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (c *memConn) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (c *memConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *memConn) SetReadDeadline(t time.Time) error  { c.in.deadline(t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { return nil }
func (c *memConn) CloseWrite() error                  { c.out.finish(io.EOF); return nil }

func (c *memConn) Close() error {
	c.in.deadline(time.Time{})
	c.in.stop()
	c.out.finish(io.EOF)
	return nil
}

// faultKind is what happens at one byte of what the peer says.
type faultKind uint8

const (
	faultNone  faultKind = iota
	faultCut             // the connection is gone
	faultEnd             // the client hears no more than the end; the peer goes on
	faultStop            // the client hears nothing more, and the peer goes on
	faultDrop            // the byte is missing
	faultTwice           // it comes twice
	faultByte            // it is another one
	faultDelay           // it comes late
)

func (k faultKind) String() string {
	return [...]string{"none", "cut", "end", "stop", "drop", "twice", "byte", "delay"}[k]
}

// fault is one fault at one byte.
type fault struct {
	kind  faultKind
	at    int
	with  byte          // of faultByte
	pause time.Duration // of faultDelay
}

// faultProxy passes what a peer says on, with a fault in it.
type faultProxy struct {
	fault
	raw  *memConn
	to   net.Conn // raw, or the TLS over it
	said []byte   // before the fault was put into it
	over bool     // nothing is passed on any more
}

func (x *faultProxy) Write(p []byte) (int, error) {
	from := len(x.said)
	x.said = append(x.said, p...)
	at := x.at - from
	if x.over || x.kind == faultNone || at < 0 || at >= len(p) {
		return len(p), x.pass(p)
	}
	before, rest := p[:at], p[at:]
	if err := x.pass(before); err != nil {
		return 0, err
	}
	switch x.kind {
	case faultCut:
		return 0, x.raw.Close()
	case faultEnd, faultStop:
		x.over = true
		if x.kind == faultEnd {
			_ = x.to.(interface{ CloseWrite() error }).CloseWrite() // there is nobody then, or the client has gone
		}
		return len(p), nil
	case faultDrop:
		rest = rest[1:]
	case faultTwice:
		rest = slices.Concat(rest[:1], rest)
	case faultByte:
		rest = slices.Concat([]byte{x.with}, rest[1:])
	case faultDelay:
		time.Sleep(x.pause)
	}
	return len(p), x.pass(rest)
}

func (x *faultProxy) pass(p []byte) error {
	if x.over || len(p) == 0 {
		return nil
	}
	_, err := x.to.Write(p)
	return err
}

// faultWorld is a peer, and what it is given.
type faultWorld struct {
	name  string
	offer string // extensions
	proto msg.Protocol
	tls   bool
	reuse bool // the fault comes in the second message over one connection
	body  string
}

// faultPeer accepts mail, and remembers for whom. Recipients whose local part is
// refused, later or full it does not accept: the last at the end of the message.
type faultPeer struct {
	w   *faultWorld
	cfg *tls.Config

	mu       sync.Mutex // guards all below
	accepted map[string]int
	messages int // that came whole
	broken   int // that came otherwise
	empty    int // that are nothing but the final dot
	said     []byte
}

// serve speaks one session, with a fault in what it says.
func (s *faultPeer) serve(nc *memConn, f fault) {
	x := &faultProxy{fault: f, raw: nc, to: nc}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.said = x.said
	}()
	defer nc.Close()
	r := bufio.NewReader(nc)
	var out bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&out, format+"\r\n", args...) }
	flush := func() bool {
		_, err := x.Write(out.Bytes())
		out.Reset()
		return err == nil
	}
	say("220-mx.example ESMTP\r\n220 at your service")
	var rcpts []string
	var chunk strings.Builder
	secured := false
	for {
		if r.Buffered() == 0 && !flush() {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "EHLO", "LHLO":
			say("250-mx.example")
			if s.w.tls && !secured {
				say("250-STARTTLS")
			}
			for word := range strings.FieldsSeq(s.w.offer) {
				say("250-%s", word)
			}
			say("250 HELP")
		case "HELO":
			say("250 mx.example")
		case "STARTTLS":
			say("220 go on")
			if !flush() {
				return
			}
			tc := tls.Server(nc, s.cfg)
			if tc.Handshake() != nil {
				return
			}
			r.Reset(tc)
			x.to, secured = tc, true
		case "MAIL":
			rcpts = nil
			say("250-2.1.0 the sender\r\n250 2.1.0 is welcome")
		case "RCPT":
			local := strings.TrimPrefix(arg, "TO:<")
			local, _, _ = strings.Cut(local, "@")
			switch local {
			case "refused":
				say("550-5.1.1 no such\r\n550 5.1.1 user")
			case "later":
				say("451 4.2.1 try again")
			default:
				rcpts = append(rcpts, local)
				say("250 2.1.5 ok")
			}
		case "DATA":
			if len(rcpts) == 0 {
				say("554 5.5.1 no recipients")
				continue
			}
			say("354 go on")
			if !flush() {
				return
			}
			var b strings.Builder
			for line != ".\r\n" {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
				b.WriteString(line)
			}
			if b.String() == ".\r\n" {
				s.mu.Lock()
				s.empty++
				s.mu.Unlock()
				say("250 2.0.0 nothing") // RFC 2920 section 3.1
				continue
			}
			s.take(b.String() == s.w.body+".\r\n", rcpts, say)
		case "BDAT":
			size, last, _ := strings.Cut(arg, " ")
			n, err := strconv.Atoi(size)
			if err != nil || n > 1<<20 {
				return
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			chunk.Write(b)
			switch {
			case len(rcpts) == 0:
				say("554 5.5.1 no recipients")
			case last == "":
				say("250 2.0.0 so far")
			default:
				s.take(chunk.String() == s.w.body, rcpts, say)
			}
			if last != "" {
				chunk.Reset()
			}
		case "QUIT":
			say("221 bye")
			flush()
			return
		default:
			say("250 2.0.0 ok")
		}
	}
}

// take accepts a message.
func (s *faultPeer) take(whole bool, rcpts []string, say func(string, ...any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if whole {
		s.messages++
	} else {
		s.broken++
	}
	if s.w.proto != msg.ProtoLMTP {
		for _, r := range rcpts {
			s.accepted[r]++
		}
		say("250-2.0.0 queued\r\n250 2.0.0 as 4711")
		return
	}
	for _, r := range rcpts {
		if r == "full" {
			say("552 5.2.2 the mailbox is full")
			continue
		}
		s.accepted[r]++
		say("250 2.1.5 %s has it", r)
	}
}

// codeAt reports whether a byte of what the peer has said is one of a reply's code, or the one
// behind it, which says whether lines follow. Whoever changes these makes another reply, which
// nobody can tell from one of the peer.
func codeAt(said []byte, at int) bool {
	begin := bytes.LastIndexByte(said[:at], '\n') + 1
	return at-begin <= 3
}

// lineAt is the line in which a byte stands.
func lineAt(said []byte, at int) []byte {
	line, _, _ := bytes.Cut(said[bytes.LastIndexByte(said[:at], '\n')+1:], []byte("\n"))
	return line
}

// faultResult is what came of one delivery.
type faultResult struct {
	a     msg.DeliverA
	peer  *faultPeer
	rcpts []string
	f     fault
}

// deliverWith delivers with a fault in the first connection; later ones are good.
func deliverWith(t *testing.T, w *faultWorld, cfg *tls.Config, f fault) (res faultResult) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &faultPeer{w: w, cfg: cfg, accepted: map[string]int{}}
		n := newNetwork(func(net.Conn) {})
		conns := 0
		dial := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := memPipe()
			now := fault{}
			if conns++; conns == 1 {
				now = f
			}
			n.group.Go(func(context.Context) error {
				s.serve(theirs, now)
				return nil
			})
			return ours, nil
		}
		q := newQuestion(w.proto)
		q.Hop.Host = "mx.example"
		q.Body = memBody(w.body)
		q.Rcpts = nil
		res = faultResult{peer: s, f: f, rcpts: []string{"first", "refused", "second", "later", "full", "third"}}
		for _, local := range res.rcpts {
			q.Rcpts = append(q.Rcpts, msg.Rcpt{To: smtp.Path{Local: local, Domain: "b.example"}})
		}
		n.servers = nil
		r := startDialing(t, Deps{ReuseConnections: w.reuse}, n, dial)
		if w.reuse {
			before := q
			before.Rcpts = []msg.Rcpt{{To: smtp.Path{Local: "before", Domain: "b.example"}}}
			if a := r.deliver(t, before); f.kind == faultNone && !a.Rcpts[0].Accepted() {
				t.Errorf("%+v", a)
			}
		}
		res.a = r.deliver(t, q)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	})
	return res
}

// startDialing is start with a dial of its own.
func startDialing(t *testing.T, deps Deps, n *network, dial func(context.Context, string, string) (net.Conn, error)) *running {
	t.Helper()
	deps.Dial = dial
	r := start(t, Config{}, deps, nil)
	stop := r.stop
	r.stop = func() error {
		err := stop()
		n.group.Stop()
		if nerr := n.group.Wait(); err == nil {
			err = nerr
		}
		return err
	}
	return r
}

// check says what is wrong with a result, "" for nothing. forged says that the fault has made
// another reply, so that what the client believes is what it was told.
func (r *faultResult) check(forged bool) string {
	for i, local := range r.rcpts {
		reply, took := r.a.Rcpts[i], r.peer.accepted[local]
		refused := local == "refused" || local == "full" && r.peer.w.proto == msg.ProtoLMTP
		switch {
		case reply.IsZero():
			return local + " has no reply"
		case reply.Accepted() && r.peer.messages == 0:
			return local + " is reported delivered, and the peer has no message"
		case forged:
		case reply.Accepted() && took == 0:
			return local + " is reported delivered, and the peer has not accepted it"
		case reply.Permanent() && !refused:
			return local + " is bounced, and the peer has not refused it"
		case took > 1:
			return local + " got the message twice"
		case took > 0 && !reply.Accepted() && !r.a.Unknown:
			return local + " has the message, and the client does not say that it does not know"
		}
	}
	switch {
	case r.peer.broken > 0:
		return "the peer got a message that is not whole"
	case r.peer.empty > 0 && !(forged && bytes.Contains(lineAt(r.peer.said, r.f.at), []byte("2.1.5 ok"))):
		return "the peer got the final dot alone, and the client does not believe that all recipients were refused"
	}
	return ""
}

// faultWorlds are the peers of TestFaults.
func faultWorlds() []*faultWorld {
	small := "Subject: x\r\n\r\nhello\r\n"
	large := "Subject: x\r\n\r\n" + strings.Repeat("0123456789012345678901234567890123456789\r\n", 1000)
	return []*faultWorld{
		{name: "PIPELINING", offer: "PIPELINING 8BITMIME", body: small},
		{name: "no PIPELINING", offer: "8BITMIME SIZE", body: small},
		{name: "BDAT", offer: "CHUNKING", body: small},
		{name: "BDAT and PIPELINING", offer: "PIPELINING CHUNKING", body: large},
		{name: "LMTP", offer: "PIPELINING", proto: msg.ProtoLMTP, body: small},
		{name: "reuse", offer: "PIPELINING", reuse: true, body: small},
		{name: "PIPELINING over TLS", offer: "PIPELINING", tls: true, body: small},
		{name: "BDAT over TLS", offer: "CHUNKING", tls: true, body: small},
		{name: "LMTP over TLS", offer: "PIPELINING", proto: msg.ProtoLMTP, tls: true, body: small},
	}
}

// faultsAt are the faults at one byte: all, or some of them in turn.
func faultsAt(at int, b byte, all, slow bool) (list []fault) {
	bytes := []byte{0, '\r', '\n', ' ', '-', '2', '3', '4', '5', b ^ 1, b ^ 0x20, b ^ 0x80, 0xff}
	kinds := []fault{
		{kind: faultCut},
		{kind: faultEnd},
		{kind: faultStop},
		{kind: faultDrop},
		{kind: faultTwice},
		{kind: faultDelay, pause: time.Second},
		{kind: faultDelay, pause: 20 * time.Minute},
	}
	for _, with := range bytes {
		if with != b {
			kinds = append(kinds, fault{kind: faultByte, with: with})
		}
	}
	for i := range kinds {
		kinds[i].at = at
	}
	if all {
		return kinds
	}
	n := 2
	if slow {
		n = 1
	}
	for i := range n { // 7 is prime to the number of kinds, so that the turn takes each of them
		list = append(list, kinds[(at*7+i*5)%len(kinds)])
	}
	return list
}

// TestFaults puts a fault at each byte of all that a peer says in one session, over TLS inside
// it: whatever the client hears, it reports nobody delivered whom the peer did not accept, it
// bounces nobody whom the peer did not refuse, and if the peer may have the message it says so.
// META1_FAULTS=all tries each fault at each byte; else each byte has some of them in turn.
func TestFaults(t *testing.T) {
	all := os.Getenv("META1_FAULTS") == "all"
	cfg := &tls.Config{Certificates: []tls.Certificate{newCerts().kind["trusted"]}, CurvePreferences: []tls.CurveID{tls.X25519}}
	for _, w := range faultWorlds() {
		t.Run(w.name, func(t *testing.T) {
			good := deliverWith(t, w, cfg, fault{})
			if what := good.check(false); what != "" || !good.a.Rcpts[0].Accepted() || good.a.TLS.Level == msg.TLSNone == w.tls {
				t.Fatalf("without a fault: %s %+v", what, good.a)
			}
			said, cases := good.peer.said, 0
			for at := range said {
				if testing.Short() && at%5 != 0 {
					continue
				}
				for _, f := range faultsAt(at, said[at], all, w.tls) {
					cases++
					res := deliverWith(t, w, cfg, f)
					forged := f.kind >= faultDrop && f.kind <= faultByte && codeAt(said, at)
					if what := res.check(forged); what != "" {
						t.Errorf("%s %q at %d of %q: %s\n%+v\naccepted %v", f.kind, f.with, at, said[max(0, at-30):min(len(said), at+20)], what, res.a, res.peer.accepted)
					}
				}
			}
			t.Logf("%d faults at %d bytes", cases, len(said))
		})
	}
}
