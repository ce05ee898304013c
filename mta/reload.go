package mta

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"meta1/confparse"
	"meta1/mta/control"
	"meta1/mta/limits"
	"meta1/mta/tlsconf"
	"meta1/server"
	"meta1/server/dkim"
)

// effective is a configuration in effect. It does not change: a reload puts another in its place.
type effective struct {
	conf   *Config
	result *confparse.Result
	// generation counts them since the start, which is 1; since is when it took effect.
	generation int
	since      time.Time
	// pending is what its file says otherwise and that needs a restart.
	pending []confparse.Change
	limits  []string // options that are lower than configured, for want of descriptors or memory
}

// failure is a reload that failed, with none since that was applied.
type failure struct {
	at     time.Time
	errors []string
}

// current is the configuration in effect. Before the modules run it is that of the start.
func (m *mta) current() *effective {
	if e := m.effective.Load(); e != nil {
		return e
	}
	return &effective{conf: m.conf, result: m.result, generation: 1, since: m.started, limits: m.limits}
}

// reloading is a reload while it is prepared: everything that can fail happens before the first commit.
type reloading struct {
	*mta
	ctx    context.Context
	now    *effective // in effect
	conf   *Config    // of now on
	result *confparse.Result
	// providers are those of sections tls; sources those with a certificate, and signers those of DKIM_signing.
	providers map[string]*tlsconf.Provider
	sources   map[string]server.TLSSource
	signers   map[string]*dkim.Signer
	roots     *x509.CertPool // for MTA-STS; nil: those of the system
	changed   []confparse.Change
	pending   []confparse.Change
	limits    []string
	sinks     *sinks   // for the loggers of new sections
	bound     []bound  // the sockets from the commit on
	gone      []bound  // those that nobody serves then
	renewed   []string // units that are started anew
	// commits put in effect what was prepared, in their order; none can fail. discards give it up.
	commits, discards []func()
	// askers are commits that come after that of SMTPC: who names a class of sessions must not know it before SMTPC does.
	askers   []func()
	reloaded []string
	known    confparse.Errors // of the configuration
	errs     []string         // for whoever asked
	brief    []string         // the same without the lines of the file
}

// Reload applies configuration, maps, certificates and keys as they are now, in two phases: prepare,
// which does everything that can fail and changes nothing, and commit, which cannot fail. A mistake
// anywhere leaves everything as it is. With check there is no second phase. Of two calls at once the
// later one waits; so does a module that is being started again, and then it starts with the new
// configuration. Sessions and deliveries in progress keep what they began with.
func (m *mta) Reload(ctx context.Context, check bool) control.ReloadReport {
	if m.hand.active.Load() { // the new process may have read the configuration before it was changed
		return m.refuseReload(ctx, check, "an upgrade goes on: reload when it has ended")
	}
	m.reload.Lock()
	defer m.reload.Unlock()
	if m.stopping.Load() { // what waited for an upgrade must not touch sockets and spool of the new process
		return m.refuseReload(ctx, check, "this process ends: reload the one that follows")
	}
	m.building.Lock()
	defer m.building.Unlock()
	p := &reloading{mta: m, ctx: ctx, now: m.current()}
	p.prepare()
	report := control.ReloadReport{
		Check: check, Generation: p.now.generation, Changed: nonNil(p.changed), Reloaded: nonNil(p.reloaded), NeedRestart: nonNil(p.pending),
		Errors: p.errs,
	}
	if p.result != nil {
		for _, w := range p.result.Warnings {
			report.Warnings = append(report.Warnings, w.Pos.String()+": "+w.Message)
		}
	}
	switch {
	case len(p.errs) > 0:
		report.Changed, report.Reloaded, report.NeedRestart = nonNil(p.changed[:0]), nonNil(p.reloaded[:0]), nonNil(p.pending[:0])
		p.discard()
	case check:
		report.Generation++
		p.discard()
	default:
		report.Generation++
		p.commit()
	}
	if !check {
		m.noteReload(ctx, p, report)
	}
	if !check && len(p.errs) > 0 {
		for _, t := range m.tls { // so that the metric tells of files that cannot be used, though nothing was reloaded
			t.Judge()
		}
	}
	return report
}

