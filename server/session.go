package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// phase is where the dialogue stands. Only session.enter changes it.
type phase uint8

const (
	phaseConnected phase = iota // greeted; no EHLO yet
	phaseReady                  // EHLO or HELO given, no transaction
	phaseMail                   // MAIL given, no recipient accepted
	phaseRcpt                   // at least one recipient accepted
	phaseData                   // 354 sent, the message follows
	phaseClosed                 // over, or to be closed after the reply
)

func (p phase) String() string {
	return [...]string{"connected", "ready", "mail", "rcpt", "data", "closed"}[p]
}

// session is one connection of a client.
type session struct {
	srv   *Server
	wire  *wire
	log   *slog.Logger
	asks  patience
	id    smtp.ID
	phase phase

	client   msg.Client
	esmtp    bool   // EHLO, not HELO
	received []byte // Received: up to the id; empty until needed
	local    bool   // the client is this host
	admitted bool   // QMGR counts this session
	askName  bool   // QMGR wants to know the client's name

	policy policy
	count  counts
	tx     *transaction // nil outside of a transaction
}

// policy is what verdicts decided for the whole session.
type policy struct {
	relaying bool       // may relay to anywhere
	quick    bool       // quick:ok or quick:relay: no further checks but for relaying
	marks    msg.Marks  // of the access map, at the stages before MAIL
	discard  bool       // accept and drop all mail
	refusal  smtp.Reply // to be sent at RCPT (delay_checks)
}

// counts are what limits are set on.
type counts struct {
	bad, nops, invalid, recipients, transactions int
}

// transaction lasts from MAIL to the end of the message, RSET or EHLO.
type transaction struct {
	env       *msg.Envelope
	inlineMax int64
	discard   bool
	marks     msg.Marks  // of the access map, at MAIL
	refusal   smtp.Reply // to be sent at RCPT (delay_checks)
	greylist  smtp.Reply // to be sent at DATA (delay_greylisting_error_until_DATA)
	accepted  int        // recipients, discarded ones included
	attempts  int        // RCPT commands
	bad       int
	nops      int
	invalid   int
	seen      map[string]int // places in env.Rcpts, once they are many
}

// newSession makes the session of a connection.
func (s *Server) newSession(conn net.Conn) *session {
	c := &session{srv: s, wire: newWire(conn, s.cfg.IOTimeout, &s.halt), log: s.log}
	c.client.Protocol = "SMTP"
	remote, ok := addrPort(conn.RemoteAddr())
	if !ok {
		c.local = true
		return c
	}
	c.client.IP, c.client.Port = remote.Addr(), remote.Port()
	own, _ := addrPort(conn.LocalAddr())
	c.local = remote.Addr().IsLoopback() || remote.Addr() == own.Addr()
	return c
}

