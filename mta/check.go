package mta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/account"
	"meta1/mta/msg"
	"meta1/mta/settings"
	"meta1/mta/verify"
	"meta1/resolver"
)

// Check is Load with all checks that ask this host, too: that accounts and files
// exist and may be read, that keys fit certificates, that the spool is safe, that
// maps name what the configuration has. It changes nothing. The warnings of the
// result are those of all checks. set are options of the command line.
func Check(file string, set ...confparse.Assignment) (*Config, *confparse.Result, error) {
	c, result, err := check(file, nil, set...)
	if err != nil {
		return nil, result, err
	}
	return c, result, nil
}

// check is Check for a reload, too: files reads what sections tls and the like name; nil for what this
// process may. With an error there is a configuration if it could be understood so far that its files and maps
// may be looked at for further mistakes; it may be used for nothing else.
func check(file string, files *tlsFiles, set ...confparse.Assignment) (*Config, *confparse.Result, error) {
	c := &Config{}
	result, err := confparse.Load(confparse.LoadOptions{Set: set, Missing: settings.NoFile}, file, c.Options())
	if result.Root == nil {
		return nil, result, err // where sections end is not known
	}
	c.Queue.CDBBase = c.CDBBase
	wrong := verifyConfig(c, result, files)
	c.ShareLog()
	return c, result, further(err, wrong)
}

// further adds to the mistakes of a configuration those that were found by a look at this host. What does
// not stand in the file may follow from the former, and is left out then.
func further(err, more error) error {
	var known, found confparse.Errors
	switch {
	case err == nil:
		return more
	case !errors.As(err, &known) || !errors.As(more, &found):
		return err
	}
	found = slices.DeleteFunc(found, func(d confparse.Diagnostic) bool { return d.Line == 0 })
	return append(slices.Clone(known), untold(known, found)...)
}

// untold leaves out what was told already: at the same place, or of a file of a map that is missing, or in the same
// words.
func untold(known, found confparse.Errors) (fresh confparse.Errors) {
	for _, d := range found {
		told := func(k confparse.Diagnostic) bool {
			return d.Line > 0 && k.Pos == d.Pos || d.Line == 0 && (k.Message == d.Message || strings.HasSuffix(d.Message, syscall.ENOENT.Error()))
		}
		if !slices.ContainsFunc(known, told) {
			fresh = append(fresh, d)
		}
	}
	return fresh
}

// CheckMaps opens all maps as a start would, and reads the entries of those that are
// files. What is wrong in them is in the error, a confparse.Errors. It warns if mail for
// postmaster or root at our own name has no route.
func CheckMaps(ctx context.Context, c *Config, result *confparse.Result) error {
	name := c.Hostname
	if name == "" {
		name = settings.OwnHostname(ctx)
	}
	r, err := resolver.New(c.Resolver, resolver.Deps{
		Ports: msg.NewPorts(), Hostname: name, ConfigDir: filepath.Dir(result.File),
		LMTPSocket: c.Client.LMTPSocket, RemotePort: uint16(c.Client.RemotePort), ConnectOnlyTo: c.Client.ConnectOnlyTo,
	})
	errs := mapEntries(c, result)
	passwords, warnings := passwordMaps(c, result)
	errs, result.Warnings = append(errs, passwords...), append(result.Warnings, warnings...)
	server, _ := c.Account(os.Geteuid() == 0) // Check has told what is wrong
	logins, warnings := loginMaps(c, result, filesFor(c, server, result))
	errs, result.Warnings = append(errs, logins...), append(result.Warnings, warnings...)
	if err != nil {
		return append(errs, inMaps(nil, err)...)
	}
	for _, err := range r.CheckOwn(ctx) {
		result.Warnings = append(result.Warnings, result.Diagnose(confparse.SeverityWarning, "hostname", "%v", err))
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// inMaps makes diagnostics of what is wrong in maps.
func inMaps(list []confparse.Diagnostic, err error) []confparse.Diagnostic {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			list = inMaps(list, e)
		}
		return list
	}
	d := confparse.Diagnostic{Severity: confparse.SeverityError, Message: err.Error()}
	var line *maps.LineError
	if errors.As(err, &line) {
		d.Pos, d.Message = confparse.Pos{File: line.File, Line: line.Line, Col: 1}, line.Err.Error()
	}
	return append(list, d)
}

