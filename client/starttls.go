package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/xdg-go/scram"

	"meta1/client/ehlo"
	"meta1/client/tlspolicy"
	"meta1/client/wire"
	"meta1/mta/msg"
	"meta1/mta/sasl"
	"meta1/mta/smtp"
	"meta1/mta/tlsconf"
)

// tlsTrouble says what was wrong with the TLS of a connection that was not made.
type tlsTrouble uint8

const (
	tlsFine      tlsTrouble = iota // nothing, or it was not the reason
	tlsMissing                     // the host does not offer it, or refuses it for now
	tlsBroken                      // the handshake failed; another way may do
	tlsNoMatch                     // no TLSA record matches the certificate
	tlsUntrusted                   // the certificate is not what an MTA-STS policy asks for
)

// secured is what TLS gave to a connection; the zero value is none.
type secured struct {
	msg.HopTLS
	info    *msg.TLS            // nil: there is no TLS
	session *session            // nil: none is remembered
	chain   []*x509.Certificate // what the host showed, or had shown in the session that was resumed
	// bindings are the channel bindings of the connection; nil without TLS.
	bindings func() []scram.ChannelBinding
}

// on reports whether there is TLS.
func (s *secured) on() bool { return s.info != nil }

// making is one try to make a connection.
type making struct {
	way  tlspolicy.Way
	dane *dane // what the certificate must match; nil without DANE
	// session remembers the TLS session; nil for none.
	session *session
}

// session is the TLS session that is remembered for connections to one host under one policy.
type session struct {
	tls.ClientSessionCache
	offered bool // the handshake has offered it to the host
}

// Get notes that crypto/tls offers the session.
func (s *session) Get(key string) (*tls.ClientSessionState, bool) {
	state, ok := s.ClientSessionCache.Get(key)
	s.offered = ok
	return state, ok
}

// forget has the next handshake begin anew.
func (s *session) forget() {
	if s != nil {
		s.Put("", nil)
	}
}

// startTLS begins TLS on a connection whose host has been greeted, if the policy has it so,
// and greets anew (RFC 3207). It does nothing where TLS is not needed and cannot be had.
func (c *Client) startTLS(cn *conn, m *making, p *msg.Progress) *dialFailure {
	need := cn.line.tls.Need
	if need == tlspolicy.None || m.way == tlspolicy.Plain {
		return nil
	}
	if !cn.ext.StartTLS {
		return cn.withoutTLS("host " + cn.hop.String() + " does not offer STARTTLS")
	}
	p.Reach(msg.DeliverTLS)
	if err := cn.Command("STARTTLS", c.limits.ehlo); err != nil {
		return cn.failure(msg.DeliverTLS, err).broken()
	}
	switch {
	case cn.Reply.Positive() && cn.Pending():
		// Whoever sits between us may have put it there: it must not be taken for something
		// that the host said under TLS (CVE-2011-0411).
		return cn.failure(msg.DeliverTLS, wire.ErrInjected)
	case cn.Reply.Positive():
	case cn.Reply.Code == 421:
		cn.Closing = true
		r := cn.Reply.SMTP()
		return &dialFailure{stage: msg.DeliverTLS, reply: r, said: r, hostFailed: true, refused: true}
	case cn.Reply.Failed():
		return cn.withoutTLS("host " + cn.hop.String() + " refuses STARTTLS: " + cn.Reply.SMTP().String())
	default:
		return cn.failure(msg.DeliverTLS, wire.ErrUnfit)
	}
	if f := c.handshake(cn, m); f != nil {
		return f
	}
	f := c.ehlo(cn)
	cn.steps.mark(&cn.steps.starttls)
	if f != nil && cn.Reply.Code == 0 {
		return f.broken() // a host that refuses our side of the handshake says so only now (RFC 8446)
	}
	return f
}

// broken has a failure to connect count as one of TLS alone.
func (f *dialFailure) broken() *dialFailure {
	f.tls, f.hostFailed = tlsBroken, false
	return f
}

