package fsck

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"meta1/mta/store"
	"meta1/mta/vfs"
)

const buildingEnd = ".building"

// complete finishes the replacement of a store that was interrupted, or removes what
// an interrupted repair has left behind.
func (s *storeFiles) complete(f vfs.FS, now time.Time) (done bool, err error) {
	p := f.Pebble()
	if err := p.RemoveAll(s.dir + buildingEnd); err != nil {
		return false, fmt.Errorf("removing what an interrupted repair left: %w", err)
	}
	switch {
	case !vfs.Exists(f, s.dir+store.NewEnd):
		return false, nil
	case vfs.Exists(f, s.dir):
		if err := p.RemoveAll(s.dir + store.NewEnd); err != nil {
			return false, fmt.Errorf("removing what an interrupted repair left: %w", err)
		}
		return false, nil
	}
	return true, s.takePlace(f, now)
}

// replace puts the store that was built in the place of the damaged one. It must be
// closed. See the package comment for the order.
func (s *storeFiles) replace(f vfs.FS, now time.Time) error {
	p := f.Pebble()
	if err := f.SyncDir(s.dir + buildingEnd); err != nil {
		return err
	}
	if err := p.Rename(s.dir+buildingEnd, s.dir+store.NewEnd); err != nil {
		return err
	}
	if err := f.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	if vfs.Exists(f, s.dir) {
		if err := keepDamaged(f, s.dir, now); err != nil {
			return err
		}
	}
	return s.takePlace(f, now)
}

// takePlace gives DIR.new its place. The logs of the old store go first if they have a
// directory of their own.
func (s *storeFiles) takePlace(f vfs.FS, now time.Time) error {
	if s.logDir != "" {
		names, err := f.List(s.logDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(names) > 0 {
			if err := keepDamaged(f, s.logDir, now); err != nil {
				return err
			}
		}
	}
	if err := f.Pebble().Rename(s.dir+store.NewEnd, s.dir); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(s.dir))
}

// keepDamaged gives a directory the name of a damaged one.
func keepDamaged(f vfs.FS, dir string, now time.Time) error {
	to := store.KeptName(f, dir, now)
	if err := f.Pebble().Rename(dir, to); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(dir))
}
