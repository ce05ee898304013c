package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"meta1/confparse"
)

// logFile checks that the log file can be opened, or files made in the directory for
// those of all sections (options log_file and log_directory).
func (c *checker) logFile(root *confparse.Section) {
	option, name := "log_file", value(root, "log_file")
	if dir := value(root, "log_directory"); dir != "" {
		option, name = "log_directory", filepath.Join(dir, "mta.log")
	}
	if name == "" {
		return
	}
	if err := c.canLog(below(c.dir, name)); err != nil {
		c.errorf(root, option, "%s: %v", option, err)
	}
}

// canLog says why a log file cannot be opened or made.
func (c *checker) canLog(path string) error {
	folder := filepath.Dir(path)
	byRoot := c.byRoot && OnlyRoot(folder) == nil
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode().Type() == fs.ModeSymlink:
		return fmt.Errorf("%s is a symbolic link, which is not followed", path)
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case err == nil && byRoot:
		return nil
	case err == nil:
		return can(c.who, "write", path, info, 2)
	case !errors.Is(err, fs.ErrNotExist):
		return because(path, err)
	}
	info, err = os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist) && folder == c.dir, err == nil && byRoot: // the former will be made
		return nil
	case err != nil:
		return because(folder, err)
	}
	return can(c.who, "make a file in", folder, info, 3)
}

// reload warns of files of the configuration that the account cannot read: it is the
// account that reads them at a reload.
func (c *checker) reload(r *confparse.Result) {
	for _, file := range r.Files {
		if err := c.readable(file); err != nil {
			c.warnings = append(c.warnings, confparse.Diagnostic{
				Pos: confparse.Pos{File: file, Line: 1, Col: 1}, Severity: confparse.SeverityWarning,
				Message: fmt.Sprintf("a reload will fail: %v", err),
			})
		}
	}
}

// hostname warns of a name that other hosts cannot look up. localhost is for trials.
func (c *checker) hostname(root *confparse.Section) {
	name := value(root, "hostname")
	if name != "" && name != "localhost" && !strings.Contains(strings.TrimSuffix(name, "."), ".") {
		c.warnf(root, "hostname", "hostname %s is not fully qualified: other hosts may refuse mail from it", name)
	}
}

// value is the value of a string option that a file sets, or "".
func value(s *confparse.Section, name string) string {
	if v := s.Setting(name); v != nil && v.IsSet {
		text, _ := v.Value.(string)
		return text
	}
	return ""
}
