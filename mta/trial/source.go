package trial

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SourceConfig says what a source sends.
type SourceConfig struct {
	Network, Addr string // "tcp" and host:port, or "unix" and a path
	LMTP          bool   // speak LMTP
	// TLS is used by STARTTLS, or from the start with Implicit; nil: none.
	TLS      *tls.Config
	Implicit bool

	From string
	// To is the recipient; %d in it stands for a number that is different for each.
	To       string
	Messages int           // how many; 0: until the context ends
	Sessions int           // at a time
	Each     int           // messages over one connection; 0: any number
	Rcpts    int           // of each message
	Size     int           // bytes of each message, at least
	Rate     float64       // messages a second of all sessions together; 0: as many as go
	Pipeline bool          // send MAIL, RCPT and DATA together (RFC 2920)
	Timeout  time.Duration // for one reply
}

// SourceResult is what became of the messages.
type SourceResult struct {
	Accepted int           `json:"accepted"`   // messages; by LMTP for at least one recipient
	Rcpts    int           `json:"recipients"` // accepted ones of those
	Failed   int           `json:"failed"`     // messages
	Elapsed  time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"`
	// Replies counts refusals by their text, and errors of the connection; at most 20 kinds.
	Replies map[string]int `json:"replies"`
	// Median, P99 and Max are times from MAIL to the reply to the final dot, of messages that
	// were accepted.
	Median time.Duration `json:"-"`
	P99    time.Duration `json:"-"`
	Max    time.Duration `json:"-"`
}

const (
	kindsMax      = 20   // of SourceResult.Replies
	replyLinesMax = 1000 // of one reply
)

// source is a run.
type source struct {
	cfg   SourceConfig
	begin time.Time

	mu     sync.Mutex // guards the rest
	next   int
	result SourceResult
	took   []time.Duration
}

// Send sends the messages. It returns when all are sent or ctx has ended. What cannot be sent
// is counted and not tried again.
func Send(ctx context.Context, cfg SourceConfig) SourceResult {
	s := &source{cfg: cfg, begin: time.Now(), result: SourceResult{Replies: map[string]int{}}}
	var wg sync.WaitGroup
	for range max(cfg.Sessions, 1) {
		wg.Go(func() { s.session(ctx) })
	}
	wg.Wait()
	r := s.result
	r.Elapsed = time.Since(s.begin)
	r.Seconds = r.Elapsed.Seconds()
	if slices.Sort(s.took); len(s.took) > 0 {
		r.Median, r.P99, r.Max = s.took[len(s.took)/2], s.took[len(s.took)*99/100], s.took[len(s.took)-1]
	}
	return r
}

// take gives the number of the next message when its time has come.
func (s *source) take(ctx context.Context) (n int, ok bool) {
	s.mu.Lock()
	n = s.next
	if s.cfg.Messages > 0 && n >= s.cfg.Messages {
		s.mu.Unlock()
		return 0, false
	}
	s.next++
	s.mu.Unlock()
	if s.cfg.Rate > 0 {
		timer := time.NewTimer(time.Until(s.begin.Add(time.Duration(float64(n) / s.cfg.Rate * float64(time.Second)))))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return n, ctx.Err() == nil
}

// session sends messages, over one connection after the other.
func (s *source) session(ctx context.Context) {
	var c *sourceConn
	for {
		n, ok := s.take(ctx)
		if !ok {
			break
		}
		var err error
		if c == nil {
			if c, err = s.connect(ctx); err != nil {
				s.failed(err)
				continue
			}
		}
		begin := time.Now()
		rcpts, err := c.message(n)
		if err != nil {
			s.failed(err)
		}
		if rcpts > 0 {
			s.accepted(rcpts, time.Since(begin))
		}
		c.sent++
		if err != nil && !isRefusal(err) {
			c.close()
			c = nil
		} else if s.cfg.Each > 0 && c.sent >= s.cfg.Each {
			c.quit()
			c = nil
		}
	}
	if c != nil {
		c.quit()
	}
}

func (s *source) accepted(rcpts int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Accepted++
	s.result.Rcpts += rcpts
	s.took = append(s.took, took)
}

func (s *source) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Failed++
	text := err.Error()
	if _, known := s.result.Replies[text]; !known && len(s.result.Replies) >= kindsMax {
		text = "other"
	}
	s.result.Replies[text]++
}

// refusedError is a reply that refuses. The session may go on.
type refusedError struct{ stage, reply string }

func (e *refusedError) Error() string { return e.stage + ": " + e.reply }

// sourceConn is a connection of a source.
type sourceConn struct {
	cfg  *SourceConfig
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
	sent int
	// stop has the end of the context close the connection.
	stop func() bool
}

