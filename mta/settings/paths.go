package settings

import (
	"path/filepath"
	"slices"

	"meta1/mta/maildrop"
)

// Written are the directories in which the server makes, changes and removes files. dir is
// the main queue directory.
func (c *Config) Written(dir string) []string {
	d := c.Queue.Dirs(dir)
	all := []string{d.Spool, d.CDB, d.Store} // some may be links to another disk (README 3.8, item 7)
	if d.StoreLog != "" {
		all = append(all, d.StoreLog)
	}
	add := func(path string) { all = append(all, filepath.Dir(Below(dir, path))) }
	for _, path := range []string{c.LogFile, c.Queue.Control} {
		if path != "" {
			add(path)
		}
	}
	if c.LogDirectory != "" {
		all = append(all, Below(dir, c.LogDirectory))
	}
	if c.Drop.Access != string(maildrop.AccessNone) {
		add(c.Drop.Directory)
	}
	for _, of := range c.Commons() {
		for _, l := range of.Listen {
			if l.Type == "unix" {
				add(l.Path)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ControlPath is the path of the control socket.
func (c *Config) ControlPath(dir string) string { return Below(dir, c.Queue.Control) }

// Below is a path relative to a directory (README 3.6, case 2).
func Below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
