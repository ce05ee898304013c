package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"meta1/confparse"
	"meta1/confparse/manual"
	"meta1/confparse/syntax"
	"meta1/mta"
	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/handover"
	"meta1/mta/listen"
	"meta1/mta/service"
	"meta1/mta/settings"
)

// monitorName is the hidden command of the monitor process.
const monitorName = "monitor"

func serveCommand(e *Env) *cobra.Command {
	var file, hints string
	var verbose int
	var old meta1Options
	c := &cobra.Command{
		Use: "serve", Short: "Run the mail transfer agent", SuggestFor: []string{"run", "start"}, Args: noArgs,
		Long: `serve runs meta1 in the foreground until it gets TERM or INT; a second INT ends it at once.
HUP and USR1 apply configuration, maps, certificates and keys as they are now, USR2 opens the log files again.

The options -C, -c, -O, -L, -a and -T are those of MeTA1's programs; they override the
configuration file. MeTA1's -N is not needed, since one process serves all sections smtps,
and -x neither: the option log_level of a section says how much is logged.

Exit status: 0 after an orderly stop, 69 if a socket cannot be bound, 73 or 77 if the
main queue directory cannot be made or written, 74 if a store cannot be used, 78 for a
wrong configuration.`,
		RunE: func(*cobra.Command, []string) error {
			if verbose > 0 {
				return showVersion(e, verbose)
			}
			set, err := old.assignments()
			if err != nil {
				return &usageError{err}
			}
			return serve(e, file, hints, set)
		},
	}
	configFlag(c, &file, orEnv("META1_CONF", settings.DefaultFile))
	c.Flags().CountVarP(&verbose, "version", "V", "show the version and end; more of them show more, -VVVVV all options with their defaults, -VVVVVV all flags, too")
	c.Flags().StringVar(&hints, "hints", "auto", "print what to try next: always, never, or auto for a terminal and for a relative working_directory")
	old.flags(c)
	return c
}

// meta1Options are the options of MeTA1's programs (README 3.1, 3.8.1, 8.2) that make
// sense in one process.
type meta1Options struct {
	connections, initial int
	incoming             []string
	logs                 string
	access, noRelaying   bool
}

func (o *meta1Options) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVarP(&o.connections, "connections-max", "C", 0, "most connections to one IP address (connections_max of qmgr.smtpc)")
	f.IntVarP(&o.initial, "initial-connections", "c", 0, "connections to one IP address with which slow start begins (initial_connections of qmgr.smtpc)")
	f.StringArrayVarP(&o.incoming, "incoming", "O", nil, "R=n: most connections of a client within a minute, O=n: most open connections of a client (connection_rate_max and connections_max of qmgr.smtps)")
	f.StringVarP(&o.logs, "log-directory", "L", "", "a log file for each section below this directory (log_directory)")
	f.BoolVarP(&o.access, "access", "a", false, "all sections smtps ask the access map (flag access)")
	f.BoolVarP(&o.noRelaying, "lmtp-does-not-imply-relaying", "T", false, "domains that go to lmtp: are not local by that alone (flag lmtp_does_not_imply_relaying of smtps)")
}

