package resolver

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"

	"meta1/resolver/greylist"
)

// openGreylist opens the greylisting store if the section is there.
func (r *Resolver) openGreylist() error {
	c := r.cfg.Greylist
	if !c.Present {
		return nil
	}
	if r.deps.SpoolDir == "" {
		return errors.New("smar: greylisting needs the main queue directory")
	}
	var err error
	r.grey, err = greylist.Open(filepath.Join(r.deps.SpoolDir, "greylist"), r.deps.FS, greylist.Config{
		Wait: c.Wait, Expire: c.Expire, WhiteExpire: c.WhiteExpire, WhiteTimeout: c.WhiteTimeout,
		Limit: c.ExpireLimit, Netmask: uint32(min(max(c.Netmask, 0), math.MaxUint32)), Prefix6: c.Prefix6,
	}, r.log)
	return err
}

func (r *Resolver) closeGreylist() {
	if err := r.grey.Close(); err != nil {
		r.log.LogAttrs(context.Background(), slog.LevelError, "greylisting", slog.String("stat", err.Error()))
	}
}
