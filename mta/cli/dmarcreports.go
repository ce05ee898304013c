package cli

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/server/authn/dmarcrpt"
)

func dmarcReportsCommand(e *Env) *cobra.Command {
	var to target
	var send, today, asJSON, asXML bool
	c := &cobra.Command{
		Use: "dmarcreports [DOMAIN]", Short: "Show the reports about DMARC that are collected, or send them", Args: cobra.MaximumNArgs(1),
		Long: `dmarcreports shows what was counted of incoming mail for aggregate reports about DMARC
(RFC 9990): for each domain whose policy applied and that wants reports the addresses of the
clients, how many messages came, whether DKIM and SPF were aligned, what became of the
messages, and why if the policy asked for something else. A report is sent in the morning
after its day; DUE tells when, and why the last try to send it failed.

With --send the reports of days that are over are sent at once. With --today they are, too,
and the day ends now for all domains: what was counted since its beginning is sent, and what
follows belongs to another report. With a DOMAIN only its reports are shown or sent.`,
		RunE: func(c *cobra.Command, args []string) error {
			domain := ""
			if len(args) > 0 {
				domain = args[0]
			}
			switch {
			case today && !send:
				return &usageError{errors.New("--today needs --send")}
			case asXML && asJSON:
				return &usageError{errors.New("--xml and --json do not go together")}
			}
			return to.ask(func(k *control.Client) error {
				if send {
					return sendDMARCReports(c, e, k, control.SendReports{Domain: domain, Today: today})
				}
				list, err := k.DMARCReports(c.Context(), domain)
				switch {
				case err != nil:
					return err
				case asJSON:
					return printJSON(e.Stdout, list)
				case asXML:
					return printXMLReports(e.Stdout, list)
				}
				return printDMARCReports(e.Stdout, list, time.Local)
			})
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&send, "send", false, "send the reports of days that are over now")
	c.Flags().BoolVar(&today, "today", false, "with --send: end the day now, and send its reports, too")
	c.Flags().BoolVar(&asJSON, "json", false, "print the reports in JSON")
	c.Flags().BoolVar(&asXML, "xml", false, "print the reports in XML, as they are sent")
	return c
}

func sendDMARCReports(c *cobra.Command, e *Env, k *control.Client, q control.SendReports) error {
	done, err := k.SendDMARCReports(c.Context(), q)
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

func printXMLReports(out io.Writer, list []dmarcrpt.Entry) error {
	for i := range list {
		text, err := list[i].Report.XML()
		if err != nil {
			return err
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func printDMARCReports(out io.Writer, list []dmarcrpt.Entry, zone *time.Location) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tFROM\tCLIENT\tCOUNT\tDKIM\tSPF\tDISPOSITION\tDUE")
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
		for _, r := range one.Report.Records {
			what := r.Disposition
			for _, why := range r.Reasons {
				what += " (" + why.Type + ")"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", plain(one.Domain), plain(r.From), r.Source, r.Count, r.DKIM, r.SPF, plain(what), due)
		}
	}
	return w.Flush()
}
