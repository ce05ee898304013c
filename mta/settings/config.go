package settings

import (
	"net/netip"
	"slices"
	"strings"

	"meta1/client"
	"meta1/confparse"
	"meta1/mta/access"
	"meta1/mta/smtp"
	"meta1/mta/tracing"
	"meta1/queue"
	"meta1/resolver"
	"meta1/server"
)

// Config is the whole configuration of one MTA.
type Config struct {
	Hostname   string // "" means this host's own name
	CDBBase    string
	SMARSocket string
	SMTPCSock  string
	SMTPSSock  string

	WorkingDirectory string // the main queue directory, as it is written
	User, Group      string
	AllowRoot        bool
	Landlock         bool
	LogFormat        string
	LogFile          string
	LogDirectory     string
	Log              LogConfig // of meta1 itself, and of sections without one of their own
	Metrics          MetricsConfig
	Traces           tracing.Config
	Control          access.Config
	Drop             DropConfig

	Queue     queue.Config
	Resolver  resolver.Config
	Client    client.Config
	QueueOf   Common // the common options of section qmgr
	ResolveOf Common // of smar
	ClientOf  Common // of smtpc
	Servers   []*ServerSection
	Services  []*ServiceSection
}

// MetricsConfig is the section metrics: the HTTP server for metrics and health.
type MetricsConfig struct {
	Present bool
	Address netip.Addr
	Port    int
	Pprof   bool
	Where   string
}

// ServerSection is one section smtps.
type ServerSection struct {
	Name   string
	Of     Common
	Server server.Config
}

// ServiceSection is one section of a service (README 3.7).
type ServiceSection struct {
	Of Common
}

// The defaults of the own options.
const (
	DefaultDirectory = "/var/spool/meta1"
	DefaultUser      = "meta1"
)

// DefaultFile is the configuration file that is read if none is named.
const DefaultFile = "/etc/meta1/meta1.conf"

// NoFile is said to those whose configuration file is not there.
const NoFile = "name another with -f, or begin with one of examples (docs/install.md)"

// Options is the option table of the whole configuration, bound to c.
func (c *Config) Options() *confparse.Table {
	t := &confparse.Table{
		Options: append(append(c.globalOptions(), c.ownOptions()...), c.sections()...),
		Any:     c.newService,
		Check:   c.check,
	}
	return c.declare(t)
}

// declare says why what needs a restart does.
func (c *Config) declare(t *confparse.Table) *confparse.Table {
	const (
		spool   = "the queue stays where it is while meta1 runs"
		account = "the account is taken, and root's rights are given up, at the start"
	)
	t.Reloads(confparse.Restart, "every module has the name in what it has said and stored", "hostname")
	t.Reloads(confparse.Restart, spool, "CDB_base_directory", "working_directory")
	t.Reloads(confparse.Restart, account, "user", "group", "allow_root")
	t.Reloads(confparse.Restart, "what the process may do cannot be widened any more", "landlock")
	t.Reloads(confparse.AtOnce, "", "log_format", "log_directory", "log_file", "log")
	t.Reloads(confparse.AtOnce, "", "smtps")
	t.Reloads(confparse.AtOnce, "", "maildrop", "control", "qmgr", "smar", "smtpc") // their options have classes of their own
	return t.Declare(confparse.Restart, "it is read at the start")
}

// globalOptions are those of README 3.4.
func (c *Config) globalOptions() []confparse.Option {
	socket := func(name, value string, into *string) confparse.Option {
		return confparse.Option{
			Name: name, Type: confparse.Path, Default: value, Readme: "3.4", Effect: confparse.Host, Into: into,
			Doc: "A socket between MeTA1's processes.",
		}
	}
	return []confparse.Option{
		{
			Name: "hostname", Type: confparse.String, DefaultWords: "host's own FQDN", Readme: "3.4", Into: &c.Hostname,
			Doc: "The name of this host in the greeting, in EHLO and in Received: fields. The default is the host's own fully qualified name.",
		},
		{
			Name: "CDB_base_directory", Type: confparse.Dir, Default: `""`, Readme: "3.4", Into: &c.CDBBase,
			Doc: "The directory that holds the content database; the default is the main queue directory.",
		},
		socket("SMAR_socket", "qmsmar/smarsock", &c.SMARSocket),
		socket("SMTPC_socket", "qmsmtpc/smtpcsock", &c.SMTPCSock),
		socket("SMTPS_socket", "qmsmtps/smtpssock", &c.SMTPSSock),
	}
}

