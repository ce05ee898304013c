package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/logfmt"
	"meta1/mta/pmult"
	"meta1/mta/supervise"
)

// pmultOptions are the options of mailfromd's pmult, and Mailutils' common ones.
type pmultOptions struct {
	file                         string
	noConfig, noSite, noUser     bool
	lint, check, help            bool
	verbose                      int
	set                          []string
	tag, url, debug              string
	syslog, stderr, keepsSignals bool
}

func pmultCommand(e *Env) *cobra.Command {
	var o pmultOptions
	c := &cobra.Command{
		Use: "pmult", Short: "Run Sendmail milters behind a policy milter socket", Args: noArgs,
		Long: `pmult is the multiplexer of mailfromd for meta1: an SMTP server asks it by the pmilter protocol
(section policy_milter), and it asks any number of filters by Sendmail's milter protocol. It
runs in the foreground until it gets TERM or INT. HUP reads the configuration again: clients,
macros and debug levels of sessions that begin later are the new ones.

The configuration is that of mailfromd's pmult, in the language of GNU Mailutils; --config-help
prints all statements. docs/mailfromd.md shows how all of this fits together. meta1 can ask
filters directly, too, without pmult: see the sections milter in docs/milters.md.

Exit status: 0 after an orderly stop, 69 if a socket cannot be bound, 73 if the pidfile cannot be
written, 77 if the rights of the account cannot be taken, 78 for a wrong configuration.`,
		Example: `  meta1 pmult -f /etc/meta1/pmult.conf --check
  meta1 pmult -f /etc/meta1/pmult.conf --stderr
  meta1 pmult --set .client=mf.read-timeout=30 --debug pmult.trace2`,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.help {
				_, err := io.WriteString(e.Stdout, pmult.Summary())
				return err
			}
			if o.syslog && o.stderr {
				return usage(errors.New("--syslog and --stderr are two logs: give one"))
			}
			o.lint = o.lint || o.check
			return runPmult(c.Context(), e, &o, c.Flags().Changed("config-file"))
		},
	}
	f := c.Flags()
	f.StringVarP(&o.file, "config-file", "f", pmult.DefaultFile, "configuration file")
	_ = c.MarkFlagFilename("config-file", "conf") // fails only for a flag that does not exist
	f.BoolVarP(&o.check, "check", "t", false, "check the configuration and end, as --config-lint")
	f.BoolVar(&o.lint, "config-lint", false, "check the configuration and end")
	f.BoolVar(&o.help, "config-help", false, "print all statements of the configuration and end")
	f.CountVar(&o.verbose, "config-verbose", "name the files that are read")
	f.BoolVar(&o.noConfig, "no-config", false, "do not read the default configuration file")
	f.BoolVar(&o.noSite, "no-site-config", false, "the same as --no-config")
	f.BoolVar(&o.noUser, "no-user-config", false, "has no effect: there is no configuration of a user")
	f.StringArrayVar(&o.set, "set", nil, "set a statement, as `PATH=VALUE`: .logging.facility=mail")
	f.StringVar(&o.tag, "log-tag", "", "identifier in syslog (statement tag of logging)")
	f.StringVar(&o.url, "url", "", "where to listen (statement listen)")
	f.StringVarP(&o.debug, "debug", "x", "", "debug levels, such as pmult.trace1 (statement debug)")
	f.BoolVar(&o.syslog, "syslog", false, "log to syslog, which is the default")
	f.BoolVarP(&o.stderr, "stderr", "s", false, "log to standard error")
	f.BoolVar(&o.keepsSignals, "no-signal-handler", false, "handle no signals")
	return c
}

// source is where the configuration comes from.
func (o *pmultOptions) source(named bool) pmult.Source {
	s := pmult.Source{File: o.file, Must: named, Set: o.set}
	if (o.noConfig || o.noSite) && !named {
		s.File = ""
	}
	for option, value := range map[string]string{".listen": o.url, ".logging.tag": o.tag, ".debug.level": o.debug} {
		if value != "" {
			s.Values = append(s.Values, [2]string{option, value})
		}
	}
	switch {
	case o.syslog:
		s.Values = append(s.Values, [2]string{".logging.syslog", "yes"})
	case o.stderr:
		s.Values = append(s.Values, [2]string{".logging.syslog", "no"})
	}
	return s
}

