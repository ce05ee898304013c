package mta

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"meta1/client"
	"meta1/client/tlsrpt"
	"meta1/confparse"
	"meta1/mta/access"
	"meta1/mta/account"
	"meta1/mta/api"
	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/handover"
	"meta1/mta/limits"
	"meta1/mta/listen"
	"meta1/mta/maildrop"
	"meta1/mta/msg"
	"meta1/mta/service"
	"meta1/mta/settings"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/mta/tracing"
	"meta1/queue"
	"meta1/resolver"
	"meta1/resolver/srs"
	"meta1/server"
	"meta1/server/authn/arc"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/dkim"
)

// Setup is what Run needs of the process that it is in.
type Setup struct {
	File    string // the configuration file
	Version string
	// Set are options of the command line; they hold for reloads, too.
	Set []confparse.Assignment
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
	// Inherited are the sockets that systemd has passed; nil for none. Run takes them.
	Inherited *listen.Inherited
	// Successor is what takes the place of this process at an upgrade.
	Successor Successor
	// Link is the dialogue with the process whose place this one takes; nil if it was started in another way. Run
	// closes it.
	Link *handover.Link
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
	limits   []string // options that are lower than configured, for want of descriptors or memory
	started  time.Time
	account  *account.Account // to change to; nil to stay as we are

	spool   *spool
	sockets sockets
	logs    *logs
	log     *slog.Logger
	starter interface {
		service.Starter
		Close()
	}
	local *service.Local // starts the programs of reloads; starter, if that is no monitor

	tls      map[string]*tlsconf.Provider // by settings.TLSSection.name
	tlsFiles *tlsFiles
	dkim     map[string]*dkim.Signer // by section smtps
	srs      *srs.Rewriter
	arc      atomic.Pointer[arc.Sealer] // nil: no section ARC_sealing

	ports          *msg.Ports
	hub            *hub
	tree           *supervise.Tree
	services       map[string]*ServiceSection // by unit
	programs       map[string]*runs           // by section of a service; guarded by reload
	serviceMetrics *service.Metrics
	content        contentStore
	drop           *maildrop.Collector
	tlsReports     atomic.Pointer[tlsrpt.Reports]   // about TLS; nil: there was no section yet
	tlsMade        *tlsrpt.Reports                  // the same, and there before the section
	dmarcReports   atomic.Pointer[dmarcrpt.Reports] // about DMARC; nil: there was no section yet
	dmarcMade      *dmarcrpt.Reports                // the same, or what a reload is preparing; guarded by reload
	network        access.Network                   // who may use the API over TCP
	doors          doors
	*api.API
	tracer   *tracing.Tracer
	memory   *msg.Memory // for content, until its first delivery attempt has ended
	ready    atomic.Bool
	stopping atomic.Bool
	hand     handing
	beside   besides
	endUnits func() // begins the end of all units

	reload sync.Mutex // held during a reload or an upgrade
	// building is held for writing during a reload, and for reading while an instance of a module is
	// made: each instance begins with one configuration, and takes part in every later reload.
	building  sync.RWMutex
	effective atomic.Pointer[effective] // the configuration in effect; nil: that of the start
	failed    atomic.Pointer[failure]   // the last reload, if it failed
	reloads   reloads

	statusPorts sync.Map // of sections smtps with a name, by section

	mu       sync.Mutex // guards modules, tls, dkim, watchers, services and required
	required map[string]bool
	modules  modules
	watchers watchers
}

// modules are the latest instances; nil: none was made yet.
type modules struct {
	resolver *resolver.Resolver
	client   *client.Client
	queue    *queue.Queue
	servers  map[string]*server.Server // by section
}

