package mta

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/server"
	"meta1/server/dkim"
)

// prepareMaps makes what the questions to SMAR will be answered with, and reads all maps: those of SMAR and the configuration map
// of QMGR, which gets its options with it.
func (p *reloading) prepareMaps() {
	var err error
	if p.roots, err = p.stsRoots(p.conf); err != nil {
		p.fail(err)
	}
	if r := p.modules.resolver; r != nil {
		next, err := r.Prepare(p.conf.Resolver, p.resolverDeps(p.conf, p.roots))
		if err != nil {
			p.failMaps(err)
		} else {
			p.later(unitResolver, next.Commit, next.Discard)
		}
	}
	if q := p.modules.queue; q != nil {
		next, err := q.Prepare(p.conf.Queue, p.conf.ClientFeatures())
		if err != nil {
			p.failMaps(err)
		} else {
			p.later(unitQueue, next.Commit, func() {})
		}
	}
}

// later is step for what is committed after SMTPC.
func (p *reloading) later(what string, commit, discard func()) {
	p.askers = append(p.askers, commit)
	p.discards = append(p.discards, discard)
	p.reloaded = append(p.reloaded, what)
}

// prepareLogs opens what is to be logged to.
func (p *reloading) prepareLogs() {
	next, commit, discard, err := p.logs.prepare(p.conf)
	if err != nil {
		p.fail(err)
		return
	}
	p.sinks = next
	p.step("", commit, discard)
}

// failMaps notes what is wrong in maps, if the mistakes of the configuration do not say it already.
func (p *reloading) failMaps(err error) {
	if fresh := untold(p.known, inMaps(nil, err)); len(fresh) > 0 {
		p.fail(fresh)
	}
}

// prepareTLS reads the files of all sections tls. A section that was not there gets a Provider of its
// own; one that has gone, or has no certificate any more, leaves its Provider to the sessions that have
// begun with it.
func (p *reloading) prepareTLS() {
	next := map[string]*tlsconf.Provider{}
	p.sources = map[string]server.TLSSource{}
	for _, s := range p.conf.TLSSections() {
		old := p.tls[s.Name]
		if old != nil && (s.Role == tlsconf.Client || old.ServerConfig() == nil || len(s.Section.Files()) > 0) {
			n, err := old.Prepare(s.Section)
			if err != nil {
				p.fail(inSection(s.Path, err))
				continue
			}
			next[s.Name] = old
			if n.Serves() {
				p.sources[s.Name] = old
			}
			what := s.Path
			if len(s.Section.Files()) == 0 {
				what = "" // it reads nothing
			}
			p.step(what, n.Commit, nil)
			continue
		}
		fresh, err := tlsconf.New(s.Section, tlsconf.Deps{Role: s.Role, Name: s.Name, Files: p.tlsFiles})
		if err != nil {
			p.fail(inSection(s.Path, err))
			continue
		}
		next[s.Name] = fresh
		if fresh.ServerConfig() != nil {
			p.sources[s.Name] = fresh
		}
		p.step(s.Path, func() {}, nil)
	}
	p.providers = next
	p.step("", func() { p.useTLS(next) }, nil)
}

// prepareClient makes what deliveries will begin with.
func (p *reloading) prepareClient() {
	if c := p.modules.client; c != nil {
		next := c.Prepare(p.conf.Client, p.clientDeps(p.conf, p.roots, func(name string) *tlsconf.Provider { return p.providers[name] }))
		p.step("", next.Commit, nil)
	}
}

// useTLS puts other Providers in effect, and has them look for renewed certificates.
func (m *mta) useTLS(next map[string]*tlsconf.Provider) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tls = next
	for _, provider := range next {
		m.watchers.keep(provider, func(ctx context.Context) error { return provider.Run(ctx, m.log) })
	}
	m.watchers.endOthers(func(what any) bool {
		provider, is := what.(*tlsconf.Provider)
		return is && next[provider.Name()] != provider
	})
}

// prepareSRS reads the secrets of section srs, if there is one.
func (p *reloading) prepareSRS() {
	c, what := p.conf.Resolver.SRS, ""
	if c.Present {
		what = srsSection
	}
	commit, err := p.srs.Prepare(c)
	if err != nil {
		p.fail(inSection(srsSection, err))
		return
	}
	p.step(what, commit, nil)
}

// prepareARC reads the keys of section ARC_sealing. One that has come, or stands in another section smtps now, gets a sealer
// of its own.
func (p *reloading) prepareARC() {
	sections := p.conf.ARCSections()
	if len(sections) == 0 {
		p.step("", func() { p.useARC(nil) }, nil)
		return
	}
	if was := p.now.conf.ARCSections(); len(was) > 0 && was[0].Name == sections[0].Name {
		n, err := p.arc.Load().Prepare(sections[0].Config)
		if err != nil {
			p.fail(inSection(sections[0].Path, err))
			return
		}
		p.step(sections[0].Path, n.Commit, nil)
		return
	}
	sealer, err := p.newSealer(sections[0])
	if err != nil {
		p.fail(inSection(sections[0].Path, err))
		return
	}
	p.step(sections[0].Path, func() { p.useARC(sealer) }, nil)
}

// prepareTraces reads what section traces names.
func (p *reloading) prepareTraces() {
	commit, err := p.tracer.Prepare(p.conf.Traces)
	if err != nil {
		p.fail(err)
		return
	}
	p.step("", commit, nil)
}

