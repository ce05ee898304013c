package settings

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meta1/confparse"
	"meta1/mta/logfmt"
	"meta1/mta/service"
)

// Common holds the options that every module section and every service section
// has (README 3.5, 3.7, 8.2).
type Common struct {
	Section string // keyword and name, as in "smtps MSA"

	Log        LogConfig
	LogLevel   int
	DebugLevel int

	Listen              []ListenSocket
	StartAction         string
	PassFDSocket        string
	User, Group         string
	RestartDependencies []string
	Path, Arguments     string
	PassID              string
	FailureMax          int // -1: the built-in limits
	ProcessesMax        int
	ProcessesMin        int
	UseID               bool
	WorkingDirectory    string
}

// LogName is the name of the section's file in log_directory (README 8.2): after its
// name, or its keyword.
func (c *Common) LogName() string { return c.baseName() + ".log" }

// OutputName is where process id of a service prints to in log_directory.
func (c *Common) OutputName(id int) string {
	if !c.UseID {
		return c.LogName()
	}
	return c.baseName() + strconv.Itoa(id) + ".log"
}

func (c *Common) baseName() string {
	keyword, name, _ := strings.Cut(c.Section, " ")
	return cmp.Or(name, keyword)
}

// LogConfig is the subsection log (README 3.5).
type LogConfig struct {
	Present         bool // the subsection stands: log by syslog
	Facility, Ident string
	Options         []string
	// Protocol and Server are how and to whom the lines are sent.
	Protocol, Server string
}

// ListenSocket is a subsection listen_socket (README 3.7, item 2).
type ListenSocket struct {
	Type        string
	Port        int
	Address     netip.Addr
	Path        string
	Umask       int
	User, Group string
	Where       string // file, line and column
}

// Options are the rows of README 3.5, 3.7 and 8.2. In a service section start_action
// and path are required; in a module section they have no effect.
func (c *Common) Options(service bool) []confparse.Option {
	t := confparse.Table{Options: append(append(c.logOptions(), c.startOptions(service)...), c.processOptions()...)}
	if service {
		return t.Declare(confparse.AtOnce, "").Options
	}
	for i := range t.Options {
		if o := &t.Options[i]; o.Name == "listen_socket" {
			make := o.New
			o.Reload, o.New = confparse.AtOnce, func(name string) *confparse.Table { return make(name).Declare(confparse.AtOnce, "") }
		}
	}
	t.Reloads(confparse.AtOnce, "", "restart_dependencies", "failure_max")
	t.Reloads(confparse.NoEffect, "", "user", "group")
	return t.Options
}

// options are those of a section log; readme is where the README has them, or own.
func (l *LogConfig) options(readme string) *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "facility", Type: confparse.Enum, Words: logfmt.Facilities(), Default: "mail", Readme: readme, Into: &l.Facility,
			Doc: "The facility of syslog(3). The default is the one that other mail programs use.",
		},
		{
			Name: "ident", Type: confparse.String, DefaultWords: "module name", Readme: readme, Into: &l.Ident,
			Doc: "The tag of the lines in syslog. The default is the name of the section.",
		},
		{
			Name: "options", Type: confparse.List, Words: logfmt.SyslogOptions(), Readme: readme, Into: &l.Options,
			Doc: "Options of openlog(3) without LOG_. perror prints to standard error as well; the others are accepted and change nothing: each line has the process id.",
		},
		{
			Name: "protocol", Type: confparse.Enum, Words: logfmt.Protocols(), Default: logfmt.ProtocolSyslog, Readme: "own", Into: &l.Protocol,
			Doc: "How lines are sent. syslog: as syslog(3) does (RFC 3164). rfc5424: RFC 5424, with the fields as structured data. journald: the native protocol of systemd's journal, with a field of the journal for each one. The names of the fields are those of log files; docs/logging.md lists them.",
		},
		{
			Name: "server", Type: confparse.String, DefaultWords: "this host's daemon", Readme: "own", Into: &l.Server,
			Doc: "Who takes the lines: \"udp:HOST:PORT\", \"tcp:HOST:PORT\" (octet counting as in RFC 6587), or the absolute path of a Unix datagram socket. The default is /dev/log, with protocol journald /run/systemd/journal/socket.",
		},
	}, Check: func(r *confparse.Report) {
		if err := logfmt.CheckServer(l.Protocol, l.Server); err != nil {
			r.Errorf("server", "%v", err)
		}
	}}
}

