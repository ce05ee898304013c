//go:build unix

package lda

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// isListening asks the kernel whether a socket was given to listen(2).
func isListening(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var on int
	var serr error
	err = raw.Control(func(fd uintptr) {
		on, serr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	})
	if err == nil {
		err = serr
	}
	return on != 0, err
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isTransient reports an error of accept(2) that passes.
func isTransient(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isFull reports a full disk; isQuota a full share of it.
func isFull(err error) bool  { return errors.Is(err, syscall.ENOSPC) }
func isQuota(err error) bool { return errors.Is(err, syscall.EDQUOT) }

// dirFlags open a directory that is no symbolic link.
const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// box is a Maildir on disk.
type box struct{ tmp, new int } // file descriptors of the directories

// openBox opens the Maildir ROOT/user. With create it is made if it is not there, and
// its names are durable then.
func openBox(root, user string, create bool) (maildir, error) {
	r, err := ignoreEINTR(func() (int, error) { return unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, pathError("open", root, err)
	}
	defer unix.Close(r) // it was only read and synced
	u, made, err := openDir(r, user, create)
	if err != nil {
		return nil, pathError("open", root+"/"+user, err)
	}
	defer unix.Close(u) // as above
	b := &box{tmp: -1, new: -1}
	cur := -1
	for _, d := range []struct {
		name string
		fd   *int
	}{{"tmp", &b.tmp}, {"new", &b.new}, {"cur", &cur}} {
		var m bool
		if *d.fd, m, err = openDir(u, d.name, create); err != nil {
			b.close()
			return nil, pathError("open", root+"/"+user+"/"+d.name, err)
		}
		made = made || m
	}
	unix.Close(cur) // it need only be there
	if made {
		if err = fsync(u); err == nil {
			err = fsync(r)
		}
		if err != nil {
			b.close()
			return nil, pathError("fsync", root+"/"+user, err)
		}
	}
	return b, nil
}

// openDir opens a directory in another one, or makes it.
func openDir(at int, name string, create bool) (fd int, made bool, err error) {
	open := func() (int, error) { return unix.Openat(at, name, dirFlags, 0) }
	fd, err = ignoreEINTR(open)
	if err != unix.ENOENT || !create {
		return fd, false, err
	}
	if err := unix.Mkdirat(at, name, 0o700); err != nil && err != unix.EEXIST {
		return -1, false, err
	}
	fd, err = ignoreEINTR(open)
	return fd, true, err
}

func (b *box) create(name string) (file, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := ignoreEINTR(func() (int, error) { return unix.Openat(b.tmp, name, flags, 0o600) })
	if err != nil {
		return nil, pathError("create", "tmp/"+name, err)
	}
	return os.NewFile(uintptr(fd), "tmp/"+name), nil
}

func (b *box) publish(name string) error {
	if err := unix.Renameat(b.tmp, name, b.new, name); err != nil {
		return pathError("rename", "tmp/"+name, err)
	}
	return nil
}

func (b *box) discard(name string) { _ = unix.Unlinkat(b.tmp, name, 0) } // what stays in tmp does no harm

func (b *box) withdraw(name string) { _ = unix.Unlinkat(b.new, name, 0) } // a copy too many is better than none

func (b *box) sync() error { return pathError("fsync", "new", fsync(b.new)) }

func (b *box) close() {
	for _, fd := range []int{b.tmp, b.new} {
		if fd >= 0 {
			unix.Close(fd) // a directory: nothing was written through it
		}
	}
}

func fsync(fd int) error {
	_, err := ignoreEINTR(func() (int, error) { return 0, unix.Fsync(fd) })
	return err
}

func ignoreEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
