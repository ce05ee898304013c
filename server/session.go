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

	"meta1/mta/logline"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/server/authn/verify"
	"meta1/server/crowd"
	"meta1/server/proxy"
	"meta1/server/wire"
)

// phase is where the dialogue stands. Only session.enter changes it.
type phase uint8

const (
	phaseConnected phase = iota // greeted; no EHLO yet
	phaseReady                  // EHLO or HELO given, no transaction
	phaseAuth                   // AUTH goes on: the next line is a response
	phaseMail                   // MAIL given, no recipient accepted
	phaseRcpt                   // at least one recipient accepted
	phaseChunk                  // BDAT given, but not the last one
	phaseData                   // 354 sent, the message follows
	phaseTLS                    // 220 sent to STARTTLS, the handshake follows
	phaseClosed                 // over, or to be closed after the reply
)

func (p phase) String() string {
	return [...]string{"connected", "ready", "auth", "mail", "rcpt", "bdat", "data", "starttls", "closed"}[p]
}

// session is one connection of a client.
type session struct {
	srv   *Server
	wire  *wire.Conn
	log   *slog.Logger
	asks  patience
	id    smtp.ID
	phase phase

	client   msg.Client
	esmtp    bool     // EHLO, not HELO
	received []byte   // Received: up to the id; empty until needed
	date     dateText // of the last message, for Received:
	from     origin   // what is known of the client beside its address
	admitted bool     // QMGR counts this session
	askName  bool     // QMGR wants to know the client's name

	policy    policy
	atConnect policy // as it was before the client said anything
	count     counts
	sasl      sasl
	tx        *transaction // nil outside of a transaction
	note      note         // on the command in progress, for the log
	filter    filtered
	seen      sighting
	stages    *stages // of the message in progress, for its trace; nil: nothing is traced
}

// policy is what verdicts decided for the whole session.
type policy struct {
	relaying bool      // may relay to anywhere
	relays   bool      // may do so because of its address or name
	quick    bool      // quick:ok or quick:relay: no further checks but for relaying
	marks    msg.Marks // of the access map, at the stages before MAIL
	discard  bool      // accept and drop all mail
	refusal  refusal   // to be sent at RCPT (delay_checks)
	class    *class    // that the access map names for the client; nil for none
	tls      tlsPolicy // what TLS must give
}

// counts are what limits are set on.
type counts struct {
	bad, nops, invalid, recipients, transactions int
	rcpts                                        int // RCPT commands with an address
}

// transaction lasts from MAIL to the end of the message, RSET or EHLO.
type transaction struct {
	env        *msg.Envelope
	inlineMax  int64
	discard    bool
	marks      msg.Marks // of the access map, at MAIL
	refusal    refusal   // to be sent at RCPT (delay_checks)
	greylist   refusal   // to be sent at DATA (delay_greylisting_error_until_DATA)
	accepted   int       // recipients, discarded ones included
	rcpts      int       // RCPT commands with an address
	surplus    int       // RCPT commands beyond the limits on recipients
	inVain     int       // RCPT commands that added none, invalid ones apart
	bad        int
	nops       int
	invalid    int
	seen       map[string]int // places in env.Rcpts, once they are many
	prdr       bool           // PRDR was asked for
	taken      int            // RCPT commands that were accepted, repeated recipients included
	signatures string         // of DKIM that were made, for the log
	chunks     *chunks        // the message as it comes in by BDAT; nil: it does not
	prepend    []byte         // fields that policy services put on top of the message
	hold       string         // why the message is to be held; "": it is not
	authn      *verify.Mail   // what section authentication has found; nil: there is none
	each       []smtp.Reply   // of PRDR, for each RCPT that was accepted, zero for one that takes the message; nil: all do
	order      []int          // for each RCPT that was accepted the recipient's number for the policy milter, -1 for none
}

