package crashfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
)

var _ pvfs.FS = (*Disk)(nil)

// clean is the form of a path in which it is kept: from the root, without a slash there.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// find is the node of a cleaned path.
func (d *Disk) find(name string) (*node, error) {
	n := d.root
	for part := range strings.SplitSeq(name, "/") {
		if part == "" {
			continue
		}
		if !n.isDir {
			return nil, syscall.ENOTDIR
		}
		if n = n.names[part]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// parent is the directory that a path is in, and the last part of the path.
func (d *Disk) parent(name string) (dir *node, last string, err error) {
	before, last := path.Split(name)
	if last == "" {
		return nil, "", syscall.EINVAL
	}
	if dir, err = d.find(before); err != nil {
		return nil, "", err
	}
	if !dir.isDir {
		return nil, "", syscall.ENOTDIR
	}
	return dir, last, nil
}

// Create implements vfs.FS.
func (d *Disk) Create(name string, _ pvfs.DiskWriteCategory) (pvfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.create(clean(name))
}

// create makes a file. What has the name is removed before that, as on a real disk.
func (d *Disk) create(name string) (pvfs.File, error) {
	dir, last, err := d.parent(name)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	if dir.names[last] != nil {
		if err := d.remove(name); err != nil {
			return nil, err
		}
	}
	n := &node{changed: time.Now()}
	d.setNames(dir, Change{Kind: Create, Path: name}, naming{last, n})
	return &file{disk: d, node: n, path: name, writable: true}, nil
}

// Link implements vfs.FS.
func (d *Disk) Link(oldname, newname string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldname, newname = clean(oldname), clean(newname)
	n, err := d.find(oldname)
	if err != nil {
		return pathError("link", oldname, err)
	}
	dir, last, err := d.parent(newname)
	switch {
	case err != nil:
	case dir.names[last] != nil:
		err = syscall.EEXIST
	case n.isDir:
		err = syscall.EPERM
	}
	if err != nil {
		return pathError("link", newname, err)
	}
	d.setNames(dir, Change{Kind: Create, Path: newname}, naming{last, n})
	return nil
}

// Open implements vfs.FS.
func (d *Disk) Open(name string, _ ...pvfs.OpenOption) (pvfs.File, error) {
	return d.open(name, false)
}

// OpenDir implements vfs.FS.
func (d *Disk) OpenDir(name string) (pvfs.File, error) { return d.open(name, false) }

// OpenReadWrite implements vfs.FS.
func (d *Disk) OpenReadWrite(name string, _ pvfs.DiskWriteCategory, _ ...pvfs.OpenOption) (pvfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = clean(name)
	if _, err := d.find(name); errors.Is(err, fs.ErrNotExist) {
		return d.create(name)
	}
	return d.openLocked(name, true)
}

func (d *Disk) open(name string, writable bool) (pvfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openLocked(clean(name), writable)
}

func (d *Disk) openLocked(name string, writable bool) (pvfs.File, error) {
	n, err := d.find(name)
	if err == nil && n.isDir && writable {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &file{disk: d, node: n, path: name, writable: writable}, nil
}

// Remove implements vfs.FS.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove(clean(name))
}

func (d *Disk) remove(name string) error {
	dir, last, err := d.parent(name)
	if err == nil && dir.names[last] == nil {
		err = syscall.ENOENT
	}
	if err == nil && len(dir.names[last].names) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	d.setNames(dir, Change{Kind: Remove, Path: name}, naming{last, nil})
	return nil
}

// RemoveAll implements vfs.FS.
func (d *Disk) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.removeAll(clean(name))
}

func (d *Disk) removeAll(name string) error {
	n, err := d.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	for _, child := range sortedNames(n) {
		if err := d.removeAll(path.Join(name, child)); err != nil {
			return err
		}
	}
	return d.remove(name)
}

func sortedNames(dir *node) []string {
	names := make([]string, 0, len(dir.names))
	for name := range dir.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Rename implements vfs.FS.
func (d *Disk) Rename(oldname, newname string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rename(clean(oldname), clean(newname))
}

func (d *Disk) rename(oldname, newname string) error {
	from, last, err := d.parent(oldname)
	if err != nil {
		return pathError("rename", oldname, err)
	}
	to, newLast, err := d.parent(newname)
	if err != nil {
		return pathError("rename", newname, err)
	}
	n := from.names[last]
	if n == nil {
		return pathError("rename", oldname, syscall.ENOENT)
	}
	err = mayReplace(to.names[newLast], n)
	if err == nil && n.isDir && from != to {
		err = syscall.EXDEV
	}
	switch {
	case err != nil:
		return pathError("rename", newname, err)
	case to.names[newLast] == n: // two names of one file: nothing happens (POSIX)
	case from == to:
		d.setNames(to, Change{Kind: Rename, Path: oldname, To: newname}, naming{last, nil}, naming{newLast, n})
	default:
		d.setNames(to, Change{Kind: Create, Path: newname}, naming{newLast, n})
		d.setNames(from, Change{Kind: Remove, Path: oldname}, naming{last, nil})
	}
	return nil
}

// mayReplace says whether a rename may put n in the place of old, which may be nil. Like
// os.Rename, it never replaces a directory.
func mayReplace(old, n *node) error {
	switch {
	case old == nil:
		return nil
	case old.isDir:
		return syscall.EEXIST
	case n.isDir:
		return syscall.ENOTDIR
	}
	return nil
}

// ReuseForWrite implements vfs.FS. The file keeps its content until it is overwritten.
func (d *Disk) ReuseForWrite(oldname, newname string, _ pvfs.DiskWriteCategory) (pvfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.rename(clean(oldname), clean(newname)); err != nil {
		return nil, err
	}
	return d.openLocked(clean(newname), true)
}

// MkdirAll implements vfs.FS. Modes are not kept.
func (d *Disk) MkdirAll(name string, _ os.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mkdirAll(clean(name))
}

func (d *Disk) mkdirAll(name string) error {
	switch n, err := d.find(name); {
	case err == nil && n.isDir:
		return nil
	case err == nil:
		return pathError("mkdir", name, syscall.ENOTDIR)
	}
	if before := path.Dir(name); before != "." {
		if err := d.mkdirAll(before); err != nil {
			return err
		}
	}
	dir, last, err := d.parent(name)
	if err != nil {
		return pathError("mkdir", name, err)
	}
	d.setNames(dir, Change{Kind: Create, Path: name}, naming{last, newDir()})
	return nil
}

// Lock implements vfs.FS.
func (d *Disk) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = clean(name)
	if d.locked[name] {
		return nil, pathError("lock", name, syscall.EAGAIN)
	}
	if _, err := d.find(name); err != nil {
		if _, err := d.create(name); err != nil {
			return nil, err
		}
	}
	d.locked[name] = true
	return &lock{disk: d, name: name}, nil
}

type lock struct {
	disk *Disk // nil when it has ended
	name string
}

func (l *lock) Close() error {
	if l.disk == nil {
		return nil
	}
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	delete(l.disk.locked, l.name)
	l.disk = nil
	return nil
}

// List implements vfs.FS.
func (d *Disk) List(name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(clean(name))
	if err == nil && !n.isDir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathError("list", name, err)
	}
	return sortedNames(n), nil
}

// Stat implements vfs.FS.
func (d *Disk) Stat(name string) (pvfs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(clean(name))
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return n.info(path.Base(clean(name))), nil
}

// PathBase implements vfs.FS.
func (*Disk) PathBase(name string) string { return path.Base(name) }

// PathJoin implements vfs.FS.
func (*Disk) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (*Disk) PathDir(name string) string { return path.Dir(name) }

// GetDiskUsage implements vfs.FS: it is not known.
func (*Disk) GetDiskUsage(string) (pvfs.DiskUsage, error) {
	return pvfs.DiskUsage{}, pvfs.ErrUnsupported
}

// Unwrap implements vfs.FS.
func (*Disk) Unwrap() pvfs.FS { return nil }
