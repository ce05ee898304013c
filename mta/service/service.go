package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta1/mta/supervise"
)

// Action is a start_action (README 3.7, item 1).
type Action string

// The actions; the package comment says what each does.
const (
	Accept        Action = "accept"
	NoStartAccept Action = "nostartaccept"
	Pass          Action = "pass"
	Wait          Action = "wait"
)

// Config of one service.
type Config struct {
	Program Program
	Action  Action
	// Listeners are the bound sockets: at least one for Accept, exactly one for
	// NoStartAccept. The service closes them when it is given up, not when it ends.
	Listeners []net.Listener
	// Policy says when a program that ended is started again.
	Policy supervise.Policy
	// Processes is how many processes Pass, Wait and NoStartAccept keep running.
	Processes int
}

// Deps are what a service needs of the rest.
type Deps struct {
	Starter Starter
	// Output opens what a process prints to, if the program has Output.
	Output  func(id int) (*os.File, error)
	Log     *slog.Logger
	Metrics *Metrics
}

// Units are the units that keep the service running, one for each of its
// processes, or one for all connections with Accept. They are optional units:
// mail waits in the queue while a service does not work.
func Units(c Config, d Deps) ([]supervise.Unit, error) {
	if n := len(c.Listeners); c.Action == NoStartAccept && n != 1 || c.Action == Accept && n == 0 {
		return nil, fmt.Errorf("service %s: start_action %s with %d sockets", c.Program.Service, c.Action, n)
	}
	c.Program.Connected = c.Action == Accept
	if c.Action == Accept {
		return []supervise.Unit{c.unit(c.Program.Service, func() func(context.Context) error {
			return d.Metrics.during(c.Program.Service, (&acceptor{Config: c, Deps: d}).run)
		})}, nil
	}
	units := make([]supervise.Unit, 0, c.Processes)
	for id, name := range UnitNames(c.Program.Service, c.Action, c.Processes) {
		units = append(units, c.unit(name, func() func(context.Context) error {
			return d.Metrics.during(c.Program.Service, (&keeper{Config: c, Deps: d, id: id}).run)
		}))
	}
	return units, nil
}

// UnitNames are the names of the units of a service: its own, and for further
// processes its own with their number.
func UnitNames(service string, a Action, processes int) []string {
	names := []string{service}
	for id := 1; id < processes && a != Accept; id++ {
		names = append(names, fmt.Sprintf("%s:%d", service, id))
	}
	return names
}

func (c Config) unit(name string, run func() func(context.Context) error) supervise.Unit {
	return supervise.Unit{
		Name: name, Policy: c.Policy, Optional: true, Grace: func() time.Duration { return 3 * stopGrace },
		New: func() (func(context.Context) error, error) { return run(), nil },
	}
}

// keeper keeps one process running: its end is the end of the unit, and the policy
// decides what follows.
type keeper struct {
	Config
	Deps
	id int
}

func (k *keeper) run(ctx context.Context) error {
	if k.Action == NoStartAccept {
		if err := awaitConnection(ctx, k.Listeners[0]); err != nil {
			return ignoreEnd(ctx, err)
		}
	}
	files, err := listenerFiles(k.Listeners)
	if err != nil {
		return err
	}
	p, err := start(k.Config, k.Deps, k.id, files)
	closeAll(files)
	if err != nil {
		return supervise.Mark(startOutcome(err), err)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Stop(stopGrace)
	}
	return ignoreEnd(ctx, ended(k.Config, k.Deps, p))
}

// startOutcome is the outcome of a program that could not be started: a missing or
// forbidden one stays so, but a lack of memory or of process slots passes.
func startOutcome(err error) supervise.Outcome {
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, errGone) {
		return supervise.Soft
	}
	return supervise.Hard
}

// ignoreEnd drops the error of a process that we stopped ourselves.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// start starts a process and notes it.
func start(c Config, d Deps, id int, files []*os.File) (*Process, error) {
	if c.Program.Output {
		output, err := d.Output(id)
		if err == nil {
			defer output.Close()
		} else { // mail is worth more than what the program prints
			d.Log.LogAttrs(context.Background(), slog.LevelError, "the program prints to standard error",
				slog.String("service", c.Program.Service), slog.String("stat", err.Error()))
			output = os.Stderr
		}
		files = append(files[:len(files):len(files)], output)
	}
	p, err := d.Starter.Start(c.Program.Service, id, files)
	if err != nil {
		d.Metrics.failed.WithLabelValues(c.Program.Service).Inc()
		return nil, err
	}
	d.Metrics.started.WithLabelValues(c.Program.Service).Inc()
	d.Metrics.running.WithLabelValues(c.Program.Service).Inc()
	d.Log.LogAttrs(context.Background(), slog.LevelInfo, "process started",
		slog.String("service", c.Program.Service), slog.Int("pid", p.PID), slog.String("path", c.Program.Path))
	return p, nil
}

// ended notes the end of a process and gives its outcome as an error.
func ended(c Config, d Deps, p *Process) error {
	d.Metrics.running.WithLabelValues(c.Program.Service).Dec()
	level, status := slog.LevelInfo, p.Status()
	if status != 0 {
		level = slog.LevelWarn
	}
	d.Log.LogAttrs(context.Background(), level, "process ended",
		slog.String("service", c.Program.Service), slog.Int("pid", p.PID), slog.String("stat", StatusText(status)))
	if status == 0 {
		return nil
	}
	d.Metrics.failed.WithLabelValues(c.Program.Service).Inc()
	err := fmt.Errorf("%s ended with %s", c.Program.Path, StatusText(status))
	return supervise.Mark(supervise.OutcomeOfExit(status), err)
}

// listenerFiles are copies of the listeners' descriptors.
func listenerFiles(listeners []net.Listener) ([]*os.File, error) {
	var files []*os.File
	for _, l := range listeners {
		f, err := descriptor(l)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// descriptor is a copy of the descriptor of a listener or a connection.
func descriptor(v any) (*os.File, error) {
	f, ok := v.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", v)
	}
	return f.File()
}

// awaitConnection waits until a connection waits to be accepted, and leaves it there.
func awaitConnection(ctx context.Context, l net.Listener) error {
	f, err := pollable(l)
	if err != nil {
		return err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		var n int
		n, pollErr = unix.Poll(p, 0)
		return n > 0 || pollErr != nil && pollErr != unix.EINTR
	})
	return errors.Join(err, pollErr)
}

// pollable is a copy of the listener's descriptor that the runtime can wait on. A
// program that had the listener may have made it a blocking one.
func pollable(l net.Listener) (*os.File, error) {
	f, err := descriptor(l)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}
