// Package dayfiles keeps what was counted within a day in a file of its own, named after the day's beginning: the
// counts from which aggregate reports are made (client/tlsrpt, server/authn/dmarcrpt). A file is replaced durably or
// not at all, and one that cannot be read is put aside, where an operator finds it.
package dayfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meta1/mta/vfs"
)

const (
	fileEnd    = ".json"
	newEnd     = ".new"     // of a file that is being written
	damagedEnd = ".damaged" // of one that could not be read
)

// Dir is a directory of such files, made when it is needed. It is for one goroutine at a time.
type Dir struct {
	FS   vfs.FS
	Path string
	// Max bounds a file, in bytes; a longer one counts as damaged.
	Max int64
}

// file is where the counts of the day are that begins at start.
func (d *Dir) file(start time.Time) string {
	return filepath.Join(d.Path, start.UTC().Format("20060102T150405")+fileEnd)
}

// Load gives what read makes of the text of each file, in the order of the names; read returns the beginning of the
// day that the text is about, too. A file whose name says another one, or for which read fails, is put aside, which
// damaged tells; err says that the directory could not be read.
func Load[D any](d *Dir, read func(text []byte) (day D, start time.Time, err error)) (days []D, damaged, err error) {
	if err := vfs.MakeDir(d.FS, d.Path, 0o700); err != nil {
		return nil, nil, err
	}
	names, err := d.FS.List(d.Path)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(d.Path, name)
		switch {
		case strings.HasSuffix(name, newEnd):
			_ = d.FS.Remove(path) // the next write makes it anew
			continue
		case !strings.HasSuffix(name, fileEnd):
			continue // not ours
		}
		text, err := d.text(path)
		var day D
		if err == nil {
			var start time.Time
			if day, start, err = read(text); err == nil && d.file(start) != path {
				err = errors.New("it is about another day than its name says")
			}
		}
		if err != nil {
			damaged = errors.Join(damaged, fmt.Errorf("%s: %w", path, err))
			if err := d.FS.Pebble().Rename(path, strings.TrimSuffix(path, fileEnd)+damagedEnd); err != nil {
				damaged = errors.Join(damaged, err)
			}
			continue
		}
		days = append(days, day)
	}
	return days, damaged, nil
}

func (d *Dir) text(path string) ([]byte, error) {
	text, err := vfs.ReadFile(d.FS, path, d.Max+1)
	if err == nil && int64(len(text)) > d.Max {
		err = fmt.Errorf("it has more than %d bytes", d.Max)
	}
	return text, err
}

// Write puts the text of a day in place of the one before, durably or not at all.
func (d *Dir) Write(start time.Time, text []byte) error {
	path := d.file(start)
	if err := vfs.MakeDir(d.FS, d.Path, 0o700); err != nil {
		return err
	}
	return vfs.Replace(d.FS, path, strings.TrimSuffix(path, fileEnd)+newEnd, text)
}

// Remove removes the file of a day, if there is one.
func (d *Dir) Remove(start time.Time) error {
	if err := d.FS.Remove(d.file(start)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
