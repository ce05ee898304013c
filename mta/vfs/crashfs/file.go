package crashfs

import (
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open file or directory.
type file struct {
	disk     *Disk
	node     *node
	path     string // when it was opened
	writable bool

	// guarded by disk.mu
	at     int64
	closed bool
}

// use locks the disk and checks that a call is allowed. Directories may only be synced.
func (f *file) use(op string, content, write bool) error {
	f.disk.mu.Lock()
	var err error
	switch {
	case f.closed:
		err = fs.ErrClosed
	case content && f.node.isDir:
		err = syscall.EISDIR
	case write && !f.writable:
		err = syscall.EBADF
	}
	if err != nil {
		f.disk.mu.Unlock()
		return pathError(op, f.path, err)
	}
	return nil
}

func (f *file) Close() error {
	if err := f.use("close", false, false); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	f.closed = true
	return nil
}

func (f *file) Read(p []byte) (int, error) {
	if err := f.use("read", true, false); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	n := f.node.content.readAt(p, f.at)
	f.at += int64(n)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.use("read", true, false); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	n := f.node.content.readAt(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.use("write", true, true); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	f.disk.write(f.node, f.path, p, f.at)
	f.at += int64(len(p))
	return len(p), nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.use("write", true, true); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	f.disk.write(f.node, f.path, p, off)
	return len(p), nil
}

func (f *file) Sync() error {
	if err := f.use("sync", false, false); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	f.node.sync()
	return nil
}

func (f *file) SyncData() error { return f.Sync() }

// SyncTo promises nothing, as sync_file_range does.
func (f *file) SyncTo(int64) (fullSync bool, err error) { return false, nil }

func (f *file) Preallocate(int64, int64) error { return nil }
func (f *file) Prefetch(int64, int64) error    { return nil }
func (f *file) Fd() uintptr                    { return pvfs.InvalidFd }

func (f *file) Stat() (pvfs.FileInfo, error) {
	if err := f.use("stat", false, false); err != nil {
		return nil, err
	}
	defer f.disk.mu.Unlock()
	return f.node.info(path.Base(f.path)), nil
}

func (n *node) info(name string) pvfs.FileInfo {
	return &info{name: name, isDir: n.isDir, size: n.content.size, changed: n.changed}
}

type info struct {
	name    string
	isDir   bool
	size    int64
	changed time.Time
}

func (i *info) Name() string            { return i.name }
func (i *info) Size() int64             { return i.size }
func (i *info) ModTime() time.Time      { return i.changed }
func (i *info) IsDir() bool             { return i.isDir }
func (i *info) Sys() any                { return nil }
func (i *info) DeviceID() pvfs.DeviceID { return pvfs.DeviceID{} }

func (i *info) Mode() fs.FileMode {
	if i.isDir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
