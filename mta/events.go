package mta

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"time"

	"meta1/confparse"
	"meta1/mta/control"
	"meta1/mta/listen"
	"meta1/mta/logfmt"
	"meta1/mta/supervise"
)

// levelNotice is for the few events of normal operation that are always logged.
const levelNotice = logfmt.LevelNotice

// notice logs what happens to the units. It runs in the goroutine of the tree.
func (m *mta) notice(e supervise.Event) {
	ctx := context.Background()
	attrs := []slog.Attr{slog.String("unit", e.Unit), slog.String("status", string(e.State))}
	level := levelNotice
	if e.Err != nil {
		level = slog.LevelError
		attrs = append(attrs, slog.String("outcome", e.Outcome.String()), slog.Any("error", e.Err))
	}
	if e.Pause > 0 {
		attrs = append(attrs, slog.Duration("restart_in", e.Pause))
	}
	var p *supervise.PanicError
	if errors.As(e.Err, &p) {
		attrs = append(attrs, slog.String("stack", string(p.Stack)))
	}
	switch e.State {
	case supervise.Starting, supervise.Stopping:
		level = slog.LevelDebug
	case supervise.Up:
		level = slog.LevelInfo
	case supervise.Down:
		if m.stopping.Load() && e.Err == nil {
			level = slog.LevelInfo
		}
	case supervise.Failed:
		m.closeService(e.Unit)
	case supervise.Removed:
		m.forget(e.Unit)
	}
	m.log.LogAttrs(ctx, level, "module "+string(e.State), attrs...)
	switch {
	case e.State == supervise.Up && !m.ready.Load() && m.allUp():
		m.announceReady(ctx)
	case e.State == supervise.Failed && m.requires(e.Unit):
		m.beginStop()
	}
}

// closeService closes the sockets of a service that was given up, so that who
// connects learns at once that nobody is there.
func (m *mta) closeService(unit string) {
	m.mu.Lock()
	s := m.services[unit]
	m.mu.Unlock()
	if s != nil {
		m.sockets.give(s.Of.Section)
	}
}

// requires reports whether meta1 cannot go on without a unit.
func (m *mta) requires(unit string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.required[unit]
}

func (m *mta) allUp() bool {
	for _, u := range m.tree.Status() {
		if m.requires(u.Name) && u.State != supervise.Up {
			return false
		}
	}
	return true
}

// warn logs what is wrong in the configuration or in its maps and does not keep meta1
// from running.
func (m *mta) warn(list []confparse.Diagnostic) {
	for _, w := range list {
		m.log.LogAttrs(context.Background(), slog.LevelWarn, "configuration", slog.String("where", w.Pos.String()), slog.String("warning", w.Message))
	}
}

// warnPasswords logs what is wrong in the maps with passwords.
func (m *mta) warnPasswords(c *Config, result *confparse.Result) {
	errs, warnings := passwordMaps(c, result)
	m.warn(errs)
	m.warn(warnings)
	errs, warnings = loginMaps(c, result, m.tlsFiles)
	m.warn(errs)
	m.warn(warnings)
}

// warnLimits logs the options that are lower than configured.
func (m *mta) warnLimits(limits []string) {
	for _, l := range limits {
		m.log.LogAttrs(context.Background(), slog.LevelWarn, "an option is lower than configured", slog.String("limit", l))
	}
}

// announceStart logs the start, and the warnings of the configuration.
func (m *mta) announceStart() {
	ctx := context.Background()
	m.warn(m.result.Warnings)
	m.warn(mapEntries(m.conf, m.result))
	m.warnPasswords(m.conf, m.result)
	m.warnLimits(m.limits)
	for _, s := range m.conf.Services {
		if s.Of.User != "" && m.account == nil && os.Geteuid() != 0 {
			m.log.LogAttrs(ctx, slog.LevelWarn, "not started as root: the service runs under the same account as meta1",
				slog.String("service", s.Of.Section), slog.String("user", s.Of.User))
		}
	}
	m.log.LogAttrs(ctx, levelNotice, "start", slog.String("version", m.setup.Version), slog.String("hostname", m.hostname),
		slog.Int("pid", os.Getpid()), slog.Int("uid", os.Getuid()), slog.String("config", m.result.File), slog.String("directory", m.dir))
	for _, s := range m.listening() {
		m.log.LogAttrs(ctx, levelNotice, "listening", slog.String("section", s.Section), slog.String("address", s.Address))
	}
}

