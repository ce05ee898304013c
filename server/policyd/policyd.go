// Package policyd is a client of Postfix's policy delegation protocol (SMTPD_POLICY_README of
// Postfix): it asks a program such as postgrey or policyd-spf whether a recipient is to be
// accepted.
//
// A question is lines NAME=VALUE and an empty line, the answer a line action=WORDS and an empty
// one. A connection carries many questions, one after the other; a Service keeps some of them.
package policyd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// Attr is one attribute of a question.
type Attr struct{ Name, Value string }

// Config is one policy service.
type Config struct {
	Network, Address string        // "tcp" or "unix"
	Timeout          time.Duration // for one question, connecting included; positive
}

// Bounds of an answer, and of the connections that are kept.
const (
	lineMax  = 4 << 10
	linesMax = 100
	keptMax  = 20
	// idleMax is how long a connection is kept: less than the 300 s of most services.
	idleMax = time.Minute
)

var (
	errAnswer = errors.New("the answer has no action")
	errLong   = errors.New("the answer is too long")
)

// Service is one policy service. Its methods may be called by any goroutine.
type Service struct {
	cfg  Config
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex // guards the following
	idle   []*conn
	closed bool
}

type conn struct {
	net.Conn
	r     *bufio.Reader
	since time.Time
}

// New makes a service. It connects to nothing. dial nil is the network.
func New(cfg Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Service {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &Service{cfg: cfg, dial: dial}
}

// Config is what New was given.
func (s *Service) Config() Config { return s.cfg }

// Close gives up the connections that are kept.
func (s *Service) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		_ = c.Close() // nobody waits for it
	}
	s.idle, s.closed = nil, true
}

// Ask asks a question and returns the words behind "action=". A question that goes to a
// connection which was kept, and that the service has closed meanwhile, is asked again on a new one.
func (s *Service) Ask(ctx context.Context, question []Attr) (action string, err error) {
	deadline := time.Now().Add(s.cfg.Timeout)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if c := s.take(); c != nil {
		action, err = s.exchange(ctx, c, question)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return action, err
		}
	}
	nc, err := s.dial(ctx, s.cfg.Network, s.cfg.Address)
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	return s.exchange(ctx, &conn{Conn: nc, r: bufio.NewReaderSize(nc, lineMax)}, question)
}

// take gives a connection that was kept, nil if there is none.
func (s *Service) take() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.idle); n > 0; n = len(s.idle) {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		if time.Since(c.since) < idleMax {
			return c
		}
		_ = c.Close() // it is old
	}
	return nil
}

// exchange asks one question. The connection is kept, or closed after an error.
func (s *Service) exchange(ctx context.Context, c *conn, question []Attr) (action string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	if _, err = c.Write(appendQuestion(nil, question)); err == nil {
		action, err = readAnswer(c.r)
	}
	if !stop() && err == nil {
		err = os.ErrDeadlineExceeded // the answer came as the time was over: the connection is not usable
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || s.closed || len(s.idle) == keptMax || c.r.Buffered() > 0 {
		_ = c.Close() // the first error counts
		return action, err
	}
	c.since = time.Now()
	s.idle = append(s.idle, c)
	return action, nil
}

// appendQuestion writes a question. No value can end its line, or be taken for another attribute.
func appendQuestion(b []byte, question []Attr) []byte {
	for _, a := range question {
		b = append(append(b, a.Name...), '=')
		for i := range len(a.Value) {
			c := a.Value[i]
			if c == '\n' || c == '\r' || c == 0 {
				c = '?'
			}
			b = append(b, c)
		}
		b = append(b, '\n')
	}
	return append(b, '\n')
}

// readAnswer reads an answer up to its empty line. Attributes but action are passed over.
func readAnswer(r *bufio.Reader) (action string, err error) {
	found := false
	for range linesMax {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return "", errLong
		}
		if err != nil {
			return "", err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			if !found {
				return "", errAnswer
			}
			return action, nil
		}
		if value, ok := strings.CutPrefix(text, "action="); ok && !found {
			action, found = strings.TrimSpace(value), true
		}
	}
	return "", errLong
}