// ownOptions are those that MeTA1 gives on the command line, or does not have.
func (c *Config) ownOptions() []confparse.Option {
	return []confparse.Option{
		{
			Name: "working_directory", Type: confparse.Dir, Default: DefaultDirectory, Readme: "own", Into: &c.WorkingDirectory,
			Doc: "The main queue directory, to which all other paths but those of maps and certificates are relative. A relative one is relative to the directory in which meta1 is started. It is made if it does not exist.",
		},
		{
			Name: "user", Type: confparse.String, Readme: "own", Into: &c.User,
			Doc: "The account under which meta1 runs if it is started as root. The default is meta1. Not started as root, meta1 runs as it is.",
		},
		{
			Name: "group", Type: confparse.String, Readme: "own", Into: &c.Group,
			Doc: "The group under which meta1 runs if it is started as root. The default is the first group of user.",
		},
		{
			Name: "allow_root", Type: confparse.Bool, Default: "false", Readme: "own", Into: &c.AllowRoot,
			Doc: "Serve as root if started as root and user is not set. For tests only.",
		},
		{
			Name: "landlock", Type: confparse.Bool, Default: "false", Readme: "own", Into: &c.Landlock,
			Doc: "Linux only: the server may execute nothing, and write nothing but the main queue directory, the directories of the databases and of the log file, and those of its Unix sockets, whatever the account may. Programs of services are started by a process of their own, which is not restricted. The start fails if the kernel has no Landlock (5.19 and later).",
		},
		{
			Name: "log_format", Type: confparse.Enum, Words: []string{"text", "json"}, Default: "text", Readme: "own", Into: &c.LogFormat,
			Doc: "text prints lines as MeTA1 logs them, json one JSON object a line with the same names.",
		},
		{
			Name: "log_directory", Type: confparse.Dir, Readme: "own", Into: &c.LogDirectory,
			Doc: "If it is set, each module section and service section without a log section logs to a file of its own in this directory, which must exist: NAME.log after the name of the section, or its keyword if it has none; meta1 itself to mta.log. USR2 opens the files again. It takes precedence over log_file.",
		},
		{
			Name: "log_file", Type: confparse.Path, Readme: "own", Into: &c.LogFile,
			Doc: "The file to which modules without a log section log, relative to the main queue directory. The default is standard error. The signal USR2 opens it again. A symbolic link and a file with a second name (hard link) are refused.",
		},
		{
			Name: "log", Kind: confparse.KindSection, Readme: "own", Sub: c.Log.options("own").Declare(confparse.AtOnce, ""), Present: &c.Log.Present,
			Doc: "If this section is there, meta1 itself and all modules and services without a log section of their own log by syslog(3), and not to a log file or standard error. Errors at the start are printed to standard error in any case.",
		},
		{
			Name: "metrics", Kind: confparse.KindSection, Readme: "own", Sub: c.Metrics.options().Declare(confparse.AtOnce, ""), Present: &c.Metrics.Present, Reload: confparse.AtOnce,
			Doc: "If this section is there, metrics (/metrics) and health (/healthz, /readyz) are served by HTTP.",
		},
		{
			Name: "maildrop", Kind: confparse.KindSection, Readme: "own", Sub: c.Drop.options(),
			Doc: "Where meta1 sendmail leaves mail while meta1 does not run or takes none for now. docs/sendmail.md explains it.",
		},
		{
			Name: "traces", Kind: confparse.KindSection, Readme: "own", Sub: c.Traces.Options().Declare(confparse.AtOnce, ""), Present: &c.Traces.Present, Reload: confparse.AtOnce,
			Doc: "If this section is there, an OpenTelemetry collector is told what became of messages and how long each stage took (OTLP/HTTP). docs/monitoring.md explains it.",
		},
		{
			Name: "control", Kind: confparse.KindSection, Readme: "own", Sub: c.Control.Options(),
			Doc: "Who may use the control socket, and the same API over TCP. docs/control.md explains it.",
		},
	}
}

