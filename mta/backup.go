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
	"meta1/mta/copies"
	"meta1/mta/msg"
	"meta1/mta/supervise"
)

const (
	// unfinished ends the name of a copy that is being made.
	unfinished = ".unfinished"
	// A copy that has written nothing for stuckTime is given up; one that does not end for hangTime then waits for the disk,
	// and nobody waits for it any more.
	stuckTime = 5 * time.Minute
	hangTime  = time.Minute
	// copyLook is the time between two looks how far a copy is.
	copyLook = time.Second
)

// Backup makes a copy of the queue in a new directory. It is made with the rights of the account that serves, under another name
// until it is whole and on the disk. It takes as long as it must while it writes something, and is given up when ctx ends.
// tell is called each second.
func (m *mta) Backup(ctx context.Context, q control.BackupQuestion, tell func(control.BackupProgress)) (control.BackupReport, error) {
	began := time.Now()
	done := control.BackupReport{Directory: q.Directory}
	if err := backupPlace(q.Directory); err != nil {
		return done, err
	}
	part := q.Directory + unfinished
	if err := os.Mkdir(part, 0o700); err != nil { // which takes nobody's place, nor follows a link
		return done, fmt.Errorf("making the copy: %w", err)
	}
	made := copies.New(ctx)
	defer made.End(nil)
	waits, hangs := context.WithCancelCause(context.WithoutCancel(ctx)) // QMGR answers soon after the end of made
	watch := supervise.NewGroup(waits)
	watch.Go(func(ctx context.Context) error {
		watchCopy(ctx, made, hangs, tell)
		return nil
	})
	defer func() {
		watch.Stop()
		_ = watch.Wait() // it has no error
	}()
	a, err := m.ports.Backup.Ask(waits, msg.BackupQ{Dir: part, Copy: made})
	switch {
	case errors.Is(err, errCopyHangs): // QMGR may be at it still
		m.log.LogAttrs(ctx, slog.LevelError, "the copy of the queue hangs", slog.String("directory", part), slog.String("error", err.Error()))
		return done, fmt.Errorf("%w: remove %s when the disk answers", err, part)
	case err != nil:
		err = fmt.Errorf("the queue manager does not answer: %w", err)
	case errors.Is(made.Err(), context.Canceled):
		err = errors.New("the copy was given up, since nobody waits for it any more")
	case made.Err() != nil: // by which a write failed, or just after the last
		err = fmt.Errorf("the copy was given up: %w", made.Err())
	case a.Err != "":
		err = errors.New(a.Err)
	default:
		err = finishBackup(part, q.Directory)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(part))
		m.log.LogAttrs(ctx, slog.LevelWarn, "the queue was not copied", slog.String("directory", q.Directory), slog.String("error", err.Error()))
		return done, err
	}
	done.Contents, done.Seconds = a.Contents, time.Since(began).Seconds()
	m.log.LogAttrs(ctx, levelNotice, "the queue was copied", slog.String("directory", q.Directory))
	return done, nil
}

var (
	errCopyStuck = fmt.Errorf("nothing could be written for %v", stuckTime)
	errCopyHangs = errors.New("the copy hangs: the disk does not answer")
)

// watchCopy tells how far a copy is, ends one that is stuck, and calls hangs if that is of no use. It returns when ctx ends.
func watchCopy(ctx context.Context, made *copies.Copy, hangs func(error), tell func(control.BackupProgress)) {
	began := time.Now()
	var last control.BackupProgress
	since := began
	tick := time.NewTicker(copyLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var now control.BackupProgress
		if now.Files, now.Bytes = made.Made(); now != last {
			last, since = now, time.Now()
		}
		switch idle := time.Since(since); {
		case idle >= stuckTime+hangTime:
			hangs(errCopyHangs)
		case idle >= stuckTime:
			made.End(errCopyStuck)
		}
		now.Seconds = time.Since(began).Seconds()
		tell(now)
	}
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
