package vfs

import (
	"context"
	"sync/atomic"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
)

// Copy is a copy of many files that takes long: it can be watched and ended. Its methods may be called from any goroutine.
type Copy struct {
	ctx          context.Context
	end          context.CancelCauseFunc
	files, bytes atomic.Int64
}

// NewCopy begins a copy, which ends with ctx. End it when it is made.
func NewCopy(ctx context.Context) *Copy {
	c := &Copy{}
	c.ctx, c.end = context.WithCancelCause(ctx)
	return c
}

// End fails what is still written to the copy with a reason, the first time it is called.
func (c *Copy) End(why error) { c.end(why) }

// Err is why the copy ended; nil if it has not.
func (c *Copy) Err() error { return context.Cause(c.ctx) }

// Made tells how many files were begun, and how many bytes were written to them; a hard link has none. Both only grow, and
// stand still if nothing can be written.
func (c *Copy) Made() (files, bytes int64) { return c.files.Load(), c.bytes.Load() }

// On is a file system for the files of the copy: files that are made and written there count, and fail when the copy has ended.
func (c *Copy) On(fsys pvfs.FS) pvfs.FS { return copyFS{fsys, c} }

type copyFS struct {
	pvfs.FS
	of *Copy
}

func (f copyFS) Create(name string, category pvfs.DiskWriteCategory) (pvfs.File, error) {
	if err := f.of.Err(); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	f.of.files.Add(1)
	return copyFile{file, f.of}, nil
}

func (f copyFS) Link(oldname, newname string) error {
	if err := f.of.Err(); err != nil {
		return err
	}
	err := f.FS.Link(oldname, newname)
	if err == nil {
		f.of.files.Add(1)
	}
	return err
}

// Unwrap is the file system itself.
func (f copyFS) Unwrap() pvfs.FS { return f.FS }

type copyFile struct {
	pvfs.File
	of *Copy
}

func (f copyFile) Write(p []byte) (int, error) {
	if err := f.of.Err(); err != nil {
		return 0, err
	}
	n, err := f.File.Write(p)
	f.of.bytes.Add(int64(n))
	return n, err
}
