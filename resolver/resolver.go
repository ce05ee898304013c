package resolver

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
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
	// Forwarding reports whether expansions tell which recipients are outside of our domains, also without SRS; nil: no.
	Forwarding func() bool
	// ResolvConf is read for name servers; "" means /etc/resolv.conf.
	ResolvConf string
}

// Resolver is one SMAR, as one configuration has it. New makes it, Run serves its ports. A reload makes
// another Resolver that has the same hall; a question is answered by the Resolver of when it came.
type Resolver struct {
	*hall
	cfg    Config
	deps   Deps
	asks   dns.Config // of dns
	dns    *dns.Client
	finds  dns.FinderConfig // of finder
	finder *dns.Finder
	only   *target // the route of connect_only_to, or nil
	set    *set
	grey   *greylist.Store // nil: none; of the hall
	sts    *mtasts.Cache   // as grey

	users atomic.Int32 // questions of its own goroutine, which wait for it
}

// hall is what SMAR has whatever its configuration says: its questions, and the stores that stay open.
type hall struct {
	now      atomic.Pointer[Resolver] // for the questions that come now
	log      *slog.Logger
	slow     atomic.Int64 // questions that wait for DNS or a socket map
	peak     atomic.Int64 // the most that waited at one time (README 9.4)
	metrics  *metrics
	checkers sync.Pool // of *checker

	mu      sync.Mutex // guards the following
	stage   stage
	retired []*Resolver        // with questions that have not ended
	grey    *greylist.Store    // open; nil: it is not
	sts     *mtasts.Cache      // as grey
	group   *supervise.Group   // of Run
	endSTS  context.CancelFunc // ends what fetches policies anew; nil: nothing does
}

// stage is how far a hall is.
type stage uint8

const (
	made stage = iota
	running
	ended
)

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
	h := &hall{log: deps.Log}
	h.metrics = newMetrics(h)
	r, err := h.furnish(cfg, deps, nil)
	if err != nil {
		return nil, err
	}
	h.now.Store(r)
	return r, nil
}

// furnish makes the Resolver of a configuration, but for its stores. What former (nil: none) has of it
// already is taken from there. Nobody sees the new one yet.
func (h *hall) furnish(cfg Config, deps Deps, former *Resolver) (*Resolver, error) {
	r := &Resolver{hall: h, cfg: cfg, deps: deps}
	var err error
	if r.asks, err = dnsConfig(&cfg, &deps); err != nil {
		return nil, err
	}
	if former != nil && reflect.DeepEqual(former.asks, r.asks) {
		r.dns = former.dns
	} else if r.dns, err = newDNS(r.asks, &deps); err != nil {
		return nil, err
	}
	sel, err := mailertable.ParseSelect(cfg.IPSelect)
	if err != nil {
		return nil, fmt.Errorf("smar: %w", err)
	}
	r.finds = dns.FinderConfig{Hostname: deps.Hostname, MXMax: cfg.MXMax, AddrMax: cfg.AddrMax, Family: dns.Family(sel), DANE: cfg.dane()}
	r.finder = dns.NewFinder(r.finds, r.dns)
	if deps.ConnectOnlyTo.IsValid() {
		r.only = r.onlyTarget()
	}
	var old *set
	if former != nil {
		old = former.set
	}
	if r.set, err = r.load(old); err != nil {
		if old != nil {
			old.closeUnused(r.set)
		} else {
			r.set.closeMaps()
		}
		return nil, err
	}
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

// path is name relative to the configuration's folder (README 3.6, case 1).
func (r *Resolver) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.deps.ConfigDir, name)
}

// Run serves the ports until ctx ends.
func (h *hall) Run(ctx context.Context) error {
	g := supervise.NewGroup(ctx)
	defer h.close()
	if err := h.open(g); err != nil {
		return err
	}
	metrics := h.now.Load().deps.Metrics
	if err := h.metrics.register(metrics); err != nil {
		return err
	}
	defer h.metrics.unregister(metrics)
	ports := h.now.Load().deps.Ports
	check, stopCheck := ports.Check.OpenDirect(func(q *msg.CheckQ) (msg.Verdict, bool) { return h.now.Load().checkFast(q) })
	defer stopCheck()
	route, stopRoute := ports.Route.OpenDirect(func(q *msg.RouteQ) (msg.RouteA, bool) { return h.now.Load().routeFast(q) })
	defer stopRoute()
	lookups, stopLookups := ports.Lookup.OpenDirect(func(q *msg.LookupQ) (msg.LookupA, bool) { return h.now.Load().lookupFast(q) })
	defer stopLookups()
	tlsa, stopTLSA := ports.TLSA.OpenDirect(func(q *msg.TLSAQ) (msg.TLSAA, bool) { return h.now.Load().tlsaFast(q) })
	defer stopTLSA()
	records, stopRecords := ports.DNS.OpenDirect(func(q *msg.DNSQ) (msg.DNSA, bool) { return h.now.Load().recordsFast(q) })
	defer stopRecords()
	reports, stopReports := ports.Report.Open()
	defer stopReports()
	status, stopStatus := ports.Status["smar"].Open()
	defer stopStatus()
	g.Go(func(ctx context.Context) error {
		<-ctx.Done()
		h.endLookups() // a stop does not wait for servers that do not answer
		return nil
	})
	for range min(max(runtime.GOMAXPROCS(0), minWorkers), maxWorkers) {
		g.Go(func(ctx context.Context) error {
			h.work(ctx, g, &questions{check, route, lookups, tlsa, records, reports, status})
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
func (h *hall) work(ctx context.Context, g *supervise.Group, in *questions) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-in.check:
			r := h.now.Load()
			serve(r, g, q, r.checkFast, r.checkSlow, checkFailed)
		case q := <-in.route:
			r := h.now.Load()
			serve(r, g, q, r.routeFast, r.routeSlow, routeFailed)
		case q := <-in.lookups:
			r := h.now.Load()
			serve(r, g, q, r.lookupFast, r.lookupSlow, lookupFailed)
		case q := <-in.tlsa:
			r := h.now.Load()
			serve(r, g, q, r.tlsaFast, r.tlsaSlow, tlsaFailed)
		case q := <-in.records:
			r := h.now.Load()
			serve(r, g, q, r.recordsFast, r.recordsSlow, recordsFailed)
		case q := <-in.reports:
			r := h.now.Load()
			serve(r, g, q, r.reportFast, r.reportSlow, reportFailed)
		case q := <-in.status:
			q.Answer(h.now.Load().status())
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
	r.users.Add(1)
	g.Go(func(ctx context.Context) error {
		defer r.users.Add(-1)
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
