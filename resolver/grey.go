package resolver

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"

	"meta1/resolver/greylist"
)

// openGreylist opens the greylisting store if the section is there. One that cannot be
// opened stops no mail: then there is no greylisting until the next start.
func (r *Resolver) openGreylist() error {
	c := r.cfg.Greylist
	if !c.Present {
		return nil
	}
	if r.deps.SpoolDir == "" {
		return errors.New("smar: greylisting needs the main queue directory")
	}
	dir := filepath.Join(r.deps.SpoolDir, "greylist")
	grey, err := greylist.Open(dir, greylist.Config{
		Wait: c.Wait, Expire: c.Expire, WhiteExpire: c.WhiteExpire, WhiteTimeout: c.WhiteTimeout,
		Limit: c.ExpireLimit, Netmask: uint32(min(max(c.Netmask, 0), math.MaxUint32)), Prefix6: c.Prefix6,
	}, greylist.Deps{FS: r.deps.FS, Log: r.log, Metrics: r.deps.Metrics})
	if err != nil {
		r.log.LogAttrs(context.Background(), slog.LevelError,
			"greylisting is off until the next start and all mail passes; if the store is damaged remove its directory: clients wait once more then",
			slog.String("directory", dir), slog.String("stat", err.Error()))
		return nil
	}
	r.grey = grey
	return nil
}

func (r *Resolver) closeGreylist() {
	if err := r.grey.Close(); err != nil {
		r.log.LogAttrs(context.Background(), slog.LevelError, "greylisting", slog.String("stat", err.Error()))
	}
}
