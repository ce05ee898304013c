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
	"meta1/mta/exit"
	"meta1/mta/settings"
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
	var to target
	c := &cobra.Command{
		Use: "fsck", Short: "Check the queue's store, and repair it", Args: noArgs,
		Long: `fsck checks the store of the queue and its content files against one another. It prints
a line for each thing that it finds: how bad it is (note, repairable, loss), what it is,
where, and what would be done about it. Equal notes are one line. The last line is the
verdict: clean, repaired or damaged.

With --repair it repairs what can be repaired. Nothing is removed of which there is no
other copy: a damaged store is kept as defedb.damaged-TIME, records that cannot be read
stay in the store, set aside, and what belongs nowhere is moved to lost+found in the main
queue directory, with a list that says what it is. With --rebuild envelopes that were lost
are made anew from the content files, each of which holds its envelope, and their
recipients are tried at once. Log files of meta1, given by --log, tell which of them have
ended already; without them a recipient may get the mail twice. --from names a damaged
store that a start or a repair has kept: mail that is in it and not in the store comes back.

If meta1 runs, fsck asks it to check its store while it works, which takes longer and
disturbs nothing; what is found is looked at again after some seconds, so that mail in
progress is not taken for damage. For a repair meta1 must be stopped. Started as root, fsck
becomes the account that serves.

Exit status: 0 if nothing is wrong, 1 if everything that was wrong was repaired, 4 if
something is left that was not; 64 for a wrong command line, 69 if the queue is in use, 74
if it cannot be read or written, 78 for a wrong configuration.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if (len(s.Logs) > 0 || s.From != "") && !s.Rebuild && !s.Repair {
				return &usageError{errors.New("--log and --from are of use only with --repair or --rebuild")}
			}
			return runFsck(c.Context(), e, s, to, asJSON, quiet)
		},
	}
	configFlag(c, &s.File, orEnv("META1_CONF", settings.DefaultFile))
	to.socketFlag(c)
	f := c.Flags()
	f.BoolVar(&s.Repair, "repair", false, "repair what can be repaired")
	f.BoolVar(&s.Rebuild, "rebuild", false, "make lost envelopes anew from the content files; implies --repair")
	f.BoolVar(&s.Content, "content", false, "read all content and compare its checksums")
	f.StringArrayVar(&s.Logs, "log", nil, "a log file of meta1, text or JSON, perhaps compressed by gzip; may be repeated")
	f.StringVar(&s.From, "from", "", "a damaged store that was kept (defedb.damaged-TIME): bring back the mail that only it has")
	f.BoolVarP(&quiet, "quiet", "q", false, "leave out notes")
	f.BoolVar(&asJSON, "json", false, "print a JSON object for each finding, and one for the sum")
	return c
}

func runFsck(ctx context.Context, e *Env, s mta.FsckSetup, to target, asJSON, quiet bool) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	unix.Umask(0o027)
	out := bufio.NewWriter(e.Stdout)
	p := &fsckPrinter{to: to, out: out, asJSON: asJSON, quiet: quiet}
	sum, err := p.run(ctx, s)
	p.notes()
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
	p.to.file = s.File
	path, _, err := p.to.path()
	if errors.Is(err, errNoSocket) { // then the lock says whether it runs
		s.Report = p.finding
		return mta.Fsck(ctx, s)
	}
	if err != nil {
		return sum, err
	}
	k := control.NewClient(path)
	defer k.Close()
	if _, err := k.Status(ctx); err != nil {
		switch {
		case errors.Is(err, control.ErrForbidden):
			return sum, &statusError{exit.NoPerm, err}
		case !errors.Is(err, control.ErrNotRunning):
			return sum, &statusError{exit.Unavailable, fmt.Errorf("meta1 runs and does not answer: %w", err)}
		}
		s.Report = p.finding
		return mta.Fsck(ctx, s)
	}
	if s.Repair || s.Rebuild {
		return sum, &statusError{exit.Unavailable, errors.New("meta1 runs: a repair needs the store for itself; stop meta1 first, and start it again after the repair")}
	}
	sum.Examined, err = k.Fsck(ctx, s.Content, func(c control.Finding) {
		f := fsck.Finding{
			Severity: fsck.Severity(c.Severity), Code: c.Code, TA: c.TA, RcptID: c.RcptID, Path: c.Path, Text: c.Text, Repair: c.Repair,
		}
		sum.Count(&f)
		p.finding(f)
	})
	if err != nil && !errors.Is(err, control.ErrNotRunning) {
		return sum, &statusError{exit.TempFail, err}
	}
	return sum, err
}

// fsckPrinter prints findings as they come, but equal notes in one line at the end.
type fsckPrinter struct {
	to            target
	out           *bufio.Writer
	asJSON, quiet bool

	groups []*fsckGroup
}

// fsckGroup is a number of notes that differ only in what they are about.
type fsckGroup struct {
	first fsck.Finding
	more  int
}

// fsckGroupsMax bounds the groups; notes beyond them are printed as they come.
const fsckGroupsMax = 200

func (p *fsckPrinter) finding(f fsck.Finding) {
	switch {
	case p.quiet && f.Severity == fsck.Note:
	case p.asJSON:
		_ = json.NewEncoder(p.out).Encode(f) // the flush tells
	case f.Severity == fsck.Note && p.group(&f):
	default:
		fmt.Fprintln(p.out, f.String())
	}
}

// group adds a note to the ones like it. It reports whether there was room.
func (p *fsckPrinter) group(f *fsck.Finding) bool {
	for _, g := range p.groups {
		if g.first.Code == f.Code && g.first.Text == f.Text && g.first.Repair == f.Repair && g.first.Done == f.Done {
			g.more++
			return true
		}
	}
	if len(p.groups) == fsckGroupsMax {
		return false
	}
	p.groups = append(p.groups, &fsckGroup{first: *f})
	return true
}

// notes prints the groups.
func (p *fsckPrinter) notes() {
	for _, g := range p.groups {
		if fmt.Fprint(p.out, g.first.String()); g.more > 0 {
			fmt.Fprintf(p.out, " (and %d more like this)", g.more)
		}
		fmt.Fprintln(p.out)
	}
}

// summary prints the sum, the verdict last; its error has the exit status.
func (p *fsckPrinter) summary(s *fsck.Summary, repaired bool) error {
	if p.asJSON {
		if err := json.NewEncoder(p.out).Encode(map[string]*fsck.Summary{"summary": s}); err != nil {
			return err
		}
	} else {
		if s.Rebuilt > 0 || s.LogEnds > 0 {
			fmt.Fprintf(p.out, "%d recipients are due now; %d had ended, as the logs say\n", s.Rebuilt, s.LogEnds)
		}
		if s.Unrepaired > 0 && !repaired {
			fmt.Fprintln(p.out, "meta1 fsck --rebuild --log FILE repairs what can be repaired; see docs/recovery.md")
		}
		fmt.Fprintln(p.out, s.Verdict())
	}
	switch {
	case s.Unrepaired > 0:
		return &statusError{fsckUnrepaired, nil}
	case s.Repaired > 0:
		return &statusError{fsckRepaired, nil}
	}
	return nil
}
