package mta

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"meta1/mta/account"
	"meta1/mta/verify"
)

// anotherGroup is a group other than our own to which we may give files.
func anotherGroup(t *testing.T) int {
	t.Helper()
	if os.Geteuid() == 0 {
		return 54321
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if g != os.Getegid() {
			return g
		}
	}
	t.Skip("we are in one group only")
	return 0
}

// TestContentGroup: content files belong to the group of CDB_gid, whoever makes them.
func TestContentGroup(t *testing.T) {
	gid := anotherGroup(t)
	r := start(t, "", "")
	r.stop()
	conf, err := os.ReadFile(r.dir + "/meta1.conf")
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.dir+"/meta1.conf", strings.Replace(string(conf), "smtps {", fmt.Sprintf("smtps { CDB_gid = %d;", gid), 1))
	r = startIn(t, r.dir) // the directories are there already
	for _, digit := range verify.ContentDirs {
		dir := filepath.Join(r.dir, "spool", string(digit))
		file := dir + "/test"
		if err := os.WriteFile(file, nil, 0o640); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, file} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if st := info.Sys().(*syscall.Stat_t); int(st.Gid) != gid || info.Mode().Perm()&0o007 != 0 {
				t.Errorf("%s has group %d and mode %v, want group %d", path, st.Gid, info.Mode(), gid)
			}
		}
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
}

// TestContentGroupChecks: a group that the account is not in, and two groups, are mistakes.
func TestContentGroupChecks(t *testing.T) {
	c, r, err := loadText("smtps { CDB_gid = 77; " + listen25 + "}")
	if err != nil {
		t.Fatal(err)
	}
	if errs := verifyContentGroup(c, r, &account.Account{Name: "meta1", UID: 5, Groups: []int{5}}); len(errs) != 1 || !strings.Contains(errs[0].String(), "1:19: error: group 77 is to own the content files, but user meta1") {
		t.Error(errs)
	}
	if errs := slices.Concat(verifyContentGroup(c, r, &account.Account{UID: 5, Groups: []int{5, 77}}), verifyContentGroup(c, r, &account.Account{})); len(errs) != 0 {
		t.Error(errs)
	}
	if _, _, err = loadText("smtps a { CDB_gid = 77; " + listen25 + "} smtps b { id = 1; CDB_gid = 78; " + listen25 + "}"); err == nil || !strings.Contains(err.Error(), "CDB_gid differs from that of section smtps a") {
		t.Error(err)
	}
	if err := giveContentTo(os.Getegid(), "/proc/nowhere"); err == nil {
		t.Error("a directory was made in /proc")
	}
	dir := t.TempDir()
	if err := os.Symlink("/", dir+"/0"); err != nil {
		t.Fatal(err)
	}
	if err := giveContentTo(os.Getegid(), dir); err == nil {
		t.Error("a symbolic link was followed")
	}
}
