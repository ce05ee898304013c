package resolver

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
	"meta1/resolver/dns"
	"meta1/resolver/greylist"
	"meta1/resolver/mailertable"
	"meta1/resolver/mtasts"
	"meta1/resolver/srs"
)

// Limits of the module.
const (
	maxSlow      = 10000           // questions that wait for DNS or a socket map at one time
	questionTime = 2 * time.Minute // for one of them
	minWorkers   = 2
	maxWorkers   = 8
)

// Deps are what the module needs from outside.
type Deps struct {
	Ports   *msg.Ports
	Log     *slog.Logger          // nil: no log
	Metrics prometheus.Registerer // nil: a registry of its own
	// Hostname is the name of this host, for the loop rule of RFC 5321 section 5.1 and
	// for addresses without a domain.
	Hostname string
	// ConfigDir is the folder of the configuration file, to which map files are
	// relative (README 3.6).
	ConfigDir string
	// LMTPSocket is the path of the socket for "lmtp:" without a host (LMTP_socket).
	LMTPSocket string
	// RemotePort is smtpc's remote_port; 0 means 25.
	RemotePort uint16
	// ConnectOnlyTo is smtpc's connect_only_to: every SMTP route leads to it. Zero: unset.
	ConnectOnlyTo netip.Addr
	// Dial opens connections to name servers and socket maps; nil: the network.
	Dial dns.Dial
	// SpoolDir is the main queue directory; greylisting keeps its store in it.
	SpoolDir string
	// FS is the file system of that store; nil: the disk.
	FS vfs.FS
	// RcptConf are the steps with which recipients are looked up under
	// smtpc_rcpt_conf: (qmgr's lookup_rcpt_conf and rcpt_conf_lookup_flags); 0: not at all.
	RcptConf maps.Steps
	// Roots are the authorities that are trusted for the hosts of MTA-STS policies; nil: those
	// of the system.
	Roots *x509.CertPool
	// TLSReports counts mail that finds no host because of an MTA-STS policy; nil: nobody does.
	TLSReports msg.TLSCounter
	// SRS makes and reverses senders of forwarded mail; nil: nobody does. Who makes the resolver has it
	// take options and secrets anew.
	SRS *srs.Rewriter
	// Forwarding: expansions tell which recipients are outside of our domains, also without SRS.
	Forwarding bool
	// ResolvConf is read for name servers; "" means /etc/resolv.conf.
	ResolvConf string
}

// Resolver is one SMAR. New makes it, Run serves its ports.
type Resolver struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	dns     *dns.Client
	finder  *dns.Finder
	only    *target // the route of connect_only_to, or nil
	set     atomic.Pointer[set]
	grey    *greylist.Store // nil: none; opened and closed by Run
	sts     *mtasts.Cache   // as grey
	slow    atomic.Int64    // questions that wait for DNS or a socket map
	peak    atomic.Int64    // the most that waited at one time (README 9.4)
	metrics *metrics

	reloading sync.Mutex // held by Reload
	checkers  sync.Pool  // of *checker
}

// set is all that is read from maps, of one moment.
type set struct {
	mailertable *table
	maps        map[string]maps.Map // by name, or "file " and path; nil: cannot be used
	access      *accessMap          // nil: none
	aliases     *aliasMap           // nil: none
	users       *userMap            // nil: none
	home        string              // domain of addresses without one in aliases
	bare        string              // domain of <postmaster>
	cfg         *Config             // what it was made of
}

// New reads the maps and makes a Resolver. It starts no goroutine. An error lists
// everything that is wrong in the maps, with file and line.
func New(cfg Config, deps Deps) (*Resolver, error) {
	cfg, deps = withDefaults(cfg, deps)
	r := &Resolver{cfg: cfg, deps: deps, log: deps.Log}
	var err error
	if r.dns, err = NewDNS(cfg, deps); err != nil {
		return nil, err
	}
	sel, err := mailertable.ParseSelect(cfg.IPSelect)
	if err != nil {
		return nil, fmt.Errorf("smar: %w", err)
	}
	r.finder = dns.NewFinder(dns.FinderConfig{
		Hostname: deps.Hostname, MXMax: cfg.MXMax, AddrMax: cfg.AddrMax, Family: dns.Family(sel), DANE: cfg.dane(),
	}, r.dns)
	if r.deps.ConnectOnlyTo.IsValid() {
		r.only = r.onlyTarget()
	}
	r.metrics = newMetrics(r)
	s, err := r.load(&r.cfg, nil)
	if err != nil {
		s.closeMaps()
		return nil, err
	}
	r.set.Store(s)
	return r, nil
}

