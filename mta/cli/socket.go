package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/settings"
)

// quickSocket is where the quick start has the control socket.
const quickSocket = "var/spool/control"

// target says which running meta1 a command asks.
type target struct {
	socket string // the control socket, or "" to find it by file
	file   string // a configuration, or "" for the usual ones
}

// flags adds the flags that choose it.
func (t *target) flags(c *cobra.Command) {
	configFlag(c, &t.file, "")
	t.socketFlag(c)
}

func (t *target) socketFlag(c *cobra.Command) {
	c.Flags().StringVar(&t.socket, "socket", "", "control socket of the running meta1, instead of finding it by the configuration file")
	_ = c.MarkFlagFilename("socket") // fails only for a flag that does not exist
}

// config is the configuration to look into, or "" if there is none.
func (t *target) config() string {
	if t.file != "" {
		return t.file
	}
	if file := os.Getenv("META1_CONF"); file != "" {
		return file
	}
	if _, err := os.Stat(settings.DefaultFile); !errors.Is(err, fs.ErrNotExist) {
		return settings.DefaultFile
	}
	return ""
}

// errNoSocket says that nobody can ask the running meta1.
var errNoSocket = errors.New("the configuration sets control_socket to nothing, so that a running meta1 cannot be asked")

// path finds the control socket: the one that was given, else by the configuration as far
// as that can be read, else where it is by default. doubt is why the configuration was of
// no help, or nil; it matters if nobody answers there.
func (t *target) path() (path string, doubt, err error) {
	if t.socket != "" {
		return t.socket, nil, nil
	}
	file := t.config()
	if file == "" {
		if _, err := os.Stat(settings.DefaultSocket); err == nil {
			if _, err := os.Stat(quickSocket); err != nil {
				return settings.DefaultSocket, nil, nil
			}
		}
		path, err = filepath.Abs(quickSocket)
		return path, nil, err
	}
	found, err := settings.Find(file)
	switch {
	case err != nil:
		return settings.DefaultSocket, err, nil
	case found.Socket == "":
		return "", nil, errNoSocket
	}
	return found.Socket, nil, nil
}

// ask calls f with a client of the running meta1.
func (t *target) ask(f func(*control.Client) error) error {
	path, doubt, err := t.path()
	if err != nil {
		return &statusError{exit.Config, err}
	}
	c := control.NewClient(path)
	defer c.Close()
	err = f(c)
	status := 0
	switch {
	case errors.Is(err, control.ErrNotRunning), errors.Is(err, context.DeadlineExceeded):
		status = exit.Unavailable
	case errors.Is(err, control.ErrForbidden):
		status = exit.NoPerm
	default:
		return err
	}
	switch {
	case doubt != nil:
		err = fmt.Errorf("%w (%v)", err, doubt) // not %w: it is not what went wrong
	case t.socket == "" && t.config() == "" && errors.Is(err, control.ErrNotRunning):
		err = fmt.Errorf("%w; --socket names that of another meta1, -f its configuration", err)
	}
	return &statusError{status, err}
}
