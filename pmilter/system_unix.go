//go:build unix

package pmilter

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// setBacklog calls listen(2) once more, which changes the backlog.
func setBacklog(l net.Listener, n int) error {
	c, ok := l.(syscall.Conn)
	if !ok {
		return errors.New("a listener without a file descriptor")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = syscall.Listen(int(fd), n) })
	return errors.Join(err, inner)
}

// signals calls the callback for USR1 and USR2.
func (g *Global) signals(ctx context.Context) error {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(c)
	for {
		select {
		case s := <-c:
			g.p.Signal(g, s)
		case <-ctx.Done():
			return nil
		}
	}
}
