package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"meta1/client/ehlo"
	"meta1/client/socks"
	"meta1/client/tlspolicy"
	"meta1/client/wire"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// dialFailure says why there is no connection.
type dialFailure struct {
	stage      msg.DeliverStage
	reply      smtp.Reply
	said       smtp.Reply // what the host said, if that is why
	hostFailed bool
	noNetwork  bool // this system has no way to such addresses
	noAnswer   bool // nobody answered
	refused    bool // the host is there, and refused this connection
	stopped    bool // we ended it
	own        bool // the mail was not to blame, and another host may serve it: msg.DeliverA.Own
	tls        tlsTrouble
	others     int // connections to the host that were open then
	session    string
	seen       seen
}

// busy counts the other connections to a host that refused one too many (RFC 5321
// section 3.8: 421), 0 if that is not the reason. Some hosts say so by a 554 greeting,
// by closing the connection or by refusing it.
func (f *dialFailure) busy() int {
	if !f.refused {
		return 0
	}
	return f.others
}

// startDial opens a connection in a goroutine of its own, because the delivery that
// asked for it may be served by another connection first. Its progress is noted for that
// delivery. dane is what the certificate must match, nil without DANE.
func (c *Client) startDial(d *dial, to line, dane *dane, thread uint32, p *msg.Progress) {
	c.group.Go(func(context.Context) error {
		if d.instead != nil {
			c.hangUp(d.instead, true)
		}
		cn, failed := c.open(d, to, dane, thread, p)
		if failed != nil {
			failed.others = c.pool.others(to.hop, d.connected, time.Now())
			c.logNotConnected(to.hop, failed)
			if failed.busy() > 0 {
				for _, idle := range c.pool.vacate(to.hop) {
					c.hangUp(idle, idle.class.readQuit)
				}
			}
		}
		if surplus := c.pool.dialed(to, d, cn, failed, time.Now()); surplus != nil {
			c.hangUp(surplus, surplus.class.readQuit)
		}
		return nil
	})
}

// open makes a connection and speaks up to the reply to EHLO. If the TLS handshake fails it
// tries other ways, one after the other, and remembers the one that worked (README 14.1).
func (c *Client) open(d *dial, to line, dane *dane, thread uint32, p *msg.Progress) (*conn, *dialFailure) {
	host := tlspolicy.FailureKey{Host: to.hop.Addr, Class: to.class.name}
	known := c.failures.Known(host)
	m := making{way: to.tls.First(known), dane: dane}
	broke := seen{result: msg.TLSValidationFailure, reason: "the TLS handshake failed a short time ago"}
	for {
		cn, f := c.try(d, to, &m, thread, p)
		if f == nil {
			if m.way != known {
				c.failures.Note(host, m.way)
			}
			if m.way == tlspolicy.Plain {
				cn.seen.note(broke.result, broke.reason)
			}
			return cn, nil
		}
		if f.tls == tlsBroken {
			c.metrics.TLSFailed.Inc()
			broke = f.seen
		}
		next, more := to.tls.Next(m.way, m.offered())
		if f.tls != tlsBroken || f.stopped || !more {
			return nil, f
		}
		c.logOtherWay(to.hop, f, next)
		c.pool.redial(to, d)
		m.way = next
	}
}

// try makes one try to open a connection.
func (c *Client) try(d *dial, to line, m *making, thread uint32, p *msg.Progress) (cn *conn, f *dialFailure) {
	id, hop, ctx := c.newID(thread), to.hop, d.ctx
	defer func() {
		if v := recover(); v != nil { // waiters must get an answer all the same
			c.logPanic(ctx, v, slog.String("da_se", id))
			if cn != nil {
				cn.Drop() // it is of no use any more
				c.pool.forget(cn)
			}
			cn, f = nil, &dialFailure{reply: internalError(), session: id}
		}
	}()
	var s steps
	if to.class.timing {
		s.begin()
	}
	dialCtx, cancel := context.WithTimeout(ctx, c.limits.connect)
	nc, err := c.dial(dialCtx, to, id)
	cancel()
	if err != nil {
		f = &dialFailure{stage: msg.DeliverConnect, hostFailed: ctx.Err() == nil && !isOurs(err), stopped: ctx.Err() != nil, session: id}
		f.refused, f.noNetwork = isRefusal(err), isNoNetwork(hop, err)
		f.noAnswer = f.hostFailed && (wire.IsTimeout(err) || errors.Is(err, context.DeadlineExceeded))
		f.reply = connectError(hop, err, ctx.Err() != nil)
		return nil, f
	}
	s.mark(&s.connect)
	cn = newConn(nc, to, id, time.Now())
	cn.steps = s
	c.pool.watch(cn, d)
	if f = c.hello(cn, m, p); f == nil {
		c.logConnected(cn)
		return cn, nil
	}
	c.hangUp(cn, false)
	f.session, f.seen = id, cn.seen
	return nil, f
}

// hello reads the greeting, says EHLO, HELO or LHLO, begins TLS and authenticates.
func (c *Client) hello(cn *conn, m *making, p *msg.Progress) *dialFailure {
	if cn.line.tls.Implicit {
		p.Reach(msg.DeliverTLS)
		if f := c.handshake(cn, m); f != nil {
			return f
		}
		cn.steps.mark(&cn.steps.starttls)
	}
	p.Reach(msg.DeliverGreeting)
	if err := cn.ReadReply(c.limits.greeting); err != nil {
		f := cn.failure(msg.DeliverGreeting, err)
		f.refused = wire.IsClosed(err)
		return f
	}
	if f := c.welcome(cn, msg.DeliverGreeting); f != nil {
		return f
	}
	c.notePeer(cn)
	p.Reach(msg.DeliverEhlo)
	f := c.ehlo(cn)
	cn.steps.mark(&cn.steps.ehlo)
	if f == nil && !cn.tls.on() {
		f = c.startTLS(cn, m, p)
	}
	if f != nil {
		return f
	}
	f = c.authenticate(cn, p)
	cn.steps.mark(&cn.steps.auth)
	return f
}

