// Package account knows the accounts of the system, what they may do with files, and how
// this process takes their rights: for a while (Do) or for good (Become). After that it can
// give up even more (LandlockTo).
package account

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// Account is a user of the system with a group. Where a pointer to one may be nil, that
// stands for the account that runs this process.
type Account struct {
	Name   string // or the number, if that is all that is known
	UID    int
	GID    int
	Groups []int // GID among them
}

// Self is the account that runs this process.
func Self() *Account {
	groups, _ := os.Getgroups() // without them only the first group counts
	gid := os.Getegid()
	return &Account{Name: strconv.Itoa(os.Geteuid()), UID: os.Geteuid(), GID: gid, Groups: append([]int{gid}, groups...)}
}

// May reports whether the account has all the permission bits of 7 on a file.
func (a *Account) May(info fs.FileInfo, bits fs.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case a.UID == 0 || !ok:
		return true
	case int64(a.UID) == int64(st.Uid):
		mode >>= 6
	case slices.ContainsFunc(a.Groups, func(gid int) bool { return int64(gid) == int64(st.Gid) }):
		mode >>= 3
	}
	return mode&bits == bits
}

// UnknownError says that the system has no such user or group.
type UnknownError struct{ Kind, Name string }

// Error implements error.
func (e *UnknownError) Error() string { return fmt.Sprintf("there is no %s %q", e.Kind, e.Name) }

// Lookup finds an account by the name or number of its user, and of its group
// if that is not "".
func Lookup(name, group string) (*Account, error) {
	u, err := User(name)
	if err != nil {
		return nil, err
	}
	a := &Account{Name: u.Username}
	if a.UID, err = strconv.Atoi(u.Uid); err != nil {
		return nil, fmt.Errorf("user %s has no number: %w", name, err)
	}
	if a.GID, err = strconv.Atoi(u.Gid); err != nil {
		return nil, fmt.Errorf("user %s has no group: %w", name, err)
	}
	if group != "" {
		if a.GID, err = Group(group); err != nil {
			return nil, err
		}
		a.Groups = []int{a.GID}
		return a, nil
	}
	return a, a.findGroups(u)
}

// findGroups finds all groups of the user; the first is among them.
func (a *Account) findGroups(u *user.User) error {
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("finding the groups of user %s: %w", u.Username, err)
	}
	a.Groups = []int{a.GID}
	for _, id := range ids {
		if g, err := strconv.Atoi(id); err == nil && g != a.GID {
			a.Groups = append(a.Groups, g)
		}
	}
	return nil
}

// User finds a user by name or number.
func User(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err == nil {
		return u, nil
	}
	if _, number := strconv.Atoi(name); number == nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return nil, &UnknownError{"user", name}
	}
	return u, nil
}

// Group finds the number of a group by its name or number.
func Group(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		if id, number := strconv.Atoi(name); number == nil {
			return id, nil
		}
		return 0, &UnknownError{"group", name}
	}
	return strconv.Atoi(g.Gid)
}
