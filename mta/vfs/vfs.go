// Package vfs holds the file calls of all that must survive a crash: the stores (package
// store), and the queue's content files. So tests can run them on a disk in memory that
// crashes, or on one that fails on demand. Content files and Pebble's files lie on the same
// FS: a simulated crash hits both.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
	// Create makes a new file for writing and reading, mode 0640. It fails if name exists, and
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

// IsNoDescriptor reports whether err says that the process, or the system, has too many
// files open.
func IsNoDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// IsBroken reports whether the error of a write or a sync says that the disk cannot be
// relied on any more. It does not if there is no room, no descriptor or no permission, or
// the directory is not there: then nothing was written that others count on.
func IsBroken(err error) bool {
	for _, harmless := range []error{syscall.EFBIG, syscall.ENOTDIR, fs.ErrPermission, fs.ErrNotExist, fs.ErrExist, fs.ErrClosed} {
		if errors.Is(err, harmless) {
			return false
		}
	}
	return err != nil && !IsFull(err) && !IsNoDescriptor(err)
}

// Real is the operating system's file system.
func Real() FS { return realFS{} }

type realFS struct{}

func (realFS) Pebble() pvfs.FS { return pvfs.Default }

func (realFS) Create(name string) (File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o640)
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
	return errors.Join(d.Sync(), d.Close())
}

func (realFS) Space(dir string) (free, total int64, err error) {
	u, err := pvfs.Default.GetDiskUsage(dir)
	if err != nil {
		return 0, 0, err
	}
	return int64(u.AvailBytes), int64(u.TotalBytes), nil
}

// Exists reports whether something stands at a name, or may do so.
func Exists(f FS, name string) bool {
	if _, ok := f.(realFS); ok { // each commit asks: os.Lstat makes a description besides
		var st syscall.Stat_t
		return syscall.Lstat(name, &st) != syscall.ENOENT
	}
	_, err := f.Info(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// MakeDir makes dir with the mode if it is not there, and syncs its parent so
// that it stays.
func MakeDir(f FS, dir string, perm fs.FileMode) error {
	if err := f.MkdirAll(dir, perm); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(dir))
}

// ReadFile reads a file, or the first limit bytes of one that is longer.
func ReadFile(f FS, name string, limit int64) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

// Replace puts a file with the text in place of the one at name, durably or not at all. It is
// written at temp first, which must be in the same directory and the caller's alone: what a crash
// has left there is removed.
func Replace(f FS, name, temp string, text []byte) error {
	if err := f.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := f.Create(temp)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = f.Pebble().Rename(temp, name)
	}
	if err != nil {
		_ = f.Remove(temp) // the next Replace does it again
		return err
	}
	return f.SyncDir(filepath.Dir(name))
}
