package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meta1/mta/account"
	"meta1/mta/maildrop"
)

// world is a system without the accounts; commands make them.
type world struct {
	users, groups map[string]bool
	commands      []string
	fails         bool
	uid           int
}

func (w *world) host() Host {
	return Host{
		Find: func(user, group string) (*account.Account, error) {
			if user != "root" && !w.users[user] {
				return nil, &account.UnknownError{Kind: "user", Name: user}
			}
			if group != "" && !w.groups[group] {
				return nil, &account.UnknownError{Kind: "group", Name: group}
			}
			return &account.Account{Name: user, UID: w.uid, GID: os.Getegid()}, nil
		},
		Make: func(_ context.Context, name string, args ...string) error {
			w.commands = append(w.commands, name)
			if w.fails {
				return errors.New("no room in /etc/passwd")
			}
			last := args[len(args)-1]
			if strings.Contains(name+args[0], "group") && !strings.Contains(name, "user") {
				w.groups[last] = true
			} else {
				w.users[last] = true
			}
			return nil
		},
	}
}

func show(steps []Step, dir string) string {
	var lines []string
	for _, s := range steps {
		lines = append(lines, strings.ReplaceAll(fmt.Sprintf("%s: %s %s", s.What, s.State, s.Text), dir, "DIR"))
	}
	return strings.Join(lines, "\n")
}

func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root alone may give directories away")
	}
	dir, err := os.MkdirTemp("/var", "provision") // below /tmp root makes nothing, and in /root the account is nobody
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{users: map[string]bool{}, groups: map[string]bool{}, uid: 65534}
	wanted := Wanted{User: "mail1", Group: "mailers", Spool: dir + "/a/spool", Logs: dir + "/logs", Drop: dir + "/a/spool/drop", Access: maildrop.AccessAll}
	ctx := context.Background()

	got := show(w.host().Run(ctx, wanted, true), dir)
	if !strings.HasPrefix(got, "group mailers: missing ") || !strings.Contains(got, "\naccount mail1: missing ") ||
		!strings.Contains(got, "\nmain queue directory DIR/a/spool: missing install -d -m 0751 -o mail1 DIR/a/spool\nlog directory DIR/logs: missing ") ||
		!strings.HasSuffix(got, "\nmaildrop DIR/a/spool/drop: missing install -d -m 3733 -o mail1 -g mailers DIR/a/spool/drop") {
		t.Errorf("check:\n%s", got)
	}
	if _, err := os.Lstat(dir + "/a"); !errors.Is(err, fs.ErrNotExist) || len(w.commands) > 0 {
		t.Errorf("check makes something: %v %q", err, w.commands)
	}
	const made = "group mailers: made \naccount mail1: made \nmain queue directory DIR/a/spool: made \nlog directory DIR/logs: made \nmaildrop DIR/a/spool/drop: made "
	if got := show(w.host().Run(ctx, wanted, false), dir); got != made {
		t.Errorf("made:\n%s", got)
	}
	for path, mode := range map[string]fs.FileMode{wanted.Spool: 0o751, wanted.Logs: 0o750} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode || unsafe(info, &account.Account{UID: 65534}) != "" {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
	if info, err := os.Stat(wanted.Drop); err != nil || info.Mode() != fs.ModeDir|maildrop.AccessAll.Mode() || info.Sys().(*syscall.Stat_t).Uid != 65534 {
		t.Errorf("the maildrop: %v %v", info, err)
	}
	const ok = "account mail1: ok \nmain queue directory DIR/a/spool: ok \nlog directory DIR/logs: ok \nmaildrop DIR/a/spool/drop: ok "
	for _, check := range []bool{false, true} {
		if got := show(w.host().Run(ctx, wanted, check), dir); got != ok {
			t.Errorf("again:\n%s", got)
		}
	}

	// What is wrong is told and stays.
	for want, spoil := range map[string]func() error{
		"its mode is 3730: chmod 3733":                    func() error { return os.Chmod(wanted.Drop, maildrop.AccessGroup.Mode()) },
		"it belongs to user 0, not to mail1: chown mail1": func() error { return os.Chown(wanted.Drop, 0, -1) },
		"its group is 12345, not that of mail1: chgrp":    func() error { return os.Chown(wanted.Drop, 65534, 12345) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got := show(w.host().Run(ctx, wanted, true), dir); !strings.Contains(got, "drop: wrong "+want) {
			t.Errorf("the maildrop, which should be told that %s:\n%s", want, got)
		}
		if err := errors.Join(os.Remove(wanted.Drop), maildropMade(w.host().Run(ctx, wanted, false))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(wanted.Spool, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(wanted.Logs, 0, 0); err != nil {
		t.Fatal(err)
	}
	got = show(w.host().Run(ctx, wanted, false), dir)
	if !strings.Contains(got, "spool: wrong others may write it (mode 0777): chmod go-w\n") || !strings.Contains(got, "logs: wrong it belongs to user 0, not to mail1: chown mail1") {
		t.Errorf("wrong owner and mode:\n%s", got)
	}
	if info, err := os.Stat(wanted.Spool); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("it was changed: %v %v", info, err)
	}

	// A symbolic link in the place of the directory, and a folder of others above it.
	if err := os.Symlink("/etc", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/open", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/open", 0o777); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir + "/link": "it is no directory", dir + "/open/spool": "root makes nothing there"} {
		got := show(w.host().Run(ctx, Wanted{User: "mail1", Spool: path}, false), dir)
		if !strings.Contains(got, ": wrong "+want) {
			t.Errorf("%s: %s", filepath.Base(path), got)
		}
	}

	w = &world{users: map[string]bool{}, groups: map[string]bool{}, fails: true}
	if got := show(w.host().Run(ctx, wanted, false), dir); got != "group mailers: wrong no room in /etc/passwd" {
		t.Errorf("a command fails:\n%s", got)
	}
}

// maildropMade says whether the last step made something.
func maildropMade(steps []Step) error {
	if s := steps[len(steps)-1]; s.State != Made {
		return fmt.Errorf("%s: %s %s", s.What, s.State, s.Text)
	}
	return nil
}

func TestCommands(t *testing.T) {
	w := Wanted{User: "u", Group: "g", Spool: "/s"}
	for system, want := range map[string]string{
		"linux":   "groupadd --system g; useradd --system --no-create-home --home-dir /s --shell /usr/sbin/nologin --comment meta1 -g g u",
		"freebsd": "pw groupadd -n g; pw useradd -n u -d /s -s /usr/sbin/nologin -c meta1 -g g",
		"openbsd": "groupadd g; useradd -d /s -s /sbin/nologin -c meta1 -g g u",
	} {
		if got := strings.Join(addGroup(system, "g"), " ") + "; " + strings.Join(addUser(system, w), " "); got != want {
			t.Errorf("%s: %s", system, got)
		}
	}
	w.Group = ""
	if got := strings.Join(addUser("linux", w), " "); !strings.Contains(got, " --user-group u") {
		t.Error(got)
	}
}
