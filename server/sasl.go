package server

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/auth"
	"meta1/server/wire"
)

const (
	// authLineMax bounds a response with CR LF (RFC 4954 section 4).
	authLineMax = 12288 + 2
	// authCommandMax bounds AUTH with an initial response. RFC 4954 wants commands to keep to
	// 512 bytes, but clients send tokens of OAuth so.
	authCommandMax = len("AUTH ") + len("OAUTHBEARER ") + authLineMax
	// authTriesMax bounds the AUTH commands of a session that do not succeed.
	authTriesMax = 5
)

var (
	replyAuthed       = smtp.NewReply(235, "2.7.0", "Authentication successful")
	replyAuthDown     = smtp.NewReply(454, "4.7.0", "Temporary authentication failure")
	replyAuthBlocked  = smtp.NewReply(454, "4.7.0", "Too many failed authentications, try again later")
	replyAuthLong     = smtp.NewReply(500, "5.5.6", "Authentication exchange line is too long")
	replyAuthSyntax   = smtp.NewReply(501, "5.5.2", "Cannot decode the response")
	replyAuthCancel   = smtp.NewReply(501, "5.7.0", "Authentication cancelled")
	replyAuthNoMech   = smtp.NewReply(501, "5.5.4", "Mechanism required")
	replyAuthEHLO     = smtp.NewReply(503, "5.5.1", "Send EHLO first")
	replyAuthAgain    = smtp.NewReply(503, "5.5.1", "Already authenticated")
	replyAuthMech     = smtp.NewReply(504, "5.5.4", "Unrecognized authentication type")
	replyAuthNeeded   = smtp.NewReply(530, "5.7.0", "Authentication required")
	replyAuthWeak     = smtp.NewReply(534, "5.7.9", "Authentication mechanism is too weak")
	replyAuthFailed   = smtp.NewReply(535, "5.7.8", "Authentication credentials invalid")
	replyAuthTLS      = smtp.NewReply(538, "5.7.11", "Encryption required for requested authentication mechanism")
	replyTooManyAuths = smtp.NewReply(421, "4.7.0", "Too many failed authentications, closing connection")
)

// sasl is what a session knows of AUTH. Who the client is stands in session.client.
type sasl struct {
	exchange *auth.Exchange // not nil in phaseAuth alone
	tries    int            // that did not succeed
	relaying bool           // it authenticated by a mechanism that lets it relay
	// own is the certificate that the handshake showed; nil without TLS, and if a session of
	// TLS was resumed.
	own *x509.Certificate
}

// authDeps are what AUTH needs. They do not keep the Server, which a reload may replace and leave AUTH as it is.
func (s *Server) authDeps() auth.Deps {
	ports := s.deps.Ports
	return auth.Deps{
		Log: s.log, Hostname: s.deps.Hostname, Dial: s.deps.Dial, Random: s.deps.Random,
		Lookup: func(ctx context.Context, mapName, key string) (string, bool, error) {
			a, err := ports.Lookup.Ask(ctx, msg.LookupQ{Map: mapName, Key: key})
			if err == nil && a.Err != "" {
				err = errors.New(a.Err)
			}
			if err != nil {
				return "", false, fmt.Errorf("asking for an account: %w", err)
			}
			return a.Value, a.Found, nil
		},
	}
}

// relaying reports whether the session may relay to anywhere.
func (c *session) relaying() bool { return c.policy.relaying || c.sasl.relaying }

// protocol is the word for Received: (RFC 3848).
func (c *session) protocol() string {
	if !c.esmtp {
		return "SMTP"
	}
	p := "ESMTP"
	if c.client.TLS != nil {
		p += "S"
	}
	if c.client.Auth.User != "" {
		p += "A"
	}
	return p
}

// channel is what AUTH has to know of the connection.
func (c *session) channel() auth.Channel {
	conn := c.wire.TLS()
	if conn == nil {
		return auth.Channel{}
	}
	state := conn.ConnectionState()
	ch := auth.Channel{TLS: &state, Own: c.sasl.own}
	if c.client.TLS.Verify == msg.VerifyOK && len(state.PeerCertificates) > 0 {
		ch.Peer = state.PeerCertificates[0]
	}
	return ch
}

