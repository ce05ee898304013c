package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/msg"
)

func hostsCommand(e *Env) *cobra.Command {
	var file string
	var closed, asJSON bool
	c := &cobra.Command{
		Use: "hosts", Short: "Show the hosts to which mail goes", Args: noArgs,
		Long: `hosts shows the outgoing connection cache: for each host whether it serves, how many
deliveries to it are under way, how many may be at once (slow start) and at most, how
many messages wait for a place, and why a host is not tried now. Closed hosts come first;
"meta1 queue flush" has them tried at once.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return withClient(file, func(k *control.Client) error {
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
	configFlag(c, &file, "")
	c.Flags().BoolVar(&closed, "closed", false, "only hosts that are not tried now")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printHosts(out io.Writer, hosts control.Hosts, zone *time.Location) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tSTATE\tIN USE\tWINDOW\tMAX\tWAITING\tREASON")
	for i := range hosts.Hosts {
		h := &hosts.Hosts[i]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", plain(h.Host), h.State, h.InUse, h.Window, h.Max, h.Waiting, hostReason(h, zone))
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
	return "until " + h.Until.In(zone).Format("Jan _2 15:04:05") + ": " + plain(h.Reason)
}
