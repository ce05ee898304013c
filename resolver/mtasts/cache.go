// Package mtasts finds the MTA-STS policies of recipient domains and keeps them (RFC 8461).
//
// A policy is found by a TXT record and fetched over HTTPS from a host of the domain. It is
// kept in memory and in a file, because its worth is that it outlives the moment in which
// somebody forges DNS: as long as a kept policy has not expired it counts, whatever DNS and
// HTTPS say or do not say (section 5.1). Policies that are in use are fetched anew long before
// they expire.
//
// Package mtasts decides nothing about a delivery: SMAR leaves out hosts that a policy does
// not name, and SMTPC checks certificates.
package mtasts

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
)

// Times and bounds.
const (
	// retryAfter is how long after a failed fetch the next one of the domain may begin (RFC
	// 8461 section 3.3 suggests five minutes).
	retryAfter = 5 * time.Minute
	// refreshEvery is the time between two looks for policies to fetch anew.
	refreshEvery = time.Hour
	// refreshAge is the age at which a policy in use is fetched anew, at the latest half way
	// to its end.
	refreshAge = 24 * time.Hour
	// unusedAfter is how long after its last use a policy is not fetched anew any more.
	unusedAfter = 30 * 24 * time.Hour
	// domainsMax bounds the domains that are known, with a policy or with a failure.
	domainsMax = 50_000
)

// Config says where policies are kept and whom to trust.
type Config struct {
	Dir string // of the files
	// Roots are the authorities of policy hosts; nil: those of the system.
	Roots *x509.CertPool
}

// DNS answers a Cache's questions; SMAR does.
type DNS interface {
	// TXT gives the TXT records of a name. It waits no longer than ctx allows.
	TXT(ctx context.Context, name string) TXT
	// CachedTXT is TXT from memory alone; ok is false if it would have to ask.
	CachedTXT(name string) (t TXT, ok bool)
	// Addrs gives the addresses of a host, at least one or an error.
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
}

// TXT is an answer: records, none, or that there was no answer.
type TXT struct {
	Texts   []string  // the records, each in one piece
	Expires time.Time // when it must be asked again
	Err     error     // there was no answer
}

// Deps are what a Cache needs from outside.
type Deps struct {
	DNS     DNS
	Dial    Dial // nil: the network
	FS      vfs.FS
	Log     *slog.Logger          // nil: no log
	Metrics prometheus.Registerer // nil: nobody gets the numbers
}

// Cache knows the policies of domains. It is safe for use by many goroutines. Run must run
// while it is used, and Close is called behind it.
type Cache struct {
	log   *slog.Logger
	dns   DNS
	fetch *fetcher
	store store
	stats metrics
	group *supervise.Group // the fetches

	mu      sync.Mutex // guards the following
	domains map[string]*domain
}

// domain is what is known of one domain. Its fields are guarded by Cache.mu.
type domain struct {
	kept    *kept         // the last good policy, or nil
	failed  time.Time     // when the last fetch failed; zero: it did not
	failure string        // why
	result  msg.TLSResult // the same in the words of RFC 8460
	tried   string        // the id of the last fetch
	running chan struct{} // closed when the fetch that runs has ended; nil: none runs
}

// Found is the answer of Find. Policy is nil if there is none that counts.
type Found struct {
	Policy  *Policy
	ID      string
	Expires time.Time // when Find must be asked again, at the latest
	Trace   msg.Trace
}

// Open reads what is kept. Damaged files are logged and removed; the error is of the
// directory.
func Open(cfg Config, deps Deps) (*Cache, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Dial == nil {
		deps.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr.String())
		}
	}
	c := &Cache{
		log: deps.Log, dns: deps.DNS, fetch: newFetcher(deps.DNS, deps.Dial, cfg.Roots),
		store: store{deps.FS, cfg.Dir}, domains: map[string]*domain{},
		group: supervise.NewGroup(context.Background()),
	}
	var err error
	if c.stats, err = newMetrics(deps.Metrics, c); err != nil {
		return nil, err
	}
	list, damaged, err := c.store.load(time.Now(), domainsMax)
	if err != nil {
		c.stats.unregister()
		return nil, err
	}
	if damaged != nil {
		c.log.LogAttrs(context.Background(), slog.LevelWarn, "a kept MTA-STS policy could not be read and was removed", slog.Any("error", damaged))
	}
	for _, k := range list {
		c.domains[k.Domain] = &domain{kept: k, tried: k.ID}
	}
	return c, nil
}