// ehlo says EHLO, HELO or LHLO.
func (c *Client) ehlo(cn *conn) *dialFailure {
	verb := "EHLO "
	if cn.hop.Protocol == msg.ProtoLMTP {
		verb = "LHLO "
	}
	if err := cn.Command(verb+c.hostname, c.limits.ehlo); err != nil {
		return cn.failure(msg.DeliverEhlo, err)
	}
	if cn.Reply.Code >= 500 && cn.hop.Protocol == msg.ProtoSMTP {
		// RFC 5321 section 3.2: a server without extensions knows HELO alone.
		if err := cn.Command("HELO "+c.hostname, c.limits.ehlo); err != nil {
			return cn.failure(msg.DeliverEhlo, err)
		}
		return c.welcome(cn, msg.DeliverEhlo)
	}
	f := c.welcome(cn, msg.DeliverEhlo)
	cn.ext = ehlo.Parse(cn.Reply.Text)
	return f
}

// welcome judges the greeting and the reply to EHLO. A refusal is one of the host,
// not of the mail: RFC 5321 section 3.1 lets us try elsewhere, and later, after a 554
// too, as Postfix does (smtp_skip_5xx_greeting).
func (c *Client) welcome(cn *conn, stage msg.DeliverStage) *dialFailure {
	switch {
	case cn.Reply.Positive():
		if c.isMyself(cn) {
			return &dialFailure{stage: stage, reply: smtp.NewReply(554, "5.4.6",
				"mail for "+cn.hop.String()+" loops back to myself")}
		}
		return nil
	case cn.Reply.Failed():
		cn.Closing = cn.Reply.Code == 421
		said := cn.Reply.SMTP()
		r := said
		if r.Permanent() {
			r = smtp.NewReply(450, "4.3.2", "host "+cn.hop.String()+" refused to talk to me: "+r.String())
		}
		return &dialFailure{stage: stage, reply: r, said: said, hostFailed: true, refused: true}
	}
	return cn.failure(stage, wire.ErrUnfit)
}

// isMyself reports a server that has our own name (README 8.6, item 3.5). A delivery
// agent on this host rightly has it, so LMTP is not checked.
func (c *Client) isMyself(cn *conn) bool {
	return !cn.class.talkToMyself && cn.hop.Protocol == msg.ProtoSMTP &&
		strings.EqualFold(strings.TrimSuffix(cn.Reply.FirstWord(), "."), c.hostname)
}

// failure says what became of the conversation at a stage.
func (cn *conn) failure(stage msg.DeliverStage, err error) *dialFailure {
	reply, hostFailed := cn.Fault(cn.hop.String(), doing(stage), err)
	return &dialFailure{stage: stage, reply: reply, hostFailed: hostFailed, stopped: cn.Aborted()}
}

// doing puts a stage into words.
func doing(stage msg.DeliverStage) string {
	switch stage {
	case msg.DeliverGreeting:
		return "receiving the greeting"
	case msg.DeliverEhlo:
		return "performing the EHLO handshake"
	case msg.DeliverTLS:
		return "sending STARTTLS"
	case msg.DeliverAuth:
		return "authenticating"
	case msg.DeliverMail:
		return "sending MAIL FROM"
	case msg.DeliverRcpt:
		return "sending RCPT TO"
	case msg.DeliverData:
		return "sending DATA"
	case msg.DeliverDot:
		return "waiting for the reply to the final dot, so the message may be sent more than once"
	}
	return "connecting"
}

// isOurs tells whether a connection failed because this system is short of something, or our
// proxy fails. It says nothing of the host.
func isOurs(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) || errors.As(err, new(*socks.Error))
}

// isNoNetwork tells whether a connection failed because this system has no way to the address. Where
// IPv6 is off the reason is that there is no address of ours; with IPv4 that may be a lack of ports.
// What a proxy says of its own network does not count.
func isNoNetwork(hop msg.Hop, err error) bool {
	if errors.As(err, new(*socks.HostError)) || errors.As(err, new(*socks.Error)) {
		return false
	}
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EAFNOSUPPORT) ||
		errors.Is(err, syscall.EADDRNOTAVAIL) && hop.Addr.Addr().Is6()
}

// isRefusal tells whether the host is there and has refused the connection.
func isRefusal(err error) bool {
	if h := (*socks.HostError)(nil); errors.As(err, &h) {
		return h.Refused
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// connectError is the reply for a connection that could not be made (RFC 3463, 4.4.1).
func connectError(hop msg.Hop, err error, stopped bool) smtp.Reply {
	if stopped {
		return stoppedEarly(hop).reply
	}
	text := ""
	var errno syscall.Errno
	var op *net.OpError
	switch {
	case errors.As(err, new(*socks.Error)), errors.As(err, new(*socks.HostError)):
		text = err.Error()
	case wire.IsTimeout(err), errors.Is(err, context.DeadlineExceeded):
		text = "connection timed out"
	case errors.As(err, &errno):
		text = errno.Error()
	case errors.As(err, &op):
		text = op.Err.Error()
	default:
		text = err.Error()
	}
	return smtp.NewReply(451, "4.4.1", "connect to "+hop.String()+": "+text)
}

// internalError is the reply after a fault of our own.
func internalError() smtp.Reply {
	return smtp.NewReply(451, "4.3.0", "internal error of the delivery client")
}