// hasAuth reports whether there is a mechanism that the client may use.
func (c *session) hasAuth() bool { return c.srv.auth != nil && len(c.mechanisms()) > 0 }

// authArgs are these mechanisms.
func (c *session) authArgs() string { return " " + strings.Join(c.mechanisms(), " ") }

func (c *session) mechanisms() []string {
	ch := c.channel()
	return c.srv.auth.Mechanisms(&ch)
}

// lineLimit is how long the next line may be.
func (c *session) lineLimit() int {
	switch {
	case c.phase == phaseAuth:
		return authLineMax
	case c.phase == phaseReady && c.srv.auth != nil && c.client.Auth.User == "":
		return authCommandMax
	}
	return wire.LineMax
}

// auth is AUTH (RFC 4954 section 4).
func (c *session) auth(arg string) smtp.Reply {
	name, initial, given := strings.Cut(strings.TrimLeft(arg, " "), " ")
	switch {
	case name == "":
		return replyAuthNoMech
	case !c.esmtp:
		return replyAuthEHLO
	case c.policy.denies(extAuth): // as if there were none
		return replyAuthMech
	case c.client.Auth.User != "":
		return replyAuthAgain
	case c.sasl.tries >= authTriesMax:
		return replyTooManyAuths
	}
	var response []byte
	if given {
		var err error
		if response, err = decodeInitial(initial); err != nil {
			return replyAuthSyntax
		}
	}
	client := auth.Client{IP: c.client.IP, Port: c.client.Port, Channel: c.channel()}
	if own, ok := addrPort(c.wire.Raw().LocalAddr()); ok {
		client.Own, client.OwnPort = own.Addr(), own.Port()
	}
	e, err := c.srv.auth.Begin(strings.ToUpper(name), client)
	if err != nil {
		return c.authRefused(strings.ToUpper(name), err)
	}
	c.sasl.exchange = e
	return c.authStep(response)
}