// withDefaults fills in what a Config or Deps made by hand may leave out.
func withDefaults(cfg Config, deps Deps) (Config, Deps) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Metrics == nil {
		deps.Metrics = prometheus.NewRegistry()
	}
	if deps.FS == nil {
		deps.FS = vfs.Real()
	}
	deps.Hostname = maps.Lower(strings.TrimSuffix(deps.Hostname, "."))
	deps.RemotePort = cmp.Or(deps.RemotePort, 25)
	deps.ResolvConf = cmp.Or(deps.ResolvConf, "/etc/resolv.conf")
	cfg.IPSelect = cmp.Or(cfg.IPSelect, defaultIPSelect)
	cfg.DNS.Timeout = cmp.Or(cfg.DNS.Timeout, 4*time.Second)
	cfg.DNS.Port = cmp.Or(cfg.DNS.Port, 53)
	m := &cfg.Mailertable
	m.File = cmp.Or(m.File, defaultFile)
	if m.steps() == maps.BareDomain {
		m.Domain, m.DotSubdomain, m.Dot = true, true, true
	}
	return cfg, deps
}

// home is the domain of addresses without one in aliases: our host name, or localhost if only
// that is local.
func (r *Resolver) home(t *table) string {
	if t == nil {
		return r.deps.Hostname
	}
	for _, name := range []string{r.deps.Hostname, "localhost"} {
		if rule := t.rules[name]; rule != nil && rule.local {
			return name
		}
	}
	return r.deps.Hostname
}

// Reload reads all maps anew. Those that cannot be read stay as they are, and the
// error says which and why; the others are replaced, all at once. It may be called
// from any goroutine.
func (r *Resolver) Reload(ctx context.Context) error {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	return r.reload(ctx, r.set.Load().cfg)
}

// Reconfigure is Reload with what cfg says of maps: the rows of the option table that
// a reload changes. The rest of cfg is not looked at.
func (r *Resolver) Reconfigure(ctx context.Context, cfg Config) error {
	cfg, _ = withDefaults(cfg, Deps{})
	r.reloading.Lock()
	defer r.reloading.Unlock()
	return r.reload(ctx, &cfg)
}

// Next is a set of maps that a Resolver has read and not yet taken.
type Next struct {
	r   *Resolver
	set *set
}

// Prepare reads all maps of a configuration: of its rows those that a reload changes. Nothing
// changes. The error has all that is wrong in the maps, with file and line; nothing stays open then.
// Who calls Prepare calls Commit or Discard before anything else of the Resolver's that reads maps.
func (r *Resolver) Prepare(cfg Config) (*Next, error) {
	cfg, _ = withDefaults(cfg, Deps{})
	old := r.set.Load()
	s, err := r.load(&cfg, old)
	n := &Next{r, s}
	if err != nil {
		n.Discard()
		return nil, err
	}
	return n, nil
}

// Discard gives up what Prepare has opened.
func (n *Next) Discard() { n.r.set.Load().closeUnused(n.set) }

// Commit has the questions that come from now on be answered by the new maps; those in progress
// finish with the old ones. It cannot fail.
func (n *Next) Commit() {
	old := n.r.set.Swap(n.set)
	n.set.closeUnused(old)
	n.r.log.LogAttrs(context.Background(), slog.LevelInfo, "maps reloaded", slog.Int("mailertable", n.set.mailertable.len()))
}

func (r *Resolver) reload(ctx context.Context, cfg *Config) error {
	old := r.set.Load()
	s, err := r.load(cfg, old)
	r.set.Store(s)
	s.closeUnused(old)
	if err != nil {
		r.log.LogAttrs(ctx, slog.LevelError, "some maps were not reloaded: the old ones stay", slog.String("stat", err.Error()))
		return fmt.Errorf("smar: %w", err)
	}
	r.log.LogAttrs(ctx, slog.LevelInfo, "maps reloaded", slog.Int("mailertable", s.mailertable.len()))
	return nil
}

// path is name relative to the configuration's folder (README 3.6, case 1).
func (r *Resolver) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.deps.ConfigDir, name)
}

