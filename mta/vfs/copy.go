package vfs

import (
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/copies"
)

// Copying is a file system for the files of a copy: files that are made and written there count, and fail when the copy has
// ended.
func Copying(fsys pvfs.FS, c *copies.Copy) pvfs.FS { return copyFS{fsys, c} }

type copyFS struct {
	pvfs.FS
	of *copies.Copy
}

func (f copyFS) Create(name string, category pvfs.DiskWriteCategory) (pvfs.File, error) {
	if err := f.of.Err(); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	f.of.Began()
	return copyFile{file, f.of}, nil
}

func (f copyFS) Link(oldname, newname string) error {
	if err := f.of.Err(); err != nil {
		return err
	}
	err := f.FS.Link(oldname, newname)
	if err == nil {
		f.of.Began()
	}
	return err
}

// Unwrap is the file system itself.
func (f copyFS) Unwrap() pvfs.FS { return f.FS }

type copyFile struct {
	pvfs.File
	of *copies.Copy
}

func (f copyFile) Write(p []byte) (int, error) {
	if err := f.of.Err(); err != nil {
		return 0, err
	}
	n, err := f.File.Write(p)
	f.of.Wrote(n)
	return n, err
}