// withoutTLS goes on without TLS if nothing needs it.
func (cn *conn) withoutTLS(why string) *dialFailure {
	cn.seen.note(msg.TLSNotSupported, "")
	if cn.line.tls.Need == tlspolicy.May {
		return nil
	}
	if !cn.line.login.IsZero() {
		why += ", and we do not authenticate without TLS"
	}
	return &dialFailure{stage: msg.DeliverTLS, tls: tlsMissing, reply: smtp.NewReply(451, "4.7.4", why)}
}

// handshake puts TLS over a connection. What was read before is not valid any more.
func (c *Client) handshake(cn *conn, m *making) *dialFailure {
	cfg := cn.tlsConfig(m)
	cn.tlsTime[0] = time.Now()
	defer func() { cn.tlsTime[1] = time.Now() }()
	state, err := cn.StartTLS(cfg, c.limits.tls)
	if err != nil {
		f := &dialFailure{stage: msg.DeliverTLS, tls: tlsBroken, stopped: cn.Aborted()}
		why := handshakeError(err)
		f.reply = smtp.NewReply(451, "4.7.5", "TLS handshake with "+cn.hop.String()+" failed: "+why)
		cn.seen.note(msg.TLSValidationFailure, why)
		return f
	}
	cn.seen.note(msg.TLSSuccess, "")
	cn.ext = ehlo.Extensions{}
	cn.tls = secured{info: cn.class.tls.Describe(&state), session: m.session, chain: state.PeerCertificates}
	cn.tls.bindings = func() []scram.ChannelBinding { return sasl.Bindings(&state, endPointOf(&state)) }
	cn.tls.HopTLS = given(cn.tls.info)
	if m.dane != nil {
		return c.match(cn, m.dane, state.PeerCertificates)
	}
	return c.trust(cn, state.PeerCertificates)
}

// given is what a handshake gave, for the answer and the log.
func given(i *msg.TLS) msg.HopTLS {
	t := msg.HopTLS{Level: msg.TLSEncrypted, Version: i.Version, Cipher: i.Cipher, Bits: i.Bits, Verify: i.Verify, Resumed: i.Resumed}
	if i.Verify == msg.VerifyOK {
		t.Level = msg.TLSVerified
	}
	return t
}

// lacks says why the connection does not meet requirements, "" if it does. A session that was
// resumed without meeting them is not resumed again: the host may have another certificate by
// now.
func (cn *conn) lacks(t *msg.TLSRequirements) string {
	why := cn.class.tls.Unmet(t, cn.tls.info)
	if why != "" {
		cn.tls.session.forget()
	}
	return why
}

// offered reports whether the try has offered a remembered session to the host.
func (m *making) offered() bool { return m.session != nil && m.session.offered }

// tlsConfig is the configuration of one handshake.
func (cn *conn) tlsConfig(m *making) *tls.Config {
	name := cn.hop.Host
	if m.dane != nil {
		name = m.dane.base
	}
	cfg := cn.class.tls.ClientConfig(tlsconf.Peer{
		ServerName: name, SessionKey: fmt.Sprint(cn.hop.Addr, " ", name, " ", cn.class.name, " ", cn.line.tls),
	})
	cfg.DynamicRecordSizingDisabled = true // mail is not read before it is complete
	m.session = nil
	if cfg.ClientSessionCache != nil {
		m.session = &session{ClientSessionCache: cfg.ClientSessionCache}
		cfg.ClientSessionCache = m.session
	}
	if m.way == tlspolicy.Resume {
		return cfg
	}
	m.session.forget()
	if m.way == tlspolicy.Reduced {
		m.session, cfg.ClientSessionCache = nil, nil
		tlspolicy.Reduce(cfg)
	}
	return cfg
}

// handshakeError is why a handshake failed, in few words. What the peer has sent is not in it.
func handshakeError(err error) string {
	var header tls.RecordHeaderError
	switch {
	case wire.IsTimeout(err):
		return "it timed out"
	case errors.As(err, &header):
		return "what the host sent is not TLS"
	case errors.Is(err, io.EOF), wire.IsClosed(err):
		return "the host closed the connection"
	}
	text := wire.CleanText([]byte(err.Error()))
	return text[:min(len(text), handshakeErrorMax)]
}

// endPointOf is the certificate for tls-server-end-point; nil where it is not the one that the
// server would name: a resumed session shows none.
func endPointOf(state *tls.ConnectionState) *x509.Certificate {
	if state.DidResume || len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0]
}
