package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	udpSize      = 1232 // EDNS0 buffer that passes without fragments (DNS flag day 2020)
	maxMismatch  = 16   // datagrams that do not belong to the question before TCP is used
	downTime     = 30 * time.Second
	readBufBytes = 4096
)

// server is a name server and what is known of its health.
type server struct {
	addr    netip.AddrPort
	trusted bool         // its AD bit is believed
	down    atomic.Int64 // unix nanoseconds until which it is asked last
}

// errMismatch: too many datagrams that did not belong to the question, which looks
// like an attempt to forge an answer (RFC 5452 section 9).
var errMismatch = errors.New("too many replies that do not fit")

// errRefused: a server does not want to answer.
var errRefused = errors.New("refused")

// query asks the servers in turn until one gives a reply with RCODE 0 or NXDOMAIN.
func (c *Client) query(ctx context.Context, name string, qtype uint16, try time.Duration) (*mdns.Msg, error) {
	servers := c.order(time.Now())
	tries := max(c.cfg.Retries+1, len(servers))
	var last error
	for i := range tries {
		s := servers[i%len(servers)]
		reply, err := c.ask(ctx, s, name, qtype, try)
		if err == nil {
			s.down.Store(0)
			return reply, nil
		}
		last = fmt.Errorf("name server %s: %w", s.addr, err)
		c.deps.Log.LogAttrs(ctx, slog.LevelDebug, "dns query failed",
			slog.String("server", s.addr.String()), slog.String("name", name),
			slog.String("type", mdns.TypeToString[qtype]), slog.String("stat", err.Error()))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

// order gives the servers as configured, those that did not answer of late last.
func (c *Client) order(now time.Time) []*server {
	if len(c.servers) == 1 {
		return c.servers
	}
	up := slices.DeleteFunc(slices.Clone(c.servers), func(s *server) bool { return s.isDown(now) })
	down := slices.DeleteFunc(slices.Clone(c.servers), func(s *server) bool { return !s.isDown(now) })
	return append(up, down...)
}

func (s *server) isDown(now time.Time) bool { return now.UnixNano() < s.down.Load() }

// ask makes one try at one server: UDP, TCP if that was truncated or forged, and
// without EDNS0 if the server does not know it (RFC 6891 section 7).
func (c *Client) ask(ctx context.Context, s *server, name string, qtype uint16, try time.Duration) (*mdns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, try)
	defer cancel()
	reply, err := c.exchange(ctx, s, c.question(name, qtype, true))
	if err == nil && (reply.Rcode == mdns.RcodeFormatError || reply.Rcode == mdns.RcodeNotImplemented || reply.Rcode == mdns.RcodeBadVers) {
		reply, err = c.exchange(ctx, s, c.question(name, qtype, false))
	}
	switch {
	case err != nil:
		s.down.Store(time.Now().Add(downTime).UnixNano())
		return nil, err
	case reply.Rcode == mdns.RcodeRefused || reply.Rcode == mdns.RcodeNotImplemented:
		return nil, fmt.Errorf("%w: %s", errRefused, rcodeName(reply.Rcode))
	case reply.Rcode != mdns.RcodeSuccess && reply.Rcode != mdns.RcodeNameError:
		return nil, errors.New("answered " + rcodeName(reply.Rcode))
	case isReferral(reply):
		return nil, errors.New("gave a referral instead of an answer: it does not resolve recursively")
	}
	reply.AuthenticatedData = reply.AuthenticatedData && s.trusted
	return reply, nil
}

func rcodeName(rcode int) string {
	if s, ok := mdns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", rcode)
}

// isReferral recognises a server that is not recursive and points elsewhere.
func isReferral(reply *mdns.Msg) bool {
	return reply.Rcode == mdns.RcodeSuccess && len(reply.Answer) == 0 && !reply.RecursionAvailable &&
		!reply.Authoritative && len(reply.Ns) > 0 && !hasSOA(reply)
}

func (c *Client) question(name string, qtype uint16, edns bool) *mdns.Msg {
	if c.cfg.MixCase {
		name = mixCase(name)
	}
	q := new(mdns.Msg)
	q.Id = uint16(rand.Uint32()) // ChaCha8 seeded by the kernel: not to be guessed
	q.RecursionDesired = true
	q.AuthenticatedData = c.cfg.DNSSEC // RFC 6840 section 5.7: asks for the AD bit
	q.Question = []mdns.Question{{Name: name, Qtype: qtype, Qclass: mdns.ClassINET}}
	if edns {
		q.SetEdns0(udpSize, false)
	}
	return q
}

// mixCase sets the case of each letter at random (draft-vixie-dnsext-dns0x20).
func mixCase(name string) string {
	b := []byte(name)
	for i, ch := range b {
		if 'a' <= ch && ch <= 'z' && rand.Uint32()&1 == 0 {
			b[i] = ch - 'a' + 'A'
		}
	}
	return string(b)
}

// exchange sends one question and waits for its reply.
func (c *Client) exchange(ctx context.Context, s *server, q *mdns.Msg) (*mdns.Msg, error) {
	c.mu.Lock()
	c.stats.Queries++
	c.mu.Unlock()
	wire, err := q.Pack()
	if err != nil {
		return nil, fmt.Errorf("packing the question: %w", err)
	}
	if !c.cfg.TCP {
		reply, err := c.over(ctx, "udp", s, q, wire)
		if !errors.Is(err, errMismatch) && (err != nil || !reply.Truncated) {
			return reply, err
		}
	}
	return c.over(ctx, "tcp", s, q, wire)
}

func (c *Client) over(ctx context.Context, network string, s *server, q *mdns.Msg, wire []byte) (*mdns.Msg, error) {
	conn, err := c.deps.Dial(ctx, network, s.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("setting the deadline: %w", err)
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if network == "tcp" {
		return exchangeTCP(conn, q, wire, c.cfg.MixCase)
	}
	return exchangeUDP(conn, q, wire, c.cfg.MixCase)
}

// exchangeUDP ignores what does not belong to the question and waits on.
func exchangeUDP(conn net.Conn, q *mdns.Msg, wire []byte, exactCase bool) (*mdns.Msg, error) {
	if _, err := conn.Write(wire); err != nil {
		return nil, fmt.Errorf("sending the question: %w", err)
	}
	buf := make([]byte, readBufBytes)
	for range maxMismatch {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("waiting for the reply: %w", err)
		}
		if reply := fits(buf[:n], q, exactCase); reply != nil {
			return reply, nil
		}
	}
	return nil, errMismatch
}

func exchangeTCP(conn net.Conn, q *mdns.Msg, wire []byte, exactCase bool) (*mdns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, len(wire)+2), uint16(len(wire)))
	if _, err := conn.Write(append(framed, wire...)); err != nil {
		return nil, fmt.Errorf("sending the question: %w", err)
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, fmt.Errorf("waiting for the reply: %w", err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, fmt.Errorf("reading the reply: %w", err)
	}
	reply := fits(buf, q, exactCase)
	switch {
	case reply == nil:
		return nil, errors.New("reply does not belong to the question, or is malformed")
	case reply.Truncated && len(reply.Answer) == 0 && reply.Rcode == mdns.RcodeSuccess:
		// There is nothing larger than TCP to ask by. What there is of an answer is taken, as other resolvers do, but that
		// there is none does not say that there are no records: mail would be bounced for it.
		return nil, errors.New("reply is truncated although it came by TCP, and has no record")
	}
	return reply, nil
}

// fits unpacks a reply and checks that it is one to q (RFC 5452 section 9.1).
func fits(wire []byte, q *mdns.Msg, exactCase bool) *mdns.Msg {
	if len(wire) < 12 || binary.BigEndian.Uint16(wire) != q.Id {
		return nil
	}
	reply := new(mdns.Msg)
	if err := reply.Unpack(wire); err != nil && !reply.Truncated {
		return nil
	}
	if !reply.Truncated && len(reply.Answer) != int(binary.BigEndian.Uint16(wire[6:])) {
		return nil // it ends before its last record, which Unpack lets pass: it must not be taken for one without records
	}
	if !reply.Response || reply.Opcode != mdns.OpcodeQuery {
		return nil
	}
	if len(reply.Question) == 0 && reply.Rcode == mdns.RcodeFormatError {
		return reply // a server that could not read the question need not repeat it
	}
	if len(reply.Question) != 1 {
		return nil
	}
	asked, got := q.Question[0], reply.Question[0]
	same := asked.Name == got.Name || !exactCase && strings.EqualFold(asked.Name, got.Name)
	if !same || asked.Qtype != got.Qtype || asked.Qclass != got.Qclass {
		return nil
	}
	return reply
}