func (c *Common) logOptions() []confparse.Option {
	return []confparse.Option{
		{
			Name: "log", Kind: confparse.KindSection, Readme: "3.5", Sub: c.Log.options("3.5").Declare(confparse.AtOnce, ""), Present: &c.Log.Present, Reload: confparse.AtOnce,
			Doc: "If this section is there, the module logs by syslog(3) and not to the log file or standard error. Errors at the start are printed to standard error in any case.",
		},
		{
			Name: "log_level", Type: confparse.Int, Default: "9", Min: "0", Max: "99", Readme: "3.5", Into: &c.LogLevel, Reload: confparse.AtOnce,
			Doc: "How much is logged, from 0 to 15: at 0 only what ends meta1; from 1 on errors; from 3 on warnings; from 5 on notices such as start and reload; from 9 on each message; from 12 on details for debugging.",
		},
		{
			Name: "debug_level", Type: confparse.Int, Default: "0", Min: "0", Max: "99", Readme: "8.3", Effect: confparse.None, Into: &c.DebugLevel,
			Doc: "Accepted for MeTA1's sake; use log_level.",
		},
	}
}

func (c *Common) startOptions(svc bool) []confparse.Option {
	actions := []string{string(service.NoStartAccept), string(service.Accept), string(service.Pass), string(service.Wait)}
	return []confparse.Option{
		{
			Name: "start_action", Type: confparse.Enum, Words: actions, Readme: "3.7", Effect: confparse.Host, Required: svc, Into: &c.StartAction,
			Doc: "When the program is started. accept: for each connection, which is its standard input and output. nostartaccept: when the first connection waits, with the listening socket as standard input, and again when it has ended. pass: at once, and the listening socket is passed over pass_fd_socket. wait: at once, without a socket.",
		},
		{
			Name: "listen_socket", Kind: confparse.KindSection, Readme: "3.7", New: c.newListenSocket,
			Doc: "A socket to listen on; may stand several times. It is required unless start_action is wait.",
		},
		{
			Name: "pass_fd_socket", Type: confparse.Path, Readme: "3.7", Effect: confparse.Host, Into: &c.PassFDSocket,
			Doc: "Path of the Unix domain socket on which a program with start_action pass listens for its sockets. They come in one message with a single byte (SCM_RIGHTS).",
		},
		{
			Name: "user", Type: confparse.String, Readme: "3.7", Into: &c.User,
			Doc: "The account that runs the program of a service; without it the one that runs meta1. It takes meta1 to be started as root. In a module section it has no effect: all modules run under the global option user.",
		},
		{
			Name: "group", Type: confparse.String, Readme: "3.7", Into: &c.Group,
			Doc: "The group that runs the program of a service; without it the first group of user. In a module section it has no effect.",
		},
		{
			Name: "restart_dependencies", Type: confparse.List, Readme: "3.7", Into: &c.RestartDependencies,
			Doc: "Sections whose modules or programs are stopped and started, too, when this one has ended and is started again.",
		},
		{
			Name: "path", Type: confparse.Path, Readme: "3.7", Effect: confparse.Host, Required: svc, Into: &c.Path,
			Doc: "The program to execute. The word meta1 stands for meta1's own binary, wherever it is. If meta1 is started as root, the path is absolute, and no folder in it can be written by anybody but root; else a relative one is relative to the main queue directory.",
		},
		{
			Name: "arguments", Type: confparse.String, Readme: "3.7", Effect: confparse.Host, Into: &c.Arguments,
			Doc: "The arguments of the program, separated by blanks; the first must be its name. The default is the last part of path.",
		},
		{
			Name: "pass_id", Type: confparse.String, Readme: "3.7", Effect: confparse.Host, Into: &c.PassID,
			Doc: "An option of a hyphen and one character. It is put in front of the other arguments together with the number of the process, from 0.",
		},
		{
			Name: "failure_max", Type: confparse.Int, Default: "-1", Min: "-1", Max: "1000000", Readme: "3.7", Into: &c.FailureMax,
			Doc: "How many failures within a time are followed by a restart; 0 for no limit. The default, -1, stands for 5 hard failures in 10 minutes, 20 soft ones in an hour and 60 ends without an error in a minute; with start_action accept for no limit.",
		},
	}
}

