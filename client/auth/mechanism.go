package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"meta1/mta/sasl"
)

// RoundsMax bounds the challenges of one exchange; SCRAM has three at most.
const RoundsMax = 6

// iterationsMax bounds the iterations of SCRAM that a host may ask for: they take about a
// second of a processor.
const iterationsMax = 2 << 20

// Exchange is one AUTH command. It is not for several goroutines at once.
type Exchange interface {
	// Initial is the initial response; nil if the mechanism has none, so that the host begins.
	Initial() ([]byte, error)
	// Next is the response to a challenge. After an error the exchange is to be cancelled. The
	// error has nothing secret, and nothing of the challenge.
	Next(challenge []byte) ([]byte, error)
	// Done says why a success that the host reports cannot be one; nil if it can.
	Done() error
}

// Channel is what is known of a connection.
type Channel struct {
	Bindings []scram.ChannelBinding // none without TLS
	// Host and Port are those of the host, for OAUTHBEARER (RFC 7628 section 3.1).
	Host string
	Port uint16
	// OfferedPlus: the host offers a mechanism with channel binding.
	OfferedPlus bool
}

// New begins an exchange with a password or, if the mechanism is one of tokens, a token.
func New(mechanism, account string, secret Secret, ch *Channel) (Exchange, error) {
	plain := string(secret)
	switch mechanism {
	case sasl.Plain:
		return &once{response: []byte("\x00" + account + "\x00" + plain)}, nil
	case sasl.Login:
		return &login{answers: []string{account, plain}}, nil
	case sasl.CRAMMD5:
		return &cram{account: account, password: plain}, nil
	case sasl.XOAuth2:
		return &token{first: "user=" + account + "\x01auth=Bearer " + plain + "\x01\x01"}, nil
	case sasl.OAuthBearer:
		return &token{first: bearer(account, plain, ch), last: "\x01"}, nil
	case sasl.SCRAMSHA1, sasl.SCRAMSHA1Plus:
		return newSCRAM(scram.SHA1, mechanism == sasl.SCRAMSHA1Plus, account, plain, ch)
	case sasl.SCRAMSHA256, sasl.SCRAMSHA256Plus:
		return newSCRAM(scram.SHA256, mechanism == sasl.SCRAMSHA256Plus, account, plain, ch)
	}
	return nil, fmt.Errorf("mechanism %q is not spoken here", mechanism)
}

var errMore = errors.New("the host asks for more than the mechanism has")

// once is a mechanism of one response: PLAIN (RFC 4616).
type once struct {
	response []byte
	sent     bool
}

func (o *once) Initial() ([]byte, error) { o.sent = true; return o.response, nil }

func (o *once) Next([]byte) ([]byte, error) { return nil, errMore }

func (o *once) Done() error { return nil }

// login is LOGIN (draft-murchison-sasl-login): account and password, each when the host asks,
// in whatever words.
type login struct{ answers []string }

func (l *login) Initial() ([]byte, error) { return nil, nil }

func (l *login) Next([]byte) ([]byte, error) {
	if len(l.answers) == 0 {
		return nil, errMore
	}
	answer := l.answers[0]
	l.answers = l.answers[1:]
	return []byte(answer), nil
}

func (l *login) Done() error {
	if len(l.answers) > 0 {
		return errors.New("the host accepted us before it had the password")
	}
	return nil
}

// cram is CRAM-MD5 (RFC 2195).
type cram struct {
	account, password string
	answered          bool
}

func (c *cram) Initial() ([]byte, error) { return nil, nil }

func (c *cram) Next(challenge []byte) ([]byte, error) {
	switch {
	case c.answered:
		return nil, errMore
	case len(challenge) == 0:
		return nil, errors.New("the challenge is empty")
	}
	c.answered = true
	mac := hmac.New(md5.New, []byte(c.password))
	mac.Write(challenge)
	return []byte(c.account + " " + hex.EncodeToString(mac.Sum(nil))), nil
}

