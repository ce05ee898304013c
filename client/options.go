package client

import (
	"cmp"
	"net/netip"
	"time"

	"meta1/client/auth"
	"meta1/client/socks"
	"meta1/client/tlsrpt"
	"meta1/confparse"
	"meta1/mta/tlsconf"
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
	Chunking                string // "" is auto
	Without8BITMIME         string // "" is send
	ModuleTimeout           time.Duration
	WaitForServer           time.Duration
	WaitThreadsMax          int
	WaitThreadsMin          int
	TLS                     tlsconf.Section
	TLSPresent              bool
	Auth                    auth.Config
	AuthPresent             bool
	SessionFeatures         []SessionFeature
	Proxy                   socks.Config
	ProxyPresent            bool
	TLSReports              tlsrpt.Config
}

// SessionFeature is a named class of features of a session (README 3.11, item 5).
type SessionFeature struct {
	Name  string
	Flags []string
	TLS   tlsconf.Class
	// Auth is in place of section auth of smtpc if AuthPresent.
	Auth        auth.Config
	AuthPresent bool
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
	c.Chunking = cmp.Or(c.Chunking, chunkingAuto)
	c.Without8BITMIME = cmp.Or(c.Without8BITMIME, eightBitSend)
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

// The words of the option chunking.
const (
	chunkingAuto  = "auto"
	chunkingNever = "never"
)

// clientFlags are the flags of README 8.6, item 3, which session_features can set too.
func clientFlags() []string {
	return []string{"starttls", "smtps", "timing", "read_QUIT_reply", "separate_final_dot_and_QUIT", "talk_to_myself", "chunking", "auth"}
}

// Options is the option table of section smtpc, bound to c.
func (c *Config) Options() *confparse.Table {
	t := &confparse.Table{Options: append(c.ownOptions(), c.readmeOptions()...), Check: c.check}
	t.Reloads(confparse.AtOnce, "", "tls", "threads_max", "stop_timeout", "idle_timeout", "idle_connections_max", "idle_connections_per_host_max")
	return t.Declare(confparse.NewSessions, "")
}

// check warns of what would not do what it is meant to.
func (c *Config) check(r *confparse.Report) {
	if c.SMTPS && c.RemotePort == remotePortDefault {
		r.Warnf("smtps", "flag smtps: servers at port 25 do not expect a TLS handshake at the beginning; remote_port or the mailertable should name another, such as 465")
	}
	for i := range c.SessionFeatures {
		f := &c.SessionFeatures[i]
		if !f.TLS.IsZero() && !confparse.HasFlag(f.Flags, "starttls", true) && !confparse.HasFlag(f.Flags, "smtps", c.SMTPS) {
			r.Warnf("session_features", "session_features %s: its section tls has no effect, since its flags turn STARTTLS off", f.Name)
		}
		if f.AuthPresent && !confparse.HasFlag(f.Flags, "auth", true) {
			r.Warnf("session_features", "session_features %s: its section auth has no effect, since its flags turn it off", f.Name)
		}
		if cl := c.authOf(f); cl != nil && cl.Level() != auth.None && !confparse.HasFlag(f.Flags, "starttls", true) && !confparse.HasFlag(f.Flags, "smtps", c.SMTPS) {
			r.Warnf("session_features", "session_features %s: authentication needs TLS, which its flags turn off: mail to hosts with an account waits (option tls of section auth)", f.Name)
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
		{
			Name: "auth", Kind: confparse.KindSection, Readme: "own",
			Sub: c.Auth.Table(), Present: &c.AuthPresent,
			Doc: "How we authenticate at other hosts, such as the smart host of a provider (docs/auth.md). Without it we do not.",
		},
		{
			Name: "tls_reports", Kind: confparse.KindSection, Readme: "own", Sub: c.TLSReports.Options().Declare(confparse.AtOnce, ""), Present: &c.TLSReports.Present,
			Doc: "If this section is there, sessions to the mail hosts of domains that want to know are counted, and each of these domains gets a report a day (TLS-RPT, RFC 8460). Counts are kept in the directory tlsrpt of the main queue directory. docs/tls-reports.md tells more.",
		},
	}
}

// readmeOptions are those of README 3.11 and 8.6.
func (c *Config) readmeOptions() []confparse.Option {
	return []confparse.Option{
		{
			Name: "IO_timeout", Type: confparse.Time, Unit: "s", Default: "10m", Min: "1s", Max: "1h",
			Readme: "3.11", Into: &c.IOTimeout,
			Doc: "The longest time that any one step of the dialogue may take. The timeouts of RFC 5321 section 4.5.3.2, and ours for TLS, hold for each step (5 minutes for the greeting, EHLO, MAIL and RCPT, 1 for a TLS handshake, 2 for DATA, 3 for each part of the content, 10 for the final dot); this option shortens those that are longer. The default changes none of them.",
		},
		{
			Name: "LMTP_socket", Type: confparse.Path, Default: lmtpSocketDefault,
			Readme: "3.11", Into: &c.LMTPSocket,
			Doc: "Unix domain socket to which recipients are delivered whose mailertable entry is lmtp: alone.",
		},
		{
			Name: "tls", Kind: confparse.KindSection, Readme: "3.11",
			Sub: c.TLS.Options(tlsconf.Client), Present: &c.TLSPresent,
			Doc: "Parameters of STARTTLS, which is used wherever a server offers it, also without this section. What a certificate is worth matters only to mail that demands something of it (tls_requirements, DANE).",
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
			Sub: c.Proxy.Options(), Present: &c.ProxyPresent,
			Doc: "The SOCKS5 proxy (RFC 1928) through which SMTP sessions are made; LMTP is spoken directly. Without it connections are made directly. It chooses the source address itself. A proxy that fails is not held against a host: the mail waits.",
		},
		{
			Name: "connect_only_to", Type: confparse.IP,
			Readme: "8.6", Into: &c.ConnectOnlyTo,
			Doc: "An IP address to which all mail goes that would go out by SMTP, for tests with real addresses. The resolver puts it in place of the addresses it found.",
		},
		clientFlag("smtps", &c.SMTPS, "Begin each session with a TLS handshake (implicit TLS, RFC 8314), also by LMTP over TCP. There is no way without it then. The port is that of remote_port or of the mailertable."),
		clientFlag("timing", &c.Timing, "Log how long the steps of the dialogue take, in microseconds: t_connect, t_ehlo, t_mail, t_rcpts, t_data, t_msg, t_eom. Under PIPELINING the step that waits for the replies shows the time of all."),
		clientFlag("read_QUIT_reply", &c.ReadQuitReply, "Read the reply to QUIT (for at most 5 s) instead of closing the connection at once."),
		clientFlag("separate_final_dot_and_QUIT", &c.SeparateFinalDotAndQuit, "Send QUIT only after the reply to the final dot has come. Without it, the last transaction of a session with PIPELINING has both in one packet."),
		clientFlag("talk_to_myself", &c.TalkToMyself, "Do not check whether an SMTP server greets with our own host name, which means a mail loop (5.4.6). LMTP servers are never checked."),
		{
			Name: "without_8bitmime", Type: confparse.Enum, Words: []string{eightBitSend, eightBitConvert, eightBitBounce}, Default: eightBitSend,
			Readme: "own", Into: &c.Without8BITMIME,
			Doc: "What becomes of 8-bit content for a host that does not offer 8BITMIME: send sends it as it is, which MeTA1 does and nearly every host takes; convert encodes it as MIME has it, which breaks signatures such as DKIM; bounce returns it with 5.6.3, and so does convert where it cannot (8-bit headers, more than 10 MB). A binary body for a host that does not offer BINARYMIME is encoded with send, too, as far as it is no lines, for it must never go as it is.",
		},
		{
			Name: "chunking", Type: confparse.Enum, Words: []string{chunkingAuto, chunkingNever}, Default: chunkingAuto,
			Readme: "own", Into: &c.Chunking,
			Doc: "When content goes by BDAT (RFC 3030): auto uses it with hosts that offer CHUNKING where it is cheaper than DATA, which is for more than 16 KB and with hosts without PIPELINING; never does not use it. The flag chunking of session_features changes it for some hosts.",
		},
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
			Readme: "8.6", Effect: confparse.None, Into: &c.ModuleTimeout,
			Doc: "Timeout for communication with QMGR. SMTPC only answers QMGR, which never makes it wait.",
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
				Doc: "They replace the flags of section smtpc, also negated. starttls is on; -starttls turns it off for servers that break it, so that mail goes to them without TLS, and what demands TLS does not go. -auth has mail go without authentication.",
			},
			{
				Name: "tls", Kind: confparse.KindSection, Readme: "3.11", Sub: f.TLS.Options(),
				Doc: "What differs from section tls of smtpc for the sessions of this class.",
			},
			{
				Name: "auth", Kind: confparse.KindSection, Readme: "own", Sub: f.Auth.Table(), Present: &f.AuthPresent,
				Doc: "Takes the place of section auth of smtpc for the sessions of this class.",
			},
		},
		Done: func() { c.SessionFeatures = append(c.SessionFeatures, *f) },
	}
}
