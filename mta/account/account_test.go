package account

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// file is a file as Lstat tells of it.
type file struct {
	fs.FileInfo
	uid, gid uint32
	mode     fs.FileMode
}

func (f file) Mode() fs.FileMode { return f.mode }
func (f file) Sys() any          { return &syscall.Stat_t{Uid: f.uid, Gid: f.gid} }

func TestMay(t *testing.T) {
	a := &Account{UID: 10, GID: 20, Groups: []int{20, 30}}
	for f, want := range map[file]bool{
		{uid: 10, gid: 1, mode: 0o700}: true, {uid: 10, gid: 20, mode: 0o077}: false, {uid: 1, gid: 30, mode: 0o070}: true,
		{uid: 1, gid: 40, mode: 0o770}: false, {uid: 1, gid: 1, mode: 0o007}: true,
	} {
		if got := a.May(f, 7); got != want {
			t.Errorf("%+v: %v", f, got)
		}
	}
	if root := (&Account{}); !root.May(file{uid: 1, gid: 1}, 7) {
		t.Error("root may not")
	}
	if me := Self(); me.UID != os.Geteuid() || !slices.Contains(me.Groups, os.Getegid()) {
		t.Errorf("we are %+v", me)
	}
}

// TestDo takes the rights of an account for a while.
func TestDo(t *testing.T) {
	none := (*Account)(nil)
	failure := errors.New("failure")
	if err := none.Do(func() error { return failure }); err != failure {
		t.Errorf("without an account: %v", err)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	path := t.TempDir() + "/root's"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	a := &Account{Name: "a", UID: 4711, GID: 4712, Groups: []int{4712, 4713}}
	err = a.Do(func() error {
		groups, _ := os.Getgroups()
		if os.Geteuid() != 4711 || os.Getegid() != 4712 || !slices.Equal(groups, a.Groups) {
			t.Errorf("we are %d, %d, %v", os.Geteuid(), os.Getegid(), groups)
		}
		_, err := os.ReadFile(path)
		return err
	})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v", err)
	}
	after, _ := os.Getgroups()
	if os.Getuid() != 0 || os.Geteuid() != 0 || os.Getegid() != 0 || !slices.Equal(after, before) {
		t.Errorf("afterwards we are %d, %d, %v", os.Geteuid(), os.Getegid(), after)
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Error(err)
	}
}

func TestLookup(t *testing.T) {
	root, err := Lookup("root", "")
	if err != nil || root.UID != 0 || !slices.Contains(root.Groups, 0) {
		t.Errorf("%+v, %v", root, err)
	}
	if a, err := Lookup("0", "4712"); err != nil || a.Name != "root" || a.GID != 4712 || !slices.Equal(a.Groups, []int{4712}) {
		t.Errorf("%+v, %v", a, err)
	}
	for _, tt := range [][3]string{{"no-such", "", `no user "no-such"`}, {"root", "no-such", `no group "no-such"`}} {
		if _, err := Lookup(tt[0], tt[1]); err == nil || !strings.Contains(err.Error(), tt[2]) {
			t.Errorf("%s: %v", tt, err)
		}
	}
}
