package mta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/settings"
)

// rotatedMax is how many files that logrotate has put away are looked for.
const rotatedMax = 9

// errNoLogFile says that a configuration names no log file.
var errNoLogFile = errors.New("the configuration sets neither log_file nor log_directory: name the log with --file, or read the journal with --journal")

// LogFiles finds the files that the modules of a configuration log to. rotated are those that
// exist and were put away, newest first: FILE.1, FILE.2.gz and so on.
func LogFiles(file string) (now, rotated []string, err error) {
	c := &Config{}
	result, err := confparse.Load(confparse.LoadOptions{Partial: true}, file, c.Options())
	if result.Root == nil {
		return nil, nil, err
	}
	dir, err := filepath.Abs(settings.Understood(result.Root, "working_directory", settings.DefaultDirectory))
	if err != nil {
		return nil, nil, exit.With(exit.OSErr, fmt.Errorf("finding the main queue directory: %w", err))
	}
	c.LogDirectory, c.LogFile = settings.Understood(result.Root, "log_directory", ""), settings.Understood(result.Root, "log_file", "")
	switch {
	case c.LogDirectory != "":
		for _, of := range append(c.Commons(), &Common{Section: settings.OwnSection, Log: c.Log}) {
			name := filepath.Join(settings.Below(dir, c.LogDirectory), of.LogName())
			if !of.Log.Present && !slices.Contains(now, name) {
				now = append(now, name)
			}
		}
	case c.LogFile != "":
		now = []string{settings.Below(dir, c.LogFile)}
	default:
		return nil, nil, exit.With(exit.Config, errNoLogFile)
	}
	for _, name := range now {
		for n := 1; n <= rotatedMax; n++ {
			for _, end := range []string{"", ".gz"} {
				old := fmt.Sprintf("%s.%d%s", name, n, end)
				if _, err := os.Stat(old); err == nil {
					rotated = append(rotated, old)
				}
			}
		}
	}
	return now, rotated, nil
}
