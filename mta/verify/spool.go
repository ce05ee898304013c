package verify

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"meta1/confparse"
)

// contentDirs are the last digits of ids, after which the directories of the CDB are
// called.
const contentDirs = "0123456789ABCDEF"

// spool checks the directories of the queue as far as they exist (README 2.4.1). What
// does not exist will be made.
func (c *checker) spool(root *confparse.Section) {
	c.above(root)
	c.directory(root, "working_directory", c.dir, false)
	base, option := c.dir, "working_directory"
	if cdb := root.Setting("CDB_base_directory"); cdb != nil && cdb.Value != "" {
		base, option = below(c.dir, cdb.Value.(string)), "CDB_base_directory"
		c.directory(root, option, base, false)
	}
	for _, digit := range contentDirs {
		c.directory(root, option, filepath.Join(base, string(digit)), false)
	}
	for _, name := range []string{"ibdb", "greylist"} {
		c.directory(root, "working_directory", filepath.Join(c.dir, name), true)
	}
	for _, option := range []string{"base_directory", "log_directory"} {
		if s, path := defedb(root, option); path != "" {
			c.directory(s, option, below(c.dir, path), true)
		}
	}
}

// defedb is the section qmgr/DEFEDB, and the value of one of its options.
func defedb(root *confparse.Section, option string) (*confparse.Section, string) {
	for _, q := range root.Subs {
		for _, s := range q.Subs {
			if v := s.Setting(option); strings.EqualFold(q.Keyword, "qmgr") && strings.EqualFold(s.Keyword, "DEFEDB") && v != nil {
				path, _ := v.Value.(string)
				return s, path
			}
		}
	}
	return nil, ""
}

// directory checks the owner and the mode of a directory; private ones are nobody
// else's.
func (c *checker) directory(s *confparse.Section, option, path string, private bool) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return // it will be made, or the start tells why it cannot
	}
	perm := info.Mode().Perm()
	owner, known := ownerOf(info)
	switch {
	case known && owner != c.who.UID && c.who.UID == 0: // only for tests, see allow_root
		c.warnf(s, option, "the directory %s of the queue belongs to user %d, who could change it", path, owner)
	case known && owner != c.who.UID && owner != 0:
		c.errorf(s, option, "the directory %s of the queue belongs to user %d, who could change it, and not to user %s", path, owner, c.who.Name)
	case perm&0o002 != 0 && path == c.dir:
		// Volumes of containers and file systems that were just mounted are so. What is
		// below it is ours and checked on its own.
		c.warnf(s, option, "the directory %s of the queue can be written by everybody (mode %04o): chmod o-w", path, perm)
	case perm&0o002 != 0:
		c.errorf(s, option, "the directory %s of the queue can be written by everybody (mode %04o): chmod o-w", path, perm)
	case private && perm&0o020 != 0:
		c.errorf(s, option, "the directory %s of the queue can be written by its group (mode %04o): chmod 0700", path, perm)
	case private && perm&0o007 != 0:
		c.warnf(s, option, "the directory %s of the queue can be read by everybody (mode %04o): chmod 0700", path, perm)
	}
}

// above warns of directories above the queue through which somebody else could put
// another one in its place.
func (c *checker) above(root *confparse.Section) {
	for path := filepath.Dir(c.dir); ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err == nil {
			owner, known := ownerOf(info)
			switch {
			case info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
				c.warnf(root, "working_directory", "everybody may write %s, and so replace the queue in it", path)
			case known && owner != 0 && owner != c.who.UID:
				c.warnf(root, "working_directory", "%s belongs to user %d, who could replace the queue in it", path, owner)
			}
		}
		if path == filepath.Dir(path) {
			return
		}
	}
}

func ownerOf(info fs.FileInfo) (uid int, known bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
