package mta

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meta1/confparse"
	"meta1/mta/account"
	"meta1/mta/settings"
	"meta1/mta/verify"
)

// CheckAll is Check with CheckMaps and CheckHost: all that is known to be wrong with a
// configuration before it is used. The result is never nil.
func CheckAll(ctx context.Context, file string) (*confparse.Result, error) {
	c, result, err := check(file, nil)
	if err != nil && c != nil {
		var known, found confparse.Errors
		if errors.As(err, &known) && errors.As(CheckMaps(ctx, c, result), &found) {
			return result, append(slices.Clone(known), untold(known, found)...)
		}
		return result, err
	}
	if err != nil {
		return result, err
	}
	var all confparse.Errors
	for _, err := range []error{CheckMaps(ctx, c, result), CheckHost(ctx, c, result)} {
		var errs confparse.Errors
		if errors.As(err, &errs) {
			all = append(all, errs...)
		} else if err != nil {
			return result, err
		}
	}
	slices.SortStableFunc(all, byPlace)
	if len(all) == 0 {
		return result, nil
	}
	return result, all
}

// CheckHost makes the checks of "config check" that a start goes on without: that the
// programs of services can be executed, that this host knows its full name, and that source
// addresses have names. What is wrong is in the error, a confparse.Errors.
func CheckHost(ctx context.Context, c *Config, result *confparse.Result) error {
	if name := settings.OwnHostname(ctx); c.Hostname == "" && !strings.Contains(name, ".") {
		result.Warnings = append(result.Warnings, result.Diagnose(confparse.SeverityWarning, "hostname",
			"this host does not know its fully qualified name, only %s, with which other hosts may refuse mail: set hostname", name))
	}
	result.Warnings = append(result.Warnings, sourceNames(ctx, c, result)...)
	root := os.Geteuid() == 0
	server, err := c.Account(root)
	dir, absErr := filepath.Abs(c.WorkingDirectory)
	if err != nil || absErr != nil {
		return nil // Check has told
	}
	var errs confparse.Errors
	for _, s := range sectionsOf(c, result.Root) {
		path := text(s, "path")
		if !s.Service || path == settings.OwnProgram || path == "" {
			continue
		}
		a := server
		if name := text(s, "user"); name != "" && root {
			if a, err = account.Lookup(name, text(s, "group")); err != nil {
				continue // Check has told
			}
		}
		if a == nil {
			a = account.Self()
		}
		if err := verify.CanExecute(a, settings.Below(dir, path)); err != nil {
			errs = append(errs, s.Diagnose(confparse.SeverityError, "path", "path of service %s: %v", s.Title(), err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

// verifySockets sees to it that no two sockets have the same address.
func verifySockets(c *Config, result *confparse.Result, dir string) (errs confparse.Errors) {
	tcp, unix, err := wantedSockets(c, dir, nil)
	if err != nil {
		return nil // an account that does not exist, which verifyUsers tells
	}
	all := append(tcp, unix...)
	for i, w := range all {
		for _, other := range all[:i] {
			if w.Overlaps(other.Socket) {
				errs = append(errs, result.Diagnose(confparse.SeverityError, w.option, "section %s listens on %s, and so does section %s on %s (%s)",
					w.Section, w.Address(), other.Section, other.Address(), other.Where))
				break
			}
		}
	}
	return errs
}

// verifyPrograms sees to it that nobody but root could put another program in the place
// of a service's: it is started with the rights of another account than the server's. Our
// ownSocket binary root has started already.
func verifyPrograms(c *Config, result *confparse.Result, root bool) (errs confparse.Errors) {
	if a, err := c.Account(root); a == nil || err != nil {
		return nil // every program runs as who starts it, or it was told
	}
	for _, s := range sectionsOf(c, result.Root) {
		path := text(s, "path")
		if !s.Service || path == settings.OwnProgram || path == "" {
			continue
		}
		if !filepath.IsAbs(path) {
			errs = append(errs, s.Diagnose(confparse.SeverityError, "path",
				"path of service %s is relative to the main queue directory, which is not root's: started as root, meta1 wants an absolute one", s.Title()))
		} else if err := verify.OnlyRoot(path); err != nil {
			errs = append(errs, s.Diagnose(confparse.SeverityError, "path",
				"path of service %s: %v: started as root, meta1 runs only programs that nobody but root can replace", s.Title(), err))
		}
	}
	return errs
}
