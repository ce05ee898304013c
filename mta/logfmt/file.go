package logfmt

import (
	"fmt"
	"os"
)

// File is a log file that can be opened again after it was rotated
// (README 4.9.1).
type File struct {
	*Writer
	path string
	file *os.File // used by Reopen and Close alone, which are not called at once
}

// OpenFile makes a sink that appends to the file. The file is made with mode 0640.
func OpenFile(path string) (*File, error) {
	f, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return &File{Writer: NewWriter(f), path: path, file: f}, nil
}

func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("opening log file: %w", err)
	}
	return f, nil
}

// Chown gives the open file to another account, so that it can be opened again
// after the privileges are dropped.
func (f *File) Chown(uid, gid int) error { return f.file.Chown(uid, gid) }

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
