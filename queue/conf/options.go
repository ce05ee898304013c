package conf

import (
	"net/netip"
	"path/filepath"
	"time"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/queue/verp"
)

// Config is the configuration of QMGR: the qmgr section (README 3.8, 8.3).
type Config struct {
	AQEntriesMax int
	Conf         string
	ConfNamed    bool   // the configuration file names Conf, which must then exist
	Control      string // control_socket

	DEFEDB DEFEDBConfig
	DSN    DSNConfig
	IBDB   IBDBConfig
	IQDB   IQDBConfig

	DoubleBounce string
	DiskMin      int64 // bytes; 0: chosen by the size of the file system
	DiskOK       int64
	OCCEntries   int

	ReturnDefault, ReturnDANE time.Duration
	DelayDefault, DelayDANE   time.Duration
	RetryMin, RetryMax        time.Duration

	SMTPC SMTPCConfig
	SMTPS SMTPSConfig
	VERP  verp.Config

	DeliveryTimeout  time.Duration
	SchedulerTimeout time.Duration
	SMARTimeout      time.Duration
	WaitForClient    time.Duration
	WaitForServer    time.Duration
	ReuseConnection  bool

	ContentMemory int64
	OrphanGrace   time.Duration

	FDsMax, ThreadsMax, ThreadsMin, Tests int // no effect in one process

	// CDBBase is the global option CDB_base_directory, set by mta; "" means the main
	// queue directory.
	CDBBase string
}

// Dirs are the places of a spool, absolute.
type Dirs struct {
	Spool    string // the main queue directory, which must exist
	CDB      string // content files
	Store    string // the store
	StoreLog string // its write-ahead log; "" means Store
}

// Dirs are the places of the databases below the main queue directory, which is absolute
// (README 2.4.1, 3.6).
func (c *Config) Dirs(spool string) Dirs {
	inDir := func(path string) string {
		if filepath.IsAbs(path) {
			return filepath.Clean(path)
		}
		return filepath.Join(spool, path)
	}
	d := Dirs{Spool: spool, CDB: inDir(c.CDBBase), Store: inDir(c.DEFEDB.Base)}
	if c.DEFEDB.Log != "" {
		d.StoreLog = inDir(c.DEFEDB.Log)
	}
	return d
}

// DEFEDBConfig is the subsection DEFEDB.
type DEFEDBConfig struct {
	Base, Log       string
	PageSize        int64
	CacheSize       int64
	CheckpointKB    int64 // bytes
	CheckpointDelay time.Duration
	RemoveLogs      bool
	HashEntries     int
}

// DSNConfig is the subsection DSN_handling.
type DSNConfig struct {
	MergeDelay  time.Duration
	HeaderOnly  bool
	MIME        bool
	RFC         bool
	NoLMTPDelay bool
	ErrorsMax   int
}

// IBDBConfig is the subsection IBDB.
type IBDBConfig struct {
	CommitDelay time.Duration
	Size        int64
	OpenTAs     int
	ContentMax  int64
}

// IQDBConfig is the subsection IQDB.
type IQDBConfig struct {
	CacheEntries, HashEntries int
}

// SMTPCConfig is the subsection smtpc: limits of outgoing connections.
type SMTPCConfig struct {
	Initial, Max      int
	TransactionsMax   int
	LMTPRcpts         int
	SMTPRcpts         int
	LookupRcptConf    bool
	LookupSessionConf bool
	RcptConfFlags     []string
	ConnectionLimits  []ConnectionLimits
	Providers         []Provider
	Sources           []Source
	DeliveriesAtOnce  int
	HostsPerRcpt      int
	DestinationShare  int
}

// ConnectionLimits is a named connection_limits section.
type ConnectionLimits struct {
	Name                          string
	Initial, Max, TransactionsMax int
}

// Provider is a named provider section: what all hosts share that the map conf selects.
type Provider struct {
	Name            string
	Max             int
	Rate            int // messages within Per
	Per             time.Duration
	TransactionsMax int
	SlowDown        *msg.ReplyPatterns
	Recovery        time.Duration
	RateMin         int

	slowDown []string
}

// Source is a named source section.
type Source struct {
	Name string
	IPs  []netip.Addr
}

