// Package provision makes what meta1 needs of a host before its first start, as root: the
// account, and the directories with their owners and modes. It changes nothing that exists.
package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta1/mta/account"
	"meta1/mta/maildrop"
	"meta1/mta/verify"
)

// commandTime bounds a program that makes an account.
const commandTime = time.Minute

// Wanted is what a configuration needs.
type Wanted struct {
	User  string // the account that serves; "" for none of its own
	Group string // its group; "" for that of the account
	Spool string // the main queue directory, absolute
	Logs  string // the directory of log files, absolute; "" for none
	Drop  string // the maildrop, absolute; "" for none
	// Access is who may leave mail in the maildrop.
	Access maildrop.Access
}

// State is what became of a step.
type State string

// The states.
const (
	OK      State = "ok"
	Made    State = "made"
	Missing State = "missing" // only with check
	Wrong   State = "wrong"   // it exists and is not as it should be, or could not be made
)

// Step is one thing that meta1 needs.
type Step struct {
	What  string `json:"what"`
	State State  `json:"state"`
	// Text says what is wrong, or how it is made by hand.
	Text string `json:"text,omitempty"`
}

// Host makes accounts. Find and Make may be replaced in tests.
type Host struct {
	// Find finds the account; its error is that of os/user if there is none.
	Find func(user, group string) (*account.Account, error)
	// Make runs a command.
	Make func(ctx context.Context, name string, args ...string) error
}

// System is this host.
func System() Host {
	return Host{Find: account.Lookup, Make: func(ctx context.Context, name string, args ...string) error {
		ctx, cancel := context.WithTimeout(ctx, commandTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %.300q", name, err, strings.TrimSpace(string(out)))
		}
		return nil
	}}
}

// Run makes what is missing, or with check only says what is. Steps after one that failed and
// need it are left out.
func (h Host) Run(ctx context.Context, w Wanted, check bool) []Step {
	var steps []Step
	var owner *account.Account
	if w.User != "" {
		if steps, owner = h.account(ctx, w, check); owner == nil {
			if check {
				return append(steps, missingDirectories(w)...)
			}
			return steps
		}
	}
	spool := directory("main queue directory "+w.Spool, w.Spool, 0o751, owner, check)
	steps = append(steps, spool)
	if w.Logs != "" {
		steps = append(steps, directory("log directory "+w.Logs, w.Logs, 0o750, owner, check))
	}
	if w.Drop != "" && spool.State != Wrong {
		steps = append(steps, dropDirectory(w, owner, check))
	}
	return steps
}

// missingDirectories are the directories that are missing beside the account they should belong to.
func missingDirectories(w Wanted) (steps []Step) {
	for _, d := range []struct {
		what, path string
		mode       uint32
		group      string
	}{
		{"main queue directory " + w.Spool, w.Spool, 0o751, ""},
		{"log directory " + w.Logs, w.Logs, 0o750, ""},
		{"maildrop " + w.Drop, w.Drop, w.Access.Bits(), " -g " + cmp.Or(w.Group, w.User)},
	} {
		if d.path == "" {
			continue
		}
		if _, err := os.Lstat(d.path); errors.Is(err, fs.ErrNotExist) {
			steps = append(steps, Step{d.what, Missing, fmt.Sprintf("install -d -m %04o -o %s%s %s", d.mode, w.User, d.group, d.path)})
		}
	}
	return steps
}

// account finds or makes the account, and its group if that has a name of its own.
func (h Host) account(ctx context.Context, w Wanted, check bool) (steps []Step, a *account.Account) {
	a, err := h.Find(w.User, w.Group)
	missing := &account.UnknownError{}
	// A user without a group, and a group without a user, are one step each.
	if errors.As(err, &missing) && w.Group != "" {
		groupless := missing.Kind == "group"
		if !groupless {
			_, err := h.Find("root", w.Group)
			groupless = errors.As(err, new(*account.UnknownError))
		}
		if groupless {
			s := h.make(ctx, "group "+w.Group, addGroup(runtime.GOOS, w.Group), check)
			if steps = append(steps, s); s.State == Wrong {
				return steps, nil
			}
			a, err = h.Find(w.User, w.Group)
		}
	}
	s := Step{What: "account " + w.User, State: OK}
	switch {
	case errors.As(err, &missing) && missing.Kind == "user":
		if s = h.make(ctx, s.What, addUser(runtime.GOOS, w), check); s.State != Made {
			break
		}
		if a, err = h.Find(w.User, w.Group); err != nil {
			s.State, s.Text = Wrong, err.Error()
		}
	case errors.As(err, &missing) && check: // the group, which was told
	case err != nil:
		s.State, s.Text = Wrong, err.Error()
	}
	return append(steps, s), a
}

// make runs the command that makes something, or says it.
func (h Host) make(ctx context.Context, what string, command []string, check bool) Step {
	if check {
		return Step{What: what, State: Missing, Text: strings.Join(command, " ")}
	}
	if err := h.Make(ctx, command[0], command[1:]...); err != nil {
		return Step{What: what, State: Wrong, Text: err.Error()}
	}
	return Step{What: what, State: Made}
}

