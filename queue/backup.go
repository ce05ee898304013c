package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/cdb"
	"meta1/mta/copies"
	"meta1/mta/msg"
	"meta1/mta/vfs"
)

type backupRequest = msg.Request[msg.BackupQ, msg.BackupA]

const dirMode = 0o750

// backups answers questions for a copy, one after the other, beside all other work.
func (q *Queue) backups(ctx context.Context, requests <-chan *backupRequest) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			stop := context.AfterFunc(ctx, func() { r.Q.Copy.End(errors.New("meta1 is stopping")) })
			n, err := q.backup(r.Q.Dir, r.Q.Copy)
			stop()
			a := msg.BackupA{Contents: n}
			if err != nil {
				a.Err = err.Error()
			}
			r.Answer(a)
		}
	}
}

// backup copies the store as it is at one moment, and then the content files. From before that moment until all are there
// no content is removed, so that none is missing of a message that the copy knows. Content that came after that moment is copied,
// too: the copy takes it for an orphan, as after a crash.
func (q *Queue) backup(dir string, made *copies.Copy) (contents int, err error) {
	dirs := q.dirs
	store, err := below(q.deps.Dir, dirs.Store)
	if err != nil {
		return 0, err
	}
	base, err := below(q.deps.Dir, dirs.CDB)
	if err != nil {
		return 0, err
	}
	q.unlinking <- struct{}{}
	defer func() { <-q.unlinking }()
	if err := q.deps.FS.MkdirAll(filepath.Dir(filepath.Join(dir, store)), dirMode); err != nil {
		return 0, fmt.Errorf("making the copy: %w", err)
	}
	if err := q.db.Store().Checkpoint(filepath.Join(dir, store), made); err != nil {
		return 0, err
	}
	to := cdb.At(q.deps.FS, filepath.Join(dir, base))
	if err := to.MakeDirs(); err != nil {
		return 0, err
	}
	files := vfs.Copying(q.deps.FS.Pebble(), made)
	err = q.cdb.List(func(f cdb.File) error {
		err := pvfs.LinkOrCopy(files, q.cdb.Path(f.TA), to.Path(f.TA))
		if errors.Is(err, fs.ErrNotExist) { // its writer has given it up: it was never acknowledged
			return nil
		}
		if err == nil {
			contents++
		}
		return err
	}, func(string) {})
	if err == nil {
		err = to.SyncDirs()
	}
	if err != nil {
		return 0, fmt.Errorf("copying content files: %w", err)
	}
	return contents, nil
}

// below is a directory as the copy has it, relative to the main queue directory.
func below(spool, dir string) (string, error) {
	rel, err := filepath.Rel(spool, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s is not below the main queue directory: copy it by a snapshot of the file system", dir)
	}
	return rel, nil
}
