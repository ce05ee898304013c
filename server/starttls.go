package server

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/wire"
)

// starttls is STARTTLS (RFC 3207). The loop makes the handshake after the reply.
func (c *session) starttls(arg string) smtp.Reply {
	s := c.srv
	switch {
	case arg != "":
		return replyNoArg
	case c.client.TLS != nil:
		return replyTLSTwice
	case !c.offers(extSTARTTLS):
		return replyNoTLS
	case c.wire.PendingInput():
		return c.pipelined(s.verb(verbStartTLS))
	}
	// One that cannot get a turn is told so while there are words for it.
	if err := s.turns.take(time.Now().Add(s.cfg.Handshakes.Timeout / waitPart)); err != nil {
		c.noteTLSFailure(err)
		return replyTLSBusy
	}
	s.turns.give()
	c.enter(phaseTLS)
	return replyStartTLS
}

// lacksTLS reports whether TLS may begin: it does not yet, and there is a certificate.
func (c *session) lacksTLS() bool {
	return c.client.TLS == nil && c.srv.deps.TLS != nil && c.srv.deps.TLS.ServerConfig() != nil
}

// pipelined ends the session because the client sent something behind a command to whose
// reply it had to wait (RFC 2920 section 3.1). Behind STARTTLS it could be meant to be
// taken for what comes by TLS (RFC 3207 section 4.2 forbids it).
func (c *session) pipelined(v *verb) smtp.Reply {
	if v.name == verbStartTLS {
		c.noteTLSFailure(errInjection)
	}
	c.enter(phaseClosed)
	return replyPipelining
}

// noteTLSFailure counts a failed attempt at TLS and says in the log of the refusal why it
// failed.
func (c *session) noteTLSFailure(err error) {
	reason := tlsFailureOf(err)
	c.srv.metrics.countTLSFailure(reason)
	c.note.add(slog.String("reason", reason.words()), slog.Any("error", err))
}

// implicitTLS makes the handshake with which a session begins on a port with the flag
// smtps (RFC 8314). It reports whether the session may go on.
func (c *session) implicitTLS() bool {
	return !c.srv.cfg.Flags.SMTPS || c.handshake()
}

// handshake makes TLS of the connection, and forgets all that the client has said before
// (RFC 3207 section 4.2). If it fails, the session is over.
func (c *session) handshake() bool {
	s, w := c.srv, c.wire
	if err := w.Flush(); err != nil {
		c.lost(err)
		return false
	}
	if c.phase != phaseTLS { // at the beginning of a connection
		c.enter(phaseTLS)
	}
	turn := &turnConn{Conn: w.Records(), turns: s.turns, guest: &w.Guest, by: time.Now().Add(s.cfg.Handshakes.Timeout)}
	conn, err := c.shakeHands(turn)
	switch {
	case err == nil:
	case !w.Guest.Resume(): // whatever the error is, that was why
		c.lost(wire.ErrRoom)
		w.Out = w.Out[:0] // the client expects TLS
		return false
	default:
		c.handshakeFailed(turn, err)
		return false
	}
	c.progress()
	state := conn.ConnectionState()
	w.Secure(conn)
	c.forget()
	c.sasl.own = turn.shown
	c.client.TLS = s.deps.TLS.Describe(&state)
	c.logTLS()
	c.relayByCertificate()
	return true
}

// shakeHands makes the handshake itself within its time.
func (c *session) shakeHands(turn *turnConn) (*tls.Conn, error) {
	defer turn.end() // also if it panics
	config := c.srv.deps.TLS.ServerConfig()
	if config == nil { // since a moment ago: a reload has taken the certificate away
		return nil, errNoCertificate
	}
	conn := tls.Server(turn, config)
	return conn, c.wire.Until(turn.by, conn.Handshake)
}

// handshakeFailed counts and logs a failed handshake.
func (c *session) handshakeFailed(turn *turnConn, err error) {
	c.enter(phaseClosed)
	reason := tlsFailureOf(err)
	c.srv.metrics.countTLSFailure(reason)
	attrs := c.appendClient(make([]slog.Attr, 0, 8))
	attrs = append(attrs, slog.String("where", "starttls"), slog.String("reason", reason.words()), slog.Any("error", err))
	c.emit(slog.LevelInfo, "TLS handshake failed", attrs...)
	if c.srv.cfg.Flags.SMTPS {
		c.sayPlain(turn, reason)
	}
}

// sayAlert replaces the reply to a connection that was refused before its handshake, on a
// port with implicit TLS: the client expects TLS, and an alert is all that it understands.
func (c *session) sayAlert() {
	if c.srv.cfg.Flags.SMTPS {
		c.wire.Out = append(c.wire.Out[:0], alertRefused...)
	}
}

// alertRefused is the fatal alert internal_error of TLS (RFC 8446 section 6), before any
// version was agreed on.
var alertRefused = []byte{0x15, 3, 1, 0, 2, 2, 80}

// sayPlain tells a client that does not speak TLS on a port with implicit TLS what it
// should do: one that sent text, or that waits for a greeting.
func (c *session) sayPlain(turn *turnConn, reason tlsFailure) {
	if reason == tlsNotTLS || reason == tlsTimeout && !turn.heard {
		c.reply(c.srv.verb(verbOther), replyTLSFirst)
	}
}

// forget drops what the client said before TLS. What was decided by its address stays,
// and so do the counts: limits hold for the whole session.
func (c *session) forget() {
	c.client.Helo, c.client.Protocol, c.esmtp = "", "SMTP", false
	c.received = c.received[:0]
	c.forgetAuth()
	c.policy = c.atConnect
	c.dropTransaction()
	c.enter(phaseConnected)
}

