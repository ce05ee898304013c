package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// dialFailure says why there is no connection.
type dialFailure struct {
	stage      msg.DeliverStage
	reply      smtp.Reply
	hostFailed bool
	session    string
}

// startDial opens a connection in a goroutine of its own, because the delivery that
// asked for it may be served by another connection first.
func (c *Client) startDial(to line, thread uint32) {
	c.group.Go(func(ctx context.Context) error {
		cn, failed := c.open(ctx, to, thread)
		if surplus := c.pool.dialed(to, cn, failed, time.Now()); surplus != nil {
			surplus.quit(c.limits.quit, surplus.class.readQuit)
		}
		return nil
	})
}

// open makes a connection and speaks up to the reply to EHLO.
func (c *Client) open(ctx context.Context, to line, thread uint32) (cn *conn, f *dialFailure) {
	id, hop := c.newID(thread), to.hop
	defer func() {
		if v := recover(); v != nil { // waiters must get an answer all the same
			c.logPanic(ctx, v, slog.String("da_se", id))
			if cn != nil {
				c.pool.forget(cn)
				_ = cn.nc.Close() // it is of no use any more
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
		f = &dialFailure{stage: msg.DeliverConnect, hostFailed: ctx.Err() == nil && !isShortage(err), session: id}
		f.reply = connectError(hop, err, ctx.Err() != nil)
		c.logNotConnected(hop, f)
		return nil, f
	}
	s.mark(&s.connect)
	cn = newConn(nc, to, id, time.Now())
	cn.steps = s
	c.pool.watch(cn, ctx)
	if f = c.hello(cn); f == nil {
		cn.steps.mark(&cn.steps.ehlo)
		c.logConnected(cn)
		return cn, nil
	}
	c.pool.forget(cn)
	cn.quit(c.limits.quit, false)
	f.session = id
	c.logNotConnected(hop, f)
	return nil, f
}

// hello reads the greeting and says EHLO, HELO or LHLO.
func (c *Client) hello(cn *conn) *dialFailure {
	if err := cn.readReply(c.limits.greeting); err != nil {
		return cn.failure(msg.DeliverGreeting, err)
	}
	if f := c.welcome(cn, msg.DeliverGreeting); f != nil {
		return f
	}
	verb := "EHLO "
	if cn.hop.Protocol == msg.ProtoLMTP {
		verb = "LHLO "
	}
	if err := cn.command(verb+c.hostname, c.limits.ehlo); err != nil {
		return cn.failure(msg.DeliverEhlo, err)
	}
	if cn.rep.code >= 500 && cn.hop.Protocol == msg.ProtoSMTP {
		// RFC 5321 section 3.2: a server without extensions knows HELO alone.
		if err := cn.command("HELO "+c.hostname, c.limits.ehlo); err != nil {
			return cn.failure(msg.DeliverEhlo, err)
		}
		return c.welcome(cn, msg.DeliverEhlo)
	}
	f := c.welcome(cn, msg.DeliverEhlo)
	cn.ext = parseExtensions(cn.rep.text)
	return f
}

// welcome judges the greeting and the reply to EHLO. A refusal is one of the host,
// not of the mail: RFC 5321 section 3.1 lets us try elsewhere, and later, after a 554
// too, as Postfix does (smtp_skip_5xx_greeting).
func (c *Client) welcome(cn *conn, stage msg.DeliverStage) *dialFailure {
	switch {
	case cn.rep.positive():
		if c.isMyself(cn) {
			return &dialFailure{stage: stage, reply: smtp.NewReply(554, "5.4.6",
				"mail for "+cn.hop.String()+" loops back to myself")}
		}
		return nil
	case cn.rep.failed():
		cn.closing = cn.rep.code == 421
		r := cn.rep.smtp()
		if r.Permanent() {
			r = smtp.NewReply(450, "4.3.2", "host "+cn.hop.String()+" refused to talk to me: "+r.String())
		}
		return &dialFailure{stage: stage, reply: r, hostFailed: true}
	}
	return cn.failure(stage, errUnfit)
}

// isMyself reports a server that has our own name (README 8.6, item 3.5). A delivery
// agent on this host rightly has it, so LMTP is not checked.
func (c *Client) isMyself(cn *conn) bool {
	return !cn.class.talkToMyself && cn.hop.Protocol == msg.ProtoSMTP &&
		strings.EqualFold(strings.TrimSuffix(cn.rep.firstWord(), "."), c.hostname)
}

// failure says what became of the conversation at a stage.
func (cn *conn) failure(stage msg.DeliverStage, err error) *dialFailure {
	reply, hostFailed := cn.ioError(doing(stage), err)
	return &dialFailure{stage: stage, reply: reply, hostFailed: hostFailed}
}

// ioError is the reply for recipients whose fate is open when the conversation ended
// in err, and whether the host is to blame. doing says what we were doing.
func (cn *conn) ioError(doing string, err error) (r smtp.Reply, hostFailed bool) {
	cn.broken = true
	where := cn.hop.String() + " while " + doing
	switch {
	case cn.aborted.Load():
		return smtp.NewReply(451, "4.3.2", "delivery was stopped: conversation with "+where), false
	case isTimeout(err):
		return smtp.NewReply(451, "4.4.2", "conversation with "+where+" timed out"), true
	case errors.Is(err, errUnfit):
		return smtp.NewReply(451, "4.5.0", "protocol error: unexpected reply "+cn.rep.smtp().String()+" of "+where), true
	case errors.Is(err, errNotAReply), errors.Is(err, errEarly), errors.Is(err, errLineLong), errors.Is(err, errReplyLong):
		return smtp.NewReply(451, "4.5.0", "protocol error: "+err.Error()+": "+where), true
	}
	return smtp.NewReply(451, "4.4.2", "lost connection with "+where), true
}

// doing puts a stage into words.
func doing(stage msg.DeliverStage) string {
	switch stage {
	case msg.DeliverGreeting:
		return "receiving the greeting"
	case msg.DeliverEhlo:
		return "performing the EHLO handshake"
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

// isShortage tells whether a connection failed because this system is short of something.
// It says nothing of the host.
func isShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
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
	case isTimeout(err), errors.Is(err, context.DeadlineExceeded):
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