// Trust takes other authorities for the hosts from which policies are fetched from now on; nil: those of the system.
func (c *Cache) Trust(roots *x509.CertPool) { c.fetch.trust(roots) }

// Run fetches policies that are in use anew before they expire, and forgets others, until
// ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.refresh(ctx)
		case <-c.group.Context().Done(): // a fault of the program in a fetch
			return c.group.Wait()
		case <-ctx.Done():
			return nil
		}
	}
}

// Close ends the fetches that run and waits for them. The error is of a fault of the program.
func (c *Cache) Close() error {
	c.group.Stop()
	err := c.group.Wait()
	c.stats.unregister()
	return err
}

// Find gives the policy that counts for a domain, in A-labels. It may wait for DNS and for one
// fetch, as long as ctx allows; a fetch goes on when ctx has ended.
func (c *Cache) Find(ctx context.Context, name string) Found {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isDomain(name) {
		return Found{}
	}
	return c.found(ctx, name, c.dns.TXT(ctx, "_mta-sts."+name))
}

// Cached is Find from memory alone; ok is false if it would have to wait.
func (c *Cache) Cached(name string) (f Found, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isDomain(name) {
		return Found{}, true
	}
	a, ok := c.dns.CachedTXT("_mta-sts." + name)
	if !ok {
		return Found{}, false
	}
	if id, err := parseRecords(a.Texts); err == nil && !c.settled(name, id) {
		return Found{}, false
	}
	return c.found(context.Background(), name, a), true
}

// settled reports that a question about this policy needs no fetch.
func (c *Cache) settled(name, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, now := c.domains[name], time.Now()
	return d != nil && (d.current(id, now) || d.running == nil && d.paused(id, now))
}

// current reports that the policy with this id is kept and has not expired.
func (d *domain) current(id string, now time.Time) bool {
	return d.kept != nil && d.kept.valid(now) && d.kept.ID == id
}

// paused reports that the policy with this id could not be fetched a short time ago.
func (d *domain) paused(id string, now time.Time) bool {
	return !d.failed.IsZero() && d.tried == id && now.Before(d.failed.Add(retryAfter))
}

