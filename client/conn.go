package client

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"meta1/client/ehlo"
	"meta1/client/wire"
)

// conn is one session with a hop, or one that is being made. One worker at a time uses it; only
// Abort may be called by another goroutine.
type conn struct {
	*wire.Conn
	tls  secured
	seen seen
	line
	id  string // da_se
	ext ehlo.Extensions
	// mechanism is the one by which we authenticated; "" for none.
	mechanism string

	mailSaid wire.Said // the replies to MAIL and RCPT, for the log
	rcptSaid wire.Said
	group    []int // commands that were written together

	opened       time.Time
	tlsTime      [2]time.Time // when the TLS handshake began and ended; zero without one
	transactions int          // begun on this connection
	shown        atomic.Int64 // transactions, for who asks
	needReset    bool         // the peer is inside a transaction that failed
	served       bool         // a recipient was accepted in this session
	spent        bool         // the session refuses what a new one may take: say QUIT and close

	steps steps // t_connect and t_ehlo, for the first transaction

	// The pool's: its lock guards them.
	reqCtx     context.Context // of the request that is being served, nil if idle
	prev, next *conn
	idleSince  time.Time
	busySince  time.Time
}

// newConn makes a conn of an open connection.
func newConn(nc net.Conn, to line, id string, now time.Time) *conn {
	return &conn{Conn: wire.New(nc), line: to, id: id, opened: now}
}
