package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/msg"
)

func hostsCommand(e *Env) *cobra.Command {
	var to target
	var closed, asJSON bool
	c := &cobra.Command{
		Use: "hosts", Short: "Show the hosts to which mail goes", Args: noArgs,
		Long: `hosts shows the outgoing connection cache: for each host whether it serves, how many
deliveries to it are under way, how many may be at once (slow start) and at most, how
many recipients wait for it, what TLS the last session had (none, or the version and what the
certificate was worth), and why a host is not tried now. Closed hosts come first; "meta1 queue
flush" has them tried at once. Above them stand the providers, which are hosts with limits in
common: how many deliveries and messages within a time they may have now and at most, and which
reply lowered that until when.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return to.ask(func(k *control.Client) error {
				hosts, err := k.Hosts(c.Context(), closed)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e.Stdout, hosts)
				}
				return printHosts(e.Stdout, hosts, time.Local)
			})
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&closed, "closed", false, "only hosts that are not tried now")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printHosts(out io.Writer, hosts control.Hosts, zone *time.Location) error {
	for i := range hosts.TriedLast {
		f := &hosts.TriedLast[i]
		fmt.Fprintf(out, "%s does not work, and its hosts are tried last, %s\n", plain(f.Family), untilReason(f.Until, f.Reason, zone))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(hosts.Providers) > 0 {
		fmt.Fprintln(w, "PROVIDER\tIN USE\tMAX\tRATE\tRATE MAX\tWAITING\tREASON")
		for i := range hosts.Providers {
			p := &hosts.Providers[i]
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%d\t%s\n", plain(p.Provider), p.InUse, limit(float64(p.Max), ""), limit(p.Rate, p.Interval),
				limit(float64(p.RateMax), p.Interval), p.Waiting, untilReason(p.Until, p.Reason, zone))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(w, "HOST\tSTATE\tIN USE\tWINDOW\tMAX\tWAITING\tTLS\tPROVIDER\tREASON")
	for i := range hosts.Hosts {
		h := &hosts.Hosts[i]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", plain(h.Host), h.State, h.InUse, h.Window, h.Max, h.Waiting,
			orDash(strings.TrimSpace(h.TLS+" "+h.Verify)), orDash(h.Provider), hostReason(h, zone))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if hosts.More {
		_, err := fmt.Fprintln(out, "there are more")
		return err
	}
	return nil
}

// hostReason says why a host is in its state.
func hostReason(h *control.Host, zone *time.Location) string {
	if h.State != msg.HostClosed {
		return plain(h.Reason)
	}
	return untilReason(h.Until, h.Reason, zone)
}

// untilReason says until when something holds, and why; nothing if it does not.
func untilReason(until time.Time, reason string, zone *time.Location) string {
	if until.IsZero() {
		return ""
	}
	return "until " + until.In(zone).Format("Jan _2 15:04:05") + ": " + plain(reason)
}

// limit is a number of an interval, or - for none.
func limit(n float64, interval string) string {
	switch {
	case n == 0:
		return "-"
	case interval == "":
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	return strconv.FormatFloat(n, 'f', 0, 64) + "/" + strings.TrimSuffix(interval, "0s")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}
