package trial

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"meta1/mta/supervise"
)

// Bounds of a sink.
const (
	sinkLineMax  = 64 << 10         // bytes of a line, also of content
	sinkIdle     = 10 * time.Minute // without a command or line of content
	sinkRcptsMax = 10_000
)

// SinkConfig says what a sink is like.
type SinkConfig struct {
	LMTP bool // speak LMTP (RFC 2033): a reply for each recipient behind the final dot
	// TLS is offered by STARTTLS, or comes first with Implicit; nil: none.
	TLS      *tls.Config
	Implicit bool
	Rules    []Rule
	// Dump is a directory in which each message becomes a file; "": nowhere. Files that are
	// there are kept. A sink that cannot write one ends.
	Dump string
	Seed uint64 // of the chance with which rules hit
}

// SinkStats is what a sink has seen.
type SinkStats struct {
	Connections int64 `json:"connections"`
	Handshakes  int64 `json:"tls_handshakes"`
	Messages    int64 `json:"messages"`   // accepted
	Recipients  int64 `json:"recipients"` // of those
	Bytes       int64 `json:"bytes"`      // of those
	Refusals    int64 `json:"refusals"`   // replies 4xx and 5xx
	Cuts        int64 `json:"cuts"`       // connections that a rule has ended
}

// Sink takes mail and forgets it. It is safe for use by many goroutines.
type Sink struct {
	cfg SinkConfig

	mu    sync.Mutex // guards the rest
	rnd   *rand.Rand
	stats SinkStats
	dumps int64
}

// NewSink makes a sink.
func NewSink(cfg SinkConfig) *Sink {
	return &Sink{cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 0))}
}

