package tlsrpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"meta1/mta/vfs"
)

const (
	version    = 1
	fileEnd    = ".json"
	newEnd     = ".new"     // of a file that is being written
	damagedEnd = ".damaged" // of one that could not be read
	fileMax    = 256 << 20
)

// store is a directory with a file for each day, named after its start.
type store struct {
	fs  vfs.FS
	dir string
}

func (s *store) path(d *day) string {
	return filepath.Join(s.dir, d.Start.UTC().Format("20060102T150405")+fileEnd)
}

// load reads what is kept. What cannot be read is put aside, which damaged tells.
func (s *store) load() (days []*day, damaged, err error) {
	if err := vfs.MakeDir(s.fs, s.dir, 0o700); err != nil {
		return nil, nil, err
	}
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		path := filepath.Join(s.dir, name)
		switch {
		case strings.HasSuffix(name, newEnd):
			_ = s.fs.Remove(path) // the next write makes it anew
			continue
		case !strings.HasSuffix(name, fileEnd):
			continue // not ours
		}
		d, err := s.read(path)
		if err != nil {
			damaged = fmt.Errorf("%s: %w", path, err)
			if err := s.fs.Pebble().Rename(path, strings.TrimSuffix(path, fileEnd)+damagedEnd); err != nil {
				damaged = errors.Join(damaged, err)
			}
			continue
		}
		days = append(days, d)
	}
	return days, damaged, nil
}

func (s *store) read(path string) (*day, error) {
	text, err := vfs.ReadFile(s.fs, path, fileMax+1)
	if err != nil {
		return nil, err
	}
	d := &day{}
	switch err := json.Unmarshal(text, d); {
	case err != nil:
		return nil, err
	case d.Version != version, s.path(d) != path, !d.End.IsZero() && d.End.Before(d.Start), len(d.Domains) > domainsMax:
		return nil, errors.New("not the counts of a day in this version")
	}
	if d.Domains == nil {
		d.Domains = map[string]*domain{}
	}
	for name, one := range d.Domains {
		if one == nil || !isDomain(name) {
			return nil, errors.New("not the counts of a day")
		}
		for _, p := range one.Policies {
			if p == nil {
				return nil, errors.New("not the counts of a day")
			}
			for _, f := range p.Failures {
				if f == nil {
					return nil, errors.New("not the counts of a day")
				}
			}
		}
	}
	return d, nil
}

// write puts the text of a day in place of the one before, durably or not at all.
func (s *store) write(d *day, text []byte) error {
	path := s.path(d)
	temp := strings.TrimSuffix(path, fileEnd) + newEnd
	if err := vfs.MakeDir(s.fs, s.dir, 0o700); err != nil {
		return err
	}
	return vfs.Replace(s.fs, path, temp, text)
}

func (s *store) remove(d *day) error {
	if err := s.fs.Remove(s.path(d)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// over reports that nothing more is to be done with a day.
func (d *day) over(now time.Time) bool {
	if now.After(d.End.Add(keepFor)) {
		return true
	}
	for _, one := range d.Domains {
		if !one.Sent {
			return false
		}
	}
	return true
}