// SMTPSConfig is the subsection smtps: limits of incoming connections.
type SMTPSConfig struct {
	RateMax, ConnectionsMax int
	CacheSize, HashSize     int
}

// Why options need a restart.
const (
	atOpening = "Pebble takes it when the store is opened, and the store stays open"
	whySpool  = "the spool's place is taken at the start"
	whySocket = "its socket is opened at the start"
)

// Options is the option table of the qmgr section, bound to c.
func (c *Config) Options() *confparse.Table {
	t := c.options()
	t.Reloads(confparse.NewSessions, "", "delivery_timeout", "reuse_connection")
	t.Reloads(confparse.Restart, whySocket, "control_socket")
	return t.Declare(confparse.AtOnce, "")
}

func (c *Config) options() *confparse.Table {
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		{
			Name: "AQ_entries_max", Type: confparse.Int, Unit: "entries", Default: "20000", Min: "16", Max: "10000000", Readme: "3.8", Into: &c.AQEntriesMax,
			Doc: "Maximum number of recipients in the active queue; further ones wait in the store. New mail may take three quarters of them, and so may deferred mail: beyond that, servers wait with MAIL, and deferred mail is not loaded. The default is Postfix's qmgr_message_active_limit.",
		},
		{
			Name: "conf", Type: confparse.File, Default: "qmgr_conf.db", Readme: "3.8", Into: &c.Conf,
			Doc: "Configuration map of QMGR (docs/maps.md), made by createmap: hash if its name ends with .db, cdb with .cdb, else text. The default may be missing. It is read anew at a reload. Limits for the address of a host (oci:, ocm:) override the connection_limits for the domain of a recipient, and these the entries without address. Incoming connections are counted by address; for each limit the first of these holds: the entry for the address or its net (icr:, icm:), the entry for the verified name of the client or a .domain above it (icl:, icc:), the entry without address, the option in section smtps. The name is known only to a server with flag access and to an smar with an access map. smtpc_session_conf: is for the hosts to which mail goes out, see lookup_session_conf.",
		},
		{
			Name: "control_socket", Type: confparse.Path, Default: "control", Readme: "3.8", Into: &c.Control,
			Doc: "Unix socket over which mailq and ctl talk to the program.",
		},
		{Name: "DEFEDB", Kind: confparse.KindSection, Readme: "3.8", Sub: c.DEFEDB.options(), Doc: "The store of the queue: envelopes, small content, and where each recipient stands. The IBDB and the DEFEDB of MeTA1 are two key spaces of it."},
		{Name: "DSN_handling", Kind: confparse.KindSection, Readme: "3.8", Sub: c.DSN.options(), Doc: "How bounces are made."},
		{
			Name: "double_bounce_address", Type: confparse.Address, DefaultWords: "<doublebounce@hostname>", Readme: "3.8", Into: &c.DoubleBounce,
			Doc: "Where a bounce goes that cannot be delivered itself; by default <doublebounce@hostname>, which means that it is logged and dropped.",
		},
		{Name: "IBDB", Kind: confparse.KindSection, Readme: "3.8", Sub: c.IBDB.options(), Doc: "How new mail is written to the store."},
		{Name: "IQDB", Kind: confparse.KindSection, Readme: "3.8", Sub: c.IQDB.options(), Doc: "The incoming queue."},
		{
			Name: "disk_space_min", Type: confparse.Int, Unit: "KB", Default: "0", Min: "0", Readme: "3.8", Into: &c.DiskMin,
			Doc: "Below this much free space mail is refused with 452. The default 0 stands for a sixteenth of the file system, at least 4 MB and at most 64 MB.",
		},
		{
			Name: "disk_space_ok", Type: confparse.Int, Unit: "KB", Default: "0", Min: "0", Readme: "3.8", Into: &c.DiskOK,
			Doc: "Free space at which mail is accepted again; larger than disk_space_min. The default 0 stands for one and a half times disk_space_min.",
		},
		{
			Name: "OCC_entries_max", Type: confparse.Int, Unit: "entries", Default: "65536", Min: "16", Readme: "3.8", Into: &c.OCCEntries,
			Doc: "Maximum number of hosts in the outgoing connection cache; the longest unused are forgotten. It is also the most destinations for which mail waits as a whole until a host is probed; mail for further ones is tried by its own times. The default is ours.",
		},
		{Name: "queue_return", Kind: confparse.KindSection, Readme: "3.8", Doc: "Maximum time in the queue.", Sub: &confparse.Table{Options: []confparse.Option{
			{Name: "default", Type: confparse.Time, Unit: "s", Default: "5d", Min: "1s", Readme: "3.8", Into: &c.ReturnDefault, Doc: "After this time a recipient is given up. The default is RFC 5321's and Postfix's."},
			{Name: "DANE_no_match", Type: confparse.Time, Unit: "s", Default: "5d", Min: "1s", Readme: "3.8", Into: &c.ReturnDANE, Doc: "The same if the last failure was that no TLSA record of the host matches its certificate (DANE). It gives those time who forgot to replace one of the two."},
		}}},
		{Name: "queue_delay", Kind: confparse.KindSection, Readme: "3.8", Doc: "When a delayed DSN is sent.", Sub: &confparse.Table{Options: []confparse.Option{
			{Name: "default", Type: confparse.Time, Unit: "s", Default: "0", Readme: "3.8", Into: &c.DelayDefault, Doc: "Send a delayed DSN after this time; 0, as in Postfix, sends none."},
			{Name: "DANE_no_match", Type: confparse.Time, Unit: "s", Default: "0", Readme: "3.8", Into: &c.DelayDANE, Doc: "The same if the last failure was that no TLSA record of the host matches its certificate (DANE)."},
		}}},
		{
			Name: "retry_delay_max", Type: confparse.Time, Unit: "s", Default: "4000s", Min: "1s", Readme: "3.8", Into: &c.RetryMax,
			Doc: "Longest time between two attempts. The default is Postfix's maximal_backoff_time.",
		},
		{
			Name: "retry_delay_min", Type: confparse.Time, Unit: "s", Default: "300s", Min: "1s", Readme: "3.8", Into: &c.RetryMin,
			Doc: "Shortest time between two attempts. The default is Postfix's minimal_backoff_time.",
		},
		{Name: "smtpc", Kind: confparse.KindSection, Readme: "3.8", Sub: c.SMTPC.options(), Doc: "Limits of outgoing connections."},
		{Name: "smtps", Kind: confparse.KindSection, Readme: "3.8", Sub: c.SMTPS.options(), Doc: "Limits of incoming connections."},
		{Name: "VERP", Kind: confparse.KindSection, Readme: "3.8", Sub: verpOptions(&c.VERP), Doc: "Variable envelope return paths. Bounces of our own go to them as those of other hosts do. It is left out, and logged, where the address would be longer than 256 octets or the recipient has no domain."},
		{Name: "wait_for_client", Type: confparse.Time, Unit: "s", Default: "4s", Readme: "3.8", Effect: confparse.Host, Into: &c.WaitForClient, Doc: "How long to wait for a client process."},
		{Name: "wait_for_server", Type: confparse.Time, Unit: "s", Default: "4s", Readme: "3.8", Effect: confparse.Host, Into: &c.WaitForServer, Doc: "How long to wait for a server process."},
		{
			Name: "delivery_timeout", Type: confparse.Time, Unit: "s", Default: "1h", Min: "1s", Readme: "8.3", Into: &c.DeliveryTimeout,
			Doc: "Longest time of one delivery attempt. The default is sendmail 8's queue interval of an hour.",
		},
		{
			Name: "reuse_connection", Kind: confparse.KindFlag, Default: "on", Readme: "8.3", Into: &c.ReuseConnection,
			Doc: "Send further transactions over an open connection. On by default, as in Postfix and for speed.",
		},
		{Name: "fds_max", Type: confparse.Int, Unit: "entries", Default: "0", Readme: "8.3", Effect: confparse.Host, Into: &c.FDsMax, Doc: "Maximum number of file descriptors."},
		{Name: "threads_max", Type: confparse.Int, Unit: "entries", Default: "0", Readme: "8.3", Effect: confparse.Host, Into: &c.ThreadsMax, Doc: "Maximum number of threads."},
		{Name: "threads_min", Type: confparse.Int, Unit: "entries", Default: "0", Readme: "8.3", Effect: confparse.Host, Into: &c.ThreadsMin, Doc: "Minimum number of threads."},
		{
			Name: "scheduler_timeout", Type: confparse.Time, Unit: "s", Default: "1h", Min: "1s", Readme: "8.3", Into: &c.SchedulerTimeout,
			Doc: "A recipient that waited this long in the active queue without an attempt goes to the DEFEDB. The default is ours.",
		},
		{
			Name: "SMAR_timeout", Type: confparse.Time, Unit: "s", Default: "5m", Min: "1s", Readme: "8.3", Into: &c.SMARTimeout,
			Doc: "How long to wait for a route; it must exceed the time of all DNS retries. The default is ours.",
		},
		{Name: "tests", Type: confparse.Int, Default: "0", Readme: "8.3", Effect: confparse.Host, Into: &c.Tests, Doc: "Reserved for tests."},
		{
			Name: "content_memory_max", Type: confparse.Size, Unit: "B", Default: "128MB", Min: "0B", Readme: "own", Into: &c.ContentMemory,
			Doc: "Budget for content in memory, from the first byte of DATA on until its message leaves the active queue; the buffers of servers for large messages are in it, too. Beyond it the oldest content of accepted messages is given up, and read from the store again, and then new content goes to files. It is lowered at the start if the memory of the control group (container) is too small for it: the log and ctl status tell.",
		},
		{
			Name: "orphan_grace", Type: confparse.Time, Unit: "s", Default: "5m", Readme: "own", Into: &c.OrphanGrace,
			Doc: "Content files without an envelope, which a crash leaves, are listed in the log and removed when they are this old.",
		},
	}}
}