func (s *source) connect(ctx context.Context) (*sourceConn, error) {
	d := net.Dialer{Timeout: s.cfg.Timeout}
	nc, err := d.DialContext(ctx, s.cfg.Network, s.cfg.Addr)
	if err != nil {
		return nil, err
	}
	c := &sourceConn{cfg: &s.cfg, conn: nc}
	c.stop = context.AfterFunc(ctx, func() { _ = nc.Close() })
	if err := c.greet(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// greet speaks up to the reply to EHLO, with TLS if it is wanted.
func (c *sourceConn) greet(ctx context.Context) error {
	c.in = bufio.NewReader(c.conn)
	if c.cfg.TLS != nil && c.cfg.Implicit {
		if err := c.handshake(ctx); err != nil {
			return err
		}
	}
	if err := c.reply("connect"); err != nil {
		return err
	}
	hello := "EHLO source.invalid\r\n"
	if c.cfg.LMTP {
		hello = "LHLO source.invalid\r\n"
	}
	if err := c.command("ehlo", hello); err != nil || c.cfg.TLS == nil || c.cfg.Implicit {
		return err
	}
	if err := c.command("starttls", "STARTTLS\r\n"); err != nil {
		return err
	}
	if err := c.handshake(ctx); err != nil {
		return err
	}
	return c.command("ehlo", hello)
}

func (c *sourceConn) handshake(ctx context.Context) error {
	t := tls.Client(c.conn, c.cfg.TLS)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	c.conn, c.in = t, bufio.NewReader(t)
	return nil
}

// step is a command and where in the dialogue it stands.
type step struct{ stage, text string }

// message sends message n and returns for how many recipients it was accepted. The error is
// the first refusal, or why the session cannot go on.
func (c *sourceConn) message(n int) (rcpts int, err error) {
	var refusal error
	go354 := false
	for _, group := range c.envelope(n) {
		if group[0].stage == "data" && rcpts == 0 || group[0].stage == "rcpt" && refusedMail(refusal) {
			break // nothing would come of it
		}
		for _, cmd := range group {
			c.out.WriteString(cmd.text)
		}
		if err := c.flush(); err != nil {
			return 0, err
		}
		for _, cmd := range group {
			switch err := c.reply(cmd.stage); {
			case isRefusal(err):
				refusal = cmp.Or(refusal, err)
			case err != nil:
				return 0, err
			case cmd.stage == "rcpt":
				rcpts++
			case cmd.stage == "data":
				go354 = true
			}
		}
	}
	switch {
	case !go354:
		if err := c.command("rset", "RSET\r\n"); err != nil && !isRefusal(err) {
			return 0, err
		}
		return 0, refusal
	case rcpts == 0: // RFC 2920 section 3.1: the host waits for a message all the same
		if err := c.command("dot", ".\r\n"); err != nil && !isRefusal(err) {
			return 0, err
		}
		return 0, refusal
	}
	c.content(n)
	if err := c.flush(); err != nil {
		return 0, err
	}
	replies, share := 1, rcpts // by LMTP one for each recipient
	if c.cfg.LMTP {
		replies, share = rcpts, 1
	}
	for range replies {
		switch err := c.reply("dot"); {
		case isRefusal(err):
			refusal = cmp.Or(refusal, err)
			rcpts -= share
		case err != nil:
			return 0, err
		}
	}
	return rcpts, refusal
}

// envelope is the commands of message n, in groups that are sent together.
func (c *sourceConn) envelope(n int) [][]step {
	all := []step{{"mail", "MAIL FROM:<" + c.cfg.From + ">\r\n"}}
	for i := range max(c.cfg.Rcpts, 1) {
		to := strings.ReplaceAll(c.cfg.To, "%d", strconv.Itoa(n*max(c.cfg.Rcpts, 1)+i))
		all = append(all, step{"rcpt", "RCPT TO:<" + to + ">\r\n"})
	}
	all = append(all, step{"data", "DATA\r\n"})
	if c.cfg.Pipeline {
		return [][]step{all}
	}
	return slices.Collect(slices.Chunk(all, 1))
}

// refusedMail reports that MAIL was refused.
func refusedMail(err error) bool {
	r := (*refusedError)(nil)
	return errors.As(err, &r) && r.stage == "mail"
}

func isRefusal(err error) bool { return errors.As(err, new(*refusedError)) }

// content appends message n and the final dot.
func (c *sourceConn) content(n int) {
	start := c.out.Len()
	fmt.Fprintf(&c.out, "From: <%s>\r\nDate: %s\r\nMessage-ID: <%d.%d@source.invalid>\r\nSubject: trial %[3]d\r\n\r\n",
		c.cfg.From, time.Now().Format(time.RFC1123Z), n, time.Now().UnixNano())
	for line := 0; c.out.Len()-start < c.cfg.Size; line++ {
		fmt.Fprintf(&c.out, "%07d.%07d: the quick brown fox jumps over the lazy dog\r\n", n, line)
	}
	c.out.WriteString(".\r\n")
}

func (c *sourceConn) flush() error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.cfg.Timeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out.Bytes())
	c.out.Reset()
	return err
}

// command sends a command and reads its reply.
func (c *sourceConn) command(stage, text string) error {
	c.out.WriteString(text)
	if err := c.flush(); err != nil {
		return err
	}
	return c.reply(stage)
}

// reply reads a reply. One that refuses is a *refusedError.
func (c *sourceConn) reply(stage string) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.cfg.Timeout)); err != nil {
		return err
	}
	for range replyLinesMax {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%s: %w", stage, err)
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case len(line) < 3 || line[0] < '2' || line[0] > '5':
			return fmt.Errorf("%s: %q is no reply", stage, line)
		case len(line) > 3 && line[3] == '-':
			continue
		case line[0] > '3':
			return &refusedError{stage, strconv.QuoteToGraphic(string(line))}
		}
		return nil
	}
	return fmt.Errorf("%s: the reply has more than %d lines", stage, replyLinesMax)
}

func (c *sourceConn) quit() {
	_ = c.command("quit", "QUIT\r\n") // a courtesy
	c.close()
}

func (c *sourceConn) close() {
	c.stop()
	_ = c.conn.Close()
}