func (c *cram) Done() error {
	if !c.answered {
		return errors.New("the host accepted us before it had the digest")
	}
	return nil
}

// token is XOAUTH2 and OAUTHBEARER: a refusal comes as a challenge that says why, and is to be
// answered before the reply comes (RFC 7628 section 3.2.3).
type token struct {
	first, last string
	refused     bool
}

func (t *token) Initial() ([]byte, error) { return []byte(t.first), nil }

func (t *token) Next([]byte) ([]byte, error) {
	if t.refused {
		return nil, errMore
	}
	t.refused = true
	return []byte(t.last), nil
}

func (t *token) Done() error {
	if t.refused {
		return errors.New("the host accepted us after it had refused the token")
	}
	return nil
}

// bearer is the first message of OAUTHBEARER (RFC 7628 section 3.1).
func bearer(account, secret string, ch *Channel) string {
	host := ch.Host
	if ip := net.ParseIP(host); ip != nil && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	gs2 := "n,a=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(account) + ","
	return gs2 + "\x01host=" + host + "\x01port=" + strconv.Itoa(int(ch.Port)) + "\x01auth=Bearer " + secret + "\x01\x01"
}

// scramExchange is SCRAM-SHA-1 and SCRAM-SHA-256 (RFC 5802, RFC 7677).
type scramExchange struct {
	talk  *scram.ClientConversation
	first bool // the host's first message is still to come
}

// newSCRAM begins SCRAM. Without channel binding it says so if we could have done it, so that
// a host notices if somebody has removed it from what the host offers (RFC 5802 section 6).
func newSCRAM(hash scram.HashGeneratorFcn, plus bool, account, password string, ch *Channel) (Exchange, error) {
	c, err := hash.NewClient(account, password, "")
	if err != nil { // its text may have a part of the password
		return nil, errors.New("account or password have characters that SCRAM does not allow (RFC 4013)")
	}
	s := &scramExchange{first: true}
	switch {
	case plus && len(ch.Bindings) == 0:
		return nil, errors.New("the connection has no channel binding")
	case plus:
		s.talk = c.NewConversationWithChannelBinding(ch.Bindings[0])
	case len(ch.Bindings) > 0 && !ch.OfferedPlus:
		s.talk = c.NewConversationAdvertisingChannelBinding()
	default:
		s.talk = c.NewConversation()
	}
	return s, nil
}

func (s *scramExchange) Initial() ([]byte, error) {
	text, err := s.talk.Step("")
	return []byte(text), err
}

func (s *scramExchange) Next(challenge []byte) ([]byte, error) {
	switch {
	case s.talk.Done():
		return nil, errMore
	case s.first && !fewIterations(challenge):
		return nil, fmt.Errorf("SCRAM: the host's first message cannot be read, or wants more than %d iterations", iterationsMax)
	}
	first := s.first
	s.first = false
	response, err := s.talk.Step(string(challenge))
	switch {
	case err != nil && first:
		return nil, errors.New("SCRAM: the host's first message cannot be used, or wants too few iterations")
	case err != nil && bytes.HasPrefix(challenge, []byte("e=")):
		return nil, errors.New("SCRAM: the host has refused the proof")
	case err != nil:
		return nil, errors.New("SCRAM: the host has not proved that it knows the password")
	}
	return []byte(response), nil
}

// Done is Exchange's. A host that says 235 without its proof has not shown that it is the one
// that knows the password.
func (s *scramExchange) Done() error {
	if !s.talk.Valid() {
		return errors.New("SCRAM: the host has not proved that it knows the password")
	}
	return nil
}

// fewIterations reports that the host's first message asks for a bearable number of iterations.
func fewIterations(message []byte) bool {
	for field := range bytes.SplitSeq(message, []byte{','}) {
		if number, ok := bytes.CutPrefix(field, []byte("i=")); ok {
			n, err := strconv.Atoi(string(number))
			return err == nil && n > 0 && n <= iterationsMax
		}
	}
	return false
}
