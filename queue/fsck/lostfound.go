package fsck

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"meta1/mta/store"
	"meta1/mta/vfs"
)

// The directories for what belongs nowhere. A file system that is mounted on the spool
// has a lost+found of its own, which only root may write; then the other is used.
const (
	lostFoundName  = "lost+found"
	lostFoundOther = "lost+found.meta1"
)

// lostFound is a directory for each repair, with list.txt that says what each file in it
// is. It is made when something is put into it.
type lostFound struct {
	fs    vfs.FS
	spool string
	stamp string

	dir   string
	list  vfs.File
	dirty bool
}

func newLostFound(f vfs.FS, spool string, now time.Time) *lostFound {
	return &lostFound{fs: f, spool: spool, stamp: now.UTC().Format(store.StampLayout)}
}

// open makes the directory.
func (l *lostFound) open() error {
	if l.list != nil {
		return nil
	}
	err := l.openIn(lostFoundName)
	if err != nil {
		err = l.openIn(lostFoundOther)
	}
	if err == nil {
		_, err = io.WriteString(l.list, "What meta1 fsck moved here, one thing a line: name, tab, what it is.\n")
	}
	return err
}

func (l *lostFound) openIn(name string) error {
	for i := range 1000 {
		dir := filepath.Join(l.spool, name, l.stamp)
		if i > 0 {
			dir += fmt.Sprintf("-%d", i)
		}
		if err := errors.Join(vfs.MakeDir(l.fs, filepath.Dir(dir), 0o700), vfs.MakeDir(l.fs, dir, 0o700)); err != nil {
			return err
		}
		list, err := l.fs.Create(filepath.Join(dir, "list.txt"))
		if err == nil {
			l.dir, l.list = dir, list
		}
		if !errors.Is(err, fs.ErrExist) { // else another repair within the same second
			return err
		}
	}
	return fs.ErrExist
}

// announce writes a line of the list, and returns the path of the file that it is for.
func (l *lostFound) announce(name, what string) (path string, err error) {
	if err = l.open(); err == nil {
		l.dirty = true
		_, err = fmt.Fprintf(l.list, "%s\t%s\n", name, plain(strings.ReplaceAll(what, "\t", " ")))
	}
	if err != nil {
		return "", fmt.Errorf("writing to lost+found: %w", err)
	}
	return filepath.Join(l.dir, name), nil
}

// keep writes a file durably.
func (l *lostFound) keep(name string, content []byte, what string) error {
	path, err := l.announce(name, what)
	if err != nil {
		return err
	}
	f, err := l.fs.Create(path)
	if errors.Is(err, fs.ErrExist) { // an earlier pass kept it
		return nil
	}
	if err == nil {
		_, err = f.Write(content)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("writing to lost+found: %w", err)
	}
	return nil
}

// sync makes what was put there durable.
func (l *lostFound) sync() error {
	if !l.dirty {
		return nil
	}
	l.dirty = false
	return errors.Join(l.list.Sync(), l.fs.SyncDir(l.dir))
}

// move moves a file there, which was announced.
func (l *lostFound) move(from, name string) error {
	to := filepath.Join(l.dir, name)
	err := l.fs.Pebble().Rename(from, to)
	if errors.Is(err, syscall.EXDEV) {
		err = l.copy(from, to)
	}
	if err != nil {
		return fmt.Errorf("moving %s to lost+found: %w", from, err)
	}
	return errors.Join(l.fs.SyncDir(l.dir), l.fs.SyncDir(filepath.Dir(from)))
}

// copy copies a file durably to another disk and then removes it.
func (l *lostFound) copy(from, to string) error {
	in, err := l.fs.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	out, err := l.fs.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close(), l.fs.SyncDir(l.dir)); err != nil {
		return errors.Join(err, l.fs.Remove(to))
	}
	return l.fs.Remove(from)
}

// close ends the list.
func (l *lostFound) close() error {
	if l.list == nil {
		return nil
	}
	return errors.Join(l.sync(), l.list.Close())
}
