package fsck

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"meta1/queue/vfs"
)

// The directories for what belongs nowhere. A file system that is mounted on the spool
// has a lost+found of its own, which only root may write; then the other is used.
const (
	atticName  = "lost+found"
	atticOther = "lost+found.meta1"
)

// stampLayout is how the time of a repair stands in names.
const stampLayout = "20060102T150405Z"

// attic is lost+found: a directory for each repair, with list.txt that says what each
// file in it is. It is made when something is put into it.
type attic struct {
	fs    vfs.FS
	spool string
	stamp string

	dir   string
	list  vfs.File
	dirty bool
}

func newAttic(f vfs.FS, spool string, now time.Time) *attic {
	return &attic{fs: f, spool: spool, stamp: now.UTC().Format(stampLayout)}
}

// open makes the directory.
func (a *attic) open() error {
	if a.list != nil {
		return nil
	}
	err := a.openIn(atticName)
	if err != nil {
		err = a.openIn(atticOther)
	}
	if err != nil {
		return fmt.Errorf("making lost+found: %w", err)
	}
	_, err = io.WriteString(a.list, "What meta1 fsck moved here, one thing a line: name, tab, what it is.\n")
	return err
}

func (a *attic) openIn(name string) error {
	base := filepath.Join(a.spool, name)
	if err := vfs.MakeDir(a.fs, base, 0o700); err != nil {
		return err
	}
	for i := range 1000 {
		dir := filepath.Join(base, a.stamp)
		if i > 0 {
			dir += fmt.Sprintf("-%d", i)
		}
		if err := vfs.MakeDir(a.fs, dir, 0o700); err != nil {
			return err
		}
		list, err := a.fs.Create(filepath.Join(dir, "list.txt"))
		if errors.Is(err, fs.ErrExist) {
			continue // another repair within the same second
		}
		if err != nil {
			return err
		}
		a.dir, a.list = dir, list
		return nil
	}
	return fs.ErrExist
}

// announce writes a line of the list, and gives the path of the file that it is for.
func (a *attic) announce(name, what string) (path string, err error) {
	if err := a.open(); err != nil {
		return "", err
	}
	a.dirty = true
	what = plain(strings.ReplaceAll(what, "\t", " "))
	if _, err := fmt.Fprintf(a.list, "%s\t%s\n", name, what); err != nil {
		return "", fmt.Errorf("writing the list of lost+found: %w", err)
	}
	return filepath.Join(a.dir, name), nil
}

// keep writes a file durably.
func (a *attic) keep(name string, content []byte, what string) (path string, err error) {
	if path, err = a.announce(name, what); err != nil {
		return "", err
	}
	if err := a.write(path, content); err != nil {
		return "", fmt.Errorf("writing to lost+found: %w", err)
	}
	return path, nil
}

func (a *attic) write(path string, content []byte) error {
	f, err := a.fs.Create(path)
	if errors.Is(err, fs.ErrExist) { // an earlier pass kept it
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// sync makes what was put there durable.
func (a *attic) sync() error {
	if !a.dirty {
		return nil
	}
	a.dirty = false
	if err := a.list.Sync(); err != nil {
		return err
	}
	return a.fs.SyncDir(a.dir)
}

// move moves a file there, which must have been announced.
func (a *attic) move(from, name string) error {
	to := filepath.Join(a.dir, name)
	p := a.fs.Pebble()
	err := p.Rename(from, to)
	if isOtherDisk(err) {
		err = a.copy(from, to)
	}
	if err != nil {
		return fmt.Errorf("moving %s to lost+found: %w", from, err)
	}
	return errors.Join(a.fs.SyncDir(a.dir), a.fs.SyncDir(filepath.Dir(from)))
}

// copy copies a file durably and then removes it.
func (a *attic) copy(from, to string) (err error) {
	in, err := a.fs.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	out, err := a.fs.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = a.fs.SyncDir(a.dir)
	}
	if err != nil {
		return errors.Join(err, a.fs.Remove(to))
	}
	return a.fs.Remove(from)
}

// close ends the list.
func (a *attic) close() error {
	if a.list == nil {
		return nil
	}
	err := a.sync()
	return errors.Join(err, a.list.Close())
}