// newSession makes the session of a connection.
func (s *Server) newSession(conn net.Conn) *session {
	c := &session{seen: sighting{begun: time.Now()}, srv: s, wire: wire.New(conn, s.cfg.IOTimeout, &s.halt, &s.pools, s.deps.Memory), log: s.log}
	c.filter.set = s.set.Load()
	if s.deps.Tracer.On() {
		c.stages = &stages{}
	}
	c.client.Protocol = "SMTP"
	remote, ok := addrPort(conn.RemoteAddr())
	own, _ := addrPort(conn.LocalAddr())
	c.client.IP, c.client.Port, c.from.peer = remote.Addr(), remote.Port(), remote.Addr()
	c.from.local = !ok || remote.Addr().IsLoopback() || remote.Addr() == own.Addr()
	if s.cfg.ProxyPresent && s.cfg.Proxy.sent(conn) {
		c.from.via, c.from.local = &proxy.Header{}, false
	}
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

// run is the whole life of a session. It closes the connection. The error is a panic, of
// which the log and the client have been told.
func (c *session) run(ctx context.Context) error {
	c.asks.parent = ctx
	defer c.asks.close()
	defer c.endSession(ctx)
	defer c.endFilters()
	defer c.dropTransaction()
	defer c.wire.Close()
	defer c.endExchange()
	err := supervise.Call(ctx, c.serve)
	if err != nil {
		c.panicked(err)
	}
	return err
}

// serve is the session from the greeting to the last reply.
func (c *session) serve(context.Context) error {
	c.note.where = "connect"
	switch {
	case !c.introduced(), !c.admit():
		c.sayAlert()
	case c.implicitTLS():
		c.greet()
	}
	c.note = note{}
	if c.phase == phaseClosed || c.dialogue() {
		c.wire.Farewell()
	} else if err := c.wire.Flush(); err != nil {
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
			c.note = note{}
		}
		if c.phase == phaseTLS {
			begun := c.stages.begin()
			c.handshake()
			c.stages.end("tls", "", begun, smtp.Reply{})
		}
		if c.phase == phaseClosed {
			return true
		}
		if len(c.wire.Out) > wire.OutMax {
			if c.wire.Flush() != nil {
				return true
			}
		}
		line, err := c.wire.ReadLine(c.lineLimit())
		if err != nil && !errors.Is(err, wire.ErrLongLine) {
			c.lost(err)
			return true
		}
		var v *verb
		var r smtp.Reply
		if c.phase == phaseAuth {
			v, r = c.srv.verb(verbAuth), c.authResponse(line, err)
		} else {
			v, r = c.command(line, err)
		}
		c.wire.GiveBack()
		c.respond(v, r)
		c.note = note{} // what it holds is not kept while the client waits
		if v == quit && c.phase == phaseClosed && r.Accepted() {
			return false
		}
	}
}

// enter changes the phase.
func (c *session) enter(p phase) {
	if c.log.Enabled(context.Background(), slog.LevelDebug) {
		attrs := []slog.Attr{slog.String("from", c.phase.String()), slog.String("to", p.String())}
		if c.tx != nil {
			attrs = append([]slog.Attr{slog.Any("ss_ta", &c.tx.env.TA)}, attrs...)
		}
		c.emit(slog.LevelDebug, "phase", attrs...)
	}
	c.phase = p
	c.show()
	switch p {
	case phaseMail, phaseRcpt, phaseChunk:
		c.wire.Awaits = crowd.InTransaction
	case phaseData:
		c.wire.Awaits = crowd.Sending
	default:
		c.wire.Awaits = crowd.Waiting
	}
}

// command executes one command line. long is wire.ErrLongLine if the line was too long
// to be read.
func (c *session) command(line []byte, long error) (*verb, smtp.Reply) {
	c.note.tx = c.tx
	if long != nil {
		return c.srv.verb(verbOther), c.bad(replyLineLong)
	}
	v, arg := c.srv.find(line)
	switch {
	case len(line)+2 > v.lineMax:
		return v, c.unreadable(v, replyLineLong)
	case !printable(line):
		return v, c.unreadable(v, replyBadByte)
	case v.phases&(1<<c.phase) == 0:
		return v, c.bad(c.misplaced(v))
	case (v.flags&lastInGroup != 0 || !c.offers(extPipelining)) && v.flags&maySync == 0 && len(c.wire.Unread()) > 0:
		return v, c.pipelined(v)
	}
	if r := c.idle(v); !r.IsZero() {
		return v, r
	}
	r := smtp.Reply{}
	if v == c.srv.verb(verbOther) {
		r = c.filterUnknown(line)
	}
	if r.IsZero() {
		r = v.handle(c, string(arg))
	}
	if isBad(r.Code) {
		r = c.bad(r)
	}
	return v, r
}

// unreadable refuses a command line that cannot be read. Behind one of BDAT there are
// octets, nobody knows how many, that are no commands.
func (c *session) unreadable(v *verb, r smtp.Reply) smtp.Reply {
	r = c.bad(r)
	if v.flags&payload != 0 {
		c.enter(phaseClosed)
	}
	return r
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
		return replyTooBad
	}
	return r
}