func (m *MetricsConfig) options() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "address", Type: confparse.IP, Default: "127.0.0.1", Readme: "own", Into: &m.Address,
			Doc: "The address to listen on. There is no access control: do not let strangers reach it.",
		},
		{
			Name: "port", Type: confparse.Int, Default: "9025", Min: "0", Max: "65535", Readme: "own", Into: &m.Port,
			Doc: "The port to listen on; 0 lets the system choose.",
		},
		{
			Name: "pprof", Type: confparse.Bool, Default: "false", Readme: "own", Into: &m.Pprof,
			Doc: "Serve Go's profiles (CPU, memory, blocking) at /debug/pprof/, too. Profiles cost time.",
		},
	}, Check: func(r *confparse.Report) {
		for _, name := range []string{"address", "port"} {
			if pos, ok := r.Origin(name); ok {
				m.Where = place(pos)
			}
		}
	}}
}

// sections are those of the modules.
func (c *Config) sections() []confparse.Option {
	module := func(name string, of *Common, options *confparse.Table, doc string) confparse.Option {
		of.Section = name
		common := &confparse.Table{Options: of.Options(false), Check: func(r *confparse.Report) {
			of.checkModule(r)
			of.checkNoSocket(r)
		}}
		merged := confparse.Merge(options, common).Declare(confparse.Restart, "the module takes it when it is started")
		return confparse.Option{Name: name, Kind: confparse.KindSection, Readme: "3.3", Doc: doc, Sub: merged}
	}
	return []confparse.Option{
		module("qmgr", &c.QueueOf, c.Queue.Options(), "QMGR: the queue."),
		module("smar", &c.ResolveOf, c.Resolver.Options(), "SMAR: maps, DNS and routing."),
		module("smtpc", &c.ClientOf, c.Client.Options(), "SMTPC: the SMTP and LMTP client."),
		{
			Name: "smtps", Kind: confparse.KindSection, Readme: "3.3", New: c.newServer,
			Doc: "SMTPS: an SMTP server. It may stand several times, with different names and ids.",
		},
	}
}

// newServer is the table of one more section smtps.
func (c *Config) newServer(name string) *confparse.Table {
	s := &ServerSection{Name: name, Of: Common{Section: strings.TrimSpace("smtps " + name)}}
	common := &confparse.Table{Options: s.Of.Options(false), Check: func(r *confparse.Report) {
		s.Of.checkModule(r)
		c.checkServer(r, s)
	}}
	t := confparse.Merge(s.Server.Options(), common)
	done := t.Done
	t.Done = func() {
		if done != nil {
			done()
		}
		c.Servers = append(c.Servers, s)
	}
	return t
}

// checkServer checks what distinguishes one server from the others.
func (c *Config) checkServer(r *confparse.Report, s *ServerSection) {
	for _, other := range c.Servers {
		if other.Name == s.Name {
			r.Errorf("", "section %s stands twice; give each a name of its own", s.Of.Section)
		}
		if other.Server.Host.CDBGid != s.Server.Host.CDBGid {
			r.Errorf("CDB_gid", "CDB_gid differs from that of section %s; all servers write to the same content database", other.Of.Section)
		}
		a, b := &other.Server.Authentication.Reports, &s.Server.Authentication.Reports
		if a.Present && b.Present && *a != *b {
			r.Errorf("authentication/dmarc_reports", "dmarc_reports differs from that of section %s; there is one report for all servers", other.Of.Section)
		}
		if other.Server.ID == s.Server.ID {
			r.Errorf("id", "section %s and section %s have the same id %d; it tells their transactions apart", other.Of.Section, s.Of.Section, s.Server.ID)
		}
	}
	if len(s.Of.Listen) == 0 && len(s.Server.DaemonAddress) == 0 { // whatever start_action is: it is for MeTA1's many processes
		r.Errorf("", "section %s lacks listen_socket", s.Of.Section)
	}
	for _, a := range s.Server.DaemonAddress {
		if _, err := DaemonSocket(a); err != nil {
			r.Errorf("daemon_address", "%v", err)
		}
	}
}

// newService is the table of one more service section.
func (c *Config) newService(keyword, name string) *confparse.Table {
	s := &ServiceSection{Of: Common{Section: strings.TrimSpace(keyword + " " + name)}}
	return &confparse.Table{
		Options: s.Of.Options(true),
		Check:   s.Of.checkService,
		Done:    func() { c.Services = append(c.Services, s) },
	}
}

