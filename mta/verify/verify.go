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
	"slices"
	"strings"
	"syscall"

	"meta1/confparse"
)

// Account is who will read files and write the spool.
type Account struct {
	Name   string // for messages
	UID    int
	Groups []int
}

// Self is the account that runs this process.
func Self() Account {
	groups, _ := os.Getgroups() // without them only the first group counts
	return Account{Name: fmt.Sprint(os.Geteuid()), UID: os.Geteuid(), Groups: append(groups, os.Getegid())}
}

// may says whether the account has all the permission bits of 7 on a file.
func (a *Account) may(info fs.FileInfo, bits fs.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case a.UID == 0 || !ok:
		return true
	case a.UID == int(st.Uid):
		mode >>= 6
	case slices.Contains(a.Groups, int(st.Gid)):
		mode >>= 3
	}
	return mode&bits == bits
}

// checker collects what is wrong.
type checker struct {
	who      Account
	dir      string // the main queue directory, absolute
	errs     confparse.Errors
	warnings []confparse.Diagnostic
}

// Check checks a configuration that was loaded without an error. who is the account
// that will serve, dir the main queue directory, absolute. Errors are by place.
func Check(r *confparse.Result, who Account, dir string) (errs confparse.Errors, warnings []confparse.Diagnostic) {
	c := &checker{who: who, dir: dir}
	if r.Root != nil {
		c.section(r.Root)
		c.spool(r.Root)
	}
	return c.errs, c.warnings
}

// section checks one section and those in it.
func (c *checker) section(s *confparse.Section) {
	if !s.Service {
		c.files(s)
		switch strings.ToLower(s.Keyword) {
		case "tls":
			c.certificates(s)
		case "sign":
			c.signingKey(s)
		}
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
		switch o.Type {
		case confparse.File:
			if err := c.readable(path, false); err != nil {
				d := s.Diagnose(confparse.SeverityError, o.Name, "%s of %s: %v", o.Name, s.Title(), err)
				d.Suggestion = howToMake(s, path, err)
				c.errs = append(c.errs, d)
			}
		case confparse.Dir:
			if strings.HasSuffix(o.Name, "_directory") && strings.EqualFold(s.Keyword, "tls") {
				if err := c.readable(below(c.dir, path), true); err != nil {
					c.errorf(s, o.Name, "%s of %s: %v", o.Name, s.Title(), err)
				}
			}
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
	return "make it of a text file: meta1 createmap " + path + " < " + strings.TrimSuffix(path, ext)
}

// readable says why the account cannot read a file or directory.
func (c *checker) readable(path string, dir bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return because(path, err)
	}
	bits := fs.FileMode(4)
	switch {
	case dir && !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case !dir && info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case dir:
		bits = 5
	}
	for above := filepath.Dir(path); ; above = filepath.Dir(above) {
		if d, err := os.Stat(above); err == nil && !c.who.may(d, 1) {
			return fmt.Errorf("user %s cannot read %s: no permission to enter %s", c.who.Name, path, above)
		}
		if above == filepath.Dir(above) {
			break
		}
	}
	if !c.who.may(info, bits) {
		return fmt.Errorf("user %s cannot read %s (mode %04o)", c.who.Name, path, info.Mode().Perm())
	}
	return nil
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
