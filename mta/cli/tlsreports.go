package cli

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meta1/client/tlsrpt"
	"meta1/mta/control"
	"meta1/mta/exit"
)

func tlsReportsCommand(e *Env) *cobra.Command {
	var to target
	var send, today, asJSON bool
	c := &cobra.Command{
		Use: "tlsreports [DOMAIN]", Short: "Show the reports about TLS that are collected, or send them", Args: cobra.MaximumNArgs(1),
		Long: `tlsreports shows what was counted of the TLS of outgoing mail for reports (TLS-RPT,
RFC 8460): for each domain that wants reports the policies under which sessions were made,
how many succeeded and how many failed, and in which way. A report is sent in the morning
after its day; DUE tells when, and why the last try to send it failed.

With --send the reports of days that are over are sent at once. With --today they are, too,
and the day ends now for all domains: what was counted since its beginning is sent, and what
follows belongs to another report. With a DOMAIN only its reports are shown or sent.`,
		RunE: func(c *cobra.Command, args []string) error {
			domain := ""
			if len(args) > 0 {
				domain = args[0]
			}
			if today && !send {
				return &usageError{errors.New("--today needs --send")}
			}
			return to.ask(func(k *control.Client) error {
				if send {
					return sendTLSReports(c, e, k, control.SendReports{Domain: domain, Today: today})
				}
				list, err := k.TLSReports(c.Context(), domain)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e.Stdout, list)
				}
				return printTLSReports(e.Stdout, list, time.Local)
			})
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&send, "send", false, "send the reports of days that are over now")
	c.Flags().BoolVar(&today, "today", false, "with --send: end the day now, and send its reports, too")
	c.Flags().BoolVar(&asJSON, "json", false, "print the reports in JSON, as they are sent")
	return c
}

func sendTLSReports(c *cobra.Command, e *Env, k *control.Client, q control.SendReports) error {
	done, err := k.SendTLSReports(c.Context(), q)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(e.Stdout, "%d sent\n", done.Sent); err != nil {
		return err
	}
	if done.Err != "" {
		return &statusError{exit.TempFail, errors.New(done.Err)}
	}
	return nil
}

func printTLSReports(out io.Writer, list []tlsrpt.Entry, zone *time.Location) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tFROM\tPOLICY\tGOOD\tFAILED\tDUE")
	for i := range list {
		one := &list[i]
		due := "the day is not over"
		switch {
		case one.Sent && one.Why != "":
			due = "given up: " + plain(one.Why)
		case one.Sent:
			due = "sent"
		case !one.Due.IsZero():
			due = one.Due.In(zone).Format("Jan _2 15:04:05")
			if one.Why != "" {
				due += ": " + plain(one.Why)
			}
		}
		from := one.Report.DateRange.Start.In(zone).Format("Jan _2 15:04")
		for _, p := range one.Report.Policies {
			fmt.Fprintf(w, "%s\t%s\t%s %s\t%d\t%d\t%s\n", plain(one.Domain), from, p.Policy.Type, plain(p.Policy.Domain), p.Summary.Good, p.Summary.Bad, due)
			for _, f := range p.Failures {
				fmt.Fprintf(w, "\t\t  %s %s\t\t%d\t%s\n", f.Result, plain(f.MX), f.Count, plain(f.Reason))
			}
		}
	}
	return w.Flush()
}
