package mta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/account"
	"meta1/mta/exit"
	"meta1/mta/logfmt"
	"meta1/mta/settings"
	"meta1/mta/supervise"
	"meta1/mta/verify"
)

// logs are the loggers of all modules and services, and the goroutines that write what they log.
type logs struct {
	stderr  *logfmt.Writer
	dir     string           // the main queue directory
	account *account.Account // that writes; nil for ours
	group   *supervise.Group
	closed  sync.Once

	mu      sync.Mutex // guards the following
	now     *sinks
	outlets []*outlet
	running bool           // lines wait for each other
	ends    map[any]func() // end what start has begun, by sink
	gone    uint64         // lines lost by sinks that have gone
}

// outlet is one logger.
type outlet struct {
	module, section string
	level           *slog.LevelVar
	to              *logfmt.Switch
}

// sinks are where a configuration logs. Once made they do not change, except that syslog grows at the start.
type sinks struct {
	json bool
	// hostname is in lines of RFC 5424; "" means the host's own.
	hostname string
	file     *logfmt.File              // nil without log_file
	files    map[string]*logfmt.File   // by section, with log_directory
	syslog   map[string]*logfmt.Syslog // by configuration
	own      bool                      // meta1 itself logs by syslog
	former   map[string]*logfmt.Syslog // those of the configuration before, while this one is prepared
}

// openLogs opens the log files, if there are any. It must be called before the
// privileges are dropped; a is the account that will write, nil for ours.
func openLogs(c *Config, dir string, stderr io.Writer, a *account.Account) (*logs, error) {
	l := &logs{
		stderr: logfmt.NewWriter(stderr), dir: dir, account: a, group: supervise.NewGroup(context.Background()), ends: map[any]func(){},
	}
	now, _, err := l.open(c, &sinks{})
	if err != nil {
		return l, exit.With(exit.CantCreate, err)
	}
	l.now = now
	return l, nil
}

// open opens the log files of a configuration. Those that were has open already are taken from there. undo
// closes the others, and removes those that it has made. After an error that is done.
func (l *logs) open(c *Config, was *sinks) (next *sinks, undo func(), err error) {
	next = &sinks{json: c.LogFormat == "json", hostname: c.Hostname, files: map[string]*logfmt.File{}, syslog: map[string]*logfmt.Syslog{}, own: c.Log.Present, former: was.syslog}
	known := map[string]*logfmt.File{}
	for _, f := range was.all() {
		known[f.Path()] = f
	}
	var undos []func()
	undo = func() {
		for _, f := range slices.Backward(undos) {
			f()
		}
	}
	open := func(path string) (*logfmt.File, error) {
		if f := known[path]; f != nil {
			return f, nil
		}
		_, missing := os.Lstat(path)
		f, err := openLog(path, l.account)
		if err != nil {
			return nil, err
		}
		known[path] = f
		undos = append(undos, func() {
			_ = f.Close()
			if errors.Is(missing, fs.ErrNotExist) {
				_ = l.account.Do(func() error { return os.Remove(path) }) // nobody has written there
			}
		})
		return f, nil
	}
	switch {
	case c.LogDirectory != "":
		err = l.openDirectory(c, next, open)
	case c.LogFile != "":
		next.file, err = open(settings.Below(l.dir, c.LogFile))
	}
	if err != nil {
		undo()
		return nil, nil, err
	}
	return next, undo, nil
}