// addrPort is the address of one end of a TCP connection; ok is false for others.
func addrPort(a net.Addr) (ap netip.AddrPort, ok bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap = tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// run is the whole life of a session. It closes the connection.
func (c *session) run(ctx context.Context) error {
	c.asks.parent = ctx
	defer c.asks.close()
	defer c.endSession(ctx)
	defer c.wire.close(&c.srv.pools)

	if c.admit() {
		c.greet()
	}
	if c.phase == phaseClosed || c.dialogue() {
		c.wire.farewell()
	} else if err := c.wire.flush(); err != nil {
		c.emit(slog.LevelDebug, "last reply not sent", slog.Any("error", err))
	}
	return nil
}

// dialogue is the loop of commands. It reports whether the session was cut short:
// ended in another way than by QUIT.
func (c *session) dialogue() (cut bool) {
	quit := c.srv.verb(verbQuit)
	for {
		if c.phase == phaseData {
			c.respond(c.srv.verb(verbData), c.receive())
		}
		if c.phase == phaseClosed {
			return true
		}
		if len(c.wire.out) > outMax {
			if c.wire.flush() != nil {
				return true
			}
		}
		line, err := c.wire.readLine()
		if err != nil && !errors.Is(err, errLongLine) {
			c.lost(err)
			return true
		}
		v, r := c.command(line, err)
		c.respond(v, r)
		if v == quit && c.phase == phaseClosed && r.Positive() {
			return false
		}
	}
}

// enter changes the phase.
func (c *session) enter(p phase) {
	if c.log.Enabled(context.Background(), slog.LevelDebug) {
		c.emit(slog.LevelDebug, "phase", slog.String("from", c.phase.String()), slog.String("to", p.String()))
	}
	c.phase = p
}

// command executes one command line. long is errLongLine if the line was too long
// to be read.
func (c *session) command(line []byte, long error) (*verb, smtp.Reply) {
	if long != nil {
		return c.srv.verb(verbOther), c.bad(replyLineLong)
	}
	v, arg := c.srv.find(line)
	switch {
	case len(line)+2 > v.lineMax:
		return v, c.bad(replyLineLong)
	case !printable(line):
		return v, c.bad(replyBadByte)
	case v.phases&(1<<c.phase) == 0:
		return v, c.bad(c.misplaced())
	case (v.flags&lastInGroup != 0 || !c.esmtp) && v.flags&maySync == 0 && len(c.wire.unread()) > 0:
		c.emit(slog.LevelInfo, "illegal pipelining", slog.String("command", v.name))
		c.enter(phaseClosed)
		return v, replyPipelining
	}
	if r := c.idle(v); !r.IsZero() {
		return v, r
	}
	r := v.handle(c, string(arg))
	if isBad(r.Code) {
		r = c.bad(r)
	}
	return v, r
}

// isBad reports the replies to unknown, misplaced and misspelt commands.
func isBad(code int) bool {
	return code >= 500 && code <= 504 || code == 555
}

// bad counts a bad command and returns its reply, or the one that ends the session.
func (c *session) bad(r smtp.Reply) smtp.Reply {
	l := &c.srv.cfg.Limits
	c.count.bad++
	over := exceeds(c.count.bad, l.BadCommandsSession)
	if c.tx != nil {
		c.tx.bad++
		over = over || exceeds(c.tx.bad, l.BadCommandsTransaction)
	}
	if over {
		c.emit(slog.LevelInfo, "too many bad commands", slog.String("reply", r.String()))
		return replyTooBad
	}
	return r
}

// idle counts a command that brings no mail forward. The reply is zero unless there
// were too many. Commands that end a transaction count for the session, so that
// beginning a new one does not begin the count anew.
func (c *session) idle(v *verb) smtp.Reply {
	l := &c.srv.cfg.Limits
	over := false
	switch {
	case v.flags&(nop|nopOfSession) == 0:
		return smtp.Reply{}
	case v.flags&nop != 0 && c.tx != nil:
		c.tx.nops++
		over = exceeds(c.tx.nops, l.NopsInTransaction)
	default:
		over = c.fruitless()
	}
	if over {
		c.emit(slog.LevelInfo, "too many commands without effect")
		return replyTooIdle
	}
	return smtp.Reply{}
}

// fruitless counts something that brought no mail, and reports whether that was
// too much since the last successful transaction.
func (c *session) fruitless() bool {
	c.count.nops++
	return exceeds(c.count.nops, c.srv.cfg.Limits.NopsBetween)
}

// exceeds reports n over a limit; 0 is no limit.
func exceeds(n, limit int) bool { return limit > 0 && n > limit }

// printable reports that a command line has no control characters. Octets above
// 127 are left to the parsers, which have better words for them.
func printable(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// misplaced is the reply to a command that may not be given in this phase.
func (c *session) misplaced() smtp.Reply {
	switch {
	case c.phase >= phaseMail:
		return replyNested
	case c.phase == phaseConnected && c.srv.cfg.Flags.RequireEHLO:
		return replyNoEHLO
	}
	return replyNoMail
}

// respond collects the reply to be written. It is the only place where replies go
// out after the greeting. A zero reply is none.
func (c *session) respond(v *verb, r smtp.Reply) {
	if r.IsZero() {
		return
	}
	if c.srv.cfg.Flags.SoftBounce && r.Permanent() {
		r.Code -= 100
		if r.Enhanced[0] == 5 {
			r.Enhanced[0] = 4
		}
	}
	if class := r.Code / 100; class >= 2 && class < len(v.replies) {
		v.replies[class].Inc()
	}
	c.wire.out = r.AppendWire(c.wire.out)
	if r.Code == 421 {
		c.enter(phaseClosed)
	}
}

// lost ends a session that the client or the network did not end in order.
func (c *session) lost(err error) {
	c.enter(phaseClosed)
	var r smtp.Reply
	switch {
	case errors.Is(err, errHalted):
		r = c.srv.replyStopping
	case errors.Is(err, errBareLine):
		r = replyBareCommand
	case errors.Is(err, errFlood):
		r = replyFlood
	case errors.Is(err, errSlow), errors.Is(err, os.ErrDeadlineExceeded):
		r = replyTimeout
	}
	level := slog.LevelInfo
	if errors.Is(err, io.EOF) && c.tx == nil {
		level = slog.LevelDebug // closed without QUIT between transactions: common and harmless
	}
	attrs := make([]slog.Attr, 0, 3)
	if c.tx != nil {
		attrs = append(attrs, slog.Any("ss_ta", c.tx.env.TA))
	}
	c.emit(level, "connection ended", append(attrs, slog.String("where", c.where()), slog.Any("error", err))...)
	c.respond(c.srv.verb(verbOther), r)
}

// where names what the session was doing.
func (c *session) where() string {
	if c.tx == nil {
		return "session"
	}
	if c.wire.patient {
		return "data"
	}
	return "transaction"
}

// endTransaction forgets the transaction. It sends nothing: QMGR learns of a
// transaction only by Commit.
func (c *session) endTransaction() {
	c.tx = nil
	if c.phase != phaseClosed {
		c.enter(c.rest())
	}
}

// rest is the phase between transactions.
func (c *session) rest() phase {
	if c.client.Helo == "" {
		return phaseConnected
	}
	return phaseReady
}

// emit logs one line. It makes the record itself, because slog.Logger would look for
// the caller's place in the program each time.
func (c *session) emit(level slog.Level, event string, attrs ...slog.Attr) {
	ctx := context.Background()
	h := c.log.Handler()
	if !h.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, event, 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(ctx, r) // there is no better place to complain than the log
}