// check makes the cross-checks between sections.
func (c *Config) check(r *confparse.Report) {
	if c.Hostname != "" {
		if err := smtp.CheckDomain(strings.TrimSuffix(c.Hostname, ".")); err != nil {
			r.Errorf("hostname", "%q is not a domain name: %v", c.Hostname, err)
		}
	}
	if c.Group != "" && c.User == "" {
		r.Errorf("group", "group needs user")
	}
	if len(c.Servers) == 0 {
		r.Warnf("", "there is no section smtps: nothing takes mail")
	}
	c.checkLogNames(r)
	c.checkSizes(r)
	c.checkAccess(r)
	c.checkAuth(r)
	names := c.sectionNames()
	for _, of := range c.Commons() {
		if err := of.checkDependencies(names); err != nil {
			r.Errorf(of.Section+"/restart_dependencies", "%v", err)
		}
	}
}

// checkLogNames sees that each section has a log file of its own.
func (c *Config) checkLogNames(r *confparse.Report) {
	if c.LogDirectory == "" {
		return
	}
	seen := map[string]string{"mta.log": "meta1 itself"}
	for _, of := range c.Commons() {
		name := of.LogName()
		switch {
		case strings.ContainsAny(name, "/\x00") || name[0] == '.':
			r.Errorf(of.Section, "the name of section %s cannot be that of a log file", of.Section)
		case seen[name] != "":
			r.Errorf(of.Section, "section %s and %s would log to the same file %s: give it another name", of.Section, seen[name], name)
		default:
			seen[name] = "section " + of.Section
		}
	}
}

// checkAccess warns of servers that ask for an access map or for greylisting that smar
// does not have.
func (c *Config) checkAccess(r *confparse.Report) {
	access := c.Resolver.Access.Present || c.Resolver.Access.Name != ""
	for _, s := range c.Servers {
		f := s.Server.Flags
		for _, flag := range []struct {
			name  string
			idle  bool
			lacks string
		}{
			{"access", f.Access && !access, "access_map"},
			{"greylisting", f.Greylisting && !c.Resolver.Greylist.Present, "greylisting"},
			{"fullgreylisting", f.FullGreylisting && !c.Resolver.Greylist.Present, "greylisting"},
			{"rcpt_conf", f.RcptConf && access && !c.Resolver.Greylist.Present, "greylisting"},
		} {
			if flag.idle {
				r.Warnf(s.Of.Section+"/"+flag.name, "the flag %s of section %s has no effect without a section %s in smar", flag.name, s.Of.Section, flag.lacks)
			}
		}
	}
}

// checkSizes checks that one transaction fits into the tables of QMGR (README 3.8,
// items 1 and 8).
func (c *Config) checkSizes(r *confparse.Report) {
	for _, s := range c.Servers {
		n := s.Server.Limits.RecipientsTransaction
		for _, table := range []struct {
			name string
			size int
		}{{"AQ_entries_max", c.Queue.AQEntriesMax}, {"IQDB/cache_entries_max", c.Queue.IQDB.CacheEntries}} {
			if table.size > n {
				continue
			}
			at := "qmgr/" + table.name
			if _, set := r.Origin(at); !set {
				at = s.Of.Section + "/recipients_per_transaction_max"
			}
			name := table.name[strings.IndexByte(table.name, '/')+1:]
			r.Errorf(at, "%s (%d) must be larger than recipients_per_transaction_max (%d) of section %s", name, table.size, n, s.Of.Section)
		}
	}
}

// Commons are the common options of all sections.
func (c *Config) Commons() []*Common {
	all := []*Common{&c.ResolveOf, &c.ClientOf, &c.QueueOf}
	for _, s := range c.Servers {
		all = append(all, &s.Of)
	}
	for _, s := range c.Services {
		all = append(all, &s.Of)
	}
	return all
}

// sectionNames are the names that restart_dependencies may hold. "smtps" stands for
// all sections smtps.
func (c *Config) sectionNames() []string {
	names := []string{"smtps"}
	for _, of := range c.Commons() {
		names = append(names, of.Section)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Load reads a configuration. The result is never nil. The error is a
// confparse.Errors with every mistake, and then the configuration is nil.
func Load(file string, o confparse.LoadOptions) (*Config, *confparse.Result, error) {
	c := &Config{}
	o.Missing = NoFile
	result, err := confparse.Load(o, file, c.Options())
	if err != nil {
		return nil, result, err
	}
	c.Queue.CDBBase = c.CDBBase
	return c, result, nil
}
