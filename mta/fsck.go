package mta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/settings"
	"meta1/mta/store"
	"meta1/mta/vfs"
	"meta1/queue/fsck"
)

// FsckSetup says what Fsck is to do.
type FsckSetup struct {
	File string // the configuration file
	// Repair, Rebuild and Content are those of fsck.Options.
	Repair, Rebuild, Content bool
	Logs                     []string // names of log files
	From                     string   // a damaged store that was kept, "" for none
	// Report is called for each finding.
	Report func(fsck.Finding)
	// Exit ends the process at once, when a store can no longer be written.
	Exit   func(status int)
	Stderr io.Writer
}

// Fsck checks the spool of a configuration that no meta1 runs in, and repairs it if that
// is asked for. Started as root, it becomes the account that serves. The error has an
// exit status, see ExitStatus.
func Fsck(ctx context.Context, s FsckSetup) (sum fsck.Summary, err error) {
	c, _, err := settings.Load(s.File, confparse.LoadOptions{})
	if err != nil {
		return sum, exit.With(exit.Config, err)
	}
	dir, err := filepath.Abs(c.WorkingDirectory)
	if err != nil {
		return sum, exit.With(exit.OSErr, fmt.Errorf("finding the main queue directory: %w", err))
	}
	if _, err := os.Stat(dir); err != nil {
		return sum, exit.With(exit.IOErr, fmt.Errorf("the main queue directory %s: %w", dir, cause(err)))
	}
	logs, err := openAll(s.Logs) // as root, who may read them
	if err != nil {
		return sum, err
	}
	defer closeAll(logs)
	release, err := takeSpool(c, dir)
	if err != nil {
		return sum, err
	}
	defer release()
	o := fsck.Options{
		FS: vfs.Real(), Dirs: c.Queue.Dirs(dir), UID: os.Getuid(), Now: time.Now(),
		Repair: s.Repair, Rebuild: s.Rebuild, Content: s.Content, Report: s.Report, From: s.From,
		Log: slog.New(slog.DiscardHandler),
		Fatal: func(err error) {
			fmt.Fprintf(s.Stderr, "meta1: a store cannot be written, nothing more is done: %v\n", err)
			s.Exit(exit.IOErr)
		},
	}
	for _, f := range logs {
		o.Logs = append(o.Logs, f)
	}
	sum, err = fsck.Run(ctx, o)
	return sum, explainFsck(err)
}

// takeSpool becomes the account that serves, and locks the spool as serve does.
func takeSpool(c *Config, dir string) (release func(), err error) {
	a, err := c.Account(os.Geteuid() == 0)
	if err != nil {
		return nil, exit.With(exit.Config, err)
	}
	if err := writable(dir, a); err != nil {
		return nil, err
	}
	if a != nil {
		if err := a.Become(); err != nil {
			return nil, exit.With(exit.OSErr, err)
		}
	}
	s := &spool{dir: dir}
	if err := s.take(); err != nil {
		return nil, err
	}
	return s.release, nil
}

func openAll(names []string) (files []*os.File, err error) {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			closeAll(files)
			return nil, exit.With(exit.IOErr, fmt.Errorf("opening a log: %w", err))
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // they were only read
	}
}

// explainFsck gives an error its exit status.
func explainFsck(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrInUse):
		return exit.With(exit.Unavailable, fmt.Errorf("%w; stop the program that uses it", err))
	case errors.Is(err, fs.ErrPermission):
		return exit.With(exit.NoPerm, err)
	case errors.Is(err, context.Canceled):
		return exit.With(exit.TempFail, errors.New("interrupted; what was done so far is safe"))
	}
	return exit.With(exit.IOErr, err)
}
