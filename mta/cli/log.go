package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta"
	"meta1/mta/exit"
	"meta1/mta/maillog"
	"meta1/mta/settings"
)

// logFlags say which log is read, and how it is shown.
type logFlags struct {
	conf    string
	files   []string
	journal bool
	unit    string
	place   string // directory of journal files
	follow  bool
	asJSON  bool
}

// sources adds the flags that say where the log is.
func (f *logFlags) sources(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVar(&f.files, "log", nil, "read this log `file`, - for standard input; may be given several times")
	fl.BoolVar(&f.journal, "journal", false, "read the journal, by journalctl")
	fl.StringVar(&f.unit, "unit", "meta1", "unit of systemd in the journal; empty for all of them")
	fl.StringVar(&f.place, "journal-directory", "", "read the journal files in this `directory`, such as those of other hosts")
}

func logCommand(e *Env) *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use: "log [id | address]", Short: "Follow a message through the log", Args: maxArgs(1),
		Long: `log prints the lines of a message in the log, from all modules and in the order of time:
the session in which it came, the message, each attempt to deliver it with its connection, and
what became of each recipient. The message is given by the identifier that mailq shows, by that
of a recipient or of a session, or by an address: then all messages from or to it are shown,
and what was refused. Messages that the queue has made of it, such as bounces and members of an
alias, are shown, too. Without an argument all lines are.

The log files are those of the configuration (log_file, log_directory), with those that
logrotate has put away, or those that --log names; with --journal it is the journal of systemd.
Lines as text and as JSON are understood, also with what syslog puts in front, and gzip.

With --follow log goes on with what is added, until it is interrupted, also when the files are rotated.`,
		Example: `  meta1 log S00000000407CE49200
  meta1 log joe@example.com --follow
  zcat /var/log/mail.log.2.gz | meta1 log joe@example.com --log - --json`,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			out := bufio.NewWriter(e.Stdout)
			err := f.read(ctx, e, strings.Join(args, ""), func(l *maillog.Line) error {
				err := printLine(out, l, f.asJSON, time.Local)
				if err == nil && f.follow {
					err = out.Flush()
				}
				return err
			})
			if flush := out.Flush(); err == nil {
				err = flush
			}
			if f.follow && ctx.Err() != nil {
				return nil
			}
			return err
		},
	}
	configFlag(c, &f.conf, "")
	f.sources(c)
	c.Flags().BoolVar(&f.follow, "follow", false, "go on with what is added")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print a JSON object for each line")
	return c
}

// read calls print for the lines of a story.
func (f *logFlags) read(ctx context.Context, e *Env, what string, print func(*maillog.Line) error) error {
	story := maillog.NewStory(what, print)
	if f.journal {
		return f.readJournal(ctx, story.Add)
	}
	names, err := f.names()
	if err != nil {
		return err
	}
	if f.follow {
		for _, n := range names {
			if n == "-" {
				return usage(errors.New("--follow needs files with names"))
			}
		}
		return maillog.Follow(ctx, names, what != "", story.Add)
	}
	return f.readFiles(ctx, e, names, story.Add)
}

// lines calls add for each line of the log.
func (f *logFlags) lines(ctx context.Context, e *Env, add func(*maillog.Line) error) error {
	if f.journal {
		return f.readJournal(ctx, add)
	}
	names, err := f.names()
	if err != nil {
		return err
	}
	return f.readFiles(ctx, e, names, add)
}

// names are the log files: those that were named, or those of the configuration, with what
// logrotate has put away unless they are followed.
func (f *logFlags) names() ([]string, error) {
	if len(f.files) > 0 {
		return f.files, nil
	}
	t := target{file: f.conf}
	now, rotated, err := mta.LogFiles(cmp.Or(t.config(), settings.DefaultFile))
	if err != nil || f.follow {
		return now, err
	}
	return append(rotated, now...), nil
}

// readFiles reads log files, in the order of time.
func (f *logFlags) readFiles(ctx context.Context, e *Env, names []string, add func(*maillog.Line) error) error {
	var logs []io.Reader
	for _, name := range names {
		if name == "-" {
			logs = append(logs, e.Stdin)
			continue
		}
		in, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) && len(f.files) == 0 {
			continue // of a module that has logged nothing yet
		}
		if err != nil {
			return &statusError{exit.IOErr, err}
		}
		defer in.Close()
		logs = append(logs, in)
	}
	if len(logs) == 0 {
		return &statusError{exit.IOErr, fmt.Errorf("there is no log yet: %s", strings.Join(names, ", "))}
	}
	return maillog.Read(ctx, logs, add)
}

// readJournal reads what journalctl prints.
func (f *logFlags) readJournal(ctx context.Context, add func(*maillog.Line) error) error {
	// --all: without it journalctl leaves out values beyond 4 KiB, such as a line of many recipients.
	args := []string{"--output=json", "--all", "--no-pager"}
	if f.unit != "" {
		args = append(args, "--unit="+f.unit)
	}
	if f.place != "" {
		args = append(args, "--directory="+f.place)
	}
	if f.follow {
		args = append(args, "--follow", "--lines=all")
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return &statusError{exit.OSErr, err}
	}
	if err := cmd.Start(); err != nil {
		return &statusError{exit.Unavailable, fmt.Errorf("reading the journal: %w", err)}
	}
	err = maillog.Read(ctx, []io.Reader{out}, add)
	if err != nil {
		_ = cmd.Cancel() // else it would wait for us
	}
	if end := cmd.Wait(); err == nil && end != nil && ctx.Err() == nil {
		err = &statusError{exit.Unavailable, fmt.Errorf("reading the journal: journalctl: %w", end)}
	}
	return err
}

// printLine prints a line: time, module and event, then the other fields.
func printLine(out io.Writer, l *maillog.Line, asJSON bool, zone *time.Location) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(l)
	}
	var b strings.Builder
	at := strings.Repeat(" ", 23)
	if !l.Time.IsZero() {
		at = l.Time.In(zone).Format("2006-01-02 15:04:05.000")
	}
	fmt.Fprintf(&b, "%s %-5s %s", at, l.Get("module"), l.Get("event"))
	if sev := l.Get("sev"); sev != "INFO" {
		b.WriteString(" " + sev)
	}
	for _, f := range l.Fields {
		switch f.Name {
		case "module", "event", "sev":
		default:
			b.WriteString("  " + f.Name + "=" + f.Value)
		}
	}
	_, err := fmt.Fprintln(out, plain(b.String()))
	return err
}
