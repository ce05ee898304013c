package client

import (
	"net/netip"
	"time"

	"meta1/confparse"
)

// Config holds the options of section smtpc (README 3.11, 8.6, 11.2). The zero
// value of a field means its default, so that a Config made by hand works.
type Config struct {
	IOTimeout      time.Duration
	ConnectTimeout time.Duration
	IdleTimeout    time.Duration
	StopTimeout    time.Duration
	LMTPSocket     string // for the resolver: where "lmtp:" leads
	ConnectOnlyTo  netip.Addr
	RemotePort     int
	ThreadsMax     int
	IdleMax        int
	IdleHopMax     int

	SMTPS                   bool
	Timing                  bool
	ReadQuitReply           bool
	SeparateFinalDotAndQuit bool
	TalkToMyself            bool
	ModuleTimeout           time.Duration
	WaitForServer           time.Duration
	WaitThreadsMax          int
	WaitThreadsMin          int
	TLS                     TLS
	TLSPresent              bool
	SessionFeatures         []SessionFeature
	Proxy                   Proxy
	ProxyPresent            bool
}

// TLS holds the options of a tls section of SMTPC. Only Violation is in effect.
type TLS struct {
	CacheSize       int
	CacheTimeout    time.Duration
	CertFile        string
	KeyFile         string
	CACertFile      string
	CAListFile      string
	CACertDirectory string
	Options         []string
	CipherList      string
	CipherSuites    string
	CRLFile         string
	CRLDirectory    string
	Digest          string
	DHBits          int
	DHFile          string
	Violation       string
	VerifyDepth     int
	DSACertFile     string
	DSAKeyFile      string
	ECCertFile      string
	ECKeyFile       string
	ECCurve         []string

	AllowRelayingIfVerified   bool
	CheckAccessMapForRelaying bool
	RequestCert               bool
	UseChain                  bool
}

// SessionFeature is a named class of features of a session (README 3.11, item 5).
type SessionFeature struct {
	Name  string
	Flags []string
	TLS   TLSClass
}

// TLSClass is the tls section of a session_features section.
type TLSClass struct {
	CertFile     string
	KeyFile      string
	Flags        []string
	Options      []string
	CipherList   string
	CipherSuites string
}

// Proxy is the section proxy (README 3.11, item 7).
type Proxy struct {
	Type    string
	Port    int
	Address netip.Addr
	Path    string
	Key     string
}

// The defaults, in the syntax of the configuration file; withDefaults gives the same
// to a Config made by hand, and a test compares the two.
const (
	ioTimeoutDefault      = 10 * time.Minute
	connectTimeoutDefault = 30 * time.Second
	idleTimeoutDefault    = 5 * time.Second
	stopTimeoutDefault    = 10 * time.Second
	threadsMaxDefault     = 1000
	idleMaxDefault        = 500
	idleHopMaxDefault     = 100
	remotePortDefault     = 25
	lmtpSocketDefault     = "lmtpsock"
)

// withDefaults fills what is not set.
func (c Config) withDefaults() Config {
	orTime(&c.IOTimeout, ioTimeoutDefault)
	orTime(&c.ConnectTimeout, connectTimeoutDefault)
	orTime(&c.IdleTimeout, idleTimeoutDefault)
	orTime(&c.StopTimeout, stopTimeoutDefault)
	orInt(&c.ThreadsMax, threadsMaxDefault)
	orInt(&c.IdleMax, idleMaxDefault)
	orInt(&c.IdleHopMax, idleHopMaxDefault)
	orInt(&c.RemotePort, remotePortDefault)
	if c.LMTPSocket == "" {
		c.LMTPSocket = lmtpSocketDefault
	}
	return c
}

func orTime(p *time.Duration, d time.Duration) {
	if *p <= 0 {
		*p = d
	}
}

func orInt(p *int, d int) {
	if *p <= 0 {
		*p = d
	}
}

// clientFlags are the flags of README 8.6, item 3, which session_features can set too.
func clientFlags() []string {
	return []string{"starttls", "smtps", "timing", "read_QUIT_reply", "separate_final_dot_and_QUIT", "talk_to_myself"}
}

// Options is the option table of section smtpc, bound to c.
func (c *Config) Options() *confparse.Table {
	return &confparse.Table{Options: append(c.ownOptions(), c.readmeOptions()...), Check: c.check}
}

