package queue

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"meta1/mta/msg"
	"meta1/queue/conf"
	"meta1/queue/pace"
	"meta1/queue/sched"
)

// settings are a configuration in effect, with what the configuration map says. They do not change: a
// reload puts others in their place.
type settings struct {
	conf.Config
	rules *conf.Rules
}

// read makes the settings of a configuration: it reads the configuration map. features are the names of
// the sections session_features of smtpc, which the map may name.
func (q *Queue) read(cfg Config, features []string) (*settings, error) {
	rules, err := cfg.Rules(features)
	if err != nil {
		return nil, err
	}
	if rules.Sessions() > 0 && !rules.SessionConfs {
		q.log.Warn("entries smtpc_session_conf: of the configuration map are not looked up without flag lookup_session_conf",
			"map", cfg.Conf, "entries", rules.Sessions())
	}
	return &settings{cfg, rules}, nil
}

// conf are the settings in effect.
func (q *Queue) conf() *settings { return q.settings.Load() }

// Next is a configuration that a Queue can go on with.
type Next struct {
	q *Queue
	s *settings
}

// Prepare reads the configuration map anew (README 3.8.1), for another configuration or the same one.
// Nothing changes. features are the names of the sections session_features of smtpc. Any goroutine may
// call it, whether the queue runs or not.
func (q *Queue) Prepare(cfg Config, features []string) (*Next, error) {
	s, err := q.read(cfg, features)
	if err != nil {
		return nil, err
	}
	return &Next{q, s}, nil
}

// Commit has what was prepared take effect for all that is decided from now on; aq.Configure says what
// follows for mail that is in the queue. What only a start can change stays: the directories and what Pebble
// takes when the store is opened. It cannot fail.
func (n *Next) Commit() {
	q, s := n.q, n.s
	q.reloading.Lock() // so that the core gets the last one last
	defer q.reloading.Unlock()
	q.settings.Store(s)
	q.budget.SetMax(s.AQEntriesMax)
	q.deps.Memory.SetMax(s.ContentMemory)
	q.space.Changed()
	q.events.Put(event{configure: s})
	q.log.LogAttrs(context.Background(), slog.LevelInfo, "configuration map was read", slog.String("map", s.Conf), slog.Int("entries", s.rules.Entries))
}

// hostLimits gives the limits of a host: of the entry for its address or net, else of the
// connection_limits, else of the entry without address, else of the options. Entries are for
// addresses, so not for Unix sockets.
func (s *settings) hostLimits(k sched.HostKey, throttles *msg.Throttles) sched.HostLimits {
	c := s.rules
	limits := sched.HostLimits{Window: sched.Limits{Initial: s.SMTPC.Initial, Max: s.SMTPC.Max}}
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
		if n, ok := throttles.Of(msg.ThrottleOutOpen, ip); ok {
			limits.Window.Max = min(limits.Window.Max, n)
		}
	}
	limits.Window.Initial = min(limits.Window.Initial, limits.Window.Max)
	return limits
}

// providerLimits gives the limits of a provider. What is no longer configured has none.
func (s *settings) providerLimits(name string) sched.ProviderLimits {
	l := sched.ProviderLimits{Pace: pace.Limits{Per: time.Minute, Recovery: 30 * time.Minute}}
	if p := s.rules.Provider(name); p != nil {
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