func (c *DEFEDBConfig) options() *confparse.Table {
	t := &confparse.Table{Options: []confparse.Option{
		{Name: "base_directory", Type: confparse.Dir, Default: "defedb", Readme: "3.8", Into: &c.Base, Doc: "Directory of the store."},
		{Name: "log_directory", Type: confparse.Dir, Readme: "3.8", Into: &c.Log, Doc: "Directory of its write-ahead log; by default the base directory."},
		{Name: "page_size", Type: confparse.Size, Unit: "B", Default: "0", Max: "1MB", Readme: "8.3", Into: &c.PageSize, Doc: "Size of the blocks of tables that are written from now on; 0 leaves it to Pebble (4 KB), less than 512 B is taken as 512 B."},
		{Name: "cache_size", Type: confparse.Size, Unit: "B", Default: "8MB", Min: "0B", Readme: "8.3", Into: &c.CacheSize, Doc: "Size of the block cache; at least 8 MB."},
		{Name: "KBytes_written_for_checkpointing", Type: confparse.Int, Unit: "KB", Default: "0", Readme: "8.3", Into: &c.CheckpointKB, Doc: "After so much has been written to its log, the changes go to tables and the log is given up: at least 1 MB, at most a thirty-second of the file system. The default 0 stands for that, at most 16 MB."},
		{Name: "delay_between_2_checkpoints", Type: confparse.Time, Unit: "s", Default: "0", Readme: "8.3", Effect: confparse.None, Into: &c.CheckpointDelay, Doc: "Least time between two checkpoints. Pebble begins a new log instead of waiting for the tables to be written, so nothing waits for a checkpoint."},
		{Name: "remove_unused_logfiles", Kind: confparse.KindFlag, Default: "on", Readme: "8.3", Effect: confparse.None, Into: &c.RemoveLogs, Doc: "Remove logs that are no longer needed. Pebble always does."},
		{Name: "hash_table_entries", Type: confparse.Int, Unit: "entries", Default: "16384", Min: "128", Max: "67108864", Readme: "8.3", Into: &c.HashEntries, Doc: "Most due recipients that are read from the DEFEDB at once, up to 2000; they are read in order of the next time to try and held in the active queue alone, so there is no table to be sized."},
	}}
	t.Reloads(confparse.Restart, whySpool, "base_directory", "log_directory")
	return t.Reloads(confparse.Restart, atOpening, "page_size", "cache_size", "KBytes_written_for_checkpointing")
}

