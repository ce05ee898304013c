package mta

import (
	"errors"

	"meta1/mta/account"
)

// errRoot says that meta1 was started as root without an account to change to.
var errRoot = errors.New("started as root, but there is no account " + defaultUser +
	" to change to: make it, set the options user and group to another one, or start meta1 as that user")

// serverAccount is the account to change to, or nil to stay as we are. root says
// that we were started as root.
func (c *Config) serverAccount(root bool) (*account.Account, error) {
	switch {
	case !root:
		return nil, nil
	case c.User != "":
		a, err := account.Lookup(c.User, c.Group)
		if err == nil && a.UID == 0 && !c.AllowRoot {
			err = errors.New("user is root: meta1 does not serve as root unless allow_root is set")
		}
		return a, err
	case c.AllowRoot:
		return nil, nil
	}
	a, err := account.Lookup(defaultUser, "")
	if err != nil {
		return nil, errRoot
	}
	return a, nil
}
