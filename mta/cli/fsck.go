package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"meta1/mta"
	"meta1/mta/control"
	"meta1/queue/fsck"
)

// The exit statuses of fsck(8).
const (
	fsckRepaired   = 1
	fsckUnrepaired = 4
)

func fsckCommand(e *Env) *cobra.Command {
	s := mta.FsckSetup{Exit: e.Exit, Stderr: e.Stderr}
	var asJSON, quiet bool
	c := &cobra.Command{
		Use: "fsck", Short: "Check the queue's databases, and repair them", Args: noArgs,
		Long: `fsck checks the databases of the queue and its content files against one another. It
prints a line for each thing that it finds: how bad it is (note, repairable, loss), what it
is, where, and what would be done about it.

With --repair it repairs what can be repaired. Nothing is removed of which there is no
other copy: a damaged database is kept as ibdb.damaged-TIME or defedb.damaged-TIME, and
what belongs nowhere is moved to lost+found in the main queue directory, with a list that
says what it is. With --rebuild envelopes that were lost are made anew from the content
files, each of which holds its envelope, and their recipients are tried at once. Log files
of meta1, given by --log, tell which of them have ended already; without them a recipient
may get the mail twice.

If meta1 runs, fsck asks it to check its databases while it works, which takes longer and
disturbs nothing; what is found is looked at again after some seconds, so that mail under
way is not taken for damage. For a repair meta1 must be stopped. Started as root, fsck becomes the account
that serves.

Exit status: 0 if nothing is wrong, 1 if everything that was wrong was repaired, 4 if
something is left that was not; 64 for a wrong command line, 69 if the queue is in use, 74
if it cannot be read or written, 78 for a wrong configuration.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(s.Logs) > 0 && !s.Rebuild && !s.Repair {
				return &usageError{errors.New("--log is of use only with --repair or --rebuild")}
			}
			return runFsck(c.Context(), e, s, asJSON, quiet)
		},
	}
	configFlag(c, &s.File, orEnv("META1_CONF", mta.DefaultFile))
	f := c.Flags()
	f.BoolVar(&s.Repair, "repair", false, "repair what can be repaired")
	f.BoolVar(&s.Rebuild, "rebuild", false, "make lost envelopes anew from the content files; implies --repair")
	f.BoolVar(&s.Content, "content", false, "read all content and compare its checksums")
	f.StringArrayVar(&s.Logs, "log", nil, "a log file of meta1, text or JSON, perhaps compressed by gzip; repeat it, the oldest first")
	f.BoolVarP(&quiet, "quiet", "q", false, "leave out notes")
	f.BoolVar(&asJSON, "json", false, "print a JSON object for each finding, and one for the sum")
	return c
}

func runFsck(ctx context.Context, e *Env, s mta.FsckSetup, asJSON, quiet bool) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	unix.Umask(0o027)
	out := bufio.NewWriter(e.Stdout)
	p := &fsckPrinter{out: out, asJSON: asJSON, quiet: quiet}
	sum, err := p.run(ctx, s)
	if err == nil {
		err = p.summary(&sum, s.Repair || s.Rebuild)
	}
	if flush := out.Flush(); err == nil {
		err = flush
	}
	return err
}

// run checks the queue of a meta1 that runs by asking it, else by itself.
func (p *fsckPrinter) run(ctx context.Context, s mta.FsckSetup) (sum fsck.Summary, err error) {
	path, err := mta.ControlPath(s.File)
	if err != nil {
		return sum, err
	}
	k := control.NewClient(path)
	defer k.Close()
	if _, err := k.Status(ctx); err != nil {
		if !errors.Is(err, control.ErrNotRunning) {
			return sum, &statusError{mta.ExUnavailable, fmt.Errorf("meta1 runs and does not answer: %w", err)}
		}
		s.Report = p.finding
		return mta.Fsck(ctx, s)
	}
	if s.Repair || s.Rebuild {
		return sum, &statusError{mta.ExUnavailable, errors.New("meta1 runs: a repair needs the databases for itself; stop meta1 first, and start it again after the repair")}
	}
	sum.Examined, err = k.Fsck(ctx, s.Content, func(c control.Finding) {
		f := fsck.Finding{
			Severity: fsck.Severity(c.Severity), Code: c.Code, TA: c.TA, RcptID: c.RcptID, Path: c.Path, Text: c.Text, Repair: c.Repair,
		}
		sum.Count(&f)
		p.finding(f)
	})
	if err != nil && !errors.Is(err, control.ErrNotRunning) {
		return sum, &statusError{mta.ExTempFail, err}
	}
	return sum, err
}

// fsckPrinter prints findings as they come.
type fsckPrinter struct {
	out           *bufio.Writer
	asJSON, quiet bool
}

func (p *fsckPrinter) finding(f fsck.Finding) {
	switch {
	case p.quiet && f.Severity == fsck.Note:
	case p.asJSON:
		_ = json.NewEncoder(p.out).Encode(f) // the flush tells
	default:
		fmt.Fprintln(p.out, f.String())
	}
}

// summary prints the sum; its error has the exit status.
func (p *fsckPrinter) summary(s *fsck.Summary, repaired bool) error {
	if p.asJSON {
		if err := json.NewEncoder(p.out).Encode(map[string]*fsck.Summary{"summary": s}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.out, "%d records and files examined: %d notes, %d repaired, %d not repaired\n", s.Examined, s.Notes, s.Repaired, s.Unrepaired)
		if s.Rebuilt > 0 || s.LogEnds > 0 {
			fmt.Fprintf(p.out, "%d recipients are due now; %d had ended, as the logs say\n", s.Rebuilt, s.LogEnds)
		}
		if s.Unrepaired > 0 && !repaired {
			fmt.Fprintln(p.out, "meta1 fsck --rebuild --log FILE repairs what can be repaired; see docs/recovery.md")
		}
	}
	switch {
	case s.Unrepaired > 0:
		return &statusError{fsckUnrepaired, nil}
	case s.Repaired > 0:
		return &statusError{fsckRepaired, nil}
	}
	return nil
}