// logTLS logs what the handshake gave (README 10.4).
func (c *session) logTLS() {
	t := c.client.TLS
	c.srv.metrics.tlsSessions.WithLabelValues(t.Version).Inc()
	if t.Resumed {
		c.srv.metrics.tlsResumed.Inc()
	}
	attrs := append(make([]slog.Attr, 0, 10),
		slog.String("starttls", t.Version), slog.String("cipher", t.Cipher), slog.Int("bits", t.Bits),
		slog.String("verify", t.Verify))
	for _, f := range [...]struct{ name, value string }{
		{"reason", t.Reason}, {"cert_fp", t.Fingerprint}, {"cert_subject", t.Subject}, {"cert_issuer", t.Issuer}, {"sni", t.ServerName},
	} {
		if f.value != "" {
			attrs = append(attrs, slog.String(f.name, f.value[:min(len(f.value), stepMax)]))
		}
	}
	c.emit(slog.LevelInfo, "starttls", attrs...)
}

// relayByCertificate lets a client with a verified certificate relay, if the section tls
// says so (README 3.10, item 24o).
func (c *session) relayByCertificate() {
	t, p, o := c.client.TLS, &c.policy, &c.srv.cfg.TLS
	if t.Verify != msg.VerifyOK {
		return
	}
	by := msg.Step{Check: "allow_relaying_if_verified", Key: t.Subject, Effect: "relaying allowed"}
	switch {
	case p.relaying:
		return
	case o.Flags.AllowRelayingIfVerified:
		p.relaying = true
	case o.Flags.CheckAccessMapForRelaying:
		v, err := c.check(msg.CheckQ{Stage: msg.StageTLS, CertIssuer: t.Issuer, CertSubject: t.Subject})
		if err != nil || !v.Relay {
			return
		}
		p.relaying, p.marks, by = true, p.marks|v.Marks, v.Decision()
	default:
		return
	}
	c.emit(slog.LevelInfo, "may relay", appendStep(append(make([]slog.Attr, 0, 8), c.clientIP()), &by)...)
}

// tlsFailure is why TLS did not come about, as in the label of the metric.
type tlsFailure string

// The failures.
const (
	tlsInjected tlsFailure = "pipelined"
	tlsNotTLS   tlsFailure = "not_tls"
	tlsTimeout  tlsFailure = "timeout"
	tlsGone     tlsFailure = "disconnected"
	tlsVersion  tlsFailure = "version"
	tlsCipher   tlsFailure = "cipher"
	tlsAlert    tlsFailure = "client_alert"
	tlsCert     tlsFailure = "client_certificate"
	tlsBusy     tlsFailure = "busy"
	tlsStopping tlsFailure = "stopping"
	tlsPort     tlsFailure = "tls_on_plain_port"
	tlsNoCert   tlsFailure = "no_certificate"
	tlsOther    tlsFailure = "other"
)

// words say it to a reader of the log.
func (f tlsFailure) words() string { return tlsFailures()[f] }

// tlsFailures are all failures and what they mean.
func tlsFailures() map[tlsFailure]string {
	return map[tlsFailure]string{
		tlsInjected: "the client sent more before TLS began, maybe to have it taken for what comes by TLS",
		tlsNotTLS:   "the client did not speak TLS where TLS was to begin",
		tlsTimeout:  "the handshake was not over in time",
		tlsGone:     "the client closed the connection",
		tlsVersion:  "the client offers no version of TLS that is allowed here",
		tlsCipher:   "the client offers no cipher and no curve that is allowed here and fits to our certificate",
		tlsAlert:    "the client refused: see error",
		tlsCert:     "the certificate of the client cannot be used",
		tlsBusy:     "too many handshakes were going on",
		tlsStopping: "the server is stopping",
		tlsPort:     "the client began TLS without STARTTLS on a port where TLS begins with STARTTLS",
		tlsNoCert:   "there is no certificate any more",
		tlsOther:    "the client broke the protocol: see error",
	}
}

// errNoCertificate says that section tls names no certificate any more.
var errNoCertificate = errors.New("no certificate in section tls")

// errInjection says that there was input behind STARTTLS.
var errInjection = errors.New("input behind STARTTLS")

// tlsFailureOf finds the kind of an error of a handshake. The texts are those of crypto/tls,
// which has no values for them; a test has a client for each.
func tlsFailureOf(err error) tlsFailure {
	var op *net.OpError
	switch {
	case errors.Is(err, errInjection):
		return tlsInjected
	case errors.Is(err, errBusy):
		return tlsBusy
	case errors.Is(err, errNoCertificate):
		return tlsNoCert
	case errors.Is(err, wire.ErrHalted):
		return tlsStopping
	case errors.Is(err, wire.ErrTLSRecord):
		return tlsPort
	case errors.As(err, new(tls.RecordHeaderError)):
		return tlsNotTLS
	case errors.Is(err, os.ErrDeadlineExceeded):
		return tlsTimeout
	case errors.As(err, &op) && op.Op == "remote error":
		return tlsAlert
	case op != nil && op.Op == "local error": // an alert of ours
		return tlsOther
	case op != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return tlsGone
	}
	text := err.Error()
	for _, k := range [...]struct {
		part string
		is   tlsFailure
	}{
		{"unsupported versions", tlsVersion},
		{"no cipher suite supported", tlsCipher},
		{"no key exchanges supported", tlsCipher},
		{"client certificate", tlsCert},
		{"client sent certificate", tlsCert},
	} {
		if strings.Contains(text, k.part) {
			return k.is
		}
	}
	return tlsOther
}
