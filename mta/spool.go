package mta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
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
func openSpool(dir string, a *account) (*spool, error) {
	s := &spool{dir: dir}
	if err := s.make(dir, a); err != nil {
		s.undo()
		return nil, exit(ExCantCreate, fmt.Errorf("making the main queue directory %s: %w", dir, cause(err)))
	}
	if err := writable(dir, a); err != nil {
		s.undo()
		return nil, err
	}
	return s, nil
}

// writable says why the account (nil: we) may not write a directory.
func writable(dir string, a *account) error {
	denied := func(who string, err error) error {
		return exit(ExNoPerm, fmt.Errorf("the main queue directory %s cannot be written by user %s: %w (option working_directory)", dir, who, err))
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
		return denied(a.name, cause(err))
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && !a.permitted(int(st.Uid), int(st.Gid), info.Mode(), bits) {
		return denied(a.name, fs.ErrPermission)
	}
	return nil
}

// permitted says whether an account has all the permission bits on a file.
func (a *account) permitted(uid, gid int, mode fs.FileMode, bits fs.FileMode) bool {
	switch {
	case a.uid == 0:
		return true
	case a.uid == uid:
		mode >>= 6
	case slices.Contains(a.groups, gid):
		mode >>= 3
	}
	return mode&bits == bits
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
func (s *spool) make(dir string, a *account) error {
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
	if err := os.Chmod(dir, mode); err != nil { // whatever the umask is
		return err
	}
	if a != nil {
		return os.Chown(dir, a.uid, a.gid)
	}
	return nil
}

// take locks the spool, so that no two meta1 work in it. The lock file belongs to
// the account (nil: to us).
func (s *spool) take(a *account) error {
	path := filepath.Join(s.dir, "lock")
	_, err := os.Lstat(path)
	s.new = errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return exit(ExNoPerm, fmt.Errorf("opening the lock of the main queue directory: %w", err))
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		text := make([]byte, 20)
		n, _ := f.Read(text)
		_ = f.Close()
		s.new = false
		return exit(ExUnavailable, fmt.Errorf("the main queue directory %s is in use: another meta1 runs in it (process %s)", s.dir, strings.TrimSpace(string(text[:n]))))
	}
	// Where the file system has no locks, Pebble's own will have to do.
	s.lock = f
	if a != nil {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return exit(ExNoPerm, fmt.Errorf("changing the owner of %s: %w", path, cause(err)))
		}
	}
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // a full disk does not matter
	return nil
}

// undo takes back what was made, if it is still empty.
func (s *spool) undo() {
	s.release()
	if s.new {
		_ = os.Remove(filepath.Join(s.dir, "lock"))
	}
	for i := len(s.made) - 1; i >= 0; i-- {
		_ = os.Remove(s.made[i])
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
