package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta/exit"
	"meta1/mta/maildrop"
	"meta1/mta/smtp"
	"meta1/mta/submit"
)

// submitMessage hands a message to the server, or leaves it in the maildrop if there is none or it takes nothing for now.
func submitMessage(ctx context.Context, e *Env, o submit.Options, own ownOptions) error {
	if len(o.Rcpts) == 0 && !o.FromHeader {
		return &statusError{submit.ExUsage, fmt.Errorf("no recipients\n%s", submit.Usage())}
	}
	f := findServer(ctx, own)
	o.Input, o.User, o.Hostname = e.Stdin, loginName(), f.host
	if o.Verbose {
		o.Trace = e.Stdout
	}
	p, err := submit.Prepare(o)
	if err != nil {
		return &statusError{submit.ExitCode(err), fmt.Errorf("message not sent: %w", err)}
	}
	if f.addr == "" {
		err = &submit.Error{Exit: submit.ExTempFail, Err: f.err}
	} else {
		p.To(f.addr)
		err = p.Send(ctx)
	}
	if err == nil {
		return nil
	}
	if submit.ExitCode(err) == submit.ExTempFail && f.maildrop != "" && ctx.Err() == nil {
		id, dropped := leave(f.maildrop, p, o.VERP)
		if dropped == nil {
			if o.Verbose {
				fmt.Fprintf(e.Stdout, "%v\nkept in the maildrop as %s\n", err, id)
			}
			return nil
		}
		err = &submit.Error{Exit: submit.ExTempFail, Err: fmt.Errorf("%w; nor can it be kept: %w", err, dropped)}
	}
	return &statusError{submit.ExitCode(err), fmt.Errorf("message not sent: %w", err)}
}

// leave leaves a message in the maildrop.
func leave(dir string, p *submit.Prepared, verp bool) (id string, err error) {
	m := &maildrop.Message{Sender: p.Sender.Addr(), Time: time.Now(), VERP: verp, Content: p.Content}
	if p.Sender.IsNull() {
		m.Sender = ""
	}
	for _, r := range p.Rcpts {
		m.Rcpts = append(m.Rcpts, r.Addr())
	}
	m.Notify, m.Ret, m.EnvID = p.DSN()
	return maildrop.Drop(dir, m)
}

// speakSMTP speaks SMTP with who calls us: with the server at the other end, or, if that does not run, with the maildrop.
func speakSMTP(ctx context.Context, e *Env, own ownOptions) error {
	f := findServer(ctx, own)
	err := f.err
	if f.addr != "" {
		conn, dialled := submit.Dial(ctx, f.addr)
		if dialled == nil {
			return withStatus(submit.Relay(ctx, conn, e.Stdin, e.Stdout))
		}
		err = dialled
	}
	if f.maildrop == "" {
		return &statusError{submit.ExTempFail, err}
	}
	s := submit.Session{Hostname: f.host, Keep: func(p *submit.Prepared) error {
		_, err := leave(f.maildrop, p, false)
		return err
	}}
	return withStatus(s.Serve(e.Stdin, e.Stdout))
}

// withStatus gives an error of package submit its exit status.
func withStatus(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{submit.ExitCode(err), err}
}

// verifyAddresses prints what the server would say of recipients; with -v also what meta1 explain tells of each.
func verifyAddresses(c *cobra.Command, e *Env, o submit.Options, own ownOptions) error {
	if len(o.Rcpts) == 0 {
		return &statusError{submit.ExUsage, fmt.Errorf("no addresses\n%s", submit.Usage())}
	}
	f := findServer(c.Context(), own)
	if f.addr == "" {
		return &statusError{submit.ExTempFail, f.err}
	}
	o.Addr, o.Hostname, o.User = f.addr, f.host, loginName()
	verdicts, err := submit.Verify(c.Context(), o)
	if err != nil {
		return &statusError{submit.ExitCode(err), fmt.Errorf("nothing was verified: %w", err)}
	}
	worst := 0
	for _, v := range verdicts {
		if v.Err == nil {
			fmt.Fprintf(e.Stdout, "%s... deliverable\n", plain(v.Rcpt.Addr()))
			continue
		}
		var reply smtp.Reply
		text := v.Err.Error()
		if errors.As(v.Err, &reply) {
			text = reply.String()
		}
		fmt.Fprintf(e.Stdout, "%s... undeliverable: %s\n", plain(v.Rcpt.Addr()), plain(text))
		if worst == 0 || worst == exit.TempFail {
			worst = submit.ExitCode(v.Err)
		}
	}
	if o.Verbose {
		for _, v := range verdicts {
			_ = runArgs(c, []string{"explain", "--client", "127.0.0.1", "--helo", f.host, "--from", o.Sender, "--to", v.Rcpt.Addr()}, own.file) // the verdict is known
		}
	}
	if worst != 0 {
		return &statusError{worst, nil}
	}
	return nil
}
