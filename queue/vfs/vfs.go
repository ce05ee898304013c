// Package vfs holds the file calls that the queue makes, so that tests can run
// them on a disk in memory that crashes, or on one that fails on demand. Content
// files and Pebble's files lie on the same FS: a simulated crash hits both.
package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
)

// File is an open file. A failed Sync must not be tried again on the same file:
// the kernel may have dropped the pages (fsyncgate).
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Closer
	Sync() error
}

// FS is a file system. All methods may be called from any goroutine.
type FS interface {
	// Pebble is the same file system in the form that Pebble takes.
	Pebble() pvfs.FS
	// Create makes a new file for writing, mode 0640. It fails if name exists, and
	// never follows a symbolic link.
	Create(name string) (File, error)
	// Open opens a file for reading. It does not follow a symbolic link at name.
	Open(name string) (File, error)
	Remove(name string) error
	// List gives the names in a directory, in no order.
	List(dir string) ([]string, error)
	// MkdirAll makes a directory and its parents with mode perm.
	MkdirAll(dir string, perm fs.FileMode) error
	// Stat gives size and time of the last change of a regular file.
	Stat(name string) (size int64, changed time.Time, err error)
	// Info tells what stands at a name, of a symbolic link about itself. Owner and mode
	// mean something on the real file system only.
	Info(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Space tells how many bytes an unprivileged process may still write below
	// dir, and the size of that file system.
	Space(dir string) (free, total int64, err error)
}

// IsFull reports whether err says that the disk or the quota is full.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Real is the operating system's file system.
func Real() FS { return realFS{} }

type realFS struct{}

func (realFS) Pebble() pvfs.FS { return pvfs.Default }

func (realFS) Create(name string) (File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o640)
}

func (realFS) Open(name string) (File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

func (realFS) Remove(name string) error { return os.Remove(name) }

func (realFS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (realFS) MkdirAll(dir string, perm fs.FileMode) error { return os.MkdirAll(dir, perm) }

func (realFS) Stat(name string) (int64, time.Time, error) {
	fi, err := os.Lstat(name)
	if err != nil {
		return 0, time.Time{}, err
	}
	if !fi.Mode().IsRegular() {
		return 0, time.Time{}, &fs.PathError{Op: "stat", Path: name, Err: errors.New("not a regular file")}
	}
	return fi.Size(), fi.ModTime(), nil
}

func (realFS) Info(name string) (fs.FileInfo, error) { return os.Lstat(name) }

func (realFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func (realFS) Space(dir string) (free, total int64, err error) {
	u, err := pvfs.Default.GetDiskUsage(dir)
	if err != nil {
		return 0, 0, err
	}
	return int64(u.AvailBytes), int64(u.TotalBytes), nil
}

// FromPebble makes an FS of one of Pebble's, such as vfs.NewCrashableMem, or that
// wrapped by errorfs. Its Space is what space says; nil means always plenty.
func FromPebble(p pvfs.FS, space func() (free, total int64)) FS {
	return &pebbleFS{p: p, space: space}
}

type pebbleFS struct {
	p     pvfs.FS
	space func() (free, total int64)
	mu    sync.Mutex // makes the check and the creation of Create one step
}

func (f *pebbleFS) Pebble() pvfs.FS { return f.p }

func (f *pebbleFS) Create(name string) (File, error) {
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

func (f *pebbleFS) Open(name string) (File, error)              { return f.p.Open(name) }
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
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func (f *pebbleFS) Space(string) (free, total int64, err error) {
	if f.space == nil {
		return 1 << 40, 1 << 41, nil
	}
	free, total = f.space()
	return free, total, nil
}

// MakeDir makes dir with the mode if it is not there, and syncs its parent so
// that it stays.
func MakeDir(f FS, dir string, perm fs.FileMode) error {
	if err := f.MkdirAll(dir, perm); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(dir))
}