func (c *Common) processOptions() []confparse.Option {
	return []confparse.Option{
		{
			Name: "processes_max", Type: confparse.Int, Default: "1", Min: "1", Max: "10000", Readme: "8.2", Effect: confparse.Host, Into: &c.ProcessesMax,
			Doc: "How many processes of a service may run at once. With start_action accept further connections wait.",
		},
		{
			Name: "processes_min", Type: confparse.Int, Default: "1", Min: "1", Max: "10000", Readme: "8.2", Effect: confparse.Host, Into: &c.ProcessesMin,
			Doc: "How many processes of a service run at least; without effect with start_action accept.",
		},
		{
			Name: "use_id_in_logfile_name", Type: confparse.Bool, Default: "false", Readme: "8.2", Effect: confparse.Host, Into: &c.UseID,
			Doc: "With log_directory what the program of a service prints goes to the log file of its section. This option gives each process a file of its own: NAME0.log, NAME1.log. It needs pass_id. Without log_directory programs print to meta1's standard error.",
		},
		{
			Name: "working_directory", Type: confparse.Dir, Readme: "8.2", Effect: confparse.Host, Into: &c.WorkingDirectory,
			Doc: "The directory in which the program of a service runs. The default is the main queue directory.",
		},
	}
}

// newListenSocket is the table of one more listen_socket.
func (c *Common) newListenSocket(string) *confparse.Table {
	s := &ListenSocket{}
	return &confparse.Table{
		Options: []confparse.Option{
			{
				Name: "type", Type: confparse.Enum, Words: []string{"inet", "inet6", "unix"}, Default: "inet", Readme: "3.7", Into: &s.Type,
				Doc: "inet for IPv4, inet6 for IPv6, unix for a Unix domain socket.",
			},
			{
				Name: "port", Type: confparse.Int, Min: "0", Max: "65535", Readme: "3.7", Into: &s.Port,
				Doc: "The port; required with inet and inet6. 0 lets the system choose.",
			},
			{
				Name: "address", Type: confparse.IP, DefaultWords: "all", Readme: "3.7", Into: &s.Address,
				Doc: "The IP address; without it all addresses of the type.",
			},
			{
				Name: "path", Type: confparse.Path, Readme: "3.7", Into: &s.Path,
				Doc: "The path of a Unix domain socket, relative to the main queue directory; required with unix.",
			},
			{
				Name: "umask", Type: confparse.Int, Default: "0117", Min: "0", Max: "0777", Readme: "3.7", Into: &s.Umask,
				Doc: "The permissions that a Unix domain socket does not have. The default allows its owner and its group.",
			},
			{
				Name: "user", Type: confparse.String, Readme: "3.7", Into: &s.User,
				Doc: "The owner of a Unix domain socket. The default is the account that runs meta1.",
			},
			{
				Name: "group", Type: confparse.String, Readme: "3.7", Into: &s.Group,
				Doc: "The group of a Unix domain socket. The default is that of the owner.",
			},
		},
		Check: s.check,
		Done:  func() { c.Listen = append(c.Listen, *s) },
	}
}

