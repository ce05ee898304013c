package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/queue/conf"
	"meta1/queue/sched"
)

// confTable is what the configuration map says, with the sections it names. It does
// not change.
type confTable struct {
	*conf.Table
	limits  map[string]*ConnectionLimits
	sources map[string][]netip.Addr
}

// readConf reads the configuration map. Only the default file may be missing: it has
// no entries then.
func (q *Queue) readConf() (*confTable, error) {
	c := &confTable{Table: &conf.Table{}, limits: map[string]*ConnectionLimits{}, sources: map[string][]netip.Addr{}}
	var names conf.Names
	for i := range q.cfg.SMTPC.ConnectionLimits {
		l := &q.cfg.SMTPC.ConnectionLimits[i]
		c.limits[l.Name] = l
		names.Limits = append(names.Limits, l.Name)
	}
	for i := range q.cfg.SMTPC.Sources {
		s := &q.cfg.SMTPC.Sources[i]
		c.sources[s.Name] = s.IPs
		names.Sources = append(names.Sources, s.Name)
	}
	names.Features = q.deps.SessionFeatures
	if q.cfg.Conf == "" {
		return c, nil
	}
	t, err := conf.Open(q.cfg.Conf, names)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !q.cfg.ConfNamed:
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("reading the configuration map of QMGR: %w", err)
	}
	c.Table = t
	if n := t.Sessions(); n > 0 && !q.looksSessionUp() {
		q.log.Warn("entries smtpc_session_conf: of the configuration map are not looked up without flag lookup_session_conf",
			"map", q.cfg.Conf, "entries", n)
	}
	return c, nil
}

// Reload reads the configuration map anew (README 3.8.1). After an error the old one
// stays in effect. New limits hold for hosts that are known, too. Anyone may call it
// while Run runs.
func (q *Queue) Reload(ctx context.Context) error {
	q.reloading.Lock()
	defer q.reloading.Unlock()
	q.events.put(&mapsEvent{})
	c, err := q.readConf()
	if err != nil {
		return err
	}
	q.conf.Store(c)
	q.events.put(&confEvent{})
	q.log.LogAttrs(ctx, slog.LevelInfo, "configuration map was read", slog.String("map", q.cfg.Conf), slog.Int("entries", c.Entries))
	return nil
}

// mapsEvent: the maps of SMAR may have been read anew, so routes may have changed.
type mapsEvent struct{}

func (e *mapsEvent) apply(l *loop) { l.routesFrom = l.now }

// confEvent: the configuration map was read anew.
type confEvent struct{}

func (e *confEvent) apply(l *loop) {
	for k, h := range l.hosts {
		limits := l.q.hostLimits(k)
		h.window.SetLimits(limits.window)
		h.timeout = limits.timeout
		if h.rate.max = limits.rate; limits.rate == 0 {
			h.rate = rate{}
		}
		l.wake(h)
	}
}

// ruled tells whether the map has limits for an address or its net, which override
// connection_limits (README 3.8.1).
func (c *confTable) ruled(ip netip.Addr) bool {
	_, initial := c.Initial.Of(ip)
	_, most := c.Max.Of(ip)
	return initial || most
}

// hostLimits are the limits of an OCC entry.
type hostLimits struct {
	window  sched.Limits
	rate    int           // connections within a minute; 0: no limit
	timeout time.Duration // 0: not given
}

// hostLimits gives the limits of a host: of the entry for its address or net, else of
// the connection_limits, else of the entry without address, else of the options.
// Entries are for addresses, so not for Unix sockets.
func (q *Queue) hostLimits(k hostKey) hostLimits {
	limits := hostLimits{window: sched.Limits{Initial: q.cfg.SMTPC.Initial, Max: q.cfg.SMTPC.Max}}
	ip := k.addr.Addr()
	if ip.IsValid() {
		c := q.conf.Load()
		limits.window = sched.Limits{
			Initial: byAddress(c.Initial, ip, limits.window.Initial), Max: byAddress(c.Max, ip, limits.window.Max),
		}
		limits.rate = byAddress(c.Rate, ip, 0)
		limits.timeout = time.Duration(byAddress(c.Timeout, ip, 0)) * time.Second
	}
	if k.limits != nil {
		if k.limits.Initial > 0 {
			limits.window.Initial = k.limits.Initial
		}
		if k.limits.Max > 0 {
			limits.window.Max = k.limits.Max
		}
	}
	limits.window.Initial = min(limits.window.Initial, limits.window.Max)
	return limits
}

func byAddress(t conf.IPTable, ip netip.Addr, otherwise int) int {
	if n, ok := t.Of(ip); ok {
		return n
	}
	return t.Default(otherwise)
}

// looksSessionUp tells whether entries of smtpc_session_conf: count. Where sections
// session_features are configured no flag is needed (README 3.8, item 16g).
func (q *Queue) looksSessionUp() bool {
	return q.cfg.SMTPC.LookupSessionConf || len(q.deps.SessionFeatures) > 0
}

// sessionConf gives the configuration of sessions with a host, nil for none.
func (q *Queue) sessionConf(h msg.Hop) *msg.Conf {
	if !q.looksSessionUp() {
		return nil
	}
	return q.conf.Load().Session(h.Addr.Addr())
}

// limitsOf gives the connection_limits for recipients at a domain, nil for none.
func (q *Queue) limitsOf(domain string) *ConnectionLimits {
	c := q.conf.Load()
	return c.limits[c.Limits(domain)]
}

// sources gives the local addresses from which mail of an envelope goes out, nil for
// any: those of all sections that the entry names.
func (q *Queue) sources(e *msg.Envelope) []netip.Addr {
	c := q.conf.Load()
	names := c.Sources(e.Client.IP, e.Mail.From.Local, e.Mail.From.Domain)
	if len(names) == 1 {
		return c.sources[names[0]]
	}
	var ips []netip.Addr
	for _, name := range names {
		ips = append(ips, c.sources[name]...)
	}
	return slices.Clip(ips)
}