// decodeInitial decodes an initial response, of which "=" is an empty one.
func decodeInitial(s string) ([]byte, error) {
	if s == "=" {
		return []byte{}, nil
	}
	if s == "" {
		return nil, errors.New("no response")
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// authRefused is the reply to a mechanism that is not to be had.
func (c *session) authRefused(mechanism string, err error) smtp.Reply {
	c.sasl.tries++
	c.note.add(slog.Any("reason", err))
	switch {
	case errors.Is(err, auth.ErrNeedsTLS):
		return replyAuthTLS
	case errors.Is(err, auth.ErrTooWeak):
		return replyAuthWeak
	case errors.Is(err, auth.ErrTooMany):
		c.countAuth(mechanism, auth.Unavailable)
		return replyAuthBlocked
	case errors.Is(err, auth.ErrUnknown):
		return replyAuthMech
	}
	return replyAuthDown
}

// authResponse takes a line of the client's in phaseAuth.
func (c *session) authResponse(line []byte, long error) smtp.Reply {
	var r smtp.Reply
	switch response, err := base64.StdEncoding.Strict().DecodeString(string(line)); {
	case long != nil:
		r = replyAuthLong
	case string(line) == "*":
		r = replyAuthCancel
	case len(c.wire.Unread()) > 0:
		c.endExchange()
		return c.pipelined(c.srv.verb(verbAuth))
	case err != nil:
		r = replyAuthSyntax
	default:
		r = c.authStep(response)
		if isBad(r.Code) {
			r = c.bad(r)
		}
		return r
	}
	c.sasl.tries++
	c.endExchange()
	c.enter(phaseReady)
	return c.bad(r)
}

// authStep gives the exchange a response and makes a reply of what follows.
func (c *session) authStep(response []byte) smtp.Reply {
	e := c.sasl.exchange
	s := c.nextStep(e, response)
	if s.Outcome == auth.Continue {
		if c.phase != phaseAuth {
			c.enter(phaseAuth)
		}
		return smtp.NewReply(334, "", base64.StdEncoding.EncodeToString(s.Challenge))
	}
	c.endExchange()
	if c.phase == phaseAuth {
		c.enter(phaseReady)
	}
	c.countAuth(e.Mechanism(), s.Outcome)
	c.hold(s.Delay)
	if c.srv.ending.Err() != nil && s.Outcome != auth.Granted {
		return c.srv.replyStopping()
	}
	if s.Outcome == auth.Granted {
		c.authenticated(e.Mechanism(), s.Account)
		return replyAuthed
	}
	c.sasl.tries++
	c.note.add(slog.String("mech", e.Mechanism()), slog.String("user", s.Account), slog.String("reason", s.Reason))
	switch s.Outcome {
	case auth.Refused:
		return replyAuthFailed
	case auth.Malformed:
		return replyAuthSyntax
	}
	return replyAuthDown
}

// nextStep asks the exchange, which may wait for other programs. It gives up when the
// server stops.
func (c *session) nextStep(e *auth.Exchange, response []byte) auth.Step {
	ctx, cancel := context.WithCancelCause(c.asks.parent)
	defer cancel(nil)
	defer context.AfterFunc(c.srv.ending, func() { cancel(wire.ErrHalted) })()
	return e.Next(ctx, response)
}

// hold waits before a refusal goes out, unless the server stops.
func (c *session) hold(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.srv.ending.Done():
	case <-c.asks.parent.Done():
	}
}

// endExchange forgets an exchange that goes on.
func (c *session) endExchange() {
	if c.sasl.exchange != nil {
		c.sasl.exchange.Close()
		c.sasl.exchange = nil
	}
}

// authenticated notes who the client is. If it may relay for that, it is not refused any
// more for its address or name, for which delay_checks has put the reply off.
func (c *session) authenticated(mechanism, account string) {
	c.client.Auth = msg.Auth{Mechanism: mechanism, User: account}
	c.client.Protocol = c.protocol()
	c.received = c.received[:0]
	c.sasl = sasl{relaying: c.srv.cfg.Auth.Trusts(mechanism), own: c.sasl.own}
	if c.sasl.relaying {
		c.policy.refusal = refusal{}
	}
	c.emit(slog.LevelInfo, "authenticated", append(c.appendClient(make([]slog.Attr, 0, 5)),
		slog.String("mech", mechanism), slog.String("user", account), slog.Bool("relay", c.sasl.relaying))...)
}

// forgetAuth forgets who the client is, as STARTTLS demands (RFC 3207 section 4.2).
func (c *session) forgetAuth() {
	c.endExchange()
	c.client.Auth = msg.Auth{}
	c.sasl = sasl{tries: c.sasl.tries}
}

// countAuth counts an AUTH command. Only names that are known become labels.
func (c *session) countAuth(mechanism string, o auth.Outcome) {
	c.srv.metrics.auths.WithLabelValues(mechanism, o.String()).Inc()
}

// needAuth refuses MAIL at a server for submission (RFC 6409 section 4.3) to a client that
// is neither authenticated nor allowed to relay for another reason.
func (c *session) needAuth() smtp.Reply {
	if !c.srv.cfg.Flags.Submission || c.client.Auth.User != "" || c.relaying() {
		return smtp.Reply{}
	}
	return replyAuthNeeded
}

// mailAuth reads AUTH= of MAIL (RFC 4954 section 5). What a client says that is not
// trusted counts as <>.
func (c *session) mailAuth(value string) (string, error) {
	const unknown = "<>"
	if value == unknown {
		return unknown, nil
	}
	text, err := smtp.DecodeXtext(value)
	if err != nil {
		return "", err
	}
	if _, err := smtp.ParseMailbox(text, smtp.ASCII); err != nil {
		return "", err
	}
	if !c.sasl.relaying || !c.srv.cfg.Auth.MailAuth {
		return unknown, nil
	}
	return text, nil
}

// checkSender asks SMAR whether the client may use the sender, if there is a map for that.
// It is asked in any case, and its refusal is not put off: quick: and delay_checks are
// about who sends, and this is about whose name it uses.
func (c *session) checkSender() smtp.Reply {
	if c.srv.rules.SenderLogin == "" || c.tx.env.Mail.From.IsNull() {
		return smtp.Reply{}
	}
	v, err := c.check(msg.CheckQ{Stage: msg.StageSender})
	if err != nil {
		return replyDown
	}
	if v.Action == msg.Reject {
		c.note.by = v.Decision()
		return v.Reply
	}
	return smtp.Reply{}
}
