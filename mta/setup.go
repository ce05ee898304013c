package mta

import (
	"fmt"
	"path/filepath"

	"meta1/confparse"
	"meta1/mta/maildrop"
	"meta1/mta/provision"
)

// Provisions are what a configuration file needs of the host: see meta1 setup. The error for a
// wrong configuration is that of Load.
func Provisions(file string) (w provision.Wanted, err error) {
	c, _, err := Load(file, confparse.LoadOptions{})
	if err != nil {
		return w, err
	}
	if w.Spool, err = filepath.Abs(c.WorkingDirectory); err != nil {
		return w, exit(ExOSErr, fmt.Errorf("finding the main queue directory: %w", err))
	}
	if w.User, w.Group = c.User, c.Group; w.User == "" && !c.AllowRoot {
		w.User = defaultUser
	}
	switch {
	case c.LogDirectory != "":
		w.Logs = below(w.Spool, c.LogDirectory)
	case c.LogFile != "":
		w.Logs = filepath.Dir(below(w.Spool, c.LogFile))
	}
	if w.Logs == w.Spool || w.Logs == "/var/log" { // the latter is the system's
		w.Logs = ""
	}
	if w.Access = maildrop.Access(c.Drop.Access); w.Access != maildrop.AccessNone {
		w.Drop = below(w.Spool, c.Drop.Directory)
	}
	return w, nil
}