func (c *DSNConfig) options() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{Name: "merge_delay_max", Type: confparse.Time, Unit: "s", Default: "0", Readme: "3.8", Into: &c.MergeDelay, Doc: "How long to wait for further failures of a message before a DSN is sent. By default only failures of one delivery attempt share a DSN."},
		{Name: "header_only", Kind: confparse.KindFlag, Readme: "3.8", Into: &c.HeaderOnly, Doc: "Return only the header of the message."},
		{Name: "MIME_Format", Kind: confparse.KindFlag, Readme: "3.8", Into: &c.MIME, Doc: "Structure a DSN by MIME."},
		{Name: "RFC_Format", Kind: confparse.KindFlag, Readme: "3.8", Into: &c.RFC, Doc: "Make DSNs as RFC 3464 says."},
		{Name: "no_LMTP_delay_DSN", Kind: confparse.KindFlag, Readme: "3.8", Into: &c.NoLMTPDelay, Doc: "No delayed DSN for recipients that are delivered by LMTP."},
		{Name: "errors_per_DSN_max", Type: confparse.Int, Unit: "entries", Default: "100", Min: "1", Readme: "3.8", Into: &c.ErrorsMax, Doc: "Most failed recipients in one DSN; further ones get another. The default is ours."},
	}}
}

