package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meta1/mta/vfs"
)

// errUnknown: a file of Pebble's has something that this program does not know. That is
// no damage: another release of the library may have written it.
var errUnknown = errors.New("its format is not known")

// StampLayout is how times stand in the names of what is kept of a damaged store.
const StampLayout = "20060102T150405Z"

// examine looks for damage that Pebble takes for the trace of a crash. What Pebble
// accepts is opened all the same, but it then removes logs and tables: if there is a
// suspicion, all files get second names in a directory of their own first.
func (s *Store) examine(o Options) kept {
	s.suspicion = s.checkFiles()
	switch {
	case s.suspicion == nil:
		return nil
	case errors.Is(s.suspicion, errUnknown):
		o.Log.Warn("a store cannot be examined for damage and is opened all the same", "store", o.Name, "error", s.suspicion)
		s.suspicion = nil
		return nil
	}
	k, err := keep(s.fs, s.dirs, time.Now())
	if err != nil {
		o.Log.Error("a store seems to be damaged and its files could not be kept", "store", o.Name, "damage", s.suspicion, "error", err)
		return nil
	}
	o.Log.Error("a store seems to be damaged: its files are kept and it is opened all the same but may lack records",
		"store", o.Name, "damage", s.suspicion, "directory", k[0])
	return k
}

// Suspicion is the damage that was found in the files of the store when it was opened,
// nil for none. Records may be missing; the files are kept in DIR.damaged-TIME.
func (s *Store) Suspicion() error { return s.suspicion }

// checkFiles looks for damage. The store has been in use if its reserve is there.
func (s *Store) checkFiles() error {
	used := s.ballast.exists()
	opened := used && isOpened(s.fs, s.dirs[0])
	logs := s.dirs[len(s.dirs)-1]
	if err := checkLogs(s.fs, logs, opened); err != nil {
		return err
	}
	return checkManifest(s.fs, s.dirs[0], logs, used, opened)
}

// hasTables tells whether there are tables in a directory.
func hasTables(fsys vfs.FS, dir string) bool {
	names, err := fsys.List(dir)
	return err == nil && slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ".sst") })
}

// kept are the directories with second names of a store's files: of the store and, if it
// has a directory of its own, of its log.
type kept []string

// Kept lists the directories in which damaged files of the store in dir were kept, by a
// start or by a repair.
func Kept(fsys vfs.FS, dir string) (all []string, err error) {
	names, err := fsys.List(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("looking for damaged files that were kept: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, filepath.Base(dir)+damagedEnd) {
			all = append(all, filepath.Join(filepath.Dir(dir), name))
		}
	}
	return all, nil
}

// damagedEnd and a time end the name of such a directory.
const damagedEnd = ".damaged-"

// KeptName is a name for a directory in which damaged files of dir can be kept.
func KeptName(fsys vfs.FS, dir string, now time.Time) string {
	name := dir + damagedEnd + now.UTC().Format(StampLayout)
	to := name
	for i := 1; vfs.Exists(fsys, to); i++ {
		to = fmt.Sprintf("%s-%d", name, i)
	}
	return to
}

// keep gives second names to the files of a store, durably.
func keep(fsys vfs.FS, dirs []string, now time.Time) (k kept, err error) {
	for _, dir := range dirs {
		to := KeptName(fsys, dir, now)
		k = append(k, to)
		if err := link(fsys, dir, to); err != nil {
			k.remove(fsys)
			return nil, err
		}
	}
	return k, nil
}

func link(fsys vfs.FS, from, to string) error {
	names, err := fsys.List(from)
	if err != nil {
		return err
	}
	if err := vfs.MakeDir(fsys, to, 0o700); err != nil {
		return err
	}
	for _, name := range names {
		info, err := fsys.Info(filepath.Join(from, name))
		if err == nil && info.Mode().IsRegular() && !ownFile(name) {
			err = fsys.Pebble().Link(filepath.Join(from, name), filepath.Join(to, name))
		}
		if err != nil {
			return err
		}
	}
	return fsys.SyncDir(to)
}

// ownFile tells whether a file has nothing to do with the records of a store.
func ownFile(name string) bool {
	return name == lockName || name == openedName || strings.HasPrefix(name, ballastName)
}

func (k kept) remove(fsys vfs.FS) {
	for _, dir := range k {
		_ = fsys.Pebble().RemoveAll(dir) // it is in nobody's way
	}
}