// refuseReload tells whoever asked, and the log, since who sent a signal gets no answer.
func (m *mta) refuseReload(ctx context.Context, check bool, why string) control.ReloadReport {
	if !check {
		m.log.LogAttrs(ctx, slog.LevelWarn, "reload refused", slog.String("reason", why))
	}
	return control.ReloadReport{Check: check, Generation: m.current().generation, Errors: []string{why}}
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// prepare does all that can fail, and goes on after an error to find the others.
func (p *reloading) prepare() {
	c, result, err := check(p.setup.File, p.tlsFiles, p.setup.Set...)
	p.fail(err)
	_ = errors.As(err, &p.known)
	if c == nil {
		return // it could not even be read
	}
	p.conf, p.result = c, result
	if err == nil {
		p.compare()
	}
	p.prepareMaps() // its mistakes are told together with those of the file
	if err != nil {
		return
	}
	p.prepareLogs()
	p.prepareTLS()
	p.prepareSRS()
	p.prepareARC()
	p.prepareDKIM()
	p.prepareTraces()
	p.prepareControl()
	p.prepareDrop()
	p.prepareSockets()
	if len(p.errs) == 0 { // they need the former
		p.prepareTLSReports()
		p.prepareDMARCReports()
		p.prepareClient()
		p.commits = append(p.commits, p.askers...)
		p.prepareServers()
		p.prepareUnits()
	}
}

// compare finds out what has changed, and takes the values in effect for what needs a restart.
func (p *reloading) compare() {
	for _, change := range confparse.Changes(p.now.result, p.result) {
		if change.Reload == confparse.Restart {
			p.pending = append(p.pending, change)
		} else {
			p.changed = append(p.changed, change)
		}
	}
	p.result.Keep(p.now.result)
	p.compareServices()
	p.conf.Queue.CDBBase = p.conf.CDBBase
	p.conf.ShareLog()
	var err error
	if p.limits, err = fitOpenFiles(p.conf, limits.OpenFiles); err != nil {
		p.fail(err)
	}
	p.limits = append(p.limits, fitMemory(p.conf, limits.Memory(os.DirFS("/"), os.Getenv("GOMEMLIMIT")))...)
}

// fail notes an error of the preparation.
func (p *reloading) fail(err error) {
	if err == nil {
		return
	}
	p.errs = append(p.errs, strings.Split(err.Error(), "\n")...)
	p.brief = append(p.brief, brief(err)...)
	if p.now.conf.Landlock && errors.Is(err, fs.ErrPermission) && !slices.Contains(p.errs, landlockNote) {
		p.errs = append(p.errs, landlockNote)
	}
}

// landlockNote is told beside "permission denied", of which the permissions in the file system show no reason then.
const landlockNote = "landlock is on: meta1 can write in the directories of its start alone, in others after a restart"

// step notes what a part of the preparation leads to: either an error, or something to commit, or to
// discard if the reload fails elsewhere. discard may be nil. what is named as reloaded, unless it is "".
func (p *reloading) step(what string, commit, discard func()) {
	p.commits = append(p.commits, commit)
	if discard != nil {
		p.discards = append(p.discards, discard)
	}
	if what != "" {
		p.reloaded = append(p.reloaded, what)
	}
}

func (p *reloading) discard() {
	for _, f := range slices.Backward(p.discards) {
		f()
	}
}

// commit puts in effect what was prepared.
func (p *reloading) commit() {
	m := p.mta
	for _, f := range p.commits {
		f()
	}
	m.effective.Store(&effective{p.conf, p.result, p.now.generation + 1, time.Now(), p.pending, p.limits})
	m.failed.Store(nil)
}

// noteReload tells of a reload in the log, in ctl status and in the metrics.
func (m *mta) noteReload(ctx context.Context, p *reloading, r control.ReloadReport) {
	if len(r.Errors) > 0 {
		m.reloads.failed.Add(1)
		m.failed.Store(&failure{time.Now(), r.Errors})
		m.log.LogAttrs(ctx, slog.LevelError, "reload failed: nothing has changed", slog.Int("generation", r.Generation), slog.String("error", strings.Join(p.brief, "; ")))
		return
	}
	m.reloads.applied.Add(1)
	m.warn(p.result.Warnings)
	m.warn(mapEntries(p.conf, p.result))
	m.warnPasswords(p.conf, p.result)
	m.warnLimits(p.limits)
	m.log.LogAttrs(ctx, levelNotice, "reload", slog.Int("generation", r.Generation), slog.Int("changed", len(r.Changed)),
		slog.Any("reloaded", r.Reloaded), slog.Any("need_restart", paths(r.NeedRestart)))
	for _, c := range r.Changed {
		m.log.LogAttrs(ctx, levelNotice, "option changed", slog.String("option", c.Option), slog.String("old", c.Old), slog.String("new", c.New),
			slog.String("where", c.Where), slog.String("effect", string(c.Reload)))
	}
	for _, c := range r.NeedRestart {
		m.log.LogAttrs(ctx, slog.LevelWarn, "changed option needs a restart", slog.String("option", c.Option), slog.String("old", c.Old), slog.String("new", c.New),
			slog.String("where", c.Where), slog.String("reason", c.Why))
	}
}

// paths are the options of changes.
func paths(list []confparse.Change) []string {
	names := make([]string, 0, len(list))
	for _, c := range list {
		names = append(names, c.Option)
	}
	return names
}

// brief are the mistakes of a configuration without the lines that they stand in.
func brief(err error) []string {
	var all confparse.Errors
	if !errors.As(err, &all) {
		return []string{err.Error()}
	}
	var list []string
	for _, d := range all {
		list = append(list, d.Pos.String()+": "+d.Message)
	}
	return list
}

// configuration is what Status tells of the configuration.
func (m *mta) configuration() control.Configuration {
	e := m.current()
	c := control.Configuration{Generation: e.generation, Since: e.since, NeedRestart: e.pending}
	if f := m.failed.Load(); f != nil {
		c.Failed, c.Errors = f.at, f.errors
	}
	return c
}

// inSection names the section of an error that has no place in the file.
func inSection(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("section %s: %w", path, err)
}
