package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"meta1/mta/control"
	"meta1/mta/exit"
)

func backupCommand(e *Env) *cobra.Command {
	var to target
	var asJSON bool
	c := &cobra.Command{
		Use: "backup DIRECTORY", Short: "Copy the queue while meta1 runs", Args: exactArgs(1),
		Long: `backup makes a copy of the queue as it is at one moment, while mail comes and goes. The copy is a main queue
directory (working_directory) that meta1 fsck checks and another meta1 can serve.

DIRECTORY must not exist. The account that serves makes it, so that one must be able to write the directory
above, and nobody but it and root may. With landlock = on it is one that meta1 writes anyway. On the file system
of the queue the copy takes little room and time, for it has hard links; copy it elsewhere before it is a backup.

It takes as long as it makes progress, which a terminal shows, and is given up when nothing can be written for
five minutes. An interrupt (^C) stops it, and meta1 removes what there is of it.

The maildrop, the greylisting store and counted reports are not copied. A queue whose databases are
configured to lie outside of the main queue directory cannot be copied so.`,
		Example: `  meta1 ctl backup /var/spool/meta1/backup
  tar -C /var/spool/meta1/backup -czf meta1-queue.tar.gz .`,
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return to.ask(func(k *control.Client) error {
				ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
				defer stop()
				tell, end := copyProgress(e.Stderr)
				done, err := k.Backup(ctx, control.BackupQuestion{Directory: dir}, tell)
				end()
				switch {
				case err != nil && ctx.Err() != nil:
					return &statusError{exit.TempFail, errors.New("interrupted: meta1 stops the copy and removes what there is of it")}
				case err != nil:
					return err
				}
				if asJSON {
					return printJSON(e.Stdout, done)
				}
				_, err = fmt.Fprintf(e.Stdout, "the queue was copied to %s: its store and %d content files\n", plain(done.Directory), done.Contents)
				return err
			})
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// copyProgress shows on a terminal how far a copy is, in one line. end removes it.
func copyProgress(w io.Writer) (tell func(control.BackupProgress), end func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	const clear = "\r\x1b[K"
	return func(p control.BackupProgress) { fmt.Fprint(f, clear, progressText(p)) }, func() { fmt.Fprint(f, clear) }
}

func progressText(p control.BackupProgress) string {
	return fmt.Sprintf("%d files, %.1f MiB written, %v", p.Files, float64(p.Bytes)/(1<<20), time.Duration(p.Seconds)*time.Second)
}
