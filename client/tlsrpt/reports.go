package tlsrpt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/dayfiles"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
)

const (
	askers    = 4                // questions to DNS at one time
	askTime   = 30 * time.Second // for one of them
	saveEvery = time.Minute
	// look is how often it is looked which report is due. sendsMax bounds the reports that
	// are sent then.
	look     = 10 * time.Second
	sendsMax = 20
	// retryFirst is the time between the first tries; it doubles each time. retryFor is how
	// long a report is tried (RFC 8460 section 5.5: 24 hours).
	retryFirst = 15 * time.Minute
	retryFor   = 24 * time.Hour
)

// Deps are what Reports need from outside. Ports, Hostname and Dir are required.
type Deps struct {
	Ports    *msg.Ports
	Hostname string
	Dir      string // of the files; it is made
	FS       vfs.FS // nil: the disk
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Roots    *x509.CertPool // trusted for HTTPS; nil: those of the system
	Dial     Dial           // nil: the network
	// Sign adds a DKIM signature to a message, which RFC 8460 section 3 wants; nil: none is
	// added here.
	Sign func(message []byte) ([]byte, error)
}

// Reports counts sessions and sends reports. It is safe for use by many goroutines.
type Reports struct {
	deps    Deps
	log     *slog.Logger
	stats   stats
	store   dayfiles.Dir
	host    string
	terms   atomic.Pointer[terms]
	wake    chan struct{} // there may be a domain to ask about
	sending sync.Mutex    // held while reports are sent
	saving  sync.Mutex    // held while a file is written
	reading sync.Once     // of what is on disk: Run may be called again after a fault

	mu      sync.Mutex // guards the following, and all days
	today   *day
	past    []*day // that wait for their reports to be sent, the oldest first
	known   map[string]standing
	waiting map[string]*waiting
	dirty   map[*day]bool // differs from its file
}

// New makes Reports. It reads and starts nothing.
func New(cfg Config, deps Deps) *Reports {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.FS == nil {
		deps.FS = vfs.Real()
	}
	if deps.Dial == nil {
		deps.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		}
	}
	host := strings.ToLower(strings.TrimSuffix(deps.Hostname, "."))
	r := &Reports{
		deps: deps, log: deps.Log, store: dayfiles.Dir{FS: deps.FS, Path: deps.Dir, Max: fileMax},
		host: host, wake: make(chan struct{}, 1), today: newDay(time.Now().UTC().Truncate(24 * time.Hour)),
		known: map[string]standing{}, waiting: map[string]*waiting{}, dirty: map[*day]bool{},
	}
	r.Reconfigure(cfg, deps.Roots)
	r.stats = newStats(deps.Metrics, func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := len(r.today.Domains)
		for _, d := range r.past {
			n += len(d.Domains)
		}
		return float64(n)
	})
	return r
}

// terms are who sends the reports, and how.
type terms struct {
	organization, contact, submitter string
	sender                           smtp.Path
	https                            bool
	poster                           poster
}

// Reconfigure takes other options for the reports that are made and sent from now on. roots are trusted for HTTPS;
// nil: those of the system.
func (r *Reports) Reconfigure(cfg Config, roots *x509.CertPool) {
	sender, err := cfg.sender()
	if err != nil || sender.Domain == "" {
		sender = smtp.Path{Local: "noreply-tls-reports", Domain: r.host}
	}
	r.terms.Store(&terms{
		organization: cmp.Or(cfg.Organization, r.host), contact: cmp.Or(cfg.Contact, sender.Addr()), submitter: sender.LowerDomain(),
		sender: sender, https: cfg.HTTPS, poster: poster{r.deps.Dial, roots, cfg.PrivateHosts},
	})
}

// Effective is what the next report goes by, for reflect.DeepEqual with that of other Reports alone: a test holds a
// reload against a start.
func (r *Reports) Effective() any {
	t := *r.terms.Load()
	t.poster.dial, t.poster.roots = nil, nil // they cannot be compared
	return t
}