// prepareTLSReports takes the options of section tls_reports, and begins to send reports if it has come.
func (p *reloading) prepareTLSReports() {
	c := p.conf.Client.TLSReports
	if !c.Present {
		return // what was counted is still sent
	}
	p.step("", func() {
		p.tlsMade.Reconfigure(c, p.roots)
		if p.tlsReports.Swap(p.tlsMade) == nil {
			p.beside.add(p.serveTLSReports)
		}
	}, nil)
}

// prepareDMARCReports makes what counts for reports about DMARC, if the section has come. All of it, its logger and its metrics
// among it, is forgotten if the reload fails elsewhere.
func (p *reloading) prepareDMARCReports() {
	s := p.conf.ReportingServer()
	if s == nil {
		return // what was counted is still sent
	}
	c := s.Server.Authentication.Reports
	if p.dmarcMade == nil {
		log, keep, err := p.logs.prepareLogger(p.sinks, dmarcLog, &s.Of)
		if err != nil {
			p.fail(err)
			return
		}
		registry := prometheus.NewRegistry()
		p.dmarcMade = p.newDMARCReports(&c, log, registry)
		p.step("", func() {
			keep()
			p.hub.put(dmarcLog, registry)
		}, func() { p.dmarcMade = nil })
	}
	reports := p.dmarcMade
	p.step("", func() {
		reports.Reconfigure(c)
		if p.dmarcReports.Swap(reports) == nil {
			p.beside.add(p.serveDMARCReports)
		}
	}, nil)
}

// prepareDKIM reads the keys of all sections DKIM_signing.
func (p *reloading) prepareDKIM() {
	next := map[string]*dkim.Signer{}
	for _, s := range p.conf.DKIMSections() {
		if old := p.dkim[s.Name]; old != nil {
			n, err := old.Prepare(s.Config)
			if err != nil {
				p.fail(inSection(s.Path, err))
				continue
			}
			next[s.Name] = old
			p.step(s.Path, n.Commit, nil)
			continue
		}
		fresh, err := dkim.New(s.Config, dkim.Deps{Name: s.Name, Files: p.tlsFiles})
		if err != nil {
			p.fail(inSection(s.Path, err))
			continue
		}
		next[s.Name] = fresh
		p.step(s.Path, func() {}, nil)
	}
	p.signers = next
	p.step("", func() { p.useDKIM(next) }, nil)
}

// useDKIM puts other signers in effect, and has them look for renewed keys.
func (m *mta) useDKIM(next map[string]*dkim.Signer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dkim = next
	for _, signer := range next {
		m.watchers.keep(signer, func(ctx context.Context) error { return signer.Run(ctx, m.log) })
	}
	m.watchers.endOthers(func(what any) bool {
		signer, is := what.(*dkim.Signer)
		return is && !hasSigner(next, signer)
	})
}

func hasSigner(all map[string]*dkim.Signer, s *dkim.Signer) bool {
	for _, other := range all {
		if other == s {
			return true
		}
	}
	return false
}

// prepareControl reads the tokens of the control API.
func (p *reloading) prepareControl() {
	use, err := p.controlKeys(&p.conf.Control)
	if err != nil {
		p.fail(err)
		return
	}
	what := ""
	if p.conf.Control.HTTP.Present || p.conf.Control.Shared() {
		what = "control"
	}
	p.step(what, use, nil)
	p.step("", func() { profile(&p.conf.Metrics) }, nil)
}

// prepareDrop makes the directory of the maildrop, if that has changed.
func (p *reloading) prepareDrop() {
	if p.conf.Drop == p.now.conf.Drop {
		return
	}
	commit, discard, err := p.drop.Prepare(dropConfig(&p.conf.Drop, p.dir))
	if err != nil {
		p.fail(inSection("maildrop", err))
		return
	}
	p.step("", commit, discard)
}

// prepareServers makes what the sessions of all sections smtps will begin with.
func (p *reloading) prepareServers() {
	for _, s := range p.conf.Servers {
		instance := p.modules.servers[s.Of.Section]
		if instance == nil {
			continue // it is being started, and takes the configuration of then, or has come with this one
		}
		next, err := instance.Prepare(p.serverConfig(s), p.serverDeps(s, &parts{p.conf, p.sources, p.signers}), p.filtering(&s.Server))
		if err != nil {
			p.fail(inSection(s.Of.Section, err))
			continue
		}
		p.step(s.Of.Section, next.Commit, next.Discard)
	}
}

// watchers are goroutines that go on over reloads, by what they watch.
type watchers struct {
	side *supervise.Group
	ends map[any]context.CancelFunc
}

// keep starts to watch something, unless that is done already. Before there is a group it does nothing.
func (w *watchers) keep(what any, run func(context.Context) error) {
	if w.side == nil || w.ends[what] != nil {
		return
	}
	if w.ends == nil {
		w.ends = map[any]context.CancelFunc{}
	}
	ctx, end := context.WithCancel(w.side.Context())
	w.ends[what] = end
	w.side.Go(func(context.Context) error { return run(ctx) })
}

// endOthers ends the watching of what has gone.
func (w *watchers) endOthers(gone func(what any) bool) {
	for what, end := range w.ends {
		if gone(what) {
			end()
			delete(w.ends, what)
		}
	}
}