// verifyConfig makes the checks that ask this host, and adds their warnings to the result.
func verifyConfig(c *Config, result *confparse.Result, files *tlsFiles) error {
	dir, err := filepath.Abs(c.WorkingDirectory)
	if err != nil {
		return confparse.Errors{result.Diagnose(confparse.SeverityError, "working_directory", "finding the main queue directory: %v", err)}
	}
	root := os.Geteuid() == 0
	who, errs := verifyAccount(c, result, root)
	if len(errs) == 0 {
		found, warnings := verify.Check(result, who, root && who.UID != 0, dir)
		errs = append(errs, found...)
		result.Warnings = append(result.Warnings, warnings...)
		errs = append(errs, verifyContentGroup(c, result, who)...)
		if files == nil {
			files = filesFor(c, who, result)
		}
		errs = append(errs, verifyTLS(c, result, files)...)
		errs = append(errs, verifyARC(c, result, files)...)
		errs = append(errs, verifySRS(c, result, files)...)
		errs = append(errs, verifyDKIM(c, result, files)...)
		errs = append(errs, verifyControl(c, result, files)...)
	}
	errs = append(errs, verifyUsers(c, result)...)
	if c.Landlock {
		if err := account.LandlockPossible(); err != nil {
			errs = append(errs, result.Diagnose(confparse.SeverityError, "landlock", "%v", err))
		}
	}
	errs = append(errs, verifySockets(c, result, dir)...)
	errs = append(errs, verifyPrograms(c, result, root)...)
	errs = append(errs, mapNames(c, result)...)
	slices.SortStableFunc(result.Warnings, byPlace)
	slices.SortStableFunc(errs, byPlace)
	if len(errs) == 0 {
		return nil
	}
	return errs
}

func byPlace(a, b confparse.Diagnostic) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
}

// verifyAccount finds the account that will serve if we are started as root or not.
func verifyAccount(c *Config, result *confparse.Result, root bool) (*account.Account, confparse.Errors) {
	a, err := c.Account(root)
	if err != nil {
		return nil, confparse.Errors{result.Diagnose(confparse.SeverityError, "user", "%v", err)}
	}
	if a != nil {
		return a, nil
	}
	if _, err := account.User(c.User); c.User != "" && !root && err != nil {
		result.Warnings = append(result.Warnings, result.Diagnose(confparse.SeverityWarning, "user", "%v: started as root, meta1 would refuse", err))
	}
	return account.Self(), nil
}

// verifyUsers looks the accounts of sockets and services up.
func verifyUsers(c *Config, result *confparse.Result) confparse.Errors {
	var errs confparse.Errors
	for _, s := range sectionsOf(c, result.Root) {
		for _, l := range s.Subs {
			if l.Keyword != "listen_socket" {
				continue
			}
			for _, e := range missingAccounts(l) {
				errs = append(errs, l.Diagnose(confparse.SeverityError, e.option, "listen_socket of section %s: %v", s.Title(), e.err))
			}
		}
		if s.Service && os.Geteuid() == 0 {
			for _, e := range missingAccounts(s) {
				errs = append(errs, s.Diagnose(confparse.SeverityError, e.option, "section %s: %v", s.Title(), e.err))
			}
		}
	}
	return errs
}

// sectionsOf are the sections that listen: servers and services.
func sectionsOf(c *Config, root *confparse.Section) []*confparse.Section {
	var all []*confparse.Section
	for _, s := range root.Subs {
		if s.Service || s.Keyword == "smtps" {
			all = append(all, s)
		}
	}
	return all
}

// accountError says which option names an account that does not exist.
type accountError struct {
	option string
	err    error
}

func missingAccounts(s *confparse.Section) []accountError {
	var list []accountError
	if name := text(s, "user"); name != "" {
		if _, err := account.User(name); err != nil {
			list = append(list, accountError{"user", err})
		}
	}
	if name := text(s, "group"); name != "" {
		if _, err := account.Group(name); err != nil {
			list = append(list, accountError{"group", err})
		}
	}
	return list
}

// text is the value of a string option that a file sets, or "".
func text(s *confparse.Section, option string) string {
	if v := s.Setting(option); v != nil && v.IsSet {
		return fmt.Sprint(v.Value)
	}
	return ""
}
