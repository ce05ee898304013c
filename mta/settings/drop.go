package settings

import (
	"path/filepath"
	"time"

	"meta1/confparse"
	"meta1/mta/maildrop"
)

// DropConfig is the section maildrop: where local programs leave mail for a meta1 that does not run.
type DropConfig struct {
	Directory string
	Access    string
	SizeMax   int64
	Interval  time.Duration
}

// dropDirectory is the default of its option directory.
const dropDirectory = "maildrop"

func (d *DropConfig) options() *confparse.Table {
	t := &confparse.Table{Options: []confparse.Option{
		{
			Name: "directory", Type: confparse.Dir, Default: dropDirectory, Readme: "own", Into: &d.Directory,
			Doc: "The directory, relative to the main queue directory. It belongs to the account that serves.",
		},
		{
			Name: "access", Type: confparse.Enum, Words: []string{string(maildrop.AccessAll), string(maildrop.AccessGroup), string(maildrop.AccessNone)}, Default: string(maildrop.AccessAll), Readme: "own", Into: &d.Access,
			Doc: "Who may leave mail: everybody; group, which are root and the members of the group of the account that serves; nobody, then the directory is neither made nor looked at.",
		},
		{
			Name: "message_size_max", Type: confparse.Size, Unit: "B", Default: "100MB", Min: "1KB", Max: "100MB", Readme: "own", Into: &d.SizeMax,
			Doc: "The largest message that is taken up.",
		},
		{
			Name: "interval", Type: confparse.Time, Unit: "s", Default: "5s", Min: "1", Max: "1h", Readme: "own", Into: &d.Interval,
			Doc: "The time between two looks into the directory. It is looked into at the start, too.",
		},
	}}
	return t.Declare(confparse.AtOnce, "")
}

// dropOf is the maildrop of a configuration that is read as far as it can be.
func dropOf(root *confparse.Section, dir string) string {
	d := dropDirectory
	for _, s := range root.Subs {
		if s.Keyword == "maildrop" {
			if Understood(s, "access", "") == string(maildrop.AccessNone) {
				return ""
			}
			d = Understood(s, "directory", d)
		}
	}
	return filepath.Clean(Below(dir, d))
}
