package mta

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/logfmt"
	"meta1/mta/supervise"
)

// logs are the sinks of all modules, and the goroutines that write them.
type logs struct {
	json   bool
	stderr *logfmt.Writer
	file   *logfmt.File // nil without log_file
	syslog []*logfmt.Syslog
	levels map[string]*slog.LevelVar // by section
	group  *supervise.Group
	closed sync.Once
}

// openLogs opens the log file, if there is one. It must be called before the
// privileges are dropped; a is the account that will write, nil for ours.
func openLogs(c *Config, dir string, stderr io.Writer, a *account) (*logs, error) {
	l := &logs{
		json: c.LogFormat == "json", stderr: logfmt.NewWriter(stderr),
		levels: map[string]*slog.LevelVar{}, group: supervise.NewGroup(context.Background()),
	}
	if c.LogFile == "" {
		return l, nil
	}
	f, err := logfmt.OpenFile(below(dir, c.LogFile))
	if err != nil {
		return nil, exit(ExCantCreate, err)
	}
	if a != nil {
		if err := f.Chown(a.uid, a.gid); err != nil {
			_ = f.Close()
			return nil, exit(ExCantCreate, err)
		}
	}
	l.file = f
	return l, nil
}

// start begins to buffer. Before, each line is written at once.
func (l *logs) start() {
	l.group.Go(l.stderr.Run)
	if l.file != nil {
		l.group.Go(l.file.Run)
	}
	for _, s := range l.syslog {
		l.group.Go(s.Run)
	}
}

// stop writes what waits. It is the last thing before the end; a second call does
// nothing.
func (l *logs) stop() {
	l.closed.Do(func() {
		l.group.Stop()
		_ = l.group.Wait()
		if l.file != nil {
			_ = l.file.Close()
		}
	})
}

// flush writes what waits, before the process ends suddenly.
func (l *logs) flush() {
	l.stderr.Flush()
	if l.file != nil {
		l.file.Flush()
	}
}

// reopen opens the log file again (README 4.9.1).
func (l *logs) reopen() error {
	if l.file == nil {
		return nil
	}
	return l.file.Reopen()
}

// logger makes the logger of a section. module is the value of the field module=.
// Call it before start.
func (l *logs) logger(module string, of *Common) (*slog.Logger, error) {
	level := new(slog.LevelVar)
	level.Set(logfmt.Level(of.LogLevel))
	l.levels[of.Section] = level
	o := logfmt.Options{Level: level, Module: module, JSON: l.json}
	if !of.Log.Present {
		return slog.New(logfmt.NewHandler(l.sink(), o)), nil
	}
	ident := of.Log.Ident
	if ident == "" {
		ident = module
	}
	s, err := logfmt.NewSyslog(logfmt.SyslogConfig{
		Facility: of.Log.Facility, Ident: ident, Options: of.Log.Options, Stderr: l.stderr,
	})
	if err != nil {
		return nil, exit(ExConfig, err)
	}
	l.syslog = append(l.syslog, s)
	o.NoTime = true
	return slog.New(logfmt.NewHandler(s, o)), nil
}

// sink is where sections without a log section log.
func (l *logs) sink() logfmt.Sink {
	if l.file != nil {
		return l.file
	}
	return l.stderr
}

// setLevels takes the log levels of a new configuration.
func (l *logs) setLevels(c *Config) {
	for _, of := range c.commons() {
		if level := l.levels[of.Section]; level != nil {
			level.Set(logfmt.Level(of.LogLevel))
		}
	}
}

// Describe and Collect make logs a prometheus.Collector of the lines that were lost.
func (l *logs) Describe(c chan<- *prometheus.Desc) { c <- droppedDesc() }

// Collect counts the lines that were lost.
func (l *logs) Collect(c chan<- prometheus.Metric) {
	n := l.stderr.Dropped()
	if l.file != nil {
		n += l.file.Dropped()
	}
	for _, s := range l.syslog {
		n += s.Dropped()
	}
	c <- prometheus.MustNewConstMetric(droppedDesc(), prometheus.CounterValue, float64(n))
}

func droppedDesc() *prometheus.Desc {
	return prometheus.NewDesc("meta1_mta_log_lines_dropped_total", "Log lines that could not be written.", nil, nil)
}