// Run serves the ports until ctx ends.
func (r *Resolver) Run(ctx context.Context) error {
	defer r.dns.Close()
	defer func() { r.set.Load().closeMaps() }()
	r.warnUntrusted()
	if err := r.openGreylist(); err != nil {
		return err
	}
	if r.grey != nil {
		defer r.closeGreylist()
	}
	if err := r.openSTS(); err != nil {
		return err
	}
	if r.sts != nil {
		defer r.closeSTS()
	}
	if err := r.metrics.register(r.deps.Metrics); err != nil {
		return err
	}
	defer r.metrics.unregister(r.deps.Metrics)
	check, stopCheck := r.deps.Ports.Check.OpenDirect(r.checkFast)
	defer stopCheck()
	route, stopRoute := r.deps.Ports.Route.OpenDirect(r.routeFast)
	defer stopRoute()
	lookups, stopLookups := r.deps.Ports.Lookup.OpenDirect(r.lookupFast)
	defer stopLookups()
	tlsa, stopTLSA := r.deps.Ports.TLSA.OpenDirect(r.tlsaFast)
	defer stopTLSA()
	records, stopRecords := r.deps.Ports.DNS.OpenDirect(r.recordsFast)
	defer stopRecords()
	reports, stopReports := r.deps.Ports.Report.Open()
	defer stopReports()
	status, stopStatus := r.deps.Ports.Status["smar"].Open()
	defer stopStatus()
	g := supervise.NewGroup(ctx)
	g.Go(func(ctx context.Context) error {
		<-ctx.Done()
		r.dns.Close() // a stop does not wait for servers that do not answer
		return nil
	})
	if r.sts != nil {
		g.Go(r.sts.Run)
	}
	for range min(max(runtime.GOMAXPROCS(0), minWorkers), maxWorkers) {
		g.Go(func(ctx context.Context) error {
			r.work(ctx, g, &questions{check, route, lookups, tlsa, records, reports, status})
			return nil
		})
	}
	return g.Wait()
}

// questions are those of each port.
type questions struct {
	check   <-chan *msg.Request[msg.CheckQ, msg.Verdict]
	route   <-chan *msg.Request[msg.RouteQ, msg.RouteA]
	lookups <-chan *msg.Request[msg.LookupQ, msg.LookupA]
	tlsa    <-chan *msg.Request[msg.TLSAQ, msg.TLSAA]
	records <-chan *msg.Request[msg.DNSQ, msg.DNSA]
	reports <-chan *msg.Request[msg.TLSReportQ, msg.TLSReportA]
	status  <-chan *msg.Request[msg.StatusQ, msg.StatusA]
}

// work answers questions that were not answered from memory already, in the asker's goroutine
// (msg.Port.Direct): at once if memory has the answer now, else in a goroutine of the question's
// own.
func (r *Resolver) work(ctx context.Context, g *supervise.Group, in *questions) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-in.check:
			serve(r, g, q, r.checkFast, r.checkSlow, checkFailed)
		case q := <-in.route:
			serve(r, g, q, r.routeFast, r.routeSlow, routeFailed)
		case q := <-in.lookups:
			serve(r, g, q, r.lookupFast, r.lookupSlow, lookupFailed)
		case q := <-in.tlsa:
			serve(r, g, q, r.tlsaFast, r.tlsaSlow, tlsaFailed)
		case q := <-in.records:
			serve(r, g, q, r.recordsFast, r.recordsSlow, recordsFailed)
		case q := <-in.reports:
			serve(r, g, q, r.reportFast, r.reportSlow, reportFailed)
		case q := <-in.status:
			q.Answer(r.status())
		}
	}
}

// serve answers one question by fast, or if that cannot by slow. failed makes the
// answer when slow panics or too many questions wait: that costs this question
// only.
func serve[Q, A any](r *Resolver, g *supervise.Group, q *msg.Request[Q, A],
	fast func(*Q) (A, bool), slow func(context.Context, *Q) A, failed func(reason string) A,
) {
	a, ok := fast(&q.Q)
	if ok {
		q.Answer(a)
		return
	}
	waiting := r.slow.Add(1)
	if waiting > maxSlow {
		r.slow.Add(-1)
		q.Answer(failed("too many questions wait for name servers and socket maps"))
		return
	}
	for most := r.peak.Load(); waiting > most && !r.peak.CompareAndSwap(most, waiting); most = r.peak.Load() {
	}
	g.Go(func(ctx context.Context) error {
		defer r.slow.Add(-1)
		ctx, cancel := context.WithTimeout(ctx, questionTime)
		defer cancel()
		err := supervise.Call(ctx, func(ctx context.Context) error {
			a = slow(ctx, &q.Q)
			return nil
		})
		if err != nil {
			r.log.LogAttrs(ctx, slog.LevelError, "question failed", slog.String("stat", err.Error()), stack(err))
			a = failed("internal error")
		}
		q.Answer(a)
		return nil
	})
}

func stack(err error) slog.Attr {
	if p, ok := err.(*supervise.PanicError); ok {
		return slog.String("stack", string(p.Stack))
	}
	return slog.Attr{}
}

func addrPort(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

func systemFailure(reason string) smtp.Reply {
	return smtp.NewReply(451, "4.3.0", "resolver: "+reason)
}
