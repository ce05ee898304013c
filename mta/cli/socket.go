package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"meta1/mta"
	"meta1/mta/control"
)

// quickSocket is where the quick start has the control socket.
const quickSocket = "var/spool/control"

// configFile is the configuration that a command without -f uses, or "" if there is
// none.
func configFile() string {
	if file := os.Getenv("META1_CONF"); file != "" {
		return file
	}
	if _, err := os.Stat(mta.DefaultFile); !errors.Is(err, fs.ErrNotExist) {
		return mta.DefaultFile
	}
	return ""
}

// controlPath finds the control socket. file is the value of -f, or "".
func controlPath(file string) (string, error) {
	if file == "" {
		file = configFile()
	}
	if file == "" {
		return filepath.Abs(quickSocket)
	}
	return mta.ControlPath(file)
}

// withClient calls f with a client of the running meta1.
func withClient(file string, f func(*control.Client) error) error {
	path, err := controlPath(file)
	if err != nil {
		return err
	}
	c := control.NewClient(path)
	defer c.Close()
	err = f(c)
	if errors.Is(err, control.ErrNotRunning) || errors.Is(err, context.DeadlineExceeded) {
		return &statusError{mta.ExUnavailable, err}
	}
	return err
}
