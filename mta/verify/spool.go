package verify

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"meta1/confparse"
)

// ContentDirs are the last digits of ids, after which the directories of the CDB are
// called.
const ContentDirs = "0123456789ABCDEF"

// part is what a directory is to the queue.
type part uint8

const (
	base    part = iota // the main queue directory, or the one of the CDB
	content             // one of the CDB's directories in it
	store               // a database: nobody else's business
)

// spool checks the directories of the queue as far as they exist (README 2.4.1). What
// does not exist will be made.
func (c *checker) spool(root *confparse.Section) {
	c.above(root)
	c.directory(root, "working_directory", c.dir, base)
	cdbDir, option := c.dir, "working_directory"
	if cdb := root.Setting("CDB_base_directory"); cdb != nil && cdb.Value != "" {
		cdbDir, option = below(c.dir, cdb.Value.(string)), "CDB_base_directory"
		c.directory(root, option, cdbDir, base)
	}
	for _, digit := range ContentDirs {
		c.directory(root, option, filepath.Join(cdbDir, string(digit)), content)
	}
	for _, name := range []string{"defedb", "greylist"} {
		c.directory(root, "working_directory", filepath.Join(c.dir, name), store)
	}
	for _, option := range []string{"base_directory", "log_directory"} {
		if s, path := defedb(root, option); path != "" {
			c.directory(s, option, below(c.dir, path), store)
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

// directory checks the owner and the mode of a directory: who else may write it can forge
// and remove mail. That is an error, unless it is the way of containers: a volume whose
// group (fsGroup of Kubernetes, root's in OpenShift) is ours alone, and which an earlier
// container with another user number has written.
func (c *checker) directory(s *confparse.Section, option, path string, is part) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return // it will be made, or the start tells why it cannot
	}
	perm := info.Mode().Perm()
	owner, known := ownerOf(info)
	foreign := known && owner != c.who.UID && owner != 0
	group := ""
	if perm&0o020 != 0 {
		group = c.shared(info)
	}
	switch {
	case known && owner != c.who.UID && c.who.UID == 0: // only for tests, see allow_root
		c.warnf(s, option, "the directory %s of the queue belongs to user %d, who could change it", path, owner)
	case foreign && (perm&0o020 == 0 || group != ""):
		c.errorf(s, option, "the directory %s of the queue belongs to user %d, who could change it, and not to user %s", path, owner, c.who.Name)
	case perm&0o002 != 0 && path == c.dir:
		// Volumes of containers and file systems that were just mounted are so. What is
		// below it is ours and checked on its own.
		c.warnf(s, option, "the directory %s of the queue can be written by everybody (mode %04o): chmod o-w", path, perm)
	case perm&0o002 != 0:
		c.errorf(s, option, "the directory %s of the queue can be written by everybody (mode %04o): chmod o-w", path, perm)
	case is == store && group != "":
		c.errorf(s, option, "the directory %s of the queue can be written by its group (mode %04o), %s: chmod 0700", path, perm, group)
	case foreign && is != content: // the directory above has told it of these
		c.warnf(s, option, "the directory %s of the queue belongs to user %d; user %s writes it as a member of its group", path, owner, c.who.Name)
	case is == store && perm&0o007 != 0:
		c.warnf(s, option, "the directory %s of the queue can be read by everybody (mode %04o): chmod 0700", path, perm)
	case is == store && perm&0o020 != 0:
		c.warnf(s, option, "the directory %s of the queue can be written by its group (mode %04o), which is nobody else's here", path, perm)
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
