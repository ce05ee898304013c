package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"meta1/mta/vfs"
)

// openedName is a file that is in the directory of a store while its newest log must be
// there. Pebble's opening moves the records of the logs to tables and removes these
// logs, before it makes the next one: a crash in between leaves no log, which is as it
// should be. So the file is removed before Pebble opens a store, and made after that.
const openedName = "OPENED"

// lockName is the file that Pebble locks.
const lockName = "LOCK"

// isOpened tells whether the store was opened to the end.
func isOpened(fsys vfs.FS, dir string) bool {
	_, _, err := fsys.Stat(filepath.Join(dir, openedName))
	return err == nil
}

// beginOpening removes the file, durably.
func beginOpening(fsys vfs.FS, dir string) error {
	err := fsys.Remove(filepath.Join(dir, openedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("beginning to open the store: %w", err)
	}
	return nil
}

// endOpening makes the file. Without it the next start merely does not notice that the
// newest log is missing, so a failure, as on a full disk, is none of the store's.
func endOpening(fsys vfs.FS, dir string) error {
	f, err := fsys.Create(filepath.Join(dir, openedName))
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), fsys.SyncDir(dir))
}