func (r *Reports) ctx() context.Context { return context.Background() }

// Run reads what was counted before, finds out which domains want reports, writes what is
// counted, and sends reports, until ctx ends. It logs what goes wrong, and goes on.
func (r *Reports) Run(ctx context.Context) error {
	r.reading.Do(r.load)
	g := supervise.NewGroup(ctx)
	names := make(chan string)
	for range askers {
		g.Go(func(ctx context.Context) error {
			for {
				select {
				case name := <-names:
					r.ask(ctx, name)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	g.Go(func(ctx context.Context) error { return r.distribute(ctx, names) })
	g.Go(func(ctx context.Context) error {
		save := time.NewTicker(saveEvery)
		defer save.Stop()
		for {
			select {
			case <-save.C:
				r.save()
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func(ctx context.Context) error { // hosts that hang make nobody wait but other reports
		due := time.NewTicker(look)
		defer due.Stop()
		for {
			select {
			case now := <-due.C:
				r.sendDue(ctx, now.UTC())
			case <-ctx.Done():
				return nil
			}
		}
	})
	err := g.Wait()
	r.save()
	return err
}

// load takes in what is on disk.
func (r *Reports) load() {
	days, damaged, err := dayfiles.Load(&r.store, readDay)
	if damaged != nil {
		r.log.LogAttrs(r.ctx(), slog.LevelWarn, "counts for reports about TLS could not be read and were put aside", slog.Any("error", damaged))
	}
	if err != nil {
		r.log.LogAttrs(r.ctx(), slog.LevelError, "counts for reports about TLS cannot be kept", slog.Any("error", err))
		return
	}
	now := time.Now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := r.today // what was counted since New
	for _, d := range days {
		switch {
		case d.over(now) && !d.End.IsZero():
			r.forget(d)
		case d.End.IsZero() && r.today == fresh && len(fresh.Domains) == 0:
			r.today = d // roll ends it if its day is over
		case d.End.IsZero():
			r.end(d, d.Start.Truncate(24*time.Hour).Add(24*time.Hour))
		default:
			r.past = append(r.past, d)
		}
	}
	slices.SortFunc(r.past, func(a, b *day) int { return a.Start.Compare(b.Start) })
	r.roll(now)
}

// distribute hands out the domains about which SMAR is to be asked.
func (r *Reports) distribute(ctx context.Context, names chan<- string) error {
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for {
		select {
		case <-r.wake:
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
		for _, name := range r.unknown(time.Now().UTC()) {
			select {
			case names <- name:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// unknown takes the domains about which to ask now.
func (r *Reports) unknown(now time.Time) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, w := range r.waiting {
		if !w.asking && !now.Before(w.next) {
			w.asking = true
			names = append(names, name)
		}
	}
	return names
}

// ask asks SMAR whether a domain wants reports.
func (r *Reports) ask(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	a, err := r.deps.Ports.Report.Ask(ctx, msg.TLSReportQ{Domain: name})
	if err != nil {
		a.Err = err.Error()
	}
	r.settle(name, &a, time.Now().UTC())
}

// save writes what has changed. What cannot be written stays changed, and is tried again.
func (r *Reports) save() {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	r.roll(time.Now())
	var changed []*day
	for d := range r.dirty {
		changed = append(changed, d)
	}
	clear(r.dirty)
	r.mu.Unlock()
	for _, d := range changed {
		r.mu.Lock()
		done := d != r.today && !slices.Contains(r.past, d)
		r.mu.Unlock()
		if done { // its file was removed meanwhile; one that is written all the same goes at the next start
			continue
		}
		text, err := r.text(d)
		if err == nil {
			err = r.store.Write(d.Start, text)
		}
		if err != nil {
			r.log.LogAttrs(r.ctx(), slog.LevelError, "counts for reports about TLS cannot be kept", slog.Any("error", err))
			r.mu.Lock()
			r.dirty[d] = true
			r.mu.Unlock()
		}
	}
}

// text is a day as it is on disk. The mutex is held for one domain at a time, so that
// deliveries do not wait for all of them.
func (r *Reports) text(d *day) ([]byte, error) {
	r.mu.Lock()
	outer := struct {
		Version int                        `json:"version"`
		Start   time.Time                  `json:"start"`
		End     time.Time                  `json:"end"`
		Domains map[string]json.RawMessage `json:"domains"`
	}{d.Version, d.Start, d.End, map[string]json.RawMessage{}}
	names := make([]string, 0, len(d.Domains))
	for name := range d.Domains {
		names = append(names, name)
	}
	r.mu.Unlock()
	for _, name := range names {
		r.mu.Lock()
		one, err := json.Marshal(d.Domains[name])
		r.mu.Unlock()
		if err != nil {
			return nil, err
		}
		outer.Domains[name] = one
	}
	var b bytes.Buffer
	err := json.NewEncoder(&b).Encode(outer)
	return b.Bytes(), err
}

// forget removes the file of a day. r.mu is held.
func (r *Reports) forget(d *day) {
	delete(r.dirty, d)
	if err := r.store.Remove(d.Start); err != nil {
		r.log.LogAttrs(r.ctx(), slog.LevelWarn, "counts of a day whose reports were sent cannot be removed", slog.Any("error", err))
	}
}

// dueReport is a report to be sent.
type dueReport struct {
	day  *day
	name string
	one  *domain
	rep  *Report
}

// due finds the reports that are to be sent now; only those on one domain unless it is "". at
// once takes those that are to wait, too.
func (r *Reports) due(now time.Time, only string, atOnce bool, most int) (list []dueReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roll(now)
	for _, d := range slices.Clone(r.past) {
		if d.over(now) {
			r.past = slices.DeleteFunc(r.past, func(one *day) bool { return one == d })
			r.forget(d)
			continue
		}
		for name, one := range d.Domains {
			if len(list) < most && !one.Sent && (atOnce || !now.Before(one.Next)) && (only == "" || only == name) {
				list = append(list, dueReport{d, name, one, r.report(name, d, one)})
			}
		}
	}
	return list
}

// sendDue sends the reports whose time has come.
func (r *Reports) sendDue(ctx context.Context, now time.Time) {
	r.sending.Lock()
	defer r.sending.Unlock()
	for _, d := range r.due(now, "", false, sendsMax) {
		if ctx.Err() != nil {
			return
		}
		_ = r.send(ctx, d) // it is logged, and tried again
	}
}

// send tries to send a report, and notes what became of it. r.sending is held.
func (r *Reports) send(ctx context.Context, d dueReport) error {
	err := r.deliver(ctx, d.name, d.rep)
	now := time.Now().UTC()
	if err != nil && ctx.Err() != nil {
		return err // we end
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty[d.day] = true
	attrs := []slog.Attr{slog.String("domain", d.name), slog.String("report_id", d.rep.ID)}
	if err == nil {
		d.one.Sent, d.one.Why = true, ""
		r.stats.reports[sent].Inc()
		r.log.LogAttrs(ctx, slog.LevelInfo, "a report about TLS was sent", attrs...)
		return nil
	}
	d.one.Why = clip(strings.ReplaceAll(err.Error(), "\n", "; "))
	attrs = append(attrs, slog.String("error", d.one.Why))
	pause := retryFirst << min(d.one.Tries, 6)
	d.one.Tries++
	if errors.Is(err, errUnwanted) || now.Add(pause).After(d.day.End.Add(6*time.Hour+retryFor)) {
		d.one.Sent = true
		r.stats.reports[givenUp].Inc()
		r.log.LogAttrs(ctx, slog.LevelWarn, "a report about TLS is given up", attrs...)
		return err
	}
	d.one.Next = now.Add(pause)
	r.stats.reports[failed].Inc()
	r.log.LogAttrs(ctx, slog.LevelWarn, "a report about TLS could not be sent", attrs...)
	return err
}
