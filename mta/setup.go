package mta

import (
	"fmt"
	"path/filepath"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/maildrop"
	"meta1/mta/provision"
	"meta1/mta/settings"
)

// Provisions are what a configuration file needs of the host: see meta1 setup. The error for a
// wrong configuration is that of Load.
func Provisions(file string) (w provision.Wanted, err error) {
	c, _, err := settings.Load(file, confparse.LoadOptions{})
	if err != nil {
		return w, err
	}
	if w.Spool, err = filepath.Abs(c.WorkingDirectory); err != nil {
		return w, exit.With(exit.OSErr, fmt.Errorf("finding the main queue directory: %w", err))
	}
	if w.User, w.Group = c.User, c.Group; w.User == "" && !c.AllowRoot {
		w.User = settings.DefaultUser
	}
	switch {
	case c.LogDirectory != "":
		w.Logs = settings.Below(w.Spool, c.LogDirectory)
	case c.LogFile != "":
		w.Logs = filepath.Dir(settings.Below(w.Spool, c.LogFile))
	}
	if w.Logs == w.Spool || w.Logs == "/var/log" { // the latter is the system's
		w.Logs = ""
	}
	if w.Access = maildrop.Access(c.Drop.Access); w.Access != maildrop.AccessNone {
		w.Drop = settings.Below(w.Spool, c.Drop.Directory)
	}
	return w, nil
}
