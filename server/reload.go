package server

import (
	"context"
	"net"
	"reflect"
	"slices"

	"meta1/mta/supervise"
	"meta1/server/auth"
	"meta1/server/pmilter"
)

// Next is a configuration that a server can go on with. Nothing has changed yet.
type Next struct {
	s       *Server
	filters Filtering
}

// Prepare makes all that a new configuration needs: everything in it that can fail. Sessions
// notice nothing. deps are those of New; of them Log, Metrics, Name and Listeners stay as they
// were. f are the milters and policy services, with paths as Refilter wants them. The error names
// all that is wrong. Who calls Prepare calls Commit or Discard before Prepare or Refilter again. The server may run or not.
func (s *Server) Prepare(cfg Config, deps Deps, f Filtering) (*Next, error) {
	former := s.current()
	deps.Log, deps.Metrics, deps.Name, deps.Listeners = former.deps.Log, former.deps.Metrics, former.deps.Name, former.deps.Listeners
	deps.Memory = former.deps.Memory
	next, err := s.furnish(cfg, deps, f, former)
	if err != nil {
		return nil, err
	}
	return &Next{next, f}, nil
}

// Commit makes the configuration that of the sessions that begin from now on; those that have
// begun keep theirs. The limit of sessions holds at once: no session ends because it is lower. It
// cannot fail.
func (n *Next) Commit() {
	h, next := n.s.hall, n.s
	h.filters.replace(next, n.filters)
	h.mu.Lock()
	former := h.now
	h.now, former.retired = next, true
	h.crowd.SetLimits(next.cfg.crowdLimits())
	if h.crowd.Stressed() {
		select {
		case h.stress <- struct{}{}:
		default: // it is known
		}
	}
	h.employLocked(next)
	idle := former.users == 0
	h.mu.Unlock()
	if idle {
		former.dispose()
	}
}

// Discard gives up what Prepare has made: there are no metrics of what would have come.
func (n *Next) Discard() { n.s.metrics.sections.release(n.s) }

// current is the Server for the sessions that begin now.
func (h *hall) current() *Server {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// enter is current for a session: the Server keeps what it has until exit is called.
func (h *hall) enter() *Server {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.users++
	return h.now
}

// exit ends what enter began.
func (s *Server) exit() {
	s.mu.Lock()
	s.users--
	last := s.retired && s.users == 0
	s.mu.Unlock()
	if last {
		s.dispose()
	}
}

// staff is what servers of a hall have in common and what must be ended when none of them needs
// it any more.
type staff struct {
	uses int
	end  func()
}

// employLocked starts what a Server needs that no other has started.
func (h *hall) employLocked(s *Server) {
	if h.group == nil || s.employed {
		return // Run does it
	}
	s.employed = true
	if a := s.auth; a != nil {
		h.useLocked(a, func() func() {
			ctx, end := context.WithCancel(h.group.Context())
			h.group.Go(func(context.Context) error { return a.Run(ctx) })
			return end
		})
	}
	if f := s.policyMilter; f != nil {
		h.useLocked(f, func() func() { return f.Close })
	}
}

func (h *hall) useLocked(what any, begin func() (end func())) {
	if h.staff == nil {
		h.staff = map[any]*staff{}
	}
	if h.staff[what] == nil {
		h.staff[what] = &staff{end: begin()}
	}
	h.staff[what].uses++
}

// dispose ends what a Server has that no other uses. No session of it is left.
func (s *Server) dispose() {
	var ends []func()
	s.mu.Lock()
	for _, what := range []any{s.auth, s.policyMilter} {
		used := s.staff[what]
		if !s.employed || used == nil {
			continue
		}
		if used.uses--; used.uses == 0 {
			delete(s.staff, what)
			ends = append(ends, used.end)
		}
	}
	s.employed = false
	retired := s.retired // else the server ends, and what it has counted is to be seen still
	s.mu.Unlock()
	if retired {
		s.metrics.sections.release(s)
	}
	for _, end := range ends {
		end()
	}
}

// makeAuth makes AUTH, or takes it with its counts of failures from a Server that has the same
// section.
func (s *Server) makeAuth(former *Server) (err error) {
	if !s.cfg.AuthPresent {
		return nil
	}
	if former != nil && former.auth != nil && former.deps.Hostname == s.deps.Hostname && reflect.DeepEqual(former.cfg.Auth, s.cfg.Auth) {
		s.auth = former.auth
		return nil
	}
	deps := s.authDeps()
	if former != nil {
		deps.Former = former.auth
	}
	s.auth, err = auth.New(s.cfg.Auth, deps)
	return err
}

// samePolicyMilter is the policy milter of a Server if it was made for the same configuration.
func (s *Server) samePolicyMilter(c pmilter.Config) *pmilter.Filter {
	if s == nil || s.policyMilter == nil || s.policyConfig != c {
		return nil
	}
	return s.policyMilter
}

// open begins to accept on all listeners.
func (h *hall) open(ctx context.Context, g *supervise.Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.group, h.accepting = g, ctx
	h.employLocked(h.now)
	for _, l := range h.listeners {
		g.Go(func(context.Context) error { return h.accept(ctx, l, g) })
	}
}

// Addrs are where the server listens. Any goroutine may call it.
func (s *Server) Addrs() (all []net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		all = append(all, l.Addr())
	}
	return all
}

// Listen has the server accept on further listeners, which it closes as its others, and no longer
// on those of some addresses, which it closes now. Sessions that came by them go on. Any goroutine
// may call it, while the server runs or not.
func (s *Server) Listen(opened []net.Listener, closed []net.Addr) {
	h := s.hall
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners = slices.DeleteFunc(h.listeners, func(l net.Listener) bool {
		is := func(a net.Addr) bool { return a.Network() == l.Addr().Network() && a.String() == l.Addr().String() }
		if !slices.ContainsFunc(closed, is) {
			return false
		}
		_ = l.Close()
		return true
	})
	for _, l := range opened {
		if h.stopping || h.accepting != nil && h.accepting.Err() != nil {
			_ = l.Close()
			continue
		}
		h.listeners = append(h.listeners, l)
		if g, ctx := h.group, h.accepting; g != nil {
			g.Go(func(context.Context) error { return h.accept(ctx, l, g) })
		}
	}
}

// listensOn reports whether a listener is one of the server's still.
func (h *hall) listensOn(l net.Listener) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.listeners, l)
}

// closeListeners closes all listeners: the server stops.
func (h *hall) closeListeners() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.listeners {
		_ = l.Close() // it is closed either way
	}
}
