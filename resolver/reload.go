package resolver

import (
	"context"
	"log/slog"
	"slices"

	"meta1/maps"
	"meta1/resolver/dns"
	"meta1/resolver/greylist"
	"meta1/resolver/mtasts"
	"meta1/resolver/srs"
)

// Next is a configuration with which a Resolver can go on, with all its maps read. Nothing has changed yet.
type Next struct {
	r    *Resolver
	grey *greylist.Store // opened for it; nil: it needs none, or there is one
	sts  *mtasts.Cache   // as grey
}

// Prepare makes all that a new configuration needs: everything in it that can fail. Questions
// notice nothing. deps are those of New; of them Ports, Log, Metrics, Hostname, SpoolDir, FS, ConfigDir, Dial and ResolvConf
// stay as they were. The error has all that is wrong in the maps, with file and line; nothing stays open then.
// Who calls Prepare calls Commit or Discard before Prepare again. The resolver may run or not.
func (r *Resolver) Prepare(cfg Config, deps Deps) (*Next, error) {
	h := r.hall
	former := h.now.Load()
	was := &former.deps
	deps.Ports, deps.Log, deps.Metrics, deps.Hostname = was.Ports, was.Log, was.Metrics, was.Hostname
	deps.SpoolDir, deps.FS, deps.ConfigDir, deps.Dial, deps.ResolvConf = was.SpoolDir, was.FS, was.ConfigDir, was.Dial, was.ResolvConf
	cfg, deps = withDefaults(cfg, deps)
	next, err := h.furnish(cfg, deps, former)
	if err != nil {
		return nil, err
	}
	n := &Next{r: next}
	if err := n.openStores(former); err != nil {
		n.Discard()
		return nil, err
	}
	return n, nil
}

// openStores opens the stores that the running Resolver does not have. One that it should have and that could not be opened
// holds no reload up: it is no worse then.
func (n *Next) openStores(former *Resolver) (err error) {
	h, r := n.r.hall, n.r
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stage == ended { // the next instance opens them
		return nil
	}
	had := func(present bool) bool { return present && h.stage == made } // then Run is about to open it
	if r.cfg.Greylist.Present && h.grey == nil && !had(former.cfg.Greylist.Present) {
		if n.grey, err = r.openGreylist(); err != nil {
			if !former.cfg.Greylist.Present {
				return err
			}
			h.noGreylist(r, err)
		}
	}
	if r.cfg.MTASTS.Present && h.sts == nil && !had(former.cfg.MTASTS.Present) {
		n.sts, err = r.openSTS()
		return err
	}
	return nil
}

// Discard gives up what Prepare has opened.
func (n *Next) Discard() {
	n.r.now.Load().set.closeUnused(n.r.set)
	n.closeStores()
}

func (n *Next) closeStores() {
	if n.grey != nil {
		n.r.closeGreylist(n.grey)
	}
	if n.sts != nil {
		n.r.closeSTS(n.sts)
	}
}

// Commit has the questions that come from now on be answered by the new configuration; those in progress
// finish with the old one. It cannot fail.
func (n *Next) Commit() {
	r := n.r
	h := r.hall
	h.mu.Lock()
	defer h.mu.Unlock()
	former := h.now.Load()
	if h.stage == ended {
		n.closeStores()
	} else {
		if n.grey != nil {
			h.grey = n.grey
		}
		if n.sts != nil {
			h.sts = n.sts
		}
		h.useStoresLocked(r)
	}
	if r.dns != former.dns {
		r.dns.Follow(former.dns)
		h.retired = append(h.retired, former)
		if h.stage == running {
			r.warnUntrusted()
		}
	}
	h.now.Store(r)
	h.retired = slices.DeleteFunc(h.retired, func(old *Resolver) bool { return old != former && old.users.Load() == 0 })
	r.set.closeUnused(former.set)
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "maps reloaded", slog.Int("mailertable", r.set.mailertable.len()))
}

// Effective is what the questions that come now are answered with, for reflect.DeepEqual with that of another
// Resolver alone: a test holds a reload against a start. Of maps it has how they are used, not what they hold.
func (h *hall) Effective() any {
	r := h.now.Load()
	type effective struct {
		cfg       Config
		asks      dns.Config
		finds     dns.FinderConfig
		only      *target
		rules     map[string]*target
		table     string
		steps     maps.Steps
		names     []string
		access    string
		aliases   AliasConfig
		users     maps.Steps
		lmtp      string
		port      uint16
		rcptConf  maps.Steps
		roots     bool // there are some of our own, which cannot be compared
		counts    bool
		srs       srs.Scheme
		forwarded bool
	}
	s := r.set
	e := effective{
		cfg: r.cfg, asks: r.asks, finds: r.finds, only: r.only, rules: s.mailertable.rules, table: s.mailertable.name, steps: s.mailertable.steps,
		lmtp: r.deps.LMTPSocket, port: r.deps.RemotePort, rcptConf: r.deps.RcptConf, roots: r.deps.Roots != nil, counts: r.deps.TLSReports != nil,
		forwarded: r.deps.Forwarding != nil && r.deps.Forwarding(),
	}
	for name := range s.maps {
		e.names = append(e.names, name)
	}
	slices.Sort(e.names)
	if s.access != nil {
		e.access = s.access.name
	}
	if s.aliases != nil {
		e.aliases = s.aliases.cfg
	}
	if s.users != nil {
		e.users = s.users.steps
	}
	if r.deps.SRS != nil {
		e.srs = r.deps.SRS.Scheme()
	}
	return e
}
