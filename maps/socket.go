package maps

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of a socket map.
const (
	maxSocketReply = 100000 // bytes, the limit of Postfix's client for the same protocol
	maxSocketKey   = 10000
	maxSocketConns = 32 // open at one time; further lookups wait
	maxSocketIdle  = 8
)

// SocketConfig says where the server of a socket map is.
type SocketConfig struct {
	Network, Address string // "unix" and a path, or "tcp" and host:port
	MapName          string
	CaseSensitive    bool
	Timeout          time.Duration // of one lookup, the connection included
	// Dial opens connections; nil: the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Socket is a map of type socket (README 10.2): another process answers, in a
// protocol of netstrings. Connections are kept for later lookups.
type Socket struct {
	cfg   SocketConfig
	slots chan struct{} // one for each connection in use

	mu     sync.Mutex // guards idle and closed
	idle   []*socketConn
	closed bool
}

type socketConn struct {
	net.Conn
	r *bufio.Reader
}

// NewSocket makes a socket map. It opens no connection yet.
func NewSocket(cfg SocketConfig) (*Socket, error) {
	if cfg.MapName == "" || strings.ContainsAny(cfg.MapName, " \x00") {
		return nil, fmt.Errorf("mapname %q must be a word", cfg.MapName)
	}
	if cfg.Timeout <= 0 {
		return nil, errors.New("timeout must be positive")
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	return &Socket{cfg: cfg, slots: make(chan struct{}, maxSocketConns)}, nil
}

// Blocking implements Map.
func (m *Socket) Blocking() bool { return true }

// Close closes the connections that are not in use, and later the others.
func (m *Socket) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, c := range m.idle {
		c.Close()
	}
	m.idle = nil
	return nil
}

// Lookup implements Map. A server that cannot be reached, breaks the connection or
// the protocol is a temporary failure.
func (m *Socket) Lookup(ctx context.Context, key string) (string, Result) {
	if !m.cfg.CaseSensitive {
		key = Lower(key)
	}
	if len(key) > maxSocketKey {
		return "", NotFound
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return "all connections are in use", Timeout
	}
	reply, err := m.ask(ctx, m.cfg.MapName+" "+key)
	if err != nil {
		var ne net.Error
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
			return err.Error(), Timeout
		}
		return err.Error(), Temp
	}
	return parseSocketReply(reply)
}

// ask sends a question over a kept connection, or if that was closed meanwhile over
// a new one.
func (m *Socket) ask(ctx context.Context, question string) (string, error) {
	for {
		c := m.takeIdle()
		kept := c != nil
		if !kept {
			raw, err := m.cfg.Dial(ctx, m.cfg.Network, m.cfg.Address)
			if err != nil {
				return "", fmt.Errorf("connecting to the server of the map: %w", err)
			}
			c = &socketConn{raw, bufio.NewReaderSize(raw, 4096)}
		}
		reply, err := c.ask(ctx, question)
		if err == nil {
			m.keep(c)
			return reply, nil
		}
		c.Close()
		if !kept || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return "", err
		}
	}
}

func (m *Socket) takeIdle() *socketConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) == 0 {
		return nil
	}
	c := m.idle[len(m.idle)-1]
	m.idle = m.idle[:len(m.idle)-1]
	return c
}

func (m *Socket) keep(c *socketConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || len(m.idle) >= maxSocketIdle {
		c.Close()
		return
	}
	m.idle = append(m.idle, c)
}

func (c *socketConn) ask(ctx context.Context, question string) (string, error) {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return "", fmt.Errorf("setting the deadline: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(appendNetstring(nil, question)); err != nil {
		return "", fmt.Errorf("asking the server of the map: %w", err)
	}
	reply, err := readNetstring(c.r, maxSocketReply)
	if err != nil {
		return "", fmt.Errorf("reading the reply of the map: %w", err)
	}
	if c.r.Buffered() > 0 {
		return "", errors.New("the server of the map sent more than one reply")
	}
	return reply, nil
}

// appendNetstring adds s in the form "5:hello,".
func appendNetstring(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	return append(append(append(b, ':'), s...), ',')
}

func readNetstring(r *bufio.Reader, limit int) (string, error) {
	n, digits := 0, 0
	for {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == ':' && digits > 0 {
			break
		}
		if c < '0' || c > '9' || digits > 0 && n == 0 {
			return "", errors.New("not a netstring")
		}
		digits++
		if n = n*10 + int(c-'0'); n > limit {
			return "", fmt.Errorf("longer than %d bytes", limit)
		}
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	if b[n] != ',' {
		return "", errors.New("not a netstring: the comma is missing")
	}
	return string(b[:n]), nil
}

// parseSocketReply reads "STATUS result". NUL, CR and LF cannot be part of a value.
func parseSocketReply(reply string) (string, Result) {
	word, value, _ := strings.Cut(reply, " ")
	for r := OK; r <= Perm; r++ {
		if word != r.String() {
			continue
		}
		if r == NotFound || r == NoMore {
			return "", r
		}
		if strings.ContainsAny(value, "\x00\r\n") {
			return "the reply contains a control character", Temp
		}
		return value, r
	}
	return fmt.Sprintf("the reply begins with %.20q, which is not a status", word), Temp
}