// idle counts a command that makes no progress toward a message. The reply is zero unless
// there were too many. Commands that end a transaction count for the session, so that
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
		return replyTooIdle
	}
	return smtp.Reply{}
}

// fruitless counts a command that made no progress toward a message, and reports whether
// there were too many since the last accepted one.
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
func (c *session) misplaced(v *verb) smtp.Reply {
	switch {
	case c.phase == phaseChunk:
		return replyHasChunks
	case c.phase >= phaseMail && v.name == verbMail:
		return replyNested
	case c.phase >= phaseMail:
		return replyInTransaction
	case c.phase == phaseConnected && (v.phases&(1<<phaseReady) != 0 || c.srv.cfg.Flags.RequireEHLO):
		return replyNoEHLO
	}
	return replyNoMail
}

// respond collects the reply to be written, and logs it if it refuses something. A zero
// reply is none.
func (c *session) respond(v *verb, r smtp.Reply) {
	r = c.soften(r)
	if r.Temporary() || r.Permanent() {
		c.logRefusal(v, r)
	}
	c.reply(v, r)
}

// soften makes a permanent reply a temporary one if the option soft_bounce says so.
func (c *session) soften(r smtp.Reply) smtp.Reply {
	if c.srv.cfg.Flags.SoftBounce && r.Permanent() {
		r.Code -= 100
		if r.Enhanced[0] == 5 {
			r.Enhanced[0] = 4
		}
	}
	return r
}

// reply collects a reply. It is the only place where replies go out after the greeting.
func (c *session) reply(v *verb, r smtp.Reply) {
	if r.IsZero() {
		return
	}
	if class := r.Code / 100; class >= 2 && class < len(v.replies) {
		v.replies[class].Inc()
	}
	c.wire.Out = r.AppendWire(c.wire.Out)
	if r.Code == 421 {
		c.enter(phaseClosed)
	}
}

// lost ends a session that the client or the network did not end in order.
func (c *session) lost(err error) {
	c.enter(phaseClosed)
	var r smtp.Reply
	switch {
	case errors.Is(err, wire.ErrHalted):
		r = c.srv.replyStopping()
	case errors.Is(err, wire.ErrTLSRecord):
		c.srv.metrics.countTLSFailure(tlsPort)
		r = replyTLSRecord
	case errors.Is(err, wire.ErrBareLine):
		r = replyBareCommand
	case errors.Is(err, wire.ErrFlood):
		r = replyFlood
	case errors.Is(err, wire.ErrRoom):
		r = replyRoom
	case errors.Is(err, errSlow), errors.Is(err, os.ErrDeadlineExceeded):
		r = replyTimeout
	}
	level := slog.LevelInfo
	if errors.Is(err, io.EOF) && c.tx == nil {
		level = slog.LevelDebug // closed without QUIT between transactions: common and harmless
	}
	attrs := c.who(make([]slog.Attr, 0, 10), &note{tx: c.tx})
	attrs = append(attrs, slog.String("where", c.where()), slog.Any("error", err))
	attrs = append(attrs, c.madeRoom(err)...)
	if !r.IsZero() {
		attrs = append(attrs, slog.String("reply", r.String()))
	}
	c.emit(level, "connection ended", attrs...)
	c.reply(c.srv.verb(verbOther), r)
}

// where names what the session was doing.
func (c *session) where() string {
	if c.tx == nil {
		return "session"
	}
	if c.wire.Patient {
		return "data"
	}
	return "transaction"
}

// endTransaction forgets the transaction. It sends nothing: QMGR learns of a
// transaction only by Commit.
func (c *session) endTransaction() {
	c.dropTransaction()
	c.from.forward = nil
	if c.phase != phaseClosed {
		c.enter(c.rest())
	}
}

// dropTransaction forgets the transaction, and what came in of its message by BDAT.
func (c *session) dropTransaction() {
	if c.tx != nil && c.tx.chunks != nil {
		c.tx.chunks.body.Abort()
		c.wire.Patient = false
	}
	c.filter.session.Abort()
	c.filter.policy.Abort()
	if c.tx != nil {
		c.stages.forget()
	}
	c.tx = nil
}

// rest is the phase between transactions.
func (c *session) rest() phase {
	if c.client.Helo == "" {
		return phaseConnected
	}
	return phaseReady
}

// emit logs one line.
func (c *session) emit(level slog.Level, event string, attrs ...slog.Attr) {
	logline.Emit(c.log, level, event, attrs...)
}
