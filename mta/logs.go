package mta

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/account"
	"meta1/mta/logfmt"
	"meta1/mta/supervise"
	"meta1/mta/verify"
)

// logs are the sinks of all modules, and the goroutines that write them.
type logs struct {
	json bool
	// hostname is in lines of RFC 5424; "" means the host's own.
	hostname string
	stderr   *logfmt.Writer
	file     *logfmt.File            // nil without log_file
	files    map[string]*logfmt.File // by section, with log_directory
	syslog   []*logfmt.Syslog
	own      bool                      // meta1 itself logs by syslog
	levels   map[string]*slog.LevelVar // by section
	group    *supervise.Group
	closed   sync.Once
}

// ownSection is where meta1 itself logs.
const ownSection = "mta"

// openLogs opens the log files, if there are any. It must be called before the
// privileges are dropped; a is the account that will write, nil for ours.
func openLogs(c *Config, dir string, stderr io.Writer, a *account.Account) (*logs, error) {
	l := &logs{
		json: c.LogFormat == "json", hostname: c.Hostname, stderr: logfmt.NewWriter(stderr),
		levels: map[string]*slog.LevelVar{}, group: supervise.NewGroup(context.Background()),
	}
	if c.LogDirectory != "" {
		return l, exit(ExCantCreate, l.openDirectory(c, below(dir, c.LogDirectory), a))
	}
	if c.LogFile == "" {
		return l, nil
	}
	var err error
	l.file, err = openLog(below(dir, c.LogFile), a)
	return l, exit(ExCantCreate, err)
}

// openDirectory opens a log file for each section that does not log by syslog.
func (l *logs) openDirectory(c *Config, dir string, a *account.Account) (err error) {
	l.files = map[string]*logfmt.File{}
	for _, of := range append(c.commons(), &Common{Section: ownSection, Log: c.Log}) {
		if of.Log.Present {
			continue
		}
		if l.files[of.Section], err = openLog(filepath.Join(dir, of.logName()), a); err != nil {
			delete(l.files, of.Section)
			l.closeFiles()
			return err
		}
	}
	return l.makeOutputs(c, dir, a)
}

// makeOutputs makes the files that the processes of services print to, so that they
// can be opened when the privileges are dropped.
func (l *logs) makeOutputs(c *Config, dir string, a *account.Account) error {
	for _, s := range c.Services {
		for id := range s.Of.ProcessesMax {
			if !s.Of.UseID && id > 0 {
				break
			}
			f, err := openLog(filepath.Join(dir, s.Of.outputName(id)), a)
			if err != nil {
				return err
			}
			_ = f.Close()
		}
	}
	return nil
}

// openLog opens a log file for an account, nil for ours. Only in a folder that nobody
// but root may write the file is made by root and given to a.
func openLog(path string, a *account.Account) (f *logfmt.File, err error) {
	open := func() (err error) {
		f, err = logfmt.OpenFile(path)
		return err
	}
	if a == nil || verify.OnlyRoot(filepath.Dir(path)) != nil {
		err = a.Do(open)
		return f, err
	}
	if err := open(); err != nil {
		return nil, err
	}
	if err := f.Chown(a.UID, a.GID); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// all are the open log files.
func (l *logs) all() []*logfmt.File {
	list := slices.Collect(maps.Values(l.files))
	if l.file != nil {
		list = append(list, l.file)
	}
	return list
}

func (l *logs) closeFiles() {
	for _, f := range l.all() {
		_ = f.Close()
	}
}

// start begins to buffer. Before, each line is written at once.
func (l *logs) start() {
	if l.json {
		l.stderr.JSON()
		for _, f := range l.all() {
			f.JSON()
		}
	}
	l.group.Go(l.stderr.Run)
	for _, f := range l.all() {
		l.group.Go(f.Run)
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
		l.closeFiles()
	})
}

// flush writes what waits, before the process ends suddenly; it takes a second at most.
func (l *logs) flush() {
	var all sync.WaitGroup
	all.Go(l.stderr.Flush)
	for _, f := range l.all() {
		all.Go(f.Flush)
	}
	for _, s := range l.syslog {
		all.Go(s.Flush)
	}
	all.Wait()
}

// reopen opens the log files again (README 4.9.1).
func (l *logs) reopen() error {
	var errs []error
	for _, f := range l.all() {
		errs = append(errs, f.Reopen())
	}
	return errors.Join(errs...)
}

// logger makes the logger of a section. module is the value of the field module=.
// Call it before start.
func (l *logs) logger(module string, of *Common) (*slog.Logger, error) {
	level := new(slog.LevelVar)
	level.Set(logfmt.Level(of.LogLevel))
	l.levels[of.Section] = level
	o := logfmt.Options{Level: level, Module: module, JSON: l.json}
	if !of.Log.Present {
		return slog.New(logfmt.NewHandler(l.sink(of.Section), o)), nil
	}
	ident := of.Log.Ident
	if ident == "" {
		ident = module
	}
	s, err := logfmt.NewSyslog(logfmt.SyslogConfig{
		Facility: of.Log.Facility, Ident: ident, Options: of.Log.Options, Stderr: l.stderr,
		Protocol: of.Log.Protocol, Server: of.Log.Server, Hostname: l.hostname,
	})
	if err != nil {
		return nil, exit(ExConfig, err)
	}
	l.syslog = append(l.syslog, s)
	l.own = l.own || of.Section == ownSection
	o.NoTime = true
	o.JSON = l.json && of.Log.Protocol != logfmt.ProtocolRFC5424 && of.Log.Protocol != logfmt.ProtocolJournal
	return slog.New(logfmt.NewHandler(s, o)), nil
}

// sink is where sections without a log section log.
func (l *logs) sink(section string) logfmt.Sink {
	if f := l.files[section]; f != nil {
		return f
	}
	if l.file != nil {
		return l.file
	}
	return l.stderr
}

// onStderr is a logger for what standard error must have, too, if it is not where the log
// goes anyway.
func (l *logs) onStderr(module string) *slog.Logger {
	if !l.own && l.sink(ownSection) == l.stderr {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(logfmt.NewHandler(l.stderr, logfmt.Options{Level: slog.LevelError, Module: module, JSON: l.json}))
}

// setLevels takes the log levels of a new configuration.
func (l *logs) setLevels(c *Config) {
	for _, of := range append(c.commons(), &Common{Section: ownSection, LogLevel: c.QueueOf.LogLevel}) {
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
	for _, f := range l.all() {
		n += f.Dropped()
	}
	for _, s := range l.syslog {
		n += s.Dropped()
	}
	c <- prometheus.MustNewConstMetric(droppedDesc(), prometheus.CounterValue, float64(n))
}

func droppedDesc() *prometheus.Desc {
	return prometheus.NewDesc("meta1_mta_log_lines_dropped_total", "Log lines that could not be written.", nil, nil)
}