// addGroup is the command that makes a group.
func addGroup(system, group string) []string {
	switch system {
	case "freebsd":
		return []string{"pw", "groupadd", "-n", group}
	case "openbsd":
		return []string{"groupadd", group}
	}
	return []string{"groupadd", "--system", group}
}

// addUser is the command that makes an account without password and shell.
func addUser(system string, w Wanted) []string {
	var c, group []string
	if w.Group != "" {
		group = []string{"-g", w.Group}
	}
	switch system {
	case "freebsd":
		c = append([]string{"pw", "useradd", "-n", w.User, "-d", w.Spool, "-s", "/usr/sbin/nologin", "-c", "meta1"}, group...)
		return c
	case "openbsd":
		c = append([]string{"useradd", "-d", w.Spool, "-s", "/sbin/nologin", "-c", "meta1"}, group...)
	default:
		c = []string{"useradd", "--system", "--no-create-home", "--home-dir", w.Spool, "--shell", "/usr/sbin/nologin", "--comment", "meta1"}
		if w.Group == "" {
			group = []string{"--user-group"}
		}
		c = append(c, group...)
	}
	return append(c, w.User)
}

// directory makes a directory that belongs to the account, or looks whether one does.
func directory(what, path string, mode fs.FileMode, owner *account.Account, check bool) Step {
	s := Step{What: what, State: OK}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && check:
		s.State, s.Text = Missing, fmt.Sprintf("install -d -m %04o%s %s", mode, ownerArgs(owner), path)
	case errors.Is(err, fs.ErrNotExist):
		if s.State = Made; makeDirectory(path, mode, owner, &s) != nil {
			s.State = Wrong
		}
	case err != nil:
		s.State, s.Text = Wrong, err.Error()
	case !info.IsDir():
		s.State, s.Text = Wrong, "it is no directory"
	default:
		if text := unsafe(info, owner); text != "" {
			s.State, s.Text = Wrong, text
		}
	}
	return s
}

// dropDirectory makes the maildrop as the server would at its first start, or looks whether it is as the server wants
// it. It is below a directory of the account, which could put a link in its place, so root does nothing there.
func dropDirectory(w Wanted, owner *account.Account, check bool) Step {
	s := Step{What: "maildrop " + w.Drop, State: OK}
	info, err := os.Lstat(w.Drop)
	if errors.Is(err, fs.ErrNotExist) {
		if check {
			s.State, s.Text = Missing, fmt.Sprintf("install -d -m %04o%s %s", w.Access.Bits(), ownerArgs(owner), w.Drop)
			return s
		}
		s.State = Made
		if err = owner.Do(func() error { return maildrop.Make(w.Drop, w.Access) }); err == nil {
			info, err = os.Lstat(w.Drop)
		}
	}
	if err != nil {
		s.State, s.Text = Wrong, err.Error()
		return s
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		s.Text = "it is no directory"
	case !ok:
	case owner != nil && int64(st.Uid) != int64(owner.UID):
		s.Text = fmt.Sprintf("it belongs to user %d, not to %s: chown %s", st.Uid, owner.Name, owner.Name)
	case owner != nil && int64(st.Gid) != int64(owner.GID): // what is left in it would not be readable
		s.Text = fmt.Sprintf("its group is %d, not that of %s: chgrp %d", st.Gid, owner.Name, owner.GID)
	case uint32(st.Mode)&0o7777 != w.Access.Bits():
		s.Text = fmt.Sprintf("its mode is %04o: chmod %04o", uint32(st.Mode)&0o7777, w.Access.Bits())
	}
	if s.Text != "" {
		s.State = Wrong
	}
	return s
}

func ownerArgs(owner *account.Account) string {
	if owner == nil {
		return ""
	}
	return fmt.Sprintf(" -o %s -g %d", owner.Name, owner.GID)
}

// makeDirectory makes a directory in one that only root may write, so that nobody can put something else in its
// place before it has its owner.
func makeDirectory(path string, mode fs.FileMode, owner *account.Account, s *Step) error {
	fail := func(err error) error {
		s.Text = err.Error()
		return err
	}
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fail(err)
	}
	if owner != nil {
		if err := verify.OnlyRoot(parent); err != nil {
			return fail(fmt.Errorf("root makes nothing there: %w", err))
		}
	}
	if err := os.Mkdir(path, mode); err != nil {
		return fail(err)
	}
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return fail(err)
	}
	if owner != nil {
		if err := f.Chown(owner.UID, owner.GID); err != nil {
			return fail(err)
		}
	}
	return nil
}

// unsafe says what is wrong with the owner or mode of a directory.
func unsafe(info fs.FileInfo, owner *account.Account) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return ""
	case owner != nil && int64(st.Uid) != int64(owner.UID):
		return fmt.Sprintf("it belongs to user %d, not to %s: chown %s", st.Uid, owner.Name, owner.Name)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Sprintf("others may write it (mode %04o): chmod go-w", info.Mode().Perm())
	}
	return ""
}
