// Package verify checks what a configuration says about this host: that files exist,
// can be read by the account that will read them, and hold what they should; that
// keys fit their certificates; that the spool belongs to those who may change it.
// It only reads. What a configuration says by itself is checked by the option tables.
package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"meta1/confparse"
	"meta1/mta/account"
)

// checker collects what is wrong.
type checker struct {
	who      *account.Account
	byRoot   bool   // root starts meta1, and opens what lies in folders that only root may write
	dir      string // the main queue directory, absolute
	etc      string // where passwd and group are
	errs     confparse.Errors
	warnings []confparse.Diagnostic
}

// Check checks a configuration that was loaded without an error. who is the account
// that will serve, and byRoot says that root starts it; dir is the main queue directory,
// absolute. Errors are by place.
func Check(r *confparse.Result, who *account.Account, byRoot bool, dir string) (errs confparse.Errors, warnings []confparse.Diagnostic) {
	c := &checker{who: who, byRoot: byRoot, dir: dir, etc: "/etc"}
	if r.Root != nil {
		c.section(r.Root)
		c.spool(r.Root)
		c.logFile(r.Root)
		c.reload(r)
		c.hostname(r.Root)
	}
	return c.errs, c.warnings
}

// section checks one section and those in it.
func (c *checker) section(s *confparse.Section) {
	if !s.Service {
		keyword := strings.ToLower(s.Keyword)
		if keyword == "tls" || keyword == "dkim_signing" || keyword == "arc_sealing" || keyword == "srs" { // their files are read by who uses them, and root may help
			return
		}
		c.files(s)
	}
	for _, sub := range s.Subs {
		c.section(sub)
	}
}

func (c *checker) errorf(s *confparse.Section, option, format string, args ...any) {
	c.errs = append(c.errs, s.Diagnose(confparse.SeverityError, option, format, args...))
}

func (c *checker) warnf(s *confparse.Section, option, format string, args ...any) {
	c.warnings = append(c.warnings, s.Diagnose(confparse.SeverityWarning, option, format, args...))
}

// files checks that the files and directories exist that a section names.
func (c *checker) files(s *confparse.Section) {
	for _, v := range s.Settings {
		o := v.Option
		path, _ := v.Value.(string)
		if path == "" || o.Effect == confparse.Host || !used(s, v) {
			continue
		}
		if o.Type != confparse.File {
			continue
		}
		if err := c.readable(path); err != nil {
			d := s.Diagnose(confparse.SeverityError, o.Name, "%s of %s: %v", o.Name, s.Title(), err)
			d.Suggestion = howToMake(s, path, err)
			c.errs = append(c.errs, d)
		}
	}
}

// used says whether a file is one that is read. Of files by default only those of
// maps are that must be there.
func used(s *confparse.Section, v *confparse.Setting) bool {
	keyword := strings.ToLower(s.Keyword)
	switch {
	case keyword == "greylisting": // names of databases that we make ourselves
		return false
	case v.IsSet:
		return true
	}
	if name := s.Setting("name"); name != nil && name.IsSet {
		return false
	}
	return keyword == "mailertable" || s.Present && (keyword == "access_map" || keyword == "aliases")
}

// howToMake says what to do about a missing map.
func howToMake(s *confparse.Section, path string, err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	ext := filepath.Ext(path)
	switch {
	case strings.EqualFold(s.Keyword, "mailertable"):
		return "it must exist, even if it is empty"
	case ext != ".db" && ext != ".cdb":
		return ""
	}
	return "make it of a text file: meta1 createmap -F " + path + " < " + strings.TrimSuffix(path, ext)
}

// readable says why the account cannot read a file.
func (c *checker) readable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return because(path, err)
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	}
	return can(c.who, "read", path, info, 4)
}

// can says why an account lacks permission bits on a file, or cannot get there.
func can(a *account.Account, verb, path string, info fs.FileInfo, bits fs.FileMode) error {
	for above := filepath.Dir(path); ; above = filepath.Dir(above) {
		if d, err := os.Stat(above); err == nil && !a.May(d, 1) {
			return fmt.Errorf("user %s cannot %s %s: no permission to enter %s", a.Name, verb, path, above)
		}
		if above == filepath.Dir(above) {
			break
		}
	}
	if !a.May(info, bits) {
		return fmt.Errorf("user %s cannot %s %s (mode %04o)", a.Name, verb, path, info.Mode().Perm())
	}
	return nil
}

// CanExecute says why an account cannot execute a program.
func CanExecute(who *account.Account, path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return because(path, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a program", path)
	case info.Mode()&0o111 == 0: // root may not, either
		return fmt.Errorf("%s is not executable (mode %04o)", path, info.Mode().Perm())
	}
	return can(who, "execute", path, info, 1)
}

// because is a failure of the file system with the path first.
func because(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &missingError{path}
	}
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// missingError says that a file does not exist.
type missingError struct{ path string }

func (e *missingError) Error() string { return e.path + " does not exist" }
func (e *missingError) Unwrap() error { return fs.ErrNotExist }

// below is a path relative to a directory (README 3.6, case 2).
func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
