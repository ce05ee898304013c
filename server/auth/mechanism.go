package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/xdg-go/scram"

	"meta1/mta/sasl"
)

// The names of the mechanisms that are spoken here. Dovecot may add others.
const (
	Plain           = sasl.Plain
	Login           = sasl.Login
	CRAMMD5         = sasl.CRAMMD5
	SCRAMSHA1       = sasl.SCRAMSHA1
	SCRAMSHA1Plus   = sasl.SCRAMSHA1Plus
	SCRAMSHA256     = sasl.SCRAMSHA256
	SCRAMSHA256Plus = sasl.SCRAMSHA256Plus
	External        = sasl.External
	XOAuth2         = sasl.XOAuth2
	OAuthBearer     = sasl.OAuthBearer
	anonymous       = sasl.Anonymous
)

// traits are what the flags of section auth ask of a mechanism, as Cyrus SASL has them.
type traits uint8

const (
	plaintext   traits = 1 << iota // hands the password, or a token, to who listens
	active                         // open to who changes what is sent
	dictionary                     // who listens can try passwords afterwards
	nobody                         // needs no account
	credentials                    // gives the server what it could log in elsewhere with
	mutual                         // the server proves that it knows the password, too
	binding                        // needs channel binding
	certificate                    // needs the client's certificate
)

// known are the traits of the mechanisms, in the order in which they are offered: clients
// that take the first one they know take the best.
var known = []struct {
	name   string
	traits traits
}{
	{External, certificate},
	{SCRAMSHA256Plus, mutual | binding},
	{SCRAMSHA256, mutual | dictionary},
	{SCRAMSHA1Plus, mutual | binding},
	{SCRAMSHA1, mutual | dictionary},
	{CRAMMD5, active | dictionary},
	{OAuthBearer, plaintext | active | dictionary | credentials},
	{XOAuth2, plaintext | active | dictionary | credentials},
	{Plain, plaintext | active | dictionary | credentials},
	{Login, plaintext | active | dictionary | credentials},
	{anonymous, plaintext | active | dictionary | nobody},
}

// traitsOf gives the traits of a mechanism that is spoken here, or that Dovecot is known
// to speak.
func traitsOf(name string) (traits, bool) {
	for _, k := range known {
		if k.name == name {
			return k.traits, true
		}
	}
	return 0, false
}

// names are all known mechanisms.
func names() []string {
	list := make([]string, 0, len(known))
	for _, k := range known {
		list = append(list, k.name)
	}
	return list
}

// Channel is what a session knows of its connection.
type Channel struct {
	// TLS is nil without TLS.
	TLS *tls.ConnectionState
	// Own is the certificate that we showed, for channel binding; nil if it is not known.
	Own *x509.Certificate
	// Peer is the client's certificate if it was verified, else nil.
	Peer *x509.Certificate

	bound []scram.ChannelBinding // what bindings gave; nil: not asked yet
}

// secret reports that who listens cannot read, now or later, even with our key: every
// cipher of TLS 1.3 and those with ephemeral keys of TLS 1.2 (forward secrecy).
func (c *Channel) forwardSecret() bool {
	if c.TLS == nil {
		return false
	}
	return c.TLS.Version >= tls.VersionTLS13 || !slices.Contains(staticRSA, c.TLS.CipherSuite)
}

// staticRSA are the suites of Go without ephemeral keys.
var staticRSA = []uint16{
	tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
}

// Why a mechanism is not to be had.
var (
	// ErrUnknown: it is not offered at all (504 of RFC 4954).
	ErrUnknown = errors.New("unknown mechanism")
	// ErrNeedsTLS: it is, over TLS (538).
	ErrNeedsTLS = errors.New("mechanism needs TLS")
	// ErrTooWeak: a flag forbids it (534).
	ErrTooWeak = errors.New("mechanism is too weak")
)

// permits says why the flags keep a mechanism away from a channel.
func (c *Config) permits(t traits, ch *Channel) error {
	switch {
	case c.NoActive && t&active != 0, c.NoAnonymous && t&nobody != 0,
		c.PassCredentials && t&credentials == 0, c.MutualAuth && t&mutual == 0:
		return ErrTooWeak
	case ch.TLS == nil && (c.NoPlaintext && t&plaintext != 0 || c.NoDictionary && t&dictionary != 0 || c.ForwardSecrecy):
		return ErrNeedsTLS
	case c.ForwardSecrecy && !ch.forwardSecret():
		return ErrTooWeak
	case t&binding != 0 && len(ch.bindings()) == 0, t&certificate != 0 && ch.Peer == nil:
		return ErrUnknown
	}
	return nil
}