func (c *IBDBConfig) options() *confparse.Table {
	t := &confparse.Table{Options: []confparse.Option{
		{Name: "commit_delay_max", Type: confparse.Time, Unit: "ms", Default: "100ms", Min: "1ms", Max: "10s", Readme: "3.8", Into: &c.CommitDelay, Doc: "How long the record of a delivery may wait to share a sync; new mail never waits for it. It waits for the next message if mail comes so often that one is expected within this time, else for 2 ms or, on a slow disk, for four times as long as the last sync took; never longer than this, and not together with 15 others. What a crash finds unwritten is delivered again. The default is ours."},
		{Name: "size", Type: confparse.Size, Unit: "B", Default: "0", Readme: "3.8", Into: &c.Size, Doc: "Size of a log of the store: at least 1 MB, at most a thirty-second of the file system. The default 0 stands for that, at most 16 MB. If KBytes_written_for_checkpointing in section DEFEDB is larger, that holds."},
		{Name: "open_TAs_max", Type: confparse.Int, Unit: "entries", Default: "1024", Min: "1", Readme: "3.8", Into: &c.OpenTAs, Doc: "Most transactions in one commit. The default is ours."},
		{Name: "content_max", Type: confparse.Size, Unit: "B", Default: "128KB", Min: "0B", Max: "1GB", Readme: "own", Into: &c.ContentMax, Doc: "Content up to this size is committed with its envelope; larger content goes to a file at once. What is committed stays beside the envelope until the message has ended, but becomes a file if the message is deferred and it has more than 4 KB. With 0B each content is a file, which can be sent if the store is lost, at the price of speed. The default was measured, see docs/performance.md."},
	}}
	return t.Reloads(confparse.Restart, atOpening, "size")
}

func (c *IQDBConfig) options() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{Name: "cache_entries_max", Type: confparse.Int, Unit: "entries", Default: "65536", Min: "1", Readme: "3.8", Effect: confparse.None, Into: &c.CacheEntries, Doc: "Maximum number of recipients in open transactions. QMGR gets an envelope when it is complete, and until then the limits of smtps bound its recipients."},
		{Name: "hash_table_entries", Type: confparse.Int, Unit: "entries", Default: "65537", Min: "1", Readme: "3.8", Effect: confparse.None, Into: &c.HashEntries, Doc: "Size of the table; larger than cache_entries_max: there is no such table."},
	}}
}

