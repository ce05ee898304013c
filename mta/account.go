package mta

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
)

// account is a user of the system with a group.
type account struct {
	name   string
	uid    int
	gid    int
	groups []int
}

// lookupAccount finds an account by the name or number of its user, and of its group
// if that is not "".
func lookupAccount(name, group string) (*account, error) {
	u, err := lookupUser(name)
	if err != nil {
		return nil, err
	}
	a := &account{name: u.Username}
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, fmt.Errorf("user %s has no number: %w", name, err)
	}
	if a.gid, err = strconv.Atoi(u.Gid); err != nil {
		return nil, fmt.Errorf("user %s has no group: %w", name, err)
	}
	if group != "" {
		if a.gid, err = lookupGroup(group); err != nil {
			return nil, err
		}
		a.groups = []int{a.gid}
		return a, nil
	}
	return a, a.findGroups(u)
}

// findGroups finds all groups of the user; the first is among them.
func (a *account) findGroups(u *user.User) error {
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("finding the groups of user %s: %w", u.Username, err)
	}
	a.groups = []int{a.gid}
	for _, id := range ids {
		if g, err := strconv.Atoi(id); err == nil && g != a.gid {
			a.groups = append(a.groups, g)
		}
	}
	return nil
}

func lookupUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err == nil {
		return u, nil
	}
	if _, number := strconv.Atoi(name); number == nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return nil, fmt.Errorf("there is no user %q", name)
	}
	return u, nil
}

func lookupGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		if id, number := strconv.Atoi(name); number == nil {
			return id, nil
		}
		return 0, fmt.Errorf("there is no group %q", name)
	}
	return strconv.Atoi(g.Gid)
}

// errRoot says that meta1 was started as root without an account to change to.
var errRoot = errors.New("started as root, but there is no account " + defaultUser +
	" to change to: make it, set the options user and group to another one, or start meta1 as that user")

// serverAccount is the account to change to, or nil to stay as we are. root says
// that we were started as root.
func (c *Config) serverAccount(root bool) (*account, error) {
	switch {
	case !root:
		return nil, nil
	case c.User != "":
		a, err := lookupAccount(c.User, c.Group)
		if err == nil && a.uid == 0 && !c.AllowRoot {
			err = errors.New("user is root: meta1 does not serve as root unless allow_root is set")
		}
		return a, err
	case c.AllowRoot:
		return nil, nil
	}
	a, err := lookupAccount(defaultUser, "")
	if err != nil {
		return nil, errRoot
	}
	return a, nil
}
