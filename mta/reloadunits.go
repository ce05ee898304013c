package mta

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/exit"
	"meta1/mta/supervise"
	"meta1/server"
)

// prepareUnits says which modules and services run from the commit on. What has come is made already, so that
// nothing can fail later.
func (p *reloading) prepareUnits() {
	m, c := p.mta, p.conf
	units := p.prepareServices()
	units = append(units,
		supervise.Unit{Name: unitResolver, Policy: c.ResolveOf.Policy(), RestartDependencies: c.Dependencies(&c.ResolveOf)},
		supervise.Unit{Name: unitClient, Policy: c.ClientOf.Policy(), RestartDependencies: c.Dependencies(&c.ClientOf)},
		supervise.Unit{Name: unitQueue, Policy: c.QueueOf.Policy(), RestartDependencies: c.Dependencies(&c.QueueOf)})
	for _, s := range c.Servers {
		u := supervise.Unit{Name: s.Of.Section, Policy: s.Of.Policy(), RestartDependencies: c.Dependencies(&s.Of)}
		if !hasServer(p.now.conf, s.Of.Section) {
			u.Grace = m.graceOf(s)
			run, err := p.newServer(s)
			if err != nil {
				p.fail(err)
				continue
			}
			u.New = run
		}
		units = append(units, u)
	}
	for _, s := range p.now.conf.Servers {
		if name := s.Of.Section; !hasServer(c, name) {
			p.step("", func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				delete(m.modules.servers, name)
				delete(m.required, name)
			}, nil)
		}
	}
	p.step("", func() {
		_ = m.tree.Reshape(context.Background(), units, p.renewed...) // else it has ended
		closeBound(p.gone)                                            // services that go know by now that they do
	}, nil)
}

// hasServer reports whether there is a section smtps of that path.
func hasServer(c *Config, section string) bool {
	return slices.ContainsFunc(c.Servers, func(s *ServerSection) bool { return s.Of.Section == section })
}

// newServer makes the server of a section that has come, which listens from the commit on, and what makes its instances: the
// first is that server.
func (p *reloading) newServer(s *ServerSection) (instance func() (func(context.Context) error, error), err error) {
	m, name := p.mta, s.Of.Section
	log, keep, err := m.logs.prepareLogger(p.sinks, name, &s.Of)
	if err != nil {
		return nil, inSection(name, err)
	}
	registry := prometheus.NewRegistry()
	first, err := p.firstServer(s, log, registry)
	if err != nil {
		return nil, err
	}
	p.step(name, func() {
		keep()
		m.hub.put(name, registry)
		m.made(func(now *modules) { now.servers[name] = first })
		m.mu.Lock()
		defer m.mu.Unlock()
		m.required[name] = true
	}, func() { first.Listen(nil, first.Addrs()) })
	var once sync.Once
	return func() (run func(context.Context) error, err error) {
		m.building.RLock()
		defer m.building.RUnlock()
		once.Do(func() { run = first.Run })
		if run != nil {
			return run, nil
		}
		run, err = m.newServer(name, log, m.hub.fresh(name))
		return run, exit.With(exit.Config, err)
	}, nil
}

func (p *reloading) firstServer(s *ServerSection, log *slog.Logger, metrics prometheus.Registerer) (*server.Server, error) {
	all := sockets{all: p.bound}
	return p.makeServer(s, &parts{p.conf, p.sources, p.signers}, all.of(s.Of.Section), log, metrics)
}

// forget drops what is known of a unit that has gone, unless one of its name has come since.
func (m *mta) forget(unit string) {
	for _, u := range m.tree.Status() {
		if u.Name == unit && u.State != supervise.Removed {
			return
		}
	}
	m.hub.drop(unit)
	m.statusPorts.Delete(unit)
}
