package tlsconf

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// MaxFile bounds a file of certificates or keys in bytes; the bundles of CAs of systems
// have 0.5 MB.
const MaxFile = 16 << 20

// maxDirFiles bounds the files of a directory of CAs or CRLs.
const maxDirFiles = 10_000

// Stamp tells one content of a file from another, without reading it; "" is none.
type Stamp string

// Files reads what a section names. Any goroutine may use it.
type Files interface {
	// Read returns the content of a regular file of at most MaxFile bytes and its stamp. If
	// the stamp is still the one that is known, the content is not read and nil.
	Read(path string, known Stamp) (content []byte, now Stamp, err error)
	// List returns the names of the files of a directory, at most maxDirFiles.
	List(dir string) ([]string, error)
}

// OS reads files with the rights of this process.
type OS struct{}

// Read is Files' Read. Symbolic links are followed; a device or pipe is refused, since it
// could block for ever.
func (OS) Read(path string, known Stamp) (content []byte, now Stamp, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	return ReadFile(f, known)
}

// ReadFile is OS.Read for an open file.
func ReadFile(f *os.File, known Stamp) (content []byte, now Stamp, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	if !info.Mode().IsRegular() {
		return nil, "", fmt.Errorf("%s is not a regular file", f.Name())
	}
	now = stampOf(info)
	if known != "" && now == known {
		return nil, now, nil
	}
	content, err = io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(content) > MaxFile {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), MaxFile)
	}
	if err != nil {
		return nil, "", err
	}
	return content, now, nil
}

// stampOf makes a stamp of what changes with the content: whoever replaces a file gives it
// another number, whoever writes into it another time.
func stampOf(info fs.FileInfo) Stamp {
	inode := uint64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = uint64(st.Ino)
	}
	return Stamp(fmt.Sprintf("%d %d %d", inode, info.Size(), info.ModTime().UnixNano()))
}

// List is Files' List.
func (OS) List(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxDirFiles + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(names) > maxDirFiles {
		return nil, fmt.Errorf("%s has more than %d files", dir, maxDirFiles)
	}
	slices.Sort(names)
	return names, nil
}

// reader reads the files of one load, and keeps the stamps of all.
type reader struct {
	files  Files
	stamps map[string]Stamp
}

func newReader(f Files) *reader { return &reader{files: f, stamps: map[string]Stamp{}} }

// read reads a file and notes its stamp, also that it cannot be read: when that changes, it
// is read again.
func (r *reader) read(path string) ([]byte, error) {
	content, stamp, err := r.files.Read(path, "")
	r.stamps[path] = stamp
	return content, err
}

// readDir reads all regular files of a directory. Those that cannot be read are left out,
// since a directory may have anything in it.
func (r *reader) readDir(dir string) (contents map[string][]byte, names []string, err error) {
	names, err = r.files.List(dir)
	if err != nil {
		r.stamps[dir] = ""
		return nil, nil, err
	}
	contents = map[string][]byte{}
	for _, name := range names {
		if content, err := r.read(filepath.Join(dir, name)); err == nil {
			contents[name] = content
		}
	}
	r.stamps[dir] = listStamp(names)
	return contents, names, nil
}

// listStamp is the stamp of a directory: its names.
func listStamp(names []string) Stamp { return Stamp(fmt.Sprintf("%q", names)) }

// changed reports whether a file or directory is no longer as its stamp says.
func changed(f Files, stamps map[string]Stamp) bool {
	for path, known := range stamps {
		if isList(known) {
			names, err := f.List(path)
			if err != nil || listStamp(names) != known {
				return true
			}
			continue
		}
		_, now, err := f.Read(path, known)
		if err != nil {
			now = ""
		}
		if now != known {
			return true
		}
	}
	return false
}

func isList(s Stamp) bool { return len(s) > 0 && s[0] == '[' }