// check warns of what is asked for and not yet done, because mail would go out
// otherwise than its sender thinks.
func (c *Config) check(r *confparse.Report) {
	for _, o := range []struct {
		name string
		set  bool
	}{
		{"smtps", c.SMTPS},
		{"tls", c.TLSPresent},
		{"proxy", c.ProxyPresent},
	} {
		if o.set {
			r.Warnf(o.name, "%s of smtpc is not yet in effect: mail goes out directly and without TLS", o.name)
		}
	}
	for i := range c.SessionFeatures {
		if f := &c.SessionFeatures[i]; confparse.HasFlag(f.Flags, "smtps", false) {
			r.Warnf("session_features", "session_features %s demands smtps, which is not yet in effect: its mail waits in the queue", f.Name)
		}
	}
}

// ownOptions are those that the README does not have.
func (c *Config) ownOptions() []confparse.Option {
	return []confparse.Option{
		{
			Name: "connect_timeout", Type: confparse.Time, Unit: "s", Default: "30s", Min: "1s", Max: "10m",
			Readme: "own", Into: &c.ConnectTimeout,
			Doc: "How long a connection may take to open; IO_timeout bounds it too. The default is that of Postfix (smtp_connect_timeout).",
		},
		{
			Name: "idle_timeout", Type: confparse.Time, Unit: "s", Default: "5s", Min: "1s", Max: "5m",
			Readme: "own", Into: &c.IdleTimeout,
			Doc: "How long an open connection without work is kept for the next transaction before QUIT is sent. Postfix keeps one for 2 s (smtp_connection_cache_time_limit).",
		},
		{
			Name: "idle_connections_max", Type: confparse.Int, Unit: "entries", Default: "500", Min: "1", Max: "100000",
			Readme: "own", Into: &c.IdleMax,
			Doc: "How many connections without work are kept in all; the one that has waited longest is closed first.",
		},
		{
			Name: "idle_connections_per_host_max", Type: confparse.Int, Unit: "entries", Default: "100", Min: "1", Max: "100000",
			Readme: "own", Into: &c.IdleHopMax,
			Doc: "How many connections without work are kept to one host and port.",
		},
		{
			Name: "stop_timeout", Type: confparse.Time, Unit: "s", Default: "10s", Min: "1s", Max: "10m",
			Readme: "own", Into: &c.StopTimeout,
			Doc: "How long transactions that are running at the end may take to finish before their connections are closed; the mail stays in the queue.",
		},
	}
}

// readmeOptions are those of README 3.11 and 8.6.
func (c *Config) readmeOptions() []confparse.Option {
	return []confparse.Option{
		{
			Name: "IO_timeout", Type: confparse.Time, Unit: "s", Default: "10m", Min: "1s", Max: "1h",
			Readme: "3.11", Into: &c.IOTimeout,
			Doc: "The longest time that any one step of the dialogue may take. The timeouts of RFC 5321 section 4.5.3.2 hold for each step (5 minutes for the greeting, EHLO, MAIL and RCPT, 2 for DATA, 3 for each part of the content, 10 for the final dot); this option shortens those that are longer. The default changes none of them.",
		},
		{
			Name: "LMTP_socket", Type: confparse.Path, Default: lmtpSocketDefault,
			Readme: "3.11", Into: &c.LMTPSocket,
			Doc: "Unix domain socket to which recipients are delivered whose mailertable entry is lmtp: alone.",
		},
		{
			Name: "tls", Kind: confparse.KindSection, Readme: "3.11",
			Sub: c.TLS.options(), Present: &c.TLSPresent,
			Doc: "Parameters of STARTTLS; but for violation not yet in effect: connections are not encrypted, and mail that demands it is not sent.",
		},
		{
			Name: "session_features", Kind: confparse.KindSection, Named: true, Readme: "3.11",
			New: c.newSessionFeature,
			Doc: "A named class of features of sessions. The configuration map of QMGR selects it by the tag smtpc_session_conf for the address of a host, and the access map by smtpc_rcpt_conf for a recipient, which goes first.",
		},
		{
			Name: "wait_for_server", Type: confparse.Time, Unit: "s", Default: "5s", Min: "0s", Max: "1h",
			Readme: "3.11", Effect: confparse.Host, Into: &c.WaitForServer,
			Doc: "How long to wait for QMGR to become available.",
		},
		{
			Name: "proxy", Kind: confparse.KindSection, Readme: "3.11",
			Sub: c.Proxy.options(), Present: &c.ProxyPresent,
			Doc: "The proxy through which connections are made; not yet in effect: connections are made directly.",
		},
		{
			Name: "connect_only_to", Type: confparse.IP,
			Readme: "8.6", Into: &c.ConnectOnlyTo,
			Doc: "An IP address to which all mail goes that would go out by SMTP, for tests with real addresses. The resolver puts it in place of the addresses it found.",
		},
		clientFlag("smtps", &c.SMTPS, "Begin each session with a TLS handshake (implicit TLS); not yet in effect."),
		clientFlag("timing", &c.Timing, "Log how long the steps of the dialogue take, in microseconds: t_connect, t_ehlo, t_mail, t_rcpts, t_data, t_msg, t_eom. Under PIPELINING the step that waits for the replies shows the time of all."),
		clientFlag("read_QUIT_reply", &c.ReadQuitReply, "Read the reply to QUIT (for at most 5 s) instead of closing the connection at once."),
		clientFlag("separate_final_dot_and_QUIT", &c.SeparateFinalDotAndQuit, "Send QUIT only after the reply to the final dot has come. Without it, the last transaction of a session with PIPELINING has both in one packet."),
		clientFlag("talk_to_myself", &c.TalkToMyself, "Do not check whether an SMTP server greets with our own host name, which means a mail loop (5.4.6). LMTP servers are never checked."),
		{
			Name: "threads_max", Type: confparse.Int, Unit: "entries", Default: "1000", Min: "1", Max: "100000",
			Readme: "8.6", Into: &c.ThreadsMax,
			Doc: "How many deliveries run at the same time. The default lets some hosts hang while others are served; Postfix has 100 processes for each transport.",
		},
		{
			Name: "wait_threads_max", Type: confparse.Int, Unit: "entries", Default: "128", Min: "1", Max: "100000",
			Readme: "8.6", Effect: confparse.Host, Into: &c.WaitThreadsMax,
			Doc: "Maximum number of waiting threads.",
		},
		{
			Name: "wait_threads_min", Type: confparse.Int, Unit: "entries", Default: "1", Min: "0", Max: "100000",
			Readme: "8.6", Effect: confparse.Host, Into: &c.WaitThreadsMin,
			Doc: "Minimum number of waiting threads.",
		},
		{
			Name: "module_timeout", Type: confparse.Time, Unit: "s", Default: "30s", Min: "1s", Max: "1h",
			Readme: "8.6", Into: &c.ModuleTimeout,
			Doc: "Timeout for communication with QMGR; not yet in effect: SMTPC only answers QMGR, which never makes it wait.",
		},
		{
			Name: "remote_port", Type: confparse.Int, Default: "25", Min: "1", Max: "65535",
			Readme: "8.6", Into: &c.RemotePort,
			Doc: "Port to which connections are made when the mailertable names none. The resolver uses it.",
		},
	}
}