// assignments are the options in the language of the configuration.
func (o *meta1Options) assignments() ([]confparse.Assignment, error) {
	var set []confparse.Assignment
	add := func(option, section, format string, args ...any) {
		set = append(set, confparse.Assignment{Section: section, Text: fmt.Sprintf(format, args...), Source: "option " + option})
	}
	if o.connections != 0 {
		add("-C", "qmgr/smtpc", "connections_max = %d;", o.connections)
	}
	if o.initial != 0 {
		add("-c", "qmgr/smtpc", "initial_connections = %d;", o.initial)
	}
	for _, limit := range o.incoming {
		name, value, _ := strings.Cut(limit, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		option := map[string]string{"R": "connection_rate_max", "O": "connections_max"}[name]
		if err != nil || option == "" {
			return nil, fmt.Errorf("-O takes R=n or O=n, not %q", limit)
		}
		add("-O", "qmgr/smtps", "%s = %d;", option, n)
	}
	if o.logs != "" {
		add("-L", "", "log_directory = %s;", syntax.Quoted(o.logs))
	}
	if o.access {
		add("-a", "smtps", "flags = { access };")
	}
	if o.noRelaying {
		add("-T", "smtps", "flags = { lmtp_does_not_imply_relaying };")
	}
	return set, nil
}

func orEnv(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

func serve(e *Env, file, hints string, set []confparse.Assignment) error {
	if hints != "auto" && hints != "always" && hints != "never" {
		return &usageError{fmt.Errorf("--hints is auto, always or never, not %q", hints)}
	}
	exe, err := os.Executable()
	if err != nil {
		return &statusError{exit.OSErr, fmt.Errorf("finding our own binary: %w", err)}
	}
	inherited, err := listen.Inherit(os.Getenv, os.Getpid())
	if err != nil {
		return &statusError{exit.Usage, err}
	}
	link, err := handover.Started(os.Getenv)
	if err != nil {
		return &statusError{exit.Unavailable, err}
	}
	unix.Umask(0o027)                                       // what we make is nobody else's business
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // dropped; to ignore it would make services ignore it, too
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	return mta.Run(context.Background(), mta.Setup{
		File: file, Set: set, Version: e.Version, Executable: exe, MonitorArgs: []string{monitorName},
		Stderr: e.Stderr, Signals: signals, Exit: e.Exit, Inherited: inherited,
		Successor: successor(e.Args, exe), Link: link,
		Ready: func(s control.Status, c *settings.Config) {
			if wantHints(hints, e.Stderr, c) {
				_, _ = io.WriteString(e.Stderr, hintText(e.Args[0], s))
			}
		},
	})
}

// wantHints says whether hints are printed.
func wantHints(hints string, stderr io.Writer, c *settings.Config) bool {
	switch hints {
	case "always":
		return true
	case "never":
		return false
	}
	return c.LogFormat == "text" && (isTerminal(stderr) || !strings.HasPrefix(c.WorkingDirectory, "/"))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// hintText says where meta1 listens and what to try next.
func hintText(program string, s control.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nmeta1 %s serves as %s and listens on\n", s.Version, s.Hostname)
	metrics := ""
	for _, l := range s.Listen {
		address := l.Address
		if l.Section == "metrics" {
			metrics = "http://" + address + "/metrics"
			address = metrics
		}
		fmt.Fprintf(&b, "  %-10s %s\n", l.Section, address)
	}
	option := ""
	if path, _, err := new(target).path(); err != nil || !listensOn(s, path) {
		option = " -f " + s.Config
	}
	fmt.Fprintf(&b, "\nTry in another terminal\n  printf 'Subject: hello\\n\\nIt works.\\n' | %s sendmail%s user@localhost\n  %s mailq%s\n  %s ctl status%s\n",
		program, strings.Replace(option, " -f", " -C", 1), program, option, program, option)
	if metrics != "" {
		fmt.Fprintf(&b, "  curl %s\n", metrics)
	}
	b.WriteByte('\n')
	return b.String()
}

func listensOn(s control.Status, path string) bool {
	for _, l := range s.Listen {
		if l.Address == path {
			return true
		}
	}
	return false
}

func monitorCommand() *cobra.Command {
	return &cobra.Command{
		Use: monitorName, Hidden: true, Args: noArgs, Short: "Start programs of services and read keys (used by serve)",
		RunE: func(*cobra.Command, []string) error { return service.Monitor(mta.ReadForServer) },
	}
}

func versionCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return showVersion(e, 1) },
	}
}

// writeBuild shows the modules that are built in from level 3, how they were built
// from level 4.
func writeBuild(b *strings.Builder, info *debug.BuildInfo, level int) {
	if level >= 3 {
		for _, d := range info.Deps {
			fmt.Fprintf(b, "%s %s\n", d.Path, d.Version)
		}
	}
	if level >= 4 {
		for _, s := range info.Settings {
			fmt.Fprintf(b, "build %s=%s\n", s.Key, s.Value)
		}
	}
}

// showVersion shows more with each level (README 3.1).
func showVersion(e *Env, level int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "meta1 %s\n", e.Version)
	if level >= 2 {
		fmt.Fprintf(&b, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		writeBuild(&b, info, level)
	}
	b.WriteString(manual.Verbose((&settings.Config{}).Options(), level))
	_, err := io.WriteString(e.Stdout, b.String())
	return err
}
