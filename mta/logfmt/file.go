package logfmt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// File is a log file that can be opened again after it was rotated
// (README 4.9.1).
type File struct {
	*Writer
	path string
	file *os.File // used by Reopen and Close alone, which are not called at once
}

// OpenFile makes a sink that appends to the file. The file is made with mode 0640. A
// symbolic link, a file with a second name and anything but a file, a pipe or a device
// are refused: who may write the folder could have put them there.
func OpenFile(path string) (*File, error) {
	f, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return &File{Writer: NewWriter(f), path: path, file: f}, nil
}

// Append opens a log file as OpenFile does, for a program that writes it itself.
func Append(path string) (*os.File, error) { return openLog(path) }

func openLog(path string) (*os.File, error) {
	// A pipe without a reader must not hold us up.
	const flags = os.O_WRONLY | os.O_APPEND | os.O_CREATE | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0o640)
	if err != nil {
		if info, e := os.Lstat(path); e == nil && info.Mode().Type() == fs.ModeSymlink {
			err = fmt.Errorf("%s is a symbolic link, which is not followed", path)
		}
		return nil, fmt.Errorf("opening log file: %w", err)
	}
	if err := suitable(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("opening log file: %s %w", path, err)
	}
	return f, nil
}

// suitable says why an open file is no log file.
func suitable(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Type() == fs.ModeNamedPipe, info.Mode()&fs.ModeCharDevice != 0:
		return nil
	case !info.Mode().IsRegular():
		return errors.New("is neither a file nor a pipe nor a device")
	case ok && st.Nlink > 1:
		return errors.New("is another file, too: it has a second name (hard link)")
	}
	return nil
}

// Chown gives the open file to another account, so that it can be opened again
// after the privileges are dropped. A file that belongs to neither us nor that account
// stays as it is, and so does what is no file.
func (f *File) Chown(uid, gid int) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int64(st.Uid) != int64(os.Geteuid()) && int64(st.Uid) != int64(uid) {
		return fmt.Errorf("log file %s belongs to user %d", f.path, st.Uid)
	}
	return f.file.Chown(uid, gid)
}

// Path is where the file is.
func (f *File) Path() string { return f.path }

// Reopen opens the path again. If that fails logging goes on in the old file.
func (f *File) Reopen() error {
	file, err := openLog(f.path)
	if err != nil {
		return err
	}
	old := f.file
	f.SetOutput(file)
	f.file = file
	return old.Close()
}

// Close writes what waits and closes the file.
func (f *File) Close() error {
	f.Flush()
	return f.file.Close()
}