func (c *SMTPCConfig) options() *confparse.Table {
	t := &confparse.Table{Options: []confparse.Option{
		{Name: "initial_connections", Type: confparse.Int, Unit: "entries", Default: "10", Min: "1", Readme: "3.8", Into: &c.Initial, Doc: "Connections to a host of which nothing is known yet: where slow start begins."},
		{Name: "connections_max", Type: confparse.Int, Unit: "entries", Default: "100", Min: "1", Readme: "3.8", Into: &c.Max, Doc: "Maximum number of connections to one host."},
		{Name: "transactions_per_session_max", Type: confparse.Int, Unit: "entries", Default: "1000", Min: "1", Readme: "3.8", Into: &c.TransactionsMax, Doc: "Transactions after which a connection is closed. The default is ours."},
		{Name: "lmtp_rcpts_per_transaction_max", Type: confparse.Int, Unit: "entries", Default: "100", Min: "1", Readme: "3.8", Into: &c.LMTPRcpts, Doc: "Most recipients in one LMTP transaction. The default is RFC 5321's least maximum."},
		{Name: "smtp_rcpts_per_transaction_max", Type: confparse.Int, Unit: "entries", Default: "100", Min: "1", Readme: "3.8", Into: &c.SMTPRcpts, Doc: "Most recipients in one SMTP transaction. The default is RFC 5321's least maximum."},
		{Name: "connection_limits", Kind: confparse.KindSection, Named: true, Readme: "3.8", New: c.newLimits, Doc: "Limits for recipients that the map conf selects by smtpc_conf_rcpt_domain:. They hold for each host to which such recipients go, counted apart from other recipients."},
		{Name: "provider", Kind: confparse.KindSection, Named: true, Readme: "own", New: c.newProvider, Doc: "A provider: limits that all hosts share whose entries smtpc_session_conf: in the map conf name it, by their names or addresses. So one entry such as smtpc_session_conf:.example.com covers all domains whose mail its hosts take (docs/providers.md). Each host has its own limits besides."},
		{Name: "lookup_rcpt_conf", Kind: confparse.KindFlag, Readme: "3.8", Into: &c.LookupRcptConf, Doc: "Look up smtpc_rcpt_conf: for each recipient in the access map: session_feature, and tls_requirements, which the connection must meet. Mail to a recipient whose requirements no host meets is not sent, and violation says whether it waits or bounces."},
		{Name: "lookup_session_conf", Kind: confparse.KindFlag, Readme: "3.8", Into: &c.LookupSessionConf, Doc: "Look up smtpc_session_conf: in the map conf for each host to which mail goes out. The first of these holds: the entry for its address, its smallest net, its name, the smallest .domain that the name is in, the entry without argument. With a section session_features in smtpc, or a section provider, the flag is not needed. The right hand sides are those of lookup_rcpt_conf."},
		{Name: "rcpt_conf_lookup_flags", Type: confparse.Flags, Words: []string{"full_address", "detail_plus", "detail_star", "star", "domain", "dotsubdomain", "dot"}, Default: "{ full_address, detail_plus, detail_star, star, domain, dotsubdomain, dot }", DefaultWords: "all", Readme: "3.8", Into: &c.RcptConfFlags, Doc: "Which lookups lookup_rcpt_conf makes."},
		{Name: "source", Kind: confparse.KindSection, Named: true, Readme: "3.8", New: c.newSource, Doc: "Local addresses for outgoing connections, selected by the map conf: the first entry counts of smtpc_conf_cltaddr: for the address from which the mail came, then its nets, and smtpc_conf_mail: for the sender, then its domain and .domain."},
		{Name: "deliveries_max", Type: confparse.Int, Unit: "entries", Default: "1000", Min: "1", Readme: "own", Into: &c.DeliveriesAtOnce, Doc: "Most delivery attempts that run at once, over all hosts. A quarter is kept for hosts that have served their last delivery, and no host and no sender may take all, whatever hangs; so a single host that serves takes at most three quarters."},
		{Name: "hosts_per_attempt_max", Type: confparse.Int, Unit: "entries", Default: "5", Min: "1", Readme: "own", Into: &c.HostsPerRcpt, Doc: "Most hosts of a route that are tried in one attempt, if they fail as a whole (no connection, a refusing greeting, 421); after a 4xx reply to MAIL, RCPT or DATA one more is tried. The default is Postfix's smtp_mx_address_limit."},
		{Name: "destination_share", Type: confparse.Int, Unit: "percent", Default: "25", Min: "1", Max: "100", Readme: "own", Into: &c.DestinationShare, Doc: "The part of a filling active queue that one destination may take; its further recipients wait in the DEFEDB until there is room, so that one destination cannot hold up the others."},
	}}
	return t.Reloads(confparse.NewSessions, "", "transactions_per_session_max", "lmtp_rcpts_per_transaction_max", "smtp_rcpts_per_transaction_max", "lookup_session_conf", "source")
}

