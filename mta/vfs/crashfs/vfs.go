package crashfs

import (
	"bytes"
	"errors"
	"io/fs"
	"sync"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/vfs"
)

// FS is a Disk, or one that is wrapped by errorfs, in the form of package vfs. Its Space is what space
// says; nil means always plenty.
func FS(p pvfs.FS, space func() (free, total int64)) vfs.FS {
	return &pebbleFS{p: p, space: space}
}

type pebbleFS struct {
	p     pvfs.FS
	space func() (free, total int64)
	mu    sync.Mutex // makes the check and the creation of Create one step
}

func (f *pebbleFS) Pebble() pvfs.FS { return f.p }

func (f *pebbleFS) Create(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.p.Stat(name); err == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	file, err := f.p.Create(name, pvfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &pebbleFile{file}, nil
}

// pebbleFile copies what it writes, because Pebble's files may change the bytes
// that they are given, and ours are shared.
type pebbleFile struct{ pvfs.File }

func (f *pebbleFile) Write(b []byte) (int, error) { return f.File.Write(bytes.Clone(b)) }

func (f *pebbleFS) Open(name string) (vfs.File, error)          { return f.p.Open(name) }
func (f *pebbleFS) Remove(name string) error                    { return f.p.Remove(name) }
func (f *pebbleFS) List(dir string) ([]string, error)           { return f.p.List(dir) }
func (f *pebbleFS) MkdirAll(dir string, perm fs.FileMode) error { return f.p.MkdirAll(dir, perm) }

func (f *pebbleFS) Stat(name string) (int64, time.Time, error) {
	fi, err := f.p.Stat(name)
	if err != nil {
		return 0, time.Time{}, err
	}
	return fi.Size(), fi.ModTime(), nil
}

func (f *pebbleFS) Info(name string) (fs.FileInfo, error) { return f.p.Stat(name) }

func (f *pebbleFS) SyncDir(dir string) error {
	d, err := f.p.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *pebbleFS) Space(string) (free, total int64, err error) {
	if f.space == nil {
		return 1 << 40, 1 << 41, nil
	}
	free, total = f.space()
	return free, total, nil
}