// announceReady tells everybody that all is up.
func (m *mta) announceReady(ctx context.Context) {
	m.ready.Store(true)
	m.log.LogAttrs(ctx, levelNotice, "ready", slog.Duration("elapsed", time.Since(m.started)))
	m.logs.flush()
	close(m.hand.isReady)
	if m.hand.link != nil { // the process before this one tells systemd, and the operator has seen its hints
		return
	}
	m.notify("READY=1")
	if m.setup.Ready != nil {
		m.setup.Ready(control.Status{
			Version: m.setup.Version, Hostname: m.hostname, PID: os.Getpid(), Started: m.started,
			Spool: m.dir, Config: m.result.File, Listen: m.listening(),
		}, m.conf)
	}
}

// beginStop begins the end. A second call does nothing.
func (m *mta) beginStop() {
	if m.stopping.Swap(true) {
		return
	}
	m.hand.stop()
	m.notify("STOPPING=1")
	m.log.LogAttrs(context.Background(), levelNotice, "stop")
	for _, s := range m.current().conf.Servers {
		listen.Close(m.sockets.of(s.Of.Section)) // the instances have copies, which they close themselves
	}
	m.endUnits()
}

func (m *mta) announceEnd(err error) {
	if err != nil {
		m.log.LogAttrs(context.Background(), levelFatal, "end", slog.Any("error", err))
		return
	}
	m.log.LogAttrs(context.Background(), levelNotice, "end", slog.Duration("elapsed", time.Since(m.started)))
}

// signals obeys signals until life ends: TERM and INT, and ended, stop in order, the
// second INT at once; HUP and USR1 read maps anew (README 4.8), USR1 also logs what the
// modules tell of themselves (README 9.4); USR2 opens the log file again (README 4.9.1).
func (m *mta) signals(life context.Context, ended <-chan struct{}) error {
	for {
		select {
		case s := <-m.setup.Signals:
			m.log.LogAttrs(life, levelNotice, "signal", slog.String("signal", s.String()))
			m.signal(life, s)
		case <-ended:
			ended = nil
			m.beginStop()
		case <-life.Done():
			return nil
		}
	}
}

func (m *mta) signal(ctx context.Context, s os.Signal) {
	switch s {
	case syscall.SIGTERM, syscall.SIGINT:
		if m.stopping.Load() && s == syscall.SIGINT {
			m.log.LogAttrs(ctx, slog.LevelWarn, "end at once")
			m.logs.flush()
			m.setup.Exit(128 + int(syscall.SIGINT))
		}
		m.beginStop()
	case syscall.SIGHUP:
		m.Reload(ctx, false)
	case syscall.SIGUSR1:
		m.Reload(ctx, false)
		m.logStatus(ctx)
	case syscall.SIGUSR2:
		if err := m.logs.reopen(); err != nil {
			m.log.LogAttrs(ctx, slog.LevelError, "log file not opened again", slog.Any("error", err))
		}
	}
}

// logStatus logs the snapshots of all modules.
func (m *mta) logStatus(ctx context.Context) {
	for _, module := range m.Status(ctx).Modules {
		attrs := []slog.Attr{slog.String("unit", module.Name), slog.String("status", module.State), slog.Int("restarts", module.Restarts)}
		for _, v := range module.Values {
			value := slog.Int64(v.Name, v.Number)
			if v.Text != "" {
				value = slog.String(v.Name, v.Text)
			}
			attrs = append(attrs, value)
		}
		m.log.LogAttrs(ctx, levelNotice, "statistics", attrs...)
	}
}