func (c *SMTPCConfig) newLimits(name string) *confparse.Table {
	l := &ConnectionLimits{Name: name}
	t := &confparse.Table{Done: func() { c.ConnectionLimits = append(c.ConnectionLimits, *l) }, Options: []confparse.Option{
		{Name: "initial_connections", Type: confparse.Int, Unit: "entries", Min: "1", Readme: "3.8", Into: &l.Initial, Doc: "Connections with which slow start begins."},
		{Name: "connections_max", Type: confparse.Int, Unit: "entries", Min: "1", Readme: "3.8", Into: &l.Max, Doc: "Maximum number of connections to one host."},
		{Name: "transactions_per_session_max", Type: confparse.Int, Unit: "entries", Min: "1", Readme: "3.8", Into: &l.TransactionsMax, Doc: "Transactions after which a connection is closed."},
	}}
	return t.Reloads(confparse.NewSessions, "", "transactions_per_session_max")
}

func (c *SMTPCConfig) newProvider(name string) *confparse.Table {
	p := &Provider{Name: name}
	t := &confparse.Table{Done: func() { c.Providers = append(c.Providers, *p) }, Check: p.check, Options: []confparse.Option{
		{Name: "connections_max", Type: confparse.Int, Unit: "entries", Default: "0", Min: "0", Max: "100000", Readme: "own", Into: &p.Max, Doc: "Most connections to all hosts of the provider together, those included that are kept open without work; 0: no limit but those of each host."},
		{Name: "rate_max", Type: confparse.Int, Unit: "messages", Default: "0", Min: "0", Max: "10000000", Readme: "own", Into: &p.Rate, Doc: "Most messages that are sent to all hosts of the provider within any rate_interval, spread over it; a delivery of one message to several recipients counts once, and an attempt that fails counts, too. 0: no limit until the provider asks for less mail."},
		{Name: "rate_interval", Type: confparse.Time, Unit: "s", Default: "1m", Min: "1s", Max: "1d", Readme: "own", Into: &p.Per, Doc: "The time that rate_max refers to."},
		{Name: "transactions_per_session_max", Type: confparse.Int, Unit: "entries", Default: "0", Min: "0", Max: "100000", Readme: "own", Into: &p.TransactionsMax, Doc: "Messages after which a connection to the provider is closed; 0 leaves it to the option of the same name of smtpc. A section connection_limits that the recipient selects goes first."},
		{Name: "slow_down", Type: confparse.List, Default: slowDownDefault, Readme: "own", Into: &p.slowDown, Doc: "Regular expressions (of Go) for temporary replies of the provider that ask for less mail: code, enhanced code and text, as the log has them. Each halves the rate, once in a minute at most: rate_max, or without it what was sent within the last rate_interval. The mail waits as after any temporary failure, and no other host of the provider is tried for it. An empty list turns it off."},
		{Name: "slow_down_recovery", Type: confparse.Time, Unit: "s", Default: "30m", Min: "1m", Max: "7d", Readme: "own", Into: &p.Recovery, Doc: "The time in which half of the full rate comes back, little by little. So a rate that was halved once is whole again after it."},
		{Name: "slow_down_rate_min", Type: confparse.Int, Unit: "messages", Default: "0", Min: "0", Max: "10000000", Readme: "own", Into: &p.RateMin, Doc: "The rate is never halved below this; 0 stands for a thirty-second of the full one, at least 1."},
	}}
	return t.Reloads(confparse.NewSessions, "", "transactions_per_session_max", "slow_down")
}

// check compiles the patterns.
func (p *Provider) check(r *confparse.Report) {
	var err error
	if p.SlowDown, err = msg.ParseReplyPatterns(p.slowDown); err != nil {
		r.Errorf("slow_down", "%v", err)
	}
	if p.Rate > 0 && p.RateMin > p.Rate {
		r.Errorf("slow_down_rate_min", "slow_down_rate_min (%d) must not be larger than rate_max (%d)", p.RateMin, p.Rate)
	}
}