// Stats is what the sink has seen so far.
func (s *Sink) Stats() SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Sink) count(f func(*SinkStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// Serve takes connections of l until ctx ends, or a message cannot be dumped, and closes l.
func (s *Sink) Serve(ctx context.Context, l net.Listener) error {
	g := supervise.NewGroup(ctx)
	stop := context.AfterFunc(g.Context(), func() { _ = l.Close() })
	defer stop()
	for {
		nc, err := l.Accept()
		if err != nil {
			ended := g.Context().Err() != nil
			g.Stop()
			if werr := g.Wait(); werr != nil || ended {
				return werr
			}
			return err
		}
		g.Go(func(ctx context.Context) error {
			return s.session(ctx, nc)
		})
	}
}

// errEnd ends a session as a rule says.
var errEnd = errors.New("the session is ended by a rule")

// errDump ends the sink: a message could not be kept.
var errDump = errors.New("writing a message that came in")

// sinkSession is one connection to a sink.
type sinkSession struct {
	*Sink
	ctx   context.Context
	conn  net.Conn
	in    *bufio.Reader
	out   *bufio.Writer
	mail  bool
	rcpts int
	tls   bool
}

// session serves one connection. Its error is one that ends the sink.
func (s *Sink) session(ctx context.Context, nc net.Conn) error {
	c := &sinkSession{Sink: s, ctx: ctx, conn: nc}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	defer func() { _ = c.conn.Close() }()
	s.count(func(st *SinkStats) { st.Connections++ })
	c.in, c.out = bufio.NewReaderSize(nc, 4096), bufio.NewWriter(nc)
	if s.cfg.Implicit && c.handshake() != nil {
		return nil
	}
	proto := "ESMTP"
	if s.cfg.LMTP {
		proto = "LMTP"
	}
	err := c.say("connect", "220 sink.invalid "+proto+" of meta1\r\n")
	for err == nil {
		err = c.command()
	}
	_ = c.out.Flush()
	if errors.Is(err, errDump) {
		return err
	}
	return nil
}

// handshake puts TLS over the connection.
func (c *sinkSession) handshake() error {
	t := tls.Server(c.conn, c.cfg.TLS)
	_ = t.SetDeadline(time.Now().Add(time.Minute))
	if err := t.HandshakeContext(c.ctx); err != nil {
		return err
	}
	c.conn, c.tls, c.mail, c.rcpts = t, true, false, 0
	c.in, c.out = bufio.NewReaderSize(t, 4096), bufio.NewWriter(t)
	c.count(func(st *SinkStats) { st.Handshakes++ })
	return nil
}

// say answers at a stage, unless rules say something else. The error is errRefused if the
// answer is a refusal.
func (c *sinkSession) say(stage, reply string) error {
	for i := range c.cfg.Rules {
		r := &c.cfg.Rules[i]
		c.mu.Lock()
		hits := r.hits(stage, c.rnd)
		c.mu.Unlock()
		if !hits {
			continue
		}
		if r.action == actDelay {
			if !c.wait(r.delay) {
				return errEnd
			}
			continue
		}
		switch r.action {
		case actReply:
			reply = r.reply
		case actGarble:
			reply = "\x00\xff garbage\r\n"
		case actHang:
			_ = c.out.Flush()
			<-c.ctx.Done()
			return errEnd
		case actCut:
			_ = c.out.Flush()
			c.count(func(st *SinkStats) { st.Cuts++ })
			return errEnd
		}
		break
	}
	if _, err := c.out.WriteString(reply); err != nil {
		return err
	}
	if reply[0] == '4' || reply[0] == '5' {
		c.count(func(st *SinkStats) { st.Refusals++ })
		return errRefused
	}
	return nil
}

var errRefused = errors.New("refused")

// wait waits, with what is said so far sent. It reports false if the sink ends.
func (c *sinkSession) wait(d time.Duration) bool {
	if c.out.Flush() != nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// line reads a line, without its end.
func (c *sinkSession) line() ([]byte, error) {
	if c.in.Buffered() == 0 {
		if err := c.out.Flush(); err != nil {
			return nil, err
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(sinkIdle)); err != nil {
			return nil, err
		}
	}
	var long []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if err == nil && long == nil {
			return slices.Clip(bytes.TrimRight(part, "\r\n")), nil // what follows is not to be appended over
		}
		if long = append(long, part...); len(long) > sinkLineMax {
			return nil, errors.New("line too long")
		}
		if err == nil {
			return bytes.TrimRight(long, "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// command serves one command. A refusal is no error: the dialogue goes on.
func (c *sinkSession) command() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	verb, _, _ := strings.Cut(strings.ToUpper(string(line)), " ")
	switch verb {
	case "EHLO", "LHLO", "HELO":
		c.mail, c.rcpts = false, 0
		err = c.say("ehlo", c.extensions(verb))
	case "STARTTLS":
		return c.startTLS()
	case "MAIL":
		if err = c.say("mail", "250 2.1.0 ok\r\n"); err == nil {
			c.mail, c.rcpts = true, 0
		}
	case "RCPT":
		switch {
		case !c.mail:
			err = c.say("rcpt", "503 5.5.1 MAIL first\r\n")
		case c.rcpts >= sinkRcptsMax:
			err = c.say("rcpt", "452 4.5.3 too many recipients\r\n")
		default:
			if err = c.say("rcpt", "250 2.1.5 ok\r\n"); err == nil {
				c.rcpts++
			}
		}
	case "DATA":
		return c.data()
	case "RSET":
		c.mail, c.rcpts = false, 0
		err = c.say("rset", "250 2.0.0 ok\r\n")
	case "QUIT":
		if err = c.say("quit", "221 2.0.0 bye\r\n"); err == nil || errors.Is(err, errRefused) {
			return io.EOF
		}
	case "NOOP", "VRFY":
		_, err = c.out.WriteString("252 2.0.0 maybe\r\n")
	default:
		_, err = c.out.WriteString("500 5.5.1 unknown\r\n")
	}
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

func (c *sinkSession) extensions(verb string) string {
	if verb == "HELO" {
		return "250 sink.invalid\r\n"
	}
	list := []string{"sink.invalid", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"}
	if c.cfg.TLS != nil && !c.tls {
		list = append(list, "STARTTLS")
	}
	var b strings.Builder
	for _, word := range list {
		b.WriteString("250-" + word + "\r\n")
	}
	b.WriteString("250 SIZE 0\r\n")
	return b.String()
}

func (c *sinkSession) startTLS() error {
	reply := "220 2.0.0 go on\r\n"
	if c.cfg.TLS == nil || c.tls {
		reply = "502 5.5.1 no TLS here\r\n"
	}
	switch err := c.say("starttls", reply); {
	case errors.Is(err, errRefused):
		return nil
	case err != nil:
		return err
	}
	if err := c.out.Flush(); err != nil {
		return err
	}
	return c.handshake()
}

// data takes a message.
func (c *sinkSession) data() error {
	reply := "354 go on\r\n"
	if c.rcpts == 0 {
		reply = "503 5.5.1 no recipients\r\n"
	}
	switch err := c.say("data", reply); {
	case errors.Is(err, errRefused):
		return nil
	case err != nil:
		return err
	}
	size, err := c.content()
	if err != nil {
		return err
	}
	replies := 1
	if c.cfg.LMTP {
		replies = c.rcpts
	}
	taken := 0
	for range replies {
		switch err := c.say("dot", "250 2.0.0 taken\r\n"); {
		case err == nil:
			taken++
		case !errors.Is(err, errRefused):
			return err
		}
	}
	if !c.cfg.LMTP {
		taken *= c.rcpts
	}
	c.mail, c.rcpts = false, 0
	if taken > 0 {
		c.count(func(st *SinkStats) {
			st.Messages, st.Recipients, st.Bytes = st.Messages+1, st.Recipients+int64(taken), st.Bytes+size
		})
	}
	return nil
}

// content reads up to the final dot and returns how many bytes came before it.
func (c *sinkSession) content() (size int64, err error) {
	var file *os.File
	dump := io.Discard
	if c.cfg.Dump != "" {
		if file, err = c.dumpFile(); err != nil {
			return 0, fmt.Errorf("%w: %w", errDump, err)
		}
		defer file.Close()
		dump = file
	}
	for {
		line, err := c.line()
		if err != nil {
			return size, err
		}
		if len(line) > 0 && line[0] == '.' {
			if line = line[1:]; len(line) == 0 {
				if file == nil {
					return size, nil
				}
				if err = file.Close(); err != nil {
					return size, fmt.Errorf("%w: %w", errDump, err)
				}
				return size, nil
			}
		}
		size += int64(len(line)) + 2
		if _, err = dump.Write(append(line, "\r\n"...)); err != nil {
			return size, fmt.Errorf("%w: %w", errDump, err)
		}
	}
}

// dumpFile makes the file of the next message, behind those of an earlier sink.
func (c *sinkSession) dumpFile() (*os.File, error) {
	for {
		c.mu.Lock()
		c.dumps++
		n := c.dumps
		c.mu.Unlock()
		f, err := os.OpenFile(filepath.Join(c.cfg.Dump, fmt.Sprintf("%08d", n)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}
