package server

import (
	"cmp"
	"context"
	"net"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"meta1/server/milter"
	"meta1/server/policyd"
)

// Filtering is what a reload can change of a section smtps: its sections milter and
// policy_service. Paths of sockets are relative to the working directory of the process.
type Filtering struct {
	Milters        []Milter
	PolicyServices []PolicyService
}

// filterSet is what the sections milter and policy_service of one configuration became, in
// their order. It does not change: a session keeps the set with which it began.
type filterSet struct {
	milters  []*milter.Filter
	policies []policyService
}

// filterSets holds the set for the sessions that begin now.
type filterSets struct {
	mu     sync.Mutex // guards the following
	now    *filterSet
	config Filtering // of now
	closed bool
}

// get is the set for a session that begins now.
func (f *filterSets) get() *filterSet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// close gives up the idle connections of the set for new sessions, and of every later one.
func (f *filterSets) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.now.close(nil)
}

// Refilter gives the server the milters and policy services of a new configuration, and
// reports whether anything is different. Sessions that have begun keep what they began with;
// those that begin later take the new ones. A milter or service whose section is as before
// keeps its idle connections; those of the others are closed, and so are connections that
// sessions in progress give back. Any goroutine may call it, while the server runs or not.
func (s *Server) Refilter(f Filtering) (changed bool) { return s.filters.replace(s.current(), f) }

// replace is Refilter for one Server.
func (sets *filterSets) replace(s *Server, f Filtering) (changed bool) {
	sets.mu.Lock()
	defer sets.mu.Unlock()
	defer func() { s.set.Store(sets.now) }()
	if sets.now != nil && reflect.DeepEqual(sets.config, f) {
		return false
	}
	old := sets.now
	if old == nil {
		old = &filterSet{}
	}
	s.metrics.sections.use(s, s.cfg.labels(f))
	sets.config = Filtering{slices.Clone(f.Milters), slices.Clone(f.PolicyServices)}
	sets.now = &filterSet{milters: s.makeMilters(old, sets.config.Milters), policies: s.makePolicyServices(old, sets.config.PolicyServices)}
	old.close(sets.now)
	if sets.closed {
		sets.now.close(nil)
	}
	return true
}

// makeMilters makes the milters of a configuration. Those of the old set whose configuration is
// the same are taken from there.
func (s *Server) makeMilters(old *filterSet, config []Milter) (list []*milter.Filter) {
	dial := s.deps.Dial
	if dial == nil {
		dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}
	for i := range config {
		c := config[i].config()
		at := slices.IndexFunc(old.milters, func(f *milter.Filter) bool { return reflect.DeepEqual(f.Config(), c) })
		if at >= 0 {
			list = append(list, old.milters[at])
			continue
		}
		list = append(list, milter.New(c, milter.Deps{Dial: dial, Log: s.log, Metrics: s.metrics.milter(c.Name)}))
	}
	return list
}

// makePolicyServices makes the policy services of a configuration in the same way.
func (s *Server) makePolicyServices(old *filterSet, config []PolicyService) (list []policyService) {
	for i := range config {
		p := &config[i]
		s.metrics.policyService(p.Name)
		c := policyd.Config{Network: "unix", Address: p.Socket.Path, Timeout: cmp.Or(p.Timeout, 30*time.Second)}
		if p.Socket.Type == "inet" {
			c.Network, c.Address = "tcp", net.JoinHostPort(p.Socket.Address.String(), strconv.Itoa(p.Socket.Port))
		}
		at := slices.IndexFunc(old.policies, func(o policyService) bool { return o.Name == p.Name && o.Config() == c })
		if at >= 0 {
			list = append(list, policyService{p, old.policies[at].Service})
			continue
		}
		list = append(list, policyService{p, policyd.New(c, s.deps.Dial)})
	}
	return list
}

// close closes what is not part of the next set; nil: there is none.
func (f *filterSet) close(next *filterSet) {
	if next == nil {
		next = &filterSet{}
	}
	for _, m := range f.milters {
		if !slices.Contains(next.milters, m) {
			m.Close()
		}
	}
	for _, p := range f.policies {
		if !slices.ContainsFunc(next.policies, func(n policyService) bool { return n.Service == p.Service }) {
			p.Close()
		}
	}
}
