package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta"
	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/handover"
)

// successor says how a process is started that takes our place. args are our arguments, exe is our binary.
func successor(args []string, exe string) mta.Successor {
	s := mta.Successor{Program: exe, Args: args[1:], Env: successorEnv(os.Environ())}
	// The path by which we were started may be a link to another version by then.
	if path, err := exec.LookPath(args[0]); err == nil {
		if path, err = filepath.Abs(path); err == nil && sameFile(path, exe) {
			s.Program = path
		}
	}
	var err error
	if s.Dir, err = os.Getwd(); err != nil {
		s.Dir = "/"
	}
	return s
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// successorEnv is our environment without what was meant for this process alone.
func successorEnv(env []string) []string {
	ours := []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", handover.Variable}
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(ours, name)
	})
	return append(env, handover.Variable+"="+strconv.Itoa(handover.Protocol))
}

func upgradeCommand(e *Env) *cobra.Command {
	var q control.UpgradeQuestion
	c := &cobra.Command{
		Use: "upgrade", Short: "Replace a running meta1 by its new binary", Args: noArgs,
		Long: `upgrade has a running meta1 start the binary that stands at its path now, with the arguments of its own
start, and hand the sockets and the queue over to it. No connection is refused: those that come meanwhile wait to be
greeted, for the time that is printed. Sessions end with 421 when their message has ended.

The new binary is tried first (meta1 version and meta1 config check). If it, or the configuration, does not
work, or the new process does not serve within --limit, the old one goes on, and the exit status is 75.

The configuration is read anew, with all its options but working_directory. With --or-reload a binary that is the
one that runs is not started again: the configuration is reloaded as by ctl reload, which is what systemctl reload wants.
A container is replaced and not upgraded: its process 1 cannot be.`,
	}
	var to target
	var asJSON bool
	c.RunE = func(c *cobra.Command, _ []string) error {
		return to.ask(func(k *control.Client) error {
			r, err := k.Upgrade(c.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return upgradeJSON(e.Stdout, &r)
			}
			return printUpgrade(e.Stdout, &r)
		})
	}
	to.flags(c)
	f := c.Flags()
	f.Var((*timeValue)(&q.Limit), "limit", "the longest `time` in which the new process must be prepared, and then again serve; without it 1m, at most 2m")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&q.OrReload, "or-reload", false, "only reload if the binary is the one that runs")
	return c
}

func printUpgrade(out io.Writer, r *control.UpgradeReport) error {
	switch {
	case r.Reload != nil:
		return printReload(out, *r.Reload, false)
	case r.Error != "":
		return &statusError{exit.TempFail, errors.New("not upgraded, process " + strconv.Itoa(r.Old.PID) + " goes on: " + r.Error)}
	}
	_, err := fmt.Fprintf(out, "upgraded from %s (process %d) to %s (process %d); connections waited for %v\n",
		plain(r.Old.Version), r.Old.PID, plain(r.New.Version), r.New.PID, time.Duration(r.PauseMS)*time.Millisecond)
	return err
}

// upgradeJSON prints the report; its exit statuses are those of printUpgrade.
func upgradeJSON(out io.Writer, r *control.UpgradeReport) error {
	if err := printJSON(out, r); err != nil || r.OK() {
		return err
	}
	if r.Reload != nil {
		return &statusError{exit.Config, nil}
	}
	return &statusError{exit.TempFail, nil}
}
