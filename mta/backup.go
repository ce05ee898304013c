package mta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
)

// unfinished ends the name of a copy that is being made.
const unfinished = ".unfinished"

// Backup makes a copy of the queue in a new directory. It is made with the rights of the account that serves, under another name
// until it is whole and on the disk.
func (m *mta) Backup(ctx context.Context, q control.BackupQuestion) (control.BackupReport, error) {
	began := time.Now()
	done := control.BackupReport{Directory: q.Directory}
	if err := backupPlace(q.Directory); err != nil {
		return done, err
	}
	part := q.Directory + unfinished
	if err := os.Mkdir(part, 0o700); err != nil { // which takes nobody's place, nor follows a link
		return done, fmt.Errorf("making the copy: %w", err)
	}
	a, err := m.ports.Backup.Ask(ctx, msg.BackupQ{Dir: part})
	switch {
	case ctx.Err() != nil: // QMGR may be at it still
		return done, fmt.Errorf("the copy took too long: remove %s", part)
	case err != nil:
		err = fmt.Errorf("the queue manager does not answer: %w", err)
	case a.Err != "":
		err = errors.New(a.Err)
	default:
		err = finishBackup(part, q.Directory)
	}
	if err != nil {
		return done, errors.Join(err, os.RemoveAll(part))
	}
	done.Contents, done.Seconds = a.Contents, time.Since(began).Seconds()
	m.log.LogAttrs(ctx, levelNotice, "the queue was copied", slog.String("directory", q.Directory))
	return done, nil
}

// backupPlace says why no copy can be made at a path: it is there, or others could put something into its place.
func backupPlace(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" {
		return fmt.Errorf("%q is not an absolute path", dir)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists, or cannot be looked at: a copy never takes the place of anything", dir)
	}
	parent := filepath.Dir(dir)
	info, err := os.Lstat(parent)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is no directory", parent)
	case info.Mode().Perm()&0o022 != 0 || ok && st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid()):
		return fmt.Errorf("others may write %s, so that no copy is made there", parent)
	}
	return nil
}

// finishBackup gives a copy its name when all of it is durable.
func finishBackup(part, dir string) error {
	err := filepath.WalkDir(part, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return err
		case path == part:
			return nil
		}
		return os.Chmod(path, 0o700) // Pebble leaves that to the umask
	})
	if err != nil {
		return err
	}
	if err := os.Chmod(part, 0o751); err != nil { // as a main queue directory is
		return err
	}
	if err := syncDirectory(part); err != nil {
		return err
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists by now", dir)
	}
	if err := os.Rename(part, dir); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(dir))
}

func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
