//go:build !unix

package pmilter

import (
	"context"
	"net"
)

// setBacklog leaves the system's own.
func setBacklog(net.Listener, int) error { return nil }

// signals does nothing: there are none of these.
func (g *Global) signals(context.Context) error { return nil }
