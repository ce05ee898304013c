package mta

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"meta1/confparse"
	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/service"
	"meta1/mta/supervise"
)

// Setup is what Run needs of the process that it is in.
type Setup struct {
	File    string // the configuration file
	Version string
	// Executable is the path of our own binary, for services and the monitor;
	// MonitorArgs are the arguments with which it calls service.Monitor.
	Executable  string
	MonitorArgs []string
	Stderr      io.Writer
	// Signals are those that concern us; nil for none. Two INT end the process at once.
	Signals <-chan os.Signal
	// Exit ends the process at once, with that status. It is called when a store can no
	// longer write, and at the second INT, and does not return.
	Exit func(status int)
	// Ready is called once, when everything is up. It must not block. May be nil.
	Ready func(control.Status, *Config)
}

// mta is one running MTA.
type mta struct {
	setup    Setup
	conf     *Config
	result   *confparse.Result
	dir      string // the main queue directory, absolute
	hostname string
	started  time.Time
	account  *account // to change to; nil to stay as we are

	spool   *spool
	sockets sockets
	logs    *logs
	log     *slog.Logger
	starter interface {
		service.Starter
		Close()
	}

	ports    *msg.Ports
	hub      *hub
	tree     *supervise.Tree
	servers  map[string]*ServerSection // by unit
	services map[string]*ServiceSection
	content  contentStore
	ready    atomic.Bool
	stopping atomic.Bool
	endUnits func()     // begins the end of all units
	reload   sync.Mutex // held during a reload; guards result
	required map[string]bool

	mu        sync.Mutex // guards reloaders and conf.Resolver
	reloaders map[string]reloader
}

// reloader is a module that can read its maps anew.
type reloader interface {
	Reload(ctx context.Context) error
}

// Run reads the configuration and serves until ctx ends or a signal says so. Its error
// has an exit status, see ExitStatus. If it fails before it serves, it leaves nothing
// behind.
func Run(ctx context.Context, s Setup) error {
	m := &mta{setup: s, started: time.Now(), reloaders: map[string]reloader{}, required: map[string]bool{}}
	if err := m.load(); err != nil {
		return err
	}
	if err := m.prepare(ctx); err != nil {
		m.undo()
		return err
	}
	err := m.build()
	if err == nil {
		err = m.serve(ctx)
	}
	if !m.ready.Load() {
		m.undo()
	}
	m.release()
	return err
}

// load reads the configuration and what it says of this host.
func (m *mta) load() (err error) {
	m.conf, m.result, err = Check(m.setup.File)
	if err != nil {
		return exit(ExConfig, err)
	}
	if m.dir, err = filepath.Abs(m.conf.WorkingDirectory); err != nil {
		return exit(ExOSErr, fmt.Errorf("finding the main queue directory: %w", err))
	}
	if m.account, err = m.conf.serverAccount(os.Geteuid() == 0); err != nil {
		return exit(ExConfig, err)
	}
	return nil
}

// prepare takes everything that only root may take, or that only one process may
// have, and drops the privileges.
func (m *mta) prepare(ctx context.Context) error {
	tcp, unix, err := m.conf.wantedSockets(m.dir, m.account)
	if err != nil {
		return err
	}
	programs, err := m.conf.programs(m.dir, m.setup.Executable, m.account)
	if err != nil {
		return err
	}
	if err := m.sockets.bind(tcp); err != nil {
		return err
	}
	if m.spool, err = openSpool(m.dir, m.account); err != nil {
		return err
	}
	if err := m.sockets.bind(unix); err != nil {
		return err
	}
	if err := m.spool.take(m.account); err != nil {
		return err
	}
	if m.logs, err = openLogs(m.conf, m.dir, m.setup.Stderr, m.account); err != nil {
		return err
	}
	if err := m.becomeServer(programs); err != nil {
		return err
	}
	m.hostname = m.conf.Hostname
	if m.hostname == "" {
		m.hostname = ownHostname(ctx)
	}
	return nil
}

// becomeServer starts the monitor if one is needed, and drops root's privileges.
func (m *mta) becomeServer(programs []service.Program) error {
	if m.account == nil || !needMonitor(programs, m.account) {
		m.starter = service.NewLocal(programs)
	} else {
		r, err := service.StartMonitor(m.setup.Executable, m.setup.MonitorArgs, programs)
		if err != nil {
			return exit(ExOSErr, err)
		}
		m.starter = r
	}
	if m.account == nil {
		return nil
	}
	return exit(ExOSErr, dropPrivileges(m.account))
}

// serve runs everything until ctx ends, a signal says so, or a module is given up.
func (m *mta) serve(ctx context.Context) error {
	m.logs.start()
	side := supervise.NewGroup(context.WithoutCancel(ctx))
	main := supervise.NewGroup(context.WithoutCancel(ctx))
	m.endUnits = main.Stop
	side.Go(func(life context.Context) error { return m.signals(life, ctx.Done()) })
	m.serveHTTP(side)
	m.announceStart()
	main.Go(m.tree.Run)
	err := main.Wait()
	m.announceEnd(err)
	side.Stop()
	if sideErr := side.Wait(); err == nil {
		err = sideErr
	}
	return err
}

// serveHTTP serves the control socket and the metrics. A failure of theirs is
// logged; mail goes on without them.
func (m *mta) serveHTTP(side *supervise.Group) {
	serve := func(l net.Listener, what string, run func(context.Context) error) {
		side.Go(func(ctx context.Context) error {
			if err := run(ctx); err != nil {
				m.log.LogAttrs(ctx, slog.LevelError, what+" failed", slog.Any("error", err), slog.String("listen", l.Addr().String()))
			}
			return nil
		})
	}
	for _, l := range m.sockets.owner[forControl] {
		serve(l, "control socket", func(ctx context.Context) error { return control.Serve(ctx, l, control.Handler(m)) })
	}
	for _, l := range m.sockets.owner[forMetrics] {
		serve(l, "metrics", func(ctx context.Context) error { return control.Serve(ctx, l, m.httpHandler()) })
	}
}

// release gives everything back, in order.
func (m *mta) release() {
	if m.starter != nil {
		m.starter.Close()
		m.starter = nil
	}
	m.sockets.close()
	if m.logs != nil {
		m.logs.stop()
	}
	if m.spool != nil {
		m.spool.release()
	}
}

// undo leaves nothing behind after a failure before anything was served.
func (m *mta) undo() {
	m.release()
	if m.spool != nil {
		m.spool.undo()
	}
}

// fatal ends the process: a store cannot go on, and whoever waits for an answer must
// not get one. Nothing is lost that was answered for.
func (m *mta) fatal(err error) {
	m.log.LogAttrs(context.Background(), levelFatal, "a store cannot go on, the process ends", slog.Any("error", explainStore(err)))
	m.logs.flush()
	m.setup.Exit(ExIOErr)
}
