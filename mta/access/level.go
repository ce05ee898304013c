package access

import (
	"context"
	"net"
	"net/http"
)

// Level is what somebody may do.
type Level uint8

// The levels, each with what the one before allows.
const (
	None   Level = iota
	Read         // ask
	Change       // and change what becomes of mail, and of meta1
)

// String is the level in words, replies and documents.
func (l Level) String() string { return [...]string{"none", "read", "change"}[l] }

// Who is somebody who asks.
type Who struct {
	Level Level
	// Name is for the log: an account, a token's number in its file, a certificate. It never
	// has a part of a token.
	Name string
	// Refused is why nothing is allowed at all, for the reply; Status is that of HTTP then.
	Refused string
	Status  int
}

// Door decides who asks. Any goroutine may call it.
type Door func(r *http.Request) Who

func refused(status int, name, reason string) Who {
	return Who{Name: name, Refused: reason, Status: status}
}

type connKey struct{}

// WithConn notes the connection by which requests come, for http.Server.ConnContext.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf is the connection by which a request came, nil if WithConn has not noted it.
func connOf(ctx context.Context) net.Conn {
	c, _ := ctx.Value(connKey{}).(net.Conn)
	return c
}
