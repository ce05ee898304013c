package mta

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/client"
	"meta1/mta/exit"
	"meta1/mta/listen"
	"meta1/mta/logfmt"
	"meta1/mta/msg"
	"meta1/mta/settings"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/queue"
	"meta1/resolver"
	"meta1/server"
	"meta1/server/dkim"
)

const levelFatal = logfmt.LevelFatal

// The units of the modules, as in logs and in ctl status.
const (
	unitResolver = "smar"
	unitClient   = "smtpc"
	unitQueue    = "qmgr"
)

// build makes the units of all modules and services, in their start order.
func (m *mta) build() error {
	m.ports = msg.NewPorts()
	m.memory = msg.NewMemory(m.conf.Queue.ContentMemory)
	m.hub = newHub(m.setup.Version)
	var err error
	if m.log, err = m.logs.logger("mta", m.conf.OwnLog()); err != nil {
		return err
	}
	m.makeAPI()
	m.hub.own.MustRegister(m.logs)
	m.hub.own.MustRegister(tlsCollector{m}, reloadCollector{m})
	if err := m.makeTracer(); err != nil {
		return err
	}
	if err := m.makeReports(); err != nil {
		return err
	}
	if err := m.makeDMARCReports(); err != nil {
		return err
	}
	m.makeDrop()
	units, err := m.units()
	if err != nil {
		return err
	}
	if m.tree, err = supervise.NewTree(units, m.notice); err != nil {
		return exit.With(exit.Config, err)
	}
	m.hub.own.MustRegister(unitCollector{m.tree})
	return nil
}

