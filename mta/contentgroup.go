package mta

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"meta1/confparse"
	"meta1/mta/account"
	"meta1/mta/verify"
)

// verifyContentGroup sees that the account may give files to the group.
func verifyContentGroup(c *Config, result *confparse.Result, who *account.Account) confparse.Errors {
	gid := c.ContentGroup()
	if gid == 0 || who.UID == 0 || slices.Contains(who.Groups, gid) {
		return nil
	}
	for _, s := range c.Servers {
		if s.Server.Host.CDBGid == gid {
			return confparse.Errors{result.Diagnose(confparse.SeverityError, s.Of.Section+"/CDB_gid",
				"group %d is to own the content files, but user %s is no member of it", gid, who.Name)}
		}
	}
	return nil
}

// giveContentTo makes the content directories below base those of a group, with the bit
// by which all files that are made in them belong to it, too.
func giveContentTo(gid int, base string) error {
	if err := os.MkdirAll(base, 0o750); err != nil {
		return fmt.Errorf("making the content directory: %w", err)
	}
	for _, digit := range verify.ContentDirs {
		if err := giveDirectory(gid, filepath.Join(base, string(digit))); err != nil {
			return fmt.Errorf("giving the content directories to group %d (CDB_gid): %w", gid, err)
		}
	}
	return nil
}

func giveDirectory(gid int, path string) error {
	if err := os.Mkdir(path, 0o750); err != nil && !os.IsExist(err) {
		return err
	}
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Gid) != gid {
		if err := f.Chown(-1, gid); err != nil {
			return err
		}
	}
	return f.Chmod(info.Mode().Perm() | 0o050 | os.ModeSetgid)
}
