package lda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"meta1/mta/supervise"
)

// Options say what the agent serves. MailDir and exactly one of Listener and Conn are
// required.
type Options struct {
	// MailDir holds a Maildir for each user.
	MailDir string
	// Create makes MailDir and the Maildir of a user at the first message. Otherwise
	// a user without one is unknown (550 5.1.1).
	Create bool
	// Listener takes connections until the context ends. Run closes it.
	Listener net.Listener
	// Conn is the only connection; Run ends with it, and closes it.
	Conn net.Conn
	// Hostname is our name in greetings and file names; "" is localhost.
	Hostname string
	// Log may be nil.
	Log *slog.Logger
	// SizeMax bounds the content of a message, in bytes; 0 is 100 MiB.
	SizeMax int64
	// RcptsMax bounds the recipients of a transaction; 0 is 1000.
	RcptsMax int
	// SessionsMax bounds the sessions at one time; more of them wait. 0 is 200.
	SessionsMax int
	// Timeout is how long a client may take for a command or a part of the content; 0
	// is 5 minutes.
	Timeout time.Duration
	// StopTimeout is how long a transaction may still take after the end of the
	// context; 0 is 10 seconds.
	StopTimeout time.Duration

	open opener // tests replace it
}

// agent is a running delivery agent.
type agent struct {
	Options
	log   *slog.Logger
	store *store
	// stop ends with Run's context; sessions then finish what they have begun.
	stop    context.Context
	counter atomic.Uint32 // of identifiers
}

// newID makes an identifier of a session or a transaction, in the form of README 10.3:
// "L", the process and a counter in hexadecimal. It is unique on this host until a process
// number comes again.
func (a *agent) newID() string {
	return fmt.Sprintf("L%08X%08X", uint32(os.Getpid()), a.counter.Add(1))
}

// Run serves LMTP until ctx ends, the listener fails, or the only connection ends. It
// returns when all sessions have ended.
func Run(ctx context.Context, o Options) error {
	if (o.Listener == nil) == (o.Conn == nil) {
		return errors.New("exactly one of a listener and a connection is needed")
	}
	setDefaults(&o)
	s, err := newStore(o)
	if err != nil {
		return err
	}
	defer s.close()
	a := &agent{Options: o, log: o.Log, store: s, stop: ctx}
	g := supervise.NewGroup(context.WithoutCancel(ctx))
	if o.Conn != nil {
		g.Go(func(context.Context) error { a.serve(o.Conn); return nil })
		return g.Wait()
	}
	defer context.AfterFunc(ctx, func() { o.Listener.Close() })()
	g.Go(func(context.Context) error { return a.accept(g) })
	return g.Wait()
}

func setDefaults(o *Options) {
	if o.Hostname == "" {
		o.Hostname = "localhost"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SizeMax <= 0 {
		o.SizeMax = 100 << 20
	}
	if o.RcptsMax <= 0 {
		o.RcptsMax = 1000
	}
	if o.SessionsMax <= 0 {
		o.SessionsMax = 200
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = 10 * time.Second
	}
}

// accept serves each connection of the listener in a goroutine of its own.
func (a *agent) accept(g *supervise.Group) error {
	defer a.Listener.Close() // a second time after the end of the context, which does no harm
	slots := make(chan struct{}, a.SessionsMax)
	for {
		select {
		case slots <- struct{}{}:
		case <-a.stop.Done():
			return nil
		}
		nc, err := a.Listener.Accept()
		switch {
		case a.stop.Err() != nil:
			if err == nil {
				_ = nc.Close() // the client tries again
			}
			return nil
		case isTransient(err):
			a.log.LogAttrs(a.stop, slog.LevelWarn, "cannot accept a connection", slog.Any("error", err))
			<-slots
			pause(a.stop, 100*time.Millisecond)
			continue
		case err != nil:
			return fmt.Errorf("accepting connections: %w", err)
		}
		g.Go(func(context.Context) error {
			defer func() { <-slots }()
			a.serve(nc)
			return nil
		})
	}
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// serve speaks one session. A panic ends the session, not the agent.
func (a *agent) serve(nc net.Conn) {
	defer nc.Close() // what counts was answered before
	wire := &wire{Conn: nc, a: a}
	defer context.AfterFunc(a.stop, wire.stopping)()
	s := newSession(a, wire)
	err := supervise.Call(a.stop, func(context.Context) error { return s.run() })
	var p *supervise.PanicError
	switch {
	case errors.As(err, &p):
		s.log.LogAttrs(a.stop, slog.LevelError, "panic in a session", slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))
	case err != nil && !errors.Is(err, io.EOF):
		s.log.LogAttrs(a.stop, slog.LevelInfo, "session ended", slog.String("reason", err.Error()))
	}
}

// hostInName is the host name as it may stand in a file name of a Maildir.
func hostInName(host string) string {
	return strings.NewReplacer("/", `\057`, ":", `\072`, "\x00", "_").Replace(host)
}

// Stdin tells what a service was started with on file descriptor 0: a listening
// socket (start_action nostartaccept, README 3.7) or a connection (accept). Exactly
// one of the results is set. f may be closed afterwards.
func Stdin(f *os.File) (net.Listener, net.Conn, error) {
	listening, err := isListening(f)
	if err != nil {
		return nil, nil, fmt.Errorf("standard input is not a socket: %w", err)
	}
	if listening {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, nil, fmt.Errorf("taking the listening socket on standard input: %w", err)
		}
		return l, nil, nil
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, nil, fmt.Errorf("taking the connection on standard input: %w", err)
	}
	return nil, c, nil
}

// Listen makes the Unix socket of an agent that runs on its own, mode 0660. A socket
// that a dead process left behind is replaced; one that is served is an error.
func Listen(path string) (net.Listener, error) {
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close() // it only showed that somebody is there
		return nil, fmt.Errorf("listening on %s: another process serves it", path)
	}
	if fi, serr := os.Lstat(path); serr == nil && fi.Mode().Type() == os.ModeSocket && isRefused(err) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing the socket of a dead process: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = l.Close() // the error of Chmod is the one to tell
		return nil, fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	return l, nil
}
