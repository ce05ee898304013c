package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"meta1/confparse"
	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// operation is a command below queue.
type operation struct {
	op          msg.Operation
	short, long string
}

func operations() []operation {
	return []operation{
		{msg.OpHold, "Keep recipients until they are released", "They stay in the queue and are not tried."},
		{msg.OpRelease, "Let held recipients go on", ""},
		{msg.OpFlush, "Try recipients now", "They do not wait for their next time. Held ones stay."},
		{msg.OpRequeue, "Forget the attempts of recipients and try them now", "Their route is looked up anew."},
		{msg.OpRemove, "Drop recipients without a notice", "Their senders hear nothing."},
		{msg.OpExpire, "Give recipients up", "Their senders get a bounce."},
	}
}

func queueCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "queue", Short: "See and change what becomes of recipients in the queue", Args: subcommand,
		Long: `The commands below queue change what becomes of recipients, and show the hosts to which mail
goes. meta1 mailq lists the queue.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, o := range operations() {
		c.AddCommand(operationCommand(e, o.op, o.short, o.long))
	}
	c.AddCommand(hostsCommand(e))
	return c
}

func operationCommand(e *Env, op msg.Operation, short, long string) *cobra.Command {
	o := control.Operation{Op: op}
	var to target
	var all, asJSON bool
	c := &cobra.Command{
		Use: string(op) + " [id]", Short: short, Args: maxArgs(1),
		Long: short + `. ` + long + `

Recipients are chosen by the flags, all of which must match, and by an identifier: of their
transaction, as mailq shows it, or of one recipient, the rcpt_id of mailq --json. --all
chooses all. A recipient that is being delivered is left alone.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				chooseID(&o, args[0])
			}
			if !all && (control.Operation{Op: op}) == o {
				return &usageError{errors.New("nothing is chosen: give an identifier, a flag that chooses, or --all")}
			}
			return to.ask(func(k *control.Client) error {
				done, err := k.Operate(c.Context(), o)
				if err != nil {
					return err
				}
				return printOperated(e.Stdout, op, done, asJSON)
			})
		},
	}
	to.flags(c)
	f := c.Flags()
	f.StringVar(&o.Sender, "sender", "", "with this sender; @domain for all of a domain, <> for none")
	f.StringVar(&o.Rcpt, "rcpt", "", "with this address; @domain for all of a domain")
	f.StringVar(&o.Domain, "domain", "", "whose address has this domain")
	f.StringVar(&o.Hop, "hop", "", "that go this way: a destination as mailq --json shows it, or the host, address or domain in it")
	f.Var((*timeValue)(&o.MinAge), "min-age", "in the queue for at least this `time`, such as 36h, 5d or 2w")
	f.Var((*timeValue)(&o.MaxAge), "max-age", "in the queue for at most this `time`")
	f.StringVar(&o.Reason, "reason", "", "that wait for this reason: a part of it as mailq shows it, such as 4.7.1")
	f.BoolVar(&o.Held, "held", false, "only what is held")
	f.BoolVar(&o.Unheld, "unheld", false, "only what is not held")
	f.BoolVar(&all, "all", false, "choose all recipients")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// chooseID chooses the transaction or the recipient of an identifier.
func chooseID(o *control.Operation, id string) {
	if _, _, err := smtp.ParseRcptID(id); err == nil {
		o.RcptID = id
		return
	}
	o.TA = id
}

// timeValue is a flag for a time, written as in a configuration.
type timeValue time.Duration

func (v *timeValue) Set(s string) error {
	d, err := confparse.ParseTime(s)
	if err != nil {
		return fmt.Errorf("it %w; a time is a number and a unit: w, d, h, m, s or ms", err)
	}
	*v = timeValue(d)
	return nil
}

func (v *timeValue) String() string { return "" } // its default is none
func (v *timeValue) Type() string   { return "time" }

func printOperated(out io.Writer, op msg.Operation, done control.Operated, asJSON bool) error {
	if asJSON {
		if err := printJSON(out, done); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%s: %d recipients", op, done.Done)
		if done.Busy > 0 {
			fmt.Fprintf(out, ", %d left alone because they are being delivered", done.Busy)
		}
		fmt.Fprintln(out)
	}
	if done.Err != "" {
		return &statusError{exit.TempFail, errors.New(done.Err)}
	}
	return nil
}