func clientFlag(name string, into *bool, doc string) confparse.Option {
	return confparse.Option{Name: name, Kind: confparse.KindFlag, Type: confparse.Bool, Readme: "8.6", Into: into, Doc: doc}
}

// newSessionFeature is the table of one more session_features section.
func (c *Config) newSessionFeature(name string) *confparse.Table {
	f := &SessionFeature{Name: name}
	return &confparse.Table{
		Options: []confparse.Option{
			{
				Name: "flags", Type: confparse.Flags, Words: clientFlags(), Readme: "3.11", Into: &f.Flags,
				Doc: "timing, read_QUIT_reply, separate_final_dot_and_QUIT and talk_to_myself replace the flags of section smtpc, also negated. SMTPC has no TLS: starttls, which can be negated for servers that break it, changes nothing, and mail for a class with smtps waits in the queue.",
			},
			{
				Name: "tls", Kind: confparse.KindSection, Readme: "3.11", Sub: f.TLS.options(),
				Doc: "Options of STARTTLS for the sessions of this class; not yet in effect.",
			},
		},
		Done: func() { c.SessionFeatures = append(c.SessionFeatures, *f) },
	}
}

// options is the table of section proxy.
func (p *Proxy) options() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "type", Type: confparse.Enum, Words: []string{"inet", "inet6", "unix"}, Default: "inet",
			Readme: "3.11", Into: &p.Type,
			Doc: "Type of the proxy's socket; not yet in effect.",
		},
		{
			Name: "port", Type: confparse.Int, Default: "1080", Min: "1", Max: "65535", Readme: "3.11", Into: &p.Port,
			Doc: "Port of the proxy (inet and inet6); the default is that of SOCKS (RFC 1928). Not yet in effect.",
		},
		{
			Name: "address", Type: confparse.IP, Readme: "3.11", Into: &p.Address,
			Doc: "IP address of the proxy (inet and inet6); not yet in effect.",
		},
		{
			Name: "path", Type: confparse.Path, Readme: "3.11", Into: &p.Path,
			Doc: "Path of the proxy's Unix socket (unix); not yet in effect.",
		},
		{
			Name: "proxy_key", Type: confparse.String, Readme: "3.11", Into: &p.Key,
			Doc: "Key shared with the proxy; not yet in effect.",
		},
	}}
}
