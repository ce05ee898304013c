package queue

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"meta1/mta/msg"
	"meta1/queue/aq"
	"meta1/queue/conf"
	"meta1/queue/pace"
	"meta1/queue/sched"
)

// readConf reads the configuration map.
func (q *Queue) readConf() (*conf.Rules, error) {
	c, err := q.cfg.Rules(q.deps.SessionFeatures)
	if err == nil && c.Sessions() > 0 && !c.SessionConfs {
		q.log.Warn("entries smtpc_session_conf: of the configuration map are not looked up without flag lookup_session_conf",
			"map", q.cfg.Conf, "entries", c.Sessions())
	}
	return c, err
}

// Reload reads the configuration map anew (README 3.8.1). After an error the old one
// stays in effect. New limits hold for hosts that are known, too. Anyone may call it
// while Run runs.
func (q *Queue) Reload(ctx context.Context) error {
	q.reloading.Lock()
	defer q.reloading.Unlock()
	q.events.put(event{ev: &aq.Reloaded{Maps: true}})
	c, err := q.readConf()
	if err != nil {
		return err
	}
	q.conf.Store(c)
	q.events.put(event{ev: &aq.Reloaded{}})
	q.log.LogAttrs(ctx, slog.LevelInfo, "configuration map was read", slog.String("map", q.cfg.Conf), slog.Int("entries", c.Entries))
	return nil
}

// Next is a configuration that a Queue can go on with.
type Next struct {
	q     *Queue
	rules *conf.Rules
}

// Prepare reads the configuration map. Nothing changes.
func (q *Queue) Prepare() (*Next, error) {
	rules, err := q.readConf()
	if err != nil {
		return nil, err
	}
	return &Next{q, rules}, nil
}

// Commit has what was prepared take effect: new limits hold for hosts that are known, too. It cannot
// fail.
func (n *Next) Commit() {
	q := n.q
	q.reloading.Lock()
	defer q.reloading.Unlock()
	q.conf.Store(n.rules)
	q.events.put(event{ev: &aq.Reloaded{Maps: true}})
	q.events.put(event{ev: &aq.Reloaded{}})
}

// hostLimits gives the limits of a host: of the entry for its address or net, else of the
// connection_limits, else of the entry without address, else of the options. Entries are for
// addresses, so not for Unix sockets.
func (q *Queue) hostLimits(k sched.HostKey) sched.HostLimits {
	c := q.conf.Load()
	limits := sched.HostLimits{Window: sched.Limits{Initial: q.cfg.SMTPC.Initial, Max: q.cfg.SMTPC.Max}}
	if ip := k.Addr.Addr(); ip.IsValid() {
		limits.Window = sched.Limits{
			Initial: byAddress(c.Initial, ip, limits.Window.Initial), Max: byAddress(c.Max, ip, limits.Window.Max),
		}
		limits.Rate = byAddress(c.Rate, ip, 0)
		limits.Timeout = time.Duration(byAddress(c.Timeout, ip, 0)) * time.Second
	}
	if l := c.ConnectionLimits(k.Limits); l != nil {
		if l.Initial > 0 {
			limits.Window.Initial = l.Initial
		}
		if l.Max > 0 {
			limits.Window.Max = l.Max
		}
	}
	if ip := k.Addr.Addr(); ip.IsValid() {
		if n, ok := q.ports.Throttles.Of(msg.ThrottleOutOpen, ip); ok {
			limits.Window.Max = min(limits.Window.Max, n)
		}
	}
	limits.Window.Initial = min(limits.Window.Initial, limits.Window.Max)
	return limits
}

// providerLimits gives the limits of a provider. What is no longer configured has none.
func (q *Queue) providerLimits(name string) sched.ProviderLimits {
	l := sched.ProviderLimits{Pace: pace.Limits{Per: time.Minute, Recovery: 30 * time.Minute}}
	if p := q.conf.Load().Provider(name); p != nil {
		l.Connections = p.Max
		l.Pace = pace.Limits{Rate: p.Rate, Per: p.Per, Min: p.RateMin, Recovery: p.Recovery}
	}
	return l
}

func byAddress(t conf.IPTable, ip netip.Addr, otherwise int) int {
	if n, ok := t.Of(ip); ok {
		return n
	}
	return t.Default(otherwise)
}
