package maps

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// folders are the calls by which a map is put in its place, so that tests can make them
// on a disk that loses power.
type folders interface {
	Stat(name string) (os.FileInfo, error)
	CreateTemp(dir, pattern string) (newFile, error)
	Rename(oldname, newname string) error
	Remove(name string) error
	SyncDir(dir string) error
}

// newFile is a file that is being written.
type newFile interface {
	io.WriteCloser
	Name() string
	Chmod(mode os.FileMode) error
	Sync() error
}

// writeFile puts data in the place of path in one step, durably: when it returns nil, a
// crash leaves the new file, and before that the old one or the new one, whole. A nil
// fs is the operating system's.
func writeFile(fs folders, path string, data []byte) error {
	if fs == nil {
		fs = realFolders{}
	}
	mode := os.FileMode(0o644)
	if info, err := fs.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	dir := filepath.Dir(path)
	f, err := fs.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("creating map: %w", err)
	}
	if err := errors.Join(fill(f, data, mode), f.Close()); err != nil {
		return fmt.Errorf("writing map: %w", errors.Join(err, fs.Remove(f.Name())))
	}
	if err := fs.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing map: %w", errors.Join(err, fs.Remove(f.Name())))
	}
	if err := fs.SyncDir(dir); err != nil {
		return fmt.Errorf("syncing the map's folder: %w", err)
	}
	return nil
}

func fill(f newFile, data []byte, mode os.FileMode) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// realFolders are the operating system's.
type realFolders struct{}

func (realFolders) Stat(name string) (os.FileInfo, error) { return os.Stat(name) }
func (realFolders) Rename(oldname, newname string) error  { return os.Rename(oldname, newname) }
func (realFolders) Remove(name string) error              { return os.Remove(name) }

func (realFolders) CreateTemp(dir, pattern string) (newFile, error) {
	return os.CreateTemp(dir, pattern)
}

func (realFolders) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
