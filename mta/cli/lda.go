package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"meta1/mta/exit"
	"meta1/mta/lda"
	"meta1/mta/logfmt"
	"meta1/mta/supervise"
)

func ldaCommand(e *Env) *cobra.Command {
	var o lda.Options
	var listen string
	var logLevel int
	var asJSON bool
	c := &cobra.Command{
		Use: "lda", Short: "Deliver mail into Maildirs by LMTP", Args: noArgs,
		Long: `lda is a small delivery agent: an LMTP server that puts each message into the Maildir
DIR/USER of its recipient. It is meant for a service section, whose socket is its standard
input: a listening one (start_action nostartaccept) or a connection (accept).`,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.MailDir == "" {
				return &usageError{errors.New("lda needs --maildir")}
			}
			return runLDA(c.Context(), e, o, listen, logfmt.Level(logLevel), asJSON)
		},
	}
	f := c.Flags()
	f.StringVar(&o.MailDir, "maildir", "", "the directory that holds a Maildir for each user")
	f.BoolVar(&o.Create, "create", false, "make missing Maildirs; otherwise a user without one is unknown")
	f.StringVar(&listen, "listen", "", "path of a Unix socket to listen on instead of standard input")
	f.Int64Var(&o.SizeMax, "size-max", 0, "largest message in bytes; 0 for 100 MiB")
	f.IntVar(&o.SessionsMax, "sessions-max", 0, "most sessions at a time; 0 for 200")
	f.IntVar(&logLevel, "log-level", 9, "as log_level in the configuration")
	f.BoolVar(&asJSON, "log-json", false, "log JSON")
	return c
}

func runLDA(ctx context.Context, e *Env, o lda.Options, listen string, level slog.Level, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	unix.Umask(0o077)
	if err := takeSocket(&o, e.Stdin, listen); err != nil {
		return &statusError{exit.Usage, err}
	}
	w := logfmt.NewWriter(e.Stderr)
	o.Log = slog.New(logfmt.NewHandler(w, logfmt.Options{Level: level, Module: "lda", JSON: asJSON}))
	o.Hostname, _ = os.Hostname()
	logs := supervise.NewGroup(context.WithoutCancel(ctx))
	logs.Go(w.Run)
	err := lda.Run(ctx, o)
	logs.Stop()
	_ = logs.Wait()
	if err != nil {
		return &statusError{exit.TempFail, err}
	}
	return nil
}

// takeSocket finds the socket to serve.
func takeSocket(o *lda.Options, stdin *os.File, listen string) (err error) {
	if listen != "" {
		o.Listener, err = net.Listen("unix", listen)
		return err
	}
	listening, err := unix.GetsockoptInt(int(stdin.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return fmt.Errorf("standard input is not a socket; lda is started by a service section, or give --listen: %w", err)
	}
	if listening != 0 {
		o.Listener, err = net.FileListener(stdin)
	} else {
		o.Conn, err = net.FileConn(stdin)
	}
	return err
}
