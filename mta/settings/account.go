package settings

import (
	"errors"
	"strings"

	"meta1/mta/account"
	"meta1/mta/smtp"
)

// errRoot says that meta1 was started as root without an account to change to.
var errRoot = errors.New("started as root, but there is no account " + DefaultUser +
	" to change to: make it, set the options user and group to another one, or start meta1 as that user")

// Account is the account to change to, or nil to stay as we are. root says
// that we were started as root. The error says which option names an account that does not exist or may not serve.
func (c *Config) Account(root bool) (*account.Account, error) {
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
	a, err := account.Lookup(DefaultUser, "")
	if err != nil {
		return nil, errRoot
	}
	return a, nil
}

// DoubleBounce is double_bounce_address, zero for the default.
func (c *Config) DoubleBounce() smtp.Path {
	p, err := smtp.ParseMailbox(strings.Trim(c.Queue.DoubleBounce, "<>"), smtp.ASCII)
	if err != nil {
		return smtp.Path{} // it is "", or has no domain
	}
	return p
}

// OwnProgram is the word that stands for our own binary in the option path of a service.
const OwnProgram = "meta1"