func (s *ListenSocket) check(r *confparse.Report) {
	if pos, ok := r.Origin("type"); ok {
		s.Where = place(pos)
	}
	_, port := r.Origin("port")
	_, path := r.Origin("path")
	for _, name := range []string{"port", "path"} {
		if pos, ok := r.Origin(name); ok {
			s.Where = place(pos)
		}
	}
	if s.Type == "unix" {
		s.checkUnix(r, path, port)
		return
	}
	switch {
	case !port:
		r.Errorf("", "listen_socket of type %s lacks port", s.Type)
	case path:
		r.Errorf("path", "listen_socket of type %s has no path", s.Type)
	case s.Address.IsValid() && s.Address.Is4() != (s.Type == "inet"):
		r.Errorf("address", "%s is not an address of type %s", s.Address, s.Type)
	}
}

func (s *ListenSocket) checkUnix(r *confparse.Report, path, port bool) {
	switch {
	case !path || s.Path == "":
		r.Errorf("", "listen_socket of type unix lacks path")
	case port:
		r.Errorf("port", "listen_socket of type unix has no port")
	case s.Address.IsValid():
		r.Errorf("address", "listen_socket of type unix has no address")
	}
}

// place is a position for messages about sockets.
func place(p confparse.Pos) string { return p.String() }

// checkModule checks the common options of a module section.
func (c *Common) checkModule(r *confparse.Report) {
	for _, name := range []string{"user", "group"} {
		if _, set := r.Origin(name); set {
			r.Warnf(name, "%s has no effect in a module section: all modules run under the global option %s", name, name)
		}
	}
}

// checkNoSocket warns of sockets of a module that does not listen.
func (c *Common) checkNoSocket(r *confparse.Report) {
	if len(c.Listen) > 0 {
		r.Warnf("listen_socket#1", "listen_socket has no effect in section %s", c.Section)
	}
}

// checkService checks a service section.
func (c *Common) checkService(r *confparse.Report) {
	action := service.Action(c.StartAction)
	switch {
	case action == "":
	case action == service.Wait && len(c.Listen) > 0:
		r.Errorf("start_action", "start_action wait takes no listen_socket")
	case action != service.Wait && len(c.Listen) == 0:
		r.Errorf("", "service section %s lacks listen_socket, which start_action %s needs", c.Section, action)
	case action == service.NoStartAccept && len(c.Listen) > 1:
		r.Errorf("start_action", "start_action nostartaccept takes one listen_socket, not %d", len(c.Listen))
	case action == service.Pass && c.PassFDSocket == "":
		r.Errorf("", "service section %s lacks pass_fd_socket, which start_action pass needs", c.Section)
	case action != service.Pass && c.PassFDSocket != "":
		r.Errorf("pass_fd_socket", "pass_fd_socket needs start_action pass")
	}
	if id := c.PassID; id != "" && (len(id) != 2 || id[0] != '-') {
		r.Errorf("pass_id", "pass_id %s is not a hyphen and one character", strconv.Quote(id))
	}
	if c.UseID && c.PassID == "" {
		r.Errorf("use_id_in_logfile_name", "use_id_in_logfile_name needs pass_id")
	}
	if c.ProcessesMin > c.ProcessesMax {
		r.Errorf("processes_min", "processes_min %d is more than processes_max %d", c.ProcessesMin, c.ProcessesMax)
	}
	if c.Group != "" && c.User == "" {
		r.Errorf("group", "group needs user")
	}
}

// Argv are the arguments of a service's program.
func (c *Common) Argv() []string {
	if args := strings.Fields(c.Arguments); len(args) > 0 {
		return args
	}
	return []string{c.Path[strings.LastIndexByte(c.Path, '/')+1:]}
}

// checkDependencies checks that restart_dependencies name sections that exist.
func (c *Common) checkDependencies(sections []string) error {
	for _, d := range c.RestartDependencies {
		if !slices.Contains(sections, d) {
			return fmt.Errorf("%s.restart_dependencies: there is no section %s", c.Section, strconv.Quote(d))
		}
	}
	return nil
}