// openDirectory opens a log file for each section that does not log by syslog, and makes those that the processes of
// services print to, so that they can be opened when the privileges are dropped.
func (l *logs) openDirectory(c *Config, next *sinks, open func(path string) (*logfmt.File, error)) (err error) {
	dir := settings.Below(l.dir, c.LogDirectory)
	for _, of := range append(c.Commons(), c.OwnLog()) {
		if of.Log.Present {
			continue
		}
		if next.files[of.Section], err = open(filepath.Join(dir, of.LogName())); err != nil {
			delete(next.files, of.Section)
			return err
		}
	}
	for _, s := range c.Services {
		for id := range s.Of.ProcessesMax {
			if !s.Of.UseID && id > 0 {
				break
			}
			f, err := openLog(filepath.Join(dir, s.Of.OutputName(id)), l.account)
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
func (s *sinks) all() []*logfmt.File {
	list := slices.Collect(maps.Values(s.files))
	if s.file != nil {
		list = append(list, s.file)
	}
	return list
}

// runner is a sink with its goroutine.
type runner interface {
	Run(ctx context.Context) error
	Flush()
	Dropped() uint64
}

// runners are all of them but standard error.
func (s *sinks) runners() (list []runner) {
	for _, f := range s.all() {
		list = append(list, f)
	}
	for _, s := range s.syslog {
		list = append(list, s)
	}
	return list
}

// current is where it is logged now.
func (l *logs) current() *sinks {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// start begins to buffer. Before, each line is written at once.
func (l *logs) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = true
	l.group.Go(l.stderr.Run)
	l.runLocked(l.now)
}

// runLocked starts the goroutines of sinks that have none.
func (l *logs) runLocked(now *sinks) {
	l.stderr.JSON(now.json)
	for _, f := range now.all() {
		f.JSON(now.json)
	}
	for _, s := range now.runners() {
		if l.ends[s] == nil && l.running {
			ctx, end := context.WithCancel(l.group.Context())
			l.ends[s] = end
			l.group.Go(func(context.Context) error {
				err := s.Run(ctx)
				if f, is := s.(*logfmt.File); is && l.group.Context().Err() == nil { // else stop does it
					_ = f.Close()
				}
				return err
			})
		}
	}
}

// stop writes what waits. It is the last thing before the end; a second call does
// nothing.
func (l *logs) stop() {
	l.closed.Do(func() {
		l.group.Stop()
		_ = l.group.Wait()
		if now := l.current(); now != nil {
			for _, f := range now.all() {
				_ = f.Close()
			}
		}
	})
}

// flush writes what waits, before the process ends suddenly; it takes a second at most.
func (l *logs) flush() {
	var all sync.WaitGroup
	all.Go(l.stderr.Flush)
	if now := l.current(); now != nil {
		for _, s := range now.runners() {
			all.Go(s.Flush)
		}
	}
	all.Wait()
}

// reopen opens the log files again (README 4.9.1).
func (l *logs) reopen() error {
	var errs []error
	for _, f := range l.current().all() {
		errs = append(errs, f.Reopen())
	}
	return errors.Join(errs...)
}

// logger makes the logger of a section. module is the value of the field module=.
// Call it before start.
func (l *logs) logger(module string, of *Common) (*slog.Logger, error) {
	log, keep, err := l.prepareLogger(l.current(), module, of)
	if err != nil {
		return nil, exit.With(exit.Config, err)
	}
	keep()
	return log, nil
}

// prepareLogger is logger for sinks that may not be in effect yet. From keep on it follows those that are.
func (l *logs) prepareLogger(s *sinks, module string, of *Common) (log *slog.Logger, keep func(), err error) {
	o := &outlet{module: module, section: of.Section, level: new(slog.LevelVar)}
	o.level.Set(logfmt.Level(of.LogLevel))
	h, err := l.handler(s, o, &of.Log)
	if err != nil {
		return nil, nil, err
	}
	o.to = logfmt.NewSwitch(h)
	return slog.New(o.to), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.outlets = append(l.outlets, o)
		l.runLocked(s)
	}, nil
}

// handler prints for an outlet where a configuration says. It adds to the sinks what they lack.
func (l *logs) handler(s *sinks, out *outlet, c *settings.LogConfig) (slog.Handler, error) {
	o := logfmt.Options{Level: out.level, Module: out.module, JSON: s.json}
	if !c.Present {
		return logfmt.NewHandler(l.sink(s, out.section), o), nil
	}
	conf := logfmt.SyslogConfig{
		Facility: c.Facility, Ident: cmp.Or(c.Ident, out.module), Options: c.Options, Protocol: c.Protocol, Server: c.Server, Hostname: s.hostname,
	}
	key := fmt.Sprintf("%+v", conf)
	to := s.syslog[key]
	if to == nil {
		to = s.former[key]
	}
	if to == nil {
		conf.Stderr = l.stderr
		var err error
		if to, err = logfmt.NewSyslog(conf); err != nil {
			return nil, err
		}
	}
	s.syslog[key] = to
	o.NoTime = true
	o.JSON = s.json && c.Protocol != logfmt.ProtocolRFC5424 && c.Protocol != logfmt.ProtocolJournal
	return logfmt.NewHandler(to, o), nil
}

// sink is where sections without a log section log.
func (l *logs) sink(s *sinks, section string) logfmt.Sink {
	if s != nil {
		if f := s.files[section]; f != nil {
			return f
		}
		if s.file != nil {
			return s.file
		}
	}
	return l.stderr
}

// onStderr is a logger for what standard error must have, too, if it is not where the log
// goes anyway.
func (l *logs) onStderr(module string) *slog.Logger {
	now := l.current()
	if now == nil || !now.own && l.sink(now, settings.OwnSection) == l.stderr {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(logfmt.NewHandler(l.stderr, logfmt.Options{Level: slog.LevelError, Module: module, JSON: now.json}))
}

// prepare opens what a new configuration logs to. commit has all lines go there that are logged from then on, discard closes
// it again. next is for loggers that are made in between.
func (l *logs) prepare(c *Config) (next *sinks, commit, discard func(), err error) {
	was := l.current()
	next, discard, err = l.open(c, was)
	if err != nil {
		return nil, nil, nil, err
	}
	sections := map[string]*Common{settings.OwnSection: c.OwnLog()}
	for _, of := range c.Commons() {
		sections[of.Section] = of
	}
	var moves []func()
	used := map[any]bool{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.outlets {
		of := sections[o.section]
		if of == nil { // it goes, and logs its end by where meta1 itself does
			of = &Common{Section: settings.OwnSection, LogLevel: c.QueueOf.LogLevel, Log: c.Log}
		}
		h, err := l.handler(next, &outlet{o.module, of.Section, o.level, nil}, &of.Log)
		if err != nil {
			discard()
			return nil, nil, nil, err
		}
		level := logfmt.Level(of.LogLevel)
		moves = append(moves, func() {
			o.level.Set(level)
			o.to.Set(h)
		})
	}
	return next, func() {
		for _, move := range moves {
			move()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now, next.former = next, nil
		l.runLocked(next)
		for _, s := range next.runners() {
			used[s] = true
		}
		for _, s := range was.runners() {
			if end := l.ends[s]; end != nil && !used[s] { // what it has taken is written yet
				end()
				delete(l.ends, s)
				l.gone += s.Dropped()
			}
		}
	}, discard, nil
}

// Describe and Collect make logs a prometheus.Collector of the lines that were lost.
func (l *logs) Describe(c chan<- *prometheus.Desc) { c <- droppedDesc() }

// Collect counts the lines that were lost.
func (l *logs) Collect(c chan<- prometheus.Metric) {
	l.mu.Lock()
	n := l.stderr.Dropped() + l.gone
	for _, s := range l.now.runners() {
		n += s.Dropped()
	}
	l.mu.Unlock()
	c <- prometheus.MustNewConstMetric(droppedDesc(), prometheus.CounterValue, float64(n))
}

func droppedDesc() *prometheus.Desc {
	return prometheus.NewDesc("meta1_mta_log_lines_dropped_total", "Log lines that could not be written.", nil, nil)
}
