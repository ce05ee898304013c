package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks bounds how many symbolic links one path may lead through.
const maxLinks = 40

// OnlyRoot says why somebody else than root could change what is at a path, or put
// something else there; nil means that nobody can. The path is absolute. Every folder
// that leads to it, through symbolic links too, must be root's and writable by root
// alone; in those above the last part a sticky bit (as /tmp has) is enough, since what
// root has there stays. What does not exist only root must be able to make. What root does with such a path no account can turn into
// something else meanwhile.
func OnlyRoot(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s is not absolute", path)
	}
	at, links := "/", 0
	parts := strings.Split(path, "/")
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at) // at has no links in it, so that this is where the system goes, too
			continue
		}
		if err := othersWrite(at, true); err != nil {
			return err
		}
		next := filepath.Join(at, part)
		target, err := os.Readlink(next)
		if errors.Is(err, syscall.EINVAL) { // not a link
			at = next
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			return othersWrite(at, false)
		}
		if err != nil {
			return because(next, err)
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s: %w", next, syscall.ELOOP)
		}
		if err := othersWrite(next, false); err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		parts = append(strings.Split(target, "/"), parts...)
	}
	return othersWrite(at, false)
}

// othersWrite says who else than root may write a file or folder. A sticky folder may
// be writable if sticky says so, a symbolic link always is: only its owner counts.
func othersWrite(path string, sticky bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return because(path, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case !ok:
		return fmt.Errorf("the owner of %s is not known", path)
	case st.Uid != 0:
		return fmt.Errorf("%s belongs to user %d", path, st.Uid)
	case sticky && mode&fs.ModeSticky != 0, mode.Type() == fs.ModeSymlink:
		return nil
	case mode&0o002 != 0:
		return fmt.Errorf("everybody may write %s (mode %04o)", path, mode.Perm())
	case mode&0o020 != 0 && st.Gid != 0:
		return fmt.Errorf("group %d may write %s (mode %04o)", st.Gid, path, mode.Perm())
	}
	return nil
}