// found is what counts, given the answer of DNS.
func (c *Cache) found(ctx context.Context, name string, a TXT) Found {
	id, err := parseRecords(a.Texts)
	if a.Err != nil {
		err = a.Err
	}
	step := msg.Step{Check: "mta-sts", Key: "_mta-sts." + name, Value: id}
	if err != nil {
		step.Effect = err.Error()
	}
	k, failure := c.known(ctx, name, id)
	if failure != "" {
		step.Effect = failure
	}
	f := Found{Trace: msg.Trace{step}, Expires: a.Expires}
	if k == nil {
		if errors.Is(err, errNoRecord) && failure == "" {
			f.Trace = nil // the usual case
		}
		return f
	}
	f.Policy, f.ID, f.Expires = &k.Policy, k.ID, earlier(a.Expires, k.expires())
	f.Trace = append(f.Trace, msg.Step{
		Check: "mta-sts", Key: name, Value: strings.Join(k.Policy.MX, ", "),
		Effect: string(k.Policy.Mode) + ", fetched " + k.Fetched.UTC().Format(time.RFC3339),
	})
	return f
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// known gives the policy of a domain that counts now, nil for none, and why the last fetch
// failed. With an id that is not the one that is kept it fetches the policy first.
func (c *Cache) known(ctx context.Context, name, id string) (k *kept, failure string) {
	c.mu.Lock()
	d := c.domains[name]
	if d == nil {
		if id == "" {
			c.mu.Unlock()
			return nil, ""
		}
		c.makeRoom()
		d = &domain{}
		c.domains[name] = d
	}
	now := time.Now()
	current := d.current(id, now)
	if id != "" && !current && !d.paused(id, now) && d.running == nil {
		c.startFetch(name, id, d)
	}
	running := d.running
	c.mu.Unlock()
	if running != nil && !current {
		select {
		case <-running:
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.kept == nil || !d.kept.valid(time.Now()) {
		return nil, d.failure
	}
	d.kept.Used = now
	if current {
		return d.kept, ""
	}
	return d.kept, d.failure
}

// startFetch fetches a policy in a goroutine of its own, which outlives the question that
// asked for it: others wait for the same. It is bounded by fetchTime.
func (c *Cache) startFetch(name, id string, d *domain) {
	done := make(chan struct{})
	d.running = done
	c.group.Go(func(ctx context.Context) error {
		defer close(done)
		p, err := c.fetch.fetch(ctx, name)
		c.fetched(name, id, d, p, err)
		return nil
	})
}

// fetched takes the end of a fetch in.
func (c *Cache) fetched(name, id string, d *domain, p *Policy, err error) {
	ctx := context.Background()
	now := time.Now()
	if err != nil {
		c.stats.failed.Inc()
		c.log.LogAttrs(ctx, slog.LevelWarn, "no MTA-STS policy", slog.String("domain", name), slog.String("id", id), slog.Any("error", err))
		c.mu.Lock()
		defer c.mu.Unlock()
		d.failed, d.failure, d.result, d.tried, d.running = now, err.Error(), resultOf(err), id, nil
		return
	}
	c.stats.fetched.Inc()
	k := &kept{Domain: name, ID: id, Fetched: now, Used: now, Policy: *p}
	c.mu.Lock()
	if d.kept != nil { // whoever asks notes the use; to fetch it anew is none
		k.Used = d.kept.Used
	}
	c.mu.Unlock()
	if err := c.store.write(k); err != nil {
		// It counts for as long as this process lives.
		c.log.LogAttrs(ctx, slog.LevelWarn, "an MTA-STS policy cannot be kept", slog.String("domain", name), slog.Any("error", err))
	}
	c.log.LogAttrs(ctx, slog.LevelInfo, "MTA-STS policy", slog.String("domain", name), slog.String("id", id),
		slog.String("mode", string(p.Mode)), slog.Duration("max_age", p.MaxAge))
	c.mu.Lock()
	defer c.mu.Unlock()
	d.kept, d.failed, d.failure, d.result, d.tried, d.running = k, time.Time{}, "", msg.TLSSuccess, id, nil
}

// makeRoom forgets a domain if there are too many: one without a policy, else one whose
// policy was not used for the longest time. Its file is found again at the next start.
func (c *Cache) makeRoom() {
	if len(c.domains) < domainsMax {
		return
	}
	var victim string
	var used time.Time
	for name, d := range c.domains {
		switch {
		case d.running != nil:
			continue
		case d.kept == nil:
			delete(c.domains, name)
			return
		case victim == "" || d.kept.Used.Before(used):
			victim, used = name, d.kept.Used
		}
	}
	delete(c.domains, victim)
}

// refresh fetches policies anew that are in use, and forgets those that have expired.
func (c *Cache) refresh(ctx context.Context) {
	c.mu.Lock()
	now := time.Now()
	due := map[string]string{} // domain -> id
	for name, d := range c.domains {
		switch {
		case d.running != nil:
		case d.kept == nil:
			if now.After(d.failed.Add(retryAfter)) {
				delete(c.domains, name)
			}
		case !d.kept.valid(now):
			delete(c.domains, name)
			if err := c.store.remove(name); err != nil {
				c.log.LogAttrs(ctx, slog.LevelDebug, "an expired MTA-STS policy cannot be removed", slog.String("domain", name), slog.Any("error", err))
			}
		case now.Sub(d.kept.Used) < unusedAfter && now.Sub(d.kept.Fetched) >= min(refreshAge, d.kept.Policy.MaxAge/2):
			due[name] = d.kept.ID
		}
	}
	c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(due)) {
		if ctx.Err() != nil {
			return
		}
		c.refreshOne(ctx, name, due[name])
	}
}

// refreshOne fetches one policy anew and waits for it.
func (c *Cache) refreshOne(ctx context.Context, name, id string) {
	c.mu.Lock()
	d := c.domains[name]
	if d == nil || d.running != nil {
		c.mu.Unlock()
		return
	}
	c.startFetch(name, id, d)
	done := d.running
	c.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
