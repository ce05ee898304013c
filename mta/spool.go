package mta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"meta1/mta/account"
	"meta1/mta/exit"
)

// spool is the main queue directory while it is being taken.
type spool struct {
	dir  string   // absolute
	made []string // directories that we made, outermost first
	lock *os.File
	new  bool // the lock file is ours
}

// openSpool makes the directory if it is missing, and sees that the account (nil:
// we) may write it. After an error nothing is left behind.
func openSpool(dir string, a *account.Account) (*spool, error) {
	s := &spool{dir: dir}
	if err := s.make(dir, a); err != nil {
		s.undo(a)
		return nil, exit.With(exit.CantCreate, fmt.Errorf("making the main queue directory %s: %w", dir, cause(err)))
	}
	if err := writable(dir, a); err != nil {
		s.undo(a)
		return nil, err
	}
	return s, nil
}

// writable says why the account (nil: we) may not write a directory.
func writable(dir string, a *account.Account) error {
	denied := func(who string, err error) error {
		return exit.With(exit.NoPerm, fmt.Errorf("the main queue directory %s cannot be written by user %s: %w (option working_directory)", dir, who, err))
	}
	const bits = unix.R_OK | unix.W_OK | unix.X_OK
	if a == nil {
		if err := unix.Access(dir, bits); err != nil {
			return denied(strconv.Itoa(os.Getuid()), err)
		}
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return denied(a.Name, cause(err))
	}
	if !a.May(info, bits) {
		return denied(a.Name, fs.ErrPermission)
	}
	return nil
}

// cause is a file system error without its path, which the message names.
func cause(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// make makes the directory and those above it.
func (s *spool) make(dir string, a *account.Account) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return syscall.ENOTDIR
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := s.make(parent, nil); err != nil {
			return err
		}
	}
	mode := fs.FileMode(0o755)
	if dir == s.dir {
		mode = 0o751 // services under other accounts have their sockets in it
	}
	if err := os.Mkdir(dir, mode); err != nil {
		return err
	}
	s.made = append(s.made, dir)
	return setUp(dir, mode, a)
}

// setUp gives a directory that was just made its mode, whatever the umask is, and its
// owner. Should somebody have put something else in its place, that stays as it is.
func setUp(dir string, mode fs.FileMode, a *account.Account) error {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int64(st.Uid) != int64(os.Geteuid()) {
		return fmt.Errorf("it belongs to user %d right after it was made", st.Uid)
	}
	if err := f.Chmod(mode); err != nil || a == nil {
		return err
	}
	return f.Chown(a.UID, a.GID)
}

// take locks the spool, so that no two meta1 work in it. It is called with the rights of
// the account that serves.
func (s *spool) take() error {
	path := filepath.Join(s.dir, "lock")
	failed := func(err error) error {
		return exit.With(exit.NoPerm, fmt.Errorf("opening the lock of the main queue directory: %w", err))
	}
	before, err := os.Lstat(path)
	if err == nil && !before.Mode().IsRegular() {
		return failed(fmt.Errorf("%s is not a file", path))
	}
	s.new = errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return failed(err)
	}
	if err := onlyName(f); err != nil {
		_ = f.Close()
		return failed(err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		text := make([]byte, 20)
		n, _ := f.Read(text)
		_ = f.Close()
		s.new = false
		return exit.With(exit.Unavailable, fmt.Errorf("the main queue directory %s is in use: another meta1 runs in it (process %s)", s.dir, strings.TrimSpace(string(text[:n]))))
	}
	// Where the file system has no locks, Pebble's own will have to do.
	s.lock = f
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // a full disk does not matter
	return nil
}

// onlyName says why an open file is not the one that its name alone stands for: one with
// a second name is somebody's file that we must not write.
func onlyName(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || ok && st.Nlink != 1 {
		return fmt.Errorf("%s is not a file with one name", f.Name())
	}
	return nil
}

// undo takes back what was made, if it is still empty. a is the account that serves.
func (s *spool) undo(a *account.Account) {
	s.release()
	if s.new {
		_ = a.Do(func() error { return os.Remove(filepath.Join(s.dir, "lock")) })
	}
	for i := len(s.made) - 1; i >= 0; i-- {
		_ = syscall.Rmdir(s.made[i])
	}
}

// release gives the lock back. The file stays, because to remove it would let two
// others lock two files.
func (s *spool) release() {
	if s.lock != nil {
		_ = s.lock.Close()
		s.lock = nil
	}
}