// load reads the configuration and prints what is to be said of it.
func (o *pmultOptions) load(e *Env, named bool) (*pmult.Loaded, error) {
	l, err := pmult.Load(o.source(named))
	if l != nil {
		for _, w := range l.Warnings {
			fmt.Fprintln(e.Stderr, w.String())
		}
		if o.verbose > 0 {
			for _, n := range l.Names {
				fmt.Fprintf(e.Stderr, "%s: read\n", plain(n))
			}
		}
	}
	var all confparse.Errors
	if err != nil && !errors.As(err, &all) {
		err = &statusError{exit.Config, err}
	}
	return l, err
}

func runPmult(ctx context.Context, e *Env, o *pmultOptions, named bool) error {
	l, err := o.load(e, named)
	if err != nil {
		return err
	}
	if o.lint {
		fmt.Fprintf(e.Stdout, "%s: ok\n", plain(o.file))
		return nil
	}
	unix.Umask(0o027) // what we make is nobody else's business
	sink, err := pmultLog(e, &l.Log)
	if err != nil {
		return &statusError{exit.Config, err}
	}
	opt := logfmt.Options{Level: l.Log.Level, Module: pmult.Program, NoTime: sink.syslog}
	log := slog.New(logfmt.NewHandler(sink.Sink, opt))
	logs := supervise.NewGroup(context.WithoutCancel(ctx))
	logs.Go(sink.run)
	group := supervise.NewGroup(ctx)
	reload := make(chan *pmult.Loaded)
	if !o.keepsSignals {
		group.Go(func(ctx context.Context) error { return pmultSignals(ctx, e, o, named, log, group.Stop, reload) })
	}
	group.Go(func(ctx context.Context) error {
		defer group.Stop()
		return pmult.Run(ctx, pmult.Options{Config: l, Version: e.Version, Log: log, Reload: reload})
	})
	err = group.Wait()
	logs.Stop()
	_ = logs.Wait()
	return pmultStatus(err)
}

// pmultSignals stops at TERM and INT, and reads the configuration again at HUP.
func pmultSignals(ctx context.Context, e *Env, o *pmultOptions, named bool, log *slog.Logger, stop func(), reload chan<- *pmult.Loaded) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case s := <-signals:
			if s != syscall.SIGHUP {
				stop()
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		l, err := o.load(e, named)
		if err != nil {
			log.LogAttrs(ctx, slog.LevelError, "configuration was not read again: the old one holds", slog.Any("error", err))
			continue
		}
		select {
		case reload <- l:
		case <-ctx.Done():
			return nil
		}
	}
}

// pmultSink is where the log goes.
type pmultSink struct {
	logfmt.Sink
	run    func(context.Context) error
	syslog bool
}

// pmultLog opens the log. Without a syslog daemon it is standard error.
func pmultLog(e *Env, c *pmult.LogConfig) (pmultSink, error) {
	stderr := logfmt.NewWriter(e.Stderr)
	there := false
	for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
		info, err := os.Stat(path)
		there = there || err == nil && info.Mode().Type() == os.ModeSocket
	}
	if !c.Syslog || !there {
		if c.Syslog {
			fmt.Fprintln(e.Stderr, "meta1: there is no syslog daemon: the log goes to standard error")
		}
		return pmultSink{stderr, stderr.Run, false}, nil
	}
	s, err := logfmt.NewSyslog(logfmt.SyslogConfig{Facility: c.Facility, Ident: c.Tag})
	if err != nil {
		return pmultSink{}, err
	}
	return pmultSink{s, s.Run, true}, nil
}

// pmultStatus gives an error its exit status.
func pmultStatus(err error) error {
	var failed *pmult.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &failed):
		return &statusError{exit.Software, err}
	}
	return &statusError{map[pmult.ErrorKind]int{
		pmult.CannotListen: exit.Unavailable, pmult.NoAccount: exit.NoPerm, pmult.NoFile: exit.CantCreate,
	}[failed.Kind], err}
}
