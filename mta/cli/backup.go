package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"meta1/mta/control"
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
				done, err := k.Backup(c.Context(), control.BackupQuestion{Directory: dir})
				if err != nil {
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
