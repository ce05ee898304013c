package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"

	"meta1/mta/supervise"
	"meta1/resolver/greylist"
	"meta1/resolver/mtasts"
)

// What SMAR keeps on the disk: the greylisting store, and MTA-STS policies. Once open they stay so until Run ends, also if
// a reload turns them off: questions that began before may still use them, and a later reload may turn them on again.

// open opens the stores that the configuration has, and begins to run in g. After an error close closes them.
func (h *hall) open(g *supervise.Group) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.now.Load()
	r.warnUntrusted()
	if r.cfg.Greylist.Present && h.grey == nil {
		var err error
		if h.grey, err = r.openGreylist(); err != nil {
			if r.deps.SpoolDir == "" {
				return err
			}
			h.noGreylist(r, err)
		}
	}
	if r.cfg.MTASTS.Present && h.sts == nil {
		var err error
		if h.sts, err = r.openSTS(); err != nil {
			return err
		}
	}
	h.group, h.stage = g, running
	h.useStoresLocked(r)
	return nil
}

// useStoresLocked gives the Resolver that is about to answer the stores that it has use for, with its options.
func (h *hall) useStoresLocked(r *Resolver) {
	r.grey, r.sts = nil, nil
	if r.cfg.Greylist.Present && h.grey != nil {
		h.grey.Reconfigure(r.cfg.Greylist.store())
		r.grey = h.grey
	}
	if r.cfg.MTASTS.Present && h.sts != nil {
		h.sts.Trust(r.deps.Roots)
		r.sts = h.sts
	}
	switch {
	case r.sts != nil && h.endSTS == nil && h.stage == running && h.group.Context().Err() == nil:
		ctx, end := context.WithCancel(h.group.Context())
		h.endSTS = end
		sts := h.sts
		h.group.Go(func(context.Context) error { return sts.Run(ctx) })
	case r.sts == nil && h.endSTS != nil:
		h.endSTS()
		h.endSTS = nil
	}
}

// close ends what open began.
func (h *hall) close() {
	h.endLookups()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stage = ended
	if h.endSTS != nil {
		h.endSTS()
	}
	h.now.Load().set.closeMaps()
	if h.grey != nil {
		h.closeGreylist(h.grey)
	}
	if h.sts != nil {
		h.closeSTS(h.sts)
	}
	h.grey, h.sts = nil, nil
}

// endLookups ends the questions to name servers that are under way.
func (h *hall) endLookups() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.Load().dns.Close()
	for _, r := range h.retired {
		r.dns.Close()
	}
}

// store is the configuration of package greylist.
func (c *GreylistConfig) store() greylist.Config {
	return greylist.Config{
		Wait: c.Wait, Expire: c.Expire, WhiteExpire: c.WhiteExpire, WhiteTimeout: c.WhiteTimeout,
		Limit: c.ExpireLimit, Netmask: uint32(min(max(c.Netmask, 0), math.MaxUint32)), Prefix6: c.Prefix6,
	}
}

func (r *Resolver) openGreylist() (*greylist.Store, error) {
	if r.deps.SpoolDir == "" {
		return nil, errors.New("smar: greylisting needs the main queue directory")
	}
	return greylist.Open(r.greylistDir(), r.cfg.Greylist.store(), greylist.Deps{FS: r.deps.FS, Log: r.log, Metrics: r.deps.Metrics})
}

func (r *Resolver) greylistDir() string { return filepath.Join(r.deps.SpoolDir, "greylist") }

// noGreylist tells of a greylisting store that cannot be opened. That stops no mail: then there is no greylisting until the
// next start, or a reload that finds it good.
func (h *hall) noGreylist(r *Resolver, err error) {
	h.log.LogAttrs(context.Background(), slog.LevelError,
		"greylisting is off until the next start and all mail passes; if the store is damaged remove its directory: clients wait once more then",
		slog.String("directory", r.greylistDir()), slog.String("stat", err.Error()))
}

func (h *hall) closeGreylist(s *greylist.Store) {
	if err := s.Close(); err != nil {
		h.log.LogAttrs(context.Background(), slog.LevelError, "greylisting", slog.String("stat", err.Error()))
	}
}

// openSTS opens what is kept of MTA-STS policies. A directory that
// cannot be used stops SMAR: mail would go out with less protection than the operator thinks.
func (r *Resolver) openSTS() (*mtasts.Cache, error) {
	if r.deps.SpoolDir == "" {
		return nil, errors.New("smar: mta_sts needs the main queue directory")
	}
	cfg := mtasts.Config{Dir: filepath.Join(r.deps.SpoolDir, "mtasts"), Roots: r.deps.Roots}
	sts, err := mtasts.Open(cfg, mtasts.Deps{DNS: stsNames{r.hall}, FS: r.deps.FS, Log: r.log, Metrics: r.deps.Metrics})
	if err != nil {
		return nil, fmt.Errorf("smar: MTA-STS: %w", err)
	}
	return sts, nil
}

func (h *hall) closeSTS(s *mtasts.Cache) {
	if err := s.Close(); err != nil {
		h.log.LogAttrs(context.Background(), slog.LevelError, "MTA-STS", slog.String("stat", err.Error()), stack(err))
	}
}
