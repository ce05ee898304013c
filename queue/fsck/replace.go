package fsck

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"meta1/queue/store"
	"meta1/queue/vfs"
)

// isOtherDisk tells whether a rename failed because the names are on two file systems.
func isOtherDisk(err error) bool { return errors.Is(err, syscall.EXDEV) }

const buildingEnd = ".building"

func exists(f vfs.FS, path string) bool {
	_, err := f.Info(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// complete finishes the replacement of a store that was interrupted, or removes what
// an interrupted repair has left behind.
func (d *database) complete(f vfs.FS, now time.Time) (done bool, err error) {
	p := f.Pebble()
	if err := p.RemoveAll(d.dir + buildingEnd); err != nil {
		return false, fmt.Errorf("removing the rest of a repair: %w", err)
	}
	switch {
	case !exists(f, d.dir+store.NewEnd):
		return false, nil
	case exists(f, d.dir):
		if err := p.RemoveAll(d.dir + store.NewEnd); err != nil {
			return false, fmt.Errorf("removing the rest of a repair: %w", err)
		}
		return false, nil
	}
	return true, d.takePlace(f, now)
}

// replace puts the store that was built in the place of the damaged one. It must be
// closed. See the package comment for the order.
func (d *database) replace(f vfs.FS, now time.Time) error {
	p := f.Pebble()
	if err := f.SyncDir(d.dir + buildingEnd); err != nil {
		return err
	}
	if err := p.Rename(d.dir+buildingEnd, d.dir+store.NewEnd); err != nil {
		return err
	}
	if err := f.SyncDir(filepath.Dir(d.dir)); err != nil {
		return err
	}
	if exists(f, d.dir) {
		if err := setAside(f, d.dir, now); err != nil {
			return err
		}
	}
	return d.takePlace(f, now)
}

// takePlace gives DIR.new its place. The logs of the old store go first if they have a
// directory of their own.
func (d *database) takePlace(f vfs.FS, now time.Time) error {
	if d.logDir != "" {
		names, err := f.List(d.logDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(names) > 0 {
			if err := setAside(f, d.logDir, now); err != nil {
				return err
			}
		}
	}
	if err := f.Pebble().Rename(d.dir+store.NewEnd, d.dir); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(d.dir))
}

// setAside gives a directory the name of a damaged one.
func setAside(f vfs.FS, dir string, now time.Time) error {
	to := dir + ".damaged-" + now.UTC().Format(stampLayout)
	for i := 1; exists(f, to); i++ {
		to = fmt.Sprintf("%s.damaged-%s-%d", dir, now.UTC().Format(stampLayout), i)
	}
	if err := f.Pebble().Rename(dir, to); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(dir))
}

// build makes DIR.building of what could be read, closed again.
func (d *database) build(f vfs.FS, o store.Options) error {
	dir := d.dir + buildingEnd
	o.Name, o.Version = d.name, d.version
	s, err := store.Open(f, dir, o)
	if err != nil {
		return err
	}
	err = fill(s, d.reader)
	if err == nil {
		err = s.Flush()
	}
	return errors.Join(err, s.Close())
}

// fillBytes is the size of one batch.
const fillBytes = 4 << 20

// fill copies all records.
func fill(s *store.Store, from store.Reader) error {
	b := s.NewBatch()
	err := from.Scan(nil, nil, func(k, v []byte) (bool, error) {
		if err := b.Set(k, v, nil); err != nil {
			return false, err
		}
		if b.Len() < fillBytes {
			return true, nil
		}
		err := s.Commit(b)
		b = s.NewBatch()
		return err == nil, err
	})
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return s.Commit(b)
}

// settle makes a store that was built fit for its place: with a directory for the logs
// elsewhere it must not need one here.
func (d *database) settle(f vfs.FS) error {
	if d.logDir == "" {
		return nil
	}
	dir := d.dir + buildingEnd
	store.DropReserve(f, dir) // else a log would be missed; the next start makes it anew
	names, err := f.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		// The OPTIONS name the directory of the logs.
		if strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "OPTIONS-") {
			if err := f.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
