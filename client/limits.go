package client

import "time"

// What is told of what a peer says.
const (
	// logNameMax is how much of a name in a certificate is logged.
	logNameMax = 300
	// handshakeErrorMax is how much is told of why a handshake failed.
	handshakeErrorMax = 200
)

// What we send at once. A group of pipelined commands stays small enough for any
// peer's window, so that both sides can never block in a write (RFC 2920
// section 3.1).
const (
	groupBytesMax = 8 << 10
	// readMax is how much of content in a file is read at once to look at it.
	readMax = 64 << 10
)

// The timeouts of RFC 5321 section 4.5.3.2. IO_timeout shortens them.
const (
	greetingTimeout = 5 * time.Minute
	ehloTimeout     = 5 * time.Minute
	mailTimeout     = 5 * time.Minute
	rcptTimeout     = 5 * time.Minute
	dataTimeout     = 2 * time.Minute
	blockTimeout    = 3 * time.Minute
	dotTimeout      = 10 * time.Minute
	// rsetTimeout is as for MAIL: RFC 5321 names none.
	rsetTimeout = 5 * time.Minute
	// authTimeout is as for MAIL, too: a host may ask another one.
	authTimeout = 5 * time.Minute
	// handshakeTimeout is for the TLS handshake, which takes two round trips: with a host that
	// hangs in it there are more ways to try.
	handshakeTimeout = time.Minute
	// quitTimeout is short: nothing depends on QUIT any more.
	quitTimeout = 5 * time.Second
)

const (
	// connAgeMax is how long one connection is used anew (Postfix:
	// smtp_connection_reuse_time_limit).
	connAgeMax = 5 * time.Minute
	// countedMax is how long a host may count a connection that we have closed.
	countedMax = 5 * time.Second
	// waitingMax is how many workers wait for work; more of them end.
	waitingMax = 128
	// sweepEvery is how often idle and abandoned connections are looked for.
	sweepEvery = time.Second
)

// timeouts are the bounds of each step, for one configuration.
type timeouts struct {
	connect, greeting, ehlo, auth, mail, rcpt, data, block, dot, rset, tls, quit time.Duration
}

// newTimeouts shortens RFC 5321's timeouts to io.
func newTimeouts(connect, io time.Duration) timeouts {
	return timeouts{
		connect:  min(connect, io),
		greeting: min(greetingTimeout, io),
		ehlo:     min(ehloTimeout, io),
		auth:     min(authTimeout, io),
		mail:     min(mailTimeout, io),
		rcpt:     min(rcptTimeout, io),
		data:     min(dataTimeout, io),
		block:    min(blockTimeout, io),
		dot:      min(dotTimeout, io),
		rset:     min(rsetTimeout, io),
		tls:      min(handshakeTimeout, io),
		quit:     min(quitTimeout, io),
	}
}
