package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"runtime"
	"time"

	"meta1/confparse"
	"meta1/server/crowd"
	"meta1/server/wire"
)

// Handshakes are the limits of TLS handshakes; they stand in section tls.
type Handshakes struct {
	Timeout time.Duration // for one of them, the time that it waits for its turn included
	Max     int           // that compute at a time; 0: one for each processor
}

// waitPart is the part of the timeout that STARTTLS may wait for its first turn.
const waitPart = 4

// rows are our own rows of section tls.
func (h *Handshakes) rows() []confparse.Option {
	return []confparse.Option{
		{
			Name: "handshake_timeout", Type: confparse.Time, Unit: "s", Default: "30", Min: "1", Max: "10m", Readme: "own", Into: &h.Timeout,
			Doc: "How long a TLS handshake of a client may take, with the time that it waits for its turn. After a quarter of it without a turn STARTTLS gets 454.",
		},
		{
			Name: "handshakes_max", Type: confparse.Int, Unit: "entries", Default: "0", Min: "0", Max: "100000", Readme: "own", Into: &h.Max,
			Doc: "How many TLS handshakes of clients may compute at a time, so that a flood of them leaves the processors to the sessions that carry mail. One that waits for the network does not count. 0 is the number of processors.",
		},
	}
}

// places is how many handshakes may compute at a time.
func (h *Handshakes) places() int {
	if h.Max > 0 {
		return h.Max
	}
	return runtime.GOMAXPROCS(0)
}

// errBusy says that a handshake got no turn in time.
var errBusy = errors.New("too many TLS handshakes at a time")

// turns bound how many TLS handshakes compute at a time. A flood of them then waits, and
// takes no more than its part of the processors from the sessions that carry mail. Who waits
// for the network has no turn, so that slow clients keep nobody waiting.
type turns struct {
	places chan struct{}
	stop   <-chan struct{} // closed when the server stops: nobody waits any more
}

// newTurns makes the turns of n handshakes at a time. Nobody waits for one when stop is closed.
func newTurns(n int, stop <-chan struct{}) *turns {
	return &turns{places: make(chan struct{}, n), stop: stop}
}

// take waits for a turn until by. The error is errBusy or wire.ErrHalted.
func (t *turns) take(by time.Time) error {
	select {
	case t.places <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	select {
	case t.places <- struct{}{}:
		return nil
	case <-t.stop:
		return wire.ErrHalted
	case <-timer.C:
		return errBusy
	}
}

// give ends a turn.
func (t *turns) give() { <-t.places }

// turnConn is a connection during its handshake, which computes between a read or write
// and the next one: it has a turn only then. After end it is the connection alone.
type turnConn struct {
	net.Conn
	turns *turns
	guest *crowd.Guest // idle while we wait for the client
	by    time.Time    // when the handshake must be over
	state turnState
	heard bool              // something has come from the client
	shown *x509.Certificate // the certificate that the client got; nil: none
}

// ShownCertificate notes which certificate the client gets (tlsconf calls it).
func (c *turnConn) ShownCertificate(cert *tls.Certificate) { c.shown = cert.Leaf }

// turnState says what a turnConn does with turns.
type turnState uint8

const (
	turnWanted turnState = iota // the next read or write brings one
	turnHeld
	turnOver // none is needed any more, or none could be had
)

// Read reads, and then waits for a turn.
func (c *turnConn) Read(p []byte) (int, error) {
	if !c.yield() {
		return 0, wire.ErrRoom
	}
	n, err := c.Conn.Read(p)
	c.heard = c.heard || n > 0
	if err == nil {
		err = c.await()
	}
	return n, err
}

// Write writes, and then waits for a turn.
func (c *turnConn) Write(p []byte) (int, error) {
	if !c.yield() {
		return 0, wire.ErrRoom
	}
	n, err := c.Conn.Write(p)
	if err == nil {
		err = c.await()
	}
	return n, err
}

// yield gives the turn back, if there is one, and notes that the client is waited for. It
// reports false if the session has to make room for another one.
func (c *turnConn) yield() bool {
	if c.state == turnHeld {
		c.turns.give()
		c.state = turnWanted
	}
	return c.state == turnOver || c.guest.Wait(crowd.Waiting)
}

// await waits for a turn, unless none is needed.
func (c *turnConn) await() error {
	if c.state != turnWanted {
		return nil
	}
	if !c.guest.Resume() {
		return wire.ErrRoom
	}
	if err := c.turns.take(c.by); err != nil {
		c.state = turnOver // what follows is an alert at most
		return err
	}
	c.state = turnHeld
	return nil
}

// end gives the turn back for good. It may be called more than once.
func (c *turnConn) end() {
	if c.state == turnHeld {
		c.turns.give()
	}
	c.state = turnOver
	c.guest.Resume() // if it has to go the next wait tells
}