// slowDownDefault are the replies of RFC 3463's subject 7, security or policy, with the two codes
// that large providers use to limit rates.
const slowDownDefault = `{ "^(421|451) 4[.]7[.]" }`

func (c *SMTPCConfig) newSource(name string) *confparse.Table {
	s := &Source{Name: name}
	t := &confparse.Table{Done: func() { c.Sources = append(c.Sources, *s) }, Options: []confparse.Option{
		{Name: "ips", Type: confparse.IPList, Readme: "3.8", Into: &s.IPs, Doc: "Addresses to bind to; one of the family of the host to connect to is taken, several share the mail. An address that cannot be bound to is logged, and the connection made without."},
	}}
	return t.Declare(confparse.NewSessions, "")
}

func (c *SMTPSConfig) options() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{Name: "connection_rate_max", Type: confparse.Int, Unit: "connections/60s", Default: "100", Min: "1", Readme: "3.8", Into: &c.RateMax, Doc: "Most connections from one address within 60 seconds; exempt are loopback addresses and those that were allowed to relay within the last hour because of their address or name, as Postfix exempts mynetworks. An entry icr: of the map conf sets the limit of one address or net."},
		{Name: "connections_max", Type: confparse.Int, Unit: "entries", Default: "100", Min: "1", Readme: "3.8", Into: &c.ConnectionsMax, Doc: "Most open connections from one address; loopback addresses are exempt. An entry icm: of the map conf sets the limit of one address or net."},
		{Name: "connection_control_cache_size", Type: confparse.Int, Unit: "entries", Default: "65536", Min: "16", Readme: "8.3", Into: &c.CacheSize, Doc: "Most addresses that are counted at once; while the table is full of open ones, others are not limited. The default is ours."},
		{Name: "connection_control_hash_table_size", Type: confparse.Int, Unit: "entries", Default: "65537", Min: "1", Readme: "8.3", Effect: confparse.None, Into: &c.HashSize, Doc: "Size of its hash table: the table grows with its entries, up to connection_control_cache_size."},
	}}
}

// verpOptions is the subsection VERP.
func verpOptions(c *verp.Config) *confparse.Table {
	t := &confparse.Table{Options: []confparse.Option{
		{Name: "when", Type: confparse.Enum, Words: []string{verp.WhenAlways, verp.WhenNever}, DefaultWords: "on demand", Readme: "3.8", Into: &c.When, Doc: "always or never; without it on demand."},
		{Name: "delimiter1", Type: confparse.String, Default: `"+"`, Readme: "3.8", Into: &c.Delimiter1, Doc: "Stands between the sender's local part and the recipient."},
		{Name: "delimiter2", Type: confparse.String, Default: `"="`, Readme: "3.8", Into: &c.Delimiter2, Doc: "Replaces the @ of the recipient."},
	}}
	return t.Declare(confparse.NewSessions, "")
}

// check makes the cross-checks of README 3.8.
func (c *Config) check(r *confparse.Report) {
	_, c.ConfNamed = r.Origin("conf")
	if c.RetryMax < c.RetryMin {
		r.Errorf("retry_delay_max", "retry_delay_max (%v) must not be less than retry_delay_min (%v)", c.RetryMax, c.RetryMin)
	}
	if c.DiskMin > 0 && c.DiskOK > 0 && c.DiskOK <= c.DiskMin {
		r.Errorf("disk_space_ok", "disk_space_ok (%d KB) must be larger than disk_space_min (%d KB)", c.DiskOK>>10, c.DiskMin>>10)
	}
	if c.IQDB.HashEntries <= c.IQDB.CacheEntries {
		at := "IQDB/hash_table_entries"
		if _, set := r.Origin(at); !set {
			at = "IQDB/cache_entries_max"
		}
		r.Errorf(at, "hash_table_entries (%d) must be larger than cache_entries_max (%d)", c.IQDB.HashEntries, c.IQDB.CacheEntries)
	}
	if c.SMTPC.Max < c.SMTPC.Initial {
		at := "smtpc/connections_max"
		if _, set := r.Origin(at); !set {
			at = "smtpc/initial_connections"
		}
		r.Errorf(at, "connections_max (%d) must not be less than initial_connections (%d)", c.SMTPC.Max, c.SMTPC.Initial)
	}
}