func (m *mta) units() ([]supervise.Unit, error) {
	units, err := m.serviceUnits()
	if err != nil {
		return nil, err
	}
	for _, make := range []func() (supervise.Unit, error){m.resolverUnit, m.clientUnit, m.queueUnit} {
		u, err := make()
		if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	for _, s := range m.conf.Servers {
		u, err := m.serverUnit(s)
		if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	return units, nil
}

// module is the unit of a module. newInstance makes an instance; its error ends the
// start with that exit status.
func (m *mta) module(name string, of *Common, status *msg.Port[msg.StatusQ, msg.StatusA], grace func() time.Duration, exitStatus int,
	newInstance func(log *slog.Logger, metrics prometheus.Registerer) (func(context.Context) error, error),
) (supervise.Unit, error) {
	log, err := m.logs.logger(name, of)
	if err != nil {
		return supervise.Unit{}, err
	}
	m.mu.Lock()
	m.required[name] = true
	m.mu.Unlock()
	return supervise.Unit{
		Name: name, Policy: of.Policy(), Grace: grace, RestartDependencies: m.conf.Dependencies(of),
		Ready: func(ctx context.Context) error { return msg.AwaitStatus(ctx, status) },
		New: func() (func(context.Context) error, error) {
			m.building.RLock()
			defer m.building.RUnlock()
			run, err := newInstance(log, m.hub.fresh(name))
			return run, exit.With(exitStatus, err)
		},
	}, nil
}

func (m *mta) resolverUnit() (supervise.Unit, error) {
	return m.module(unitResolver, &m.conf.ResolveOf, m.ports.Status[unitResolver], nil, exit.Config,
		func(log *slog.Logger, metrics prometheus.Registerer) (func(context.Context) error, error) {
			c := m.current().conf
			roots, err := m.stsRoots(c)
			if err != nil {
				return nil, err
			}
			deps := m.resolverDeps(c, roots)
			deps.Ports, deps.Log, deps.Metrics, deps.Hostname = m.ports, log, metrics, m.hostname
			deps.ConfigDir, deps.SpoolDir = filepath.Dir(m.result.File), m.dir
			r, err := resolver.New(c.Resolver, deps)
			if err != nil {
				return nil, err
			}
			m.made(func(now *modules) { now.resolver = r })
			return r.Run, nil
		})
}

// resolverDeps is what SMAR needs, but for what only its instance has.
func (m *mta) resolverDeps(c *Config, roots *x509.CertPool) resolver.Deps {
	return resolver.Deps{
		LMTPSocket: settings.Below(m.dir, c.Client.LMTPSocket), RemotePort: uint16(c.Client.RemotePort), ConnectOnlyTo: c.Client.ConnectOnlyTo,
		RcptConf: settings.RcptConfSteps(&c.Queue.SMTPC), Roots: roots, TLSReports: m.tlsCounter(c), SRS: m.srs, Forwarding: func() bool { return m.arc.Load() != nil },
	}
}

func (m *mta) clientUnit() (supervise.Unit, error) {
	grace := func() time.Duration { return m.current().conf.Client.StopTimeout + 5*time.Second }
	return m.module(unitClient, &m.conf.ClientOf, m.ports.Status[unitClient], grace, exit.Config,
		func(log *slog.Logger, metrics prometheus.Registerer) (func(context.Context) error, error) {
			c := m.current().conf
			roots, err := m.stsRoots(c)
			if err != nil {
				return nil, err
			}
			deps := m.clientDeps(c, roots, m.provider)
			deps.Ports, deps.Log, deps.Metrics, deps.Hostname, deps.Tracer = m.ports, log, metrics, m.hostname, m.tracer
			cl := client.New(c.Client, deps)
			m.made(func(now *modules) { now.client = cl })
			return cl.Run, nil
		})
}

// clientDeps is what SMTPC needs, but for what only its instance has. provider gives what sections tls are.
func (m *mta) clientDeps(c *Config, roots *x509.CertPool, provider func(name string) *tlsconf.Provider) client.Deps {
	deps := client.Deps{
		Roots: roots, ReadFile: m.readToken, TLS: provider(unitClient), TLSClasses: map[string]*tlsconf.Provider{}, TLSReports: m.tlsCounter(c),
		ReuseConnections: c.Queue.ReuseConnection, TransactionsPerSession: c.Queue.SMTPC.TransactionsMax,
	}
	for _, f := range c.Client.SessionFeatures {
		if p := provider("smtpc/session_features " + f.Name); p != nil {
			deps.TLSClasses[f.Name] = p
		}
	}
	return deps
}

// stsRoots reads the authorities of section mta_sts; nil: those of the system.
func (m *mta) stsRoots(c *Config) (*x509.CertPool, error) {
	path := c.Resolver.MTASTS.CAFile
	if path == "" {
		return nil, nil
	}
	pem, _, err := tlsconf.OS{}.Read(settings.Below(filepath.Dir(m.result.File), path), "")
	if err != nil {
		return nil, fmt.Errorf("mta_sts.CAcert_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("mta_sts.CAcert_file: %s has no certificate in PEM format", path)
	}
	return roots, nil
}

// queueGrace is how long QMGR may take to end deliveries and write its stores.
func queueGrace() time.Duration { return time.Minute }

func (m *mta) queueUnit() (supervise.Unit, error) {
	return m.module(unitQueue, &m.conf.QueueOf, m.ports.Status[unitQueue], queueGrace, exit.IOErr,
		func(log *slog.Logger, metrics prometheus.Registerer) (func(context.Context) error, error) {
			c := m.current().conf
			q, err := queue.New(c.Queue, queue.Deps{
				Ports: m.ports, Log: log, Metrics: metrics, Hostname: m.hostname, Dir: m.dir, Fatal: m.fatal, Memory: m.memory,
				SessionFeatures: c.ClientFeatures(), Sign: m.signOwn, Rewrite: m.srs.Forward, Seal: m.seal, Tracer: m.tracer,
			})
			if err != nil {
				return nil, explainStore(err)
			}
			m.content.set(q.Content())
			m.made(func(now *modules) { now.queue = q })
			return q.Run, nil
		})
}

// explainStore adds to the error of a store what to do about it.
func explainStore(err error) error {
	advice := ""
	switch {
	case errors.Is(err, store.ErrDamaged):
		advice = "nothing was changed: meta1 fsck tells what is wrong, " +
			"meta1 fsck --rebuild --log FILE repairs it (docs/recovery.md)"
	case errors.Is(err, store.ErrVersion):
		advice = "nothing was changed: start the version of meta1 that wrote it, or a newer one"
	case errors.Is(err, store.ErrInUse):
		advice = "stop the other process first"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, advice)
}

// explainEnd is explainStore for a store that was in use.
func explainEnd(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (files or a directory of the queue were removed while meta1 used them: what did that? "+
			"meta1 fsck tells what is left, see docs/recovery.md)", err)
	}
	return explainStore(err)
}

// serverGrace is how long a server may take to end.
func serverGrace(s *ServerSection) time.Duration { return s.Server.StopTimeout + 10*time.Second }

// graceOf is how long the server of a section may take to end when it is to, as the configuration of then says. It does not keep s,
// which a reload replaces.
func (m *mta) graceOf(s *ServerSection) func() time.Duration {
	name, last := s.Of.Section, serverGrace(s)
	return func() time.Duration {
		c := m.current().conf
		if i := slices.IndexFunc(c.Servers, func(s *ServerSection) bool { return s.Of.Section == name }); i >= 0 {
			return serverGrace(c.Servers[i])
		}
		return last
	}
}

// serverUnit is the unit of one section smtps. Each instance gets copies of the
// listeners, which it closes at its end; connections wait meanwhile.
func (m *mta) serverUnit(s *ServerSection) (supervise.Unit, error) {
	name := s.Of.Section
	u, err := m.module(name, &s.Of, m.statusPortOf(s), m.graceOf(s), exit.Config,
		func(log *slog.Logger, metrics prometheus.Registerer) (func(context.Context) error, error) {
			return m.newServer(name, log, metrics)
		})
	u.Ready = nil // clients see that it serves; then everything else must know already
	return u, err
}

// statusPortOf is the port on which a server tells of itself.
func (m *mta) statusPortOf(s *ServerSection) *msg.Port[msg.StatusQ, msg.StatusA] {
	if s.Name == "" {
		return m.ports.Status["smtps"]
	}
	port, _ := m.statusPorts.LoadOrStore(s.Of.Section, msg.NewPort[msg.StatusQ, msg.StatusA](1))
	return port.(*msg.Port[msg.StatusQ, msg.StatusA])
}

// newServer makes an instance of a section smtps, by the configuration in effect.
func (m *mta) newServer(name string, log *slog.Logger, metrics prometheus.Registerer) (func(context.Context) error, error) {
	c := m.current().conf
	now := c.Servers[slices.IndexFunc(c.Servers, func(s *ServerSection) bool { return s.Of.Section == name })]
	srv, err := m.makeServer(now, &parts{c, map[string]server.TLSSource{name: m.tlsOfServer(name)}, m.dkim}, m.sockets.of(name), log, metrics)
	if err != nil {
		return nil, err
	}
	m.made(func(now *modules) { now.servers[name] = srv })
	return srv.Run, nil
}

// makeServer makes an instance that listens on copies of sockets.
func (m *mta) makeServer(s *ServerSection, p *parts, sockets []net.Listener, log *slog.Logger, metrics prometheus.Registerer) (*server.Server, error) {
	listeners, err := copyListeners(sockets)
	if err != nil {
		return nil, err
	}
	deps := m.serverDeps(s, p)
	deps.Listeners, deps.Log, deps.Metrics, deps.Status = listeners, log, metrics, m.statusPortOf(s)
	srv, err := server.New(m.serverConfig(s), deps)
	if err != nil {
		listen.Close(listeners)
		return nil, fmt.Errorf("section %s: %w", s.Of.Section, err)
	}
	srv.Refilter(m.filtering(&s.Server))
	return srv, nil
}

// parts are what a section smtps is made of besides its own options.
type parts struct {
	conf *Config
	tls  map[string]server.TLSSource // those with a certificate
	dkim map[string]*dkim.Signer
}

// serverConfig are the options of a section smtps with paths for this process. Milters and policy
// services it gets by [server.Server.Refilter].
func (m *mta) serverConfig(s *ServerSection) server.Config {
	cfg := s.Server
	cfg.Milters, cfg.PolicyServices = nil, nil
	for _, path := range []*string{&cfg.Auth.Dovecot.Path, &cfg.Auth.Saslauthd.Path, &cfg.PolicyMilter.Socket.Path} {
		if *path != "" {
			*path = settings.Below(m.dir, *path)
		}
	}
	return cfg
}

// serverDeps is what a section smtps needs, but for what only its instance has.
func (m *mta) serverDeps(s *ServerSection, p *parts) server.Deps {
	return server.Deps{
		Ports: m.ports, Content: &m.content, Memory: m.memory,
		Hostname: m.hostname, Version: m.setup.Version, Name: s.Name, TLS: p.tls[s.Of.Section], DoubleBounce: p.conf.DoubleBounce(),
		DKIM: p.dkim[s.Of.Section], DMARCReports: m.dmarcReportsOf(s), Tracer: m.tracer,
	}
}

// made notes a new instance of a module.
func (m *mta) made(note func(now *modules)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.modules.servers == nil {
		m.modules.servers = map[string]*server.Server{}
	}
	note(&m.modules)
}

// copyListeners makes listeners for the same sockets.
func copyListeners(listeners []net.Listener) ([]net.Listener, error) {
	copies := make([]net.Listener, 0, len(listeners))
	for _, l := range listeners {
		c, err := copyListener(l)
		if err != nil {
			for _, c := range copies {
				_ = c.Close()
			}
			return nil, fmt.Errorf("copying the socket %s: %w", l.Addr(), err)
		}
		copies = append(copies, c)
	}
	return copies, nil
}

func copyListener(l net.Listener) (net.Listener, error) {
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// contentStore hands large messages to the running instance of QMGR. Servers keep
// it when QMGR is started again.
type contentStore struct {
	current atomic.Pointer[msg.ContentStore]
}

func (c *contentStore) set(s msg.ContentStore) { c.current.Store(&s) }

// Create makes a content file.
func (c *contentStore) Create(ta smtp.ID) (msg.ContentWriter, error) {
	s := c.current.Load()
	if s == nil {
		return nil, msg.ErrDown
	}
	return (*s).Create(ta)
}
