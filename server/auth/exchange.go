package auth

import (
	"context"
	"errors"
	"time"
)

// exchangeMax bounds the rounds of an exchange; GSSAPI needs a handful.
const exchangeMax = 20

// ErrTooMany: the client's address has failed too often (454).
var ErrTooMany = errors.New("too many failures")

// The reasons that several mechanisms have.
const (
	wrongPassword  = "wrong password"
	unknownAccount = "unknown account"
	otherAccount   = "may not act as another account"
)

// Outcome says how an exchange stands.
type Outcome uint8

const (
	// Continue: send Step.Challenge, then call Next with the answer.
	Continue Outcome = iota
	// Granted: the client is Step.Account.
	Granted
	// Refused: it is not (535).
	Refused
	// Malformed: the client broke the rules of the mechanism (501).
	Malformed
	// Unavailable: it cannot be known now (454).
	Unavailable
)

// String is the outcome in metrics.
func (o Outcome) String() string {
	return [...]string{"continue", "granted", "refused", "malformed", "unavailable"}[o]
}

// Step is the answer to a response of the client.
type Step struct {
	Outcome   Outcome
	Challenge []byte
	// Account is who the client is, or of Refused who it wanted to be, as far as it is known.
	Account string
	// Reason is why, for the log.
	Reason string
	// Delay is how long the reply is to be held back.
	Delay time.Duration
}

// Exchange is one AUTH command. It is used by one session alone.
type Exchange struct {
	a         *Authenticator
	mechanism string
	client    Client
	state     state   // or
	remote    *remote // by Dovecot
	rounds    int
	reason    string // of a decoy, in place of "wrong password"
}

// Mechanism is the name of the mechanism.
func (e *Exchange) Mechanism() string { return e.mechanism }

// Close ends an exchange at any point.
func (e *Exchange) Close() {
	if e.remote != nil {
		e.remote.close()
	}
}

// Next takes a response of the client; nil stands for no initial response. After any
// Outcome but Continue the exchange is over.
func (e *Exchange) Next(ctx context.Context, response []byte) Step {
	ctx, cancel := context.WithTimeoutCause(ctx, e.a.cfg.Timeout, errTimeout)
	defer cancel()
	if e.rounds++; e.rounds > exchangeMax {
		return Step{Outcome: Malformed, Reason: "too many rounds"}
	}
	var s Step
	if e.remote != nil {
		s = e.remote.next(ctx, response)
	} else {
		s = e.next(ctx, e.state.respond(response))
	}
	if s.Outcome != Continue {
		e.Close()
	}
	return e.count(s, time.Now())
}

var errTimeout = errors.New("no answer in time")

// next does what the mechanism wants until the client has to be asked, or the exchange is
// over.
func (e *Exchange) next(ctx context.Context, m move) Step {
	for {
		switch m.kind {
		case sendChallenge:
			return Step{Outcome: Continue, Challenge: m.text}
		case askSecret:
			secret, reason, err := e.a.entry(ctx, e.mechanism, m.name)
			if err != nil {
				return Step{Outcome: Unavailable, Account: e.account(m.name), Reason: err.Error()}
			}
			e.reason = reason
			m = m.then(secret)
		case askPassword:
			granted, reason, err := e.check(ctx, m.name, string(m.text))
			if err != nil {
				return Step{Outcome: Unavailable, Account: e.account(m.name), Reason: err.Error()}
			}
			if !granted {
				return Step{Outcome: Refused, Account: e.account(m.name), Reason: reason}
			}
			m.kind = accept
		case accept:
			account := e.account(m.name)
			if m.author != "" && e.account(m.author) != account {
				return Step{Outcome: Refused, Account: account, Reason: otherAccount}
			}
			return Step{Outcome: Granted, Account: account}
		case refuse:
			if e.reason != "" {
				m.reason = e.reason
			}
			return Step{Outcome: Refused, Account: e.account(m.name), Reason: m.reason}
		default:
			return Step{Outcome: Malformed, Account: e.account(m.name), Reason: m.reason}
		}
	}
}

// account is the account of a name as the client wrote it; one that none can have stays
// as it is, for the log.
func (e *Exchange) account(name string) string {
	prepared, err := PrepareName(name)
	if err != nil {
		return name[:min(len(name), nameMax)]
	}
	return e.a.cfg.account(prepared)
}

// check asks the source about a password.
func (e *Exchange) check(ctx context.Context, name, password string) (granted bool, reason string, err error) {
	a := e.a
	if a.cfg.Saslauthd.set() {
		return a.askSaslauthd(ctx, name, password)
	}
	secret, reason, err := a.entry(ctx, e.mechanism, name)
	if err != nil {
		return false, "", err
	}
	granted, err = a.verify(ctx, secret, password)
	if err == nil && !granted && reason == "" {
		reason = wrongPassword
	}
	return granted, reason, err
}

// count notes how an exchange ended, and slows failures down.
func (e *Exchange) count(s Step, now time.Time) Step {
	switch s.Outcome {
	case Granted:
		if e.a.failures.succeeded(e.client.IP, s.Account, now) {
			// Counted and delayed as a wrong password would be, so that nobody can tell.
			s.Delay, _ = e.a.failures.failed(e.client.IP, s.Account, now)
			return tooMany(s)
		}
	case Refused:
		delay, blocked := e.a.failures.failed(e.client.IP, s.Account, now)
		if s.Delay = delay; blocked {
			return tooMany(s)
		}
	case Malformed: // it costs a round like any other, but no password was tried
		s.Delay, _ = e.a.failures.failed(e.client.IP, "", now)
	}
	return s
}

// tooMany is the answer to any password of an account that is closed to the address.
func tooMany(s Step) Step {
	return Step{Outcome: Unavailable, Account: s.Account, Reason: "too many failures of the account", Delay: s.Delay}
}