// Run reads the configuration and serves until ctx ends or a signal says so. Its error
// has an exit status, see ExitStatus. If it fails before it serves, it leaves nothing
// behind.
func Run(ctx context.Context, s Setup) error {
	m := begin(s)
	m.hand.binary = stampOf(s.Successor.Program)
	if s.Link == nil {
		return m.run(ctx)
	}
	m.hand.link = s.Link
	m.hand.muted.Store(true)
	defer s.Link.Close()
	err := m.run(ctx)
	if err != nil && !m.ready.Load() {
		s.Link.Fail(err)
	}
	return err
}

// begin makes an mta that has read nothing yet.
func begin(s Setup) *mta {
	m := &mta{setup: s, started: time.Now(), required: map[string]bool{}, sockets: sockets{inherited: s.Inherited}}
	m.hand.isReady = make(chan struct{})
	return m
}

func (m *mta) run(ctx context.Context) error {
	if err := m.load(); err != nil {
		return err
	}
	if m.hand.link != nil {
		if err := m.meet(ctx); err != nil {
			return err
		}
	}
	err := m.prepare(ctx)
	if err == nil && m.hand.link != nil {
		err = m.takeOver(ctx)
	}
	if err != nil {
		m.undo()
		return err
	}
	defer limits.CollectSeldom(debug.SetMemoryLimit(-1), os.Getenv("GOGC"))()
	err = m.build()
	if err == nil {
		m.inherit()
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
	m.conf, m.result, err = Check(m.setup.File, m.setup.Set...)
	if err != nil {
		return exit.With(exit.Config, err)
	}
	if m.dir, err = filepath.Abs(m.conf.WorkingDirectory); err != nil {
		return exit.With(exit.OSErr, fmt.Errorf("finding the main queue directory: %w", err))
	}
	if m.account, err = m.conf.Account(os.Geteuid() == 0); err != nil {
		return exit.With(exit.Config, err)
	}
	return nil
}

// prepare takes everything that only root may take, or that only one process may
// have, and drops the privileges. As root it opens the main queue directory and nothing
// below it, since what is there the account may have put there.
func (m *mta) prepare(ctx context.Context) (err error) {
	if m.limits, err = fitOpenFiles(m.conf, limits.OpenFiles); err != nil {
		return exit.With(exit.OSErr, err)
	}
	m.limits = append(m.limits, fitMemory(m.conf, limits.Memory(os.DirFS("/"), os.Getenv("GOMEMLIMIT")))...)
	tcp, unix, err := wantedSockets(m.conf, m.dir, m.account)
	if err != nil {
		return err
	}
	programs, err := programs(m.conf, m.dir, m.setup.Executable, m.account)
	if err != nil {
		return err
	}
	if err := m.sockets.bind(tcp, nil); err != nil {
		return err
	}
	if m.spool, err = openSpool(m.dir, m.account); err != nil {
		return err
	}
	if m.hand.link == nil { // else it is another process's yet
		if err := m.account.Do(m.spool.take); err != nil {
			return err
		}
	}
	if m.logs, err = openLogs(m.conf, m.dir, m.setup.Stderr, m.account); err != nil {
		return err
	}
	if err := m.sockets.bindUnix(unix, m.account); err != nil {
		return err
	}
	if err := m.sockets.inherited.Unused(); err != nil {
		return exit.With(exit.Config, err)
	}
	if err := m.loadTLS(); err != nil {
		return err
	}
	if err := m.loadARC(); err != nil {
		return err
	}
	if err := m.loadSRS(); err != nil {
		return err
	}
	if err := m.loadDKIM(); err != nil {
		return err
	}
	if err := m.loadControl(); err != nil {
		return err
	}
	if err := m.becomeServer(programs); err != nil {
		return err
	}
	if gid := m.conf.ContentGroup(); gid != 0 {
		if err := giveContentTo(gid, m.conf.Queue.Dirs(m.dir).CDB); err != nil {
			return exit.With(exit.CantCreate, err)
		}
	}
	m.hostname = m.conf.Hostname
	if m.hostname == "" {
		m.hostname = settings.OwnHostname(ctx)
	}
	return nil
}

// becomeServer starts the monitor if one is needed, for programs of other accounts, for
// keys that only root may read, or because the server itself may start nothing, drops root's privileges, and
// restricts the process as far as that is wanted.
func (m *mta) becomeServer(programs []service.Program) error {
	m.tlsFiles.asRoot = nil
	full := m.account != nil && needMonitor(programs, m.account) || m.conf.Landlock && len(programs) > 0 || m.tlsFiles.needed.Load()
	own, refusal := m.successor(full && m.account != nil)
	m.hand.refusal = refusal
	if !full && m.account != nil {
		for i := range programs {
			programs[i].UID = -1 // that of the server by then, which may not set even its own groups
		}
	}
	programs = append(programs, own...)
	if full || m.conf.Landlock && len(own) > 0 {
		var as *syscall.Credential
		if !full {
			as = monitorAccount(m.account) // it starts a successor, for which it needs no root
		}
		r, err := service.StartMonitor(m.setup.Executable, m.setup.MonitorArgs, programs, m.result.File, as)
		if err != nil {
			return exit.With(exit.OSErr, err)
		}
		m.starter, m.local = r, service.NewLocal(nil)
		if full {
			m.tlsFiles.asRoot = readBy(r)
		}
	} else {
		m.local = service.NewLocal(programs)
		m.starter = m.local
	}
	if m.account != nil {
		if err := m.account.Become(); err != nil {
			return exit.With(exit.OSErr, err)
		}
	}
	if !m.conf.Landlock {
		return nil
	}
	return exit.With(exit.OSErr, account.LandlockTo(m.conf.Written(m.dir)))
}

// serve runs everything until ctx ends, a signal says so, or a module is given up.
func (m *mta) serve(ctx context.Context) error {
	m.logs.start()
	side := supervise.NewGroup(context.WithoutCancel(ctx))
	main := supervise.NewGroup(context.WithoutCancel(ctx))
	m.endUnits = main.Stop
	side.Go(func(life context.Context) error { return m.signals(life, ctx.Done()) })
	if m.hand.link == nil {
		m.serveHTTP(side)
	} else {
		side.Go(func(ctx context.Context) error { m.succeed(ctx, side); return nil })
	}
	m.watchdog(side)
	m.watch(side)
	m.beside.run(func(side *supervise.Group) {
		m.serveReports(side)
		m.serveDrop(side)
	})
	m.serveTraces(side)
	m.announceStart()
	main.Go(m.tree.Run)
	err := main.Wait()
	m.hand.stop()
	m.hand.wait()
	m.beside.end()
	m.announceEnd(err)
	side.Stop()
	if sideErr := side.Wait(); err == nil {
		err = sideErr
	}
	return err
}

// release gives everything back, in order.
func (m *mta) release() {
	if m.starter != nil {
		m.local.Close()
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
		m.spool.undo(m.account)
	}
}

// lastWordsTime is how long the end of the process waits for its log.
const lastWordsTime = time.Second

// fatal ends the process: a store cannot go on, and whoever waits for an answer must
// not get one. Nothing is lost that was answered for. Why it ends is told in the log, and
// on standard error wherever the log goes; if nobody takes it there, it ends all the same.
func (m *mta) fatal(err error) {
	words := supervise.NewGroup(context.Background())
	said := make(chan struct{}, 2)
	for _, log := range []*slog.Logger{m.log, m.logs.onStderr("mta")} {
		words.Go(func(ctx context.Context) error {
			log.LogAttrs(ctx, levelFatal, "a store cannot go on: the process ends", slog.Any("error", explainEnd(err)))
			said <- struct{}{}
			return nil
		})
	}
	late, cancel := context.WithTimeout(context.Background(), lastWordsTime)
	defer cancel()
	for range cap(said) {
		select {
		case <-said:
		case <-late.Done():
		}
	}
	m.setup.Exit(exit.IOErr)
}
