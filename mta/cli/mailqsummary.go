package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"meta1/mta/control"
)

// shownMax is how many destinations and reasons are printed.
const shownMax = 20

// printSummary prints the queue, counted by the server.
func printSummary(ctx context.Context, k *control.Client, out io.Writer, asJSON bool) error {
	s, err := k.Summary(ctx, control.SummaryQuestion{Fresh: true, Max: control.GroupsMax})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, s)
	}
	return summaryText(out, &s)
}

// summaryText prints a summary as a table of ages like that of qshape, and the reasons.
func summaryText(out io.Writer, r *control.Summary) error {
	w := &textWriter{out: out}
	if r.Recipients == 0 {
		w.line("Mail queue is empty")
		return w.err
	}
	buckets := control.AgeBuckets()
	var head strings.Builder
	fmt.Fprintf(&head, "%40s %8s", "", "T")
	for _, m := range buckets {
		fmt.Fprintf(&head, " %6d", m)
	}
	w.line("%s %6d+", head.String(), buckets[len(buckets)-1])
	total := control.DestAges{Destination: "TOTAL", Recipients: r.Recipients}
	for i := range r.Destinations {
		for n, count := range r.Destinations[i].Ages {
			total.Ages[n] += count
		}
	}
	for i, d := range append([]control.DestAges{total}, r.Destinations...) {
		if i > shownMax {
			w.line("%40s", fmt.Sprintf("and %d destinations more", len(r.Destinations)-shownMax))
			break
		}
		var line strings.Builder
		fmt.Fprintf(&line, "%40s %8d", plain(d.Destination), d.Recipients)
		for _, n := range d.Ages {
			fmt.Fprintf(&line, " %6d", n)
		}
		w.line("%s", line.String())
	}
	w.line("")
	for i, reason := range r.Reasons {
		if i == shownMax {
			w.line("     and %d reasons more", len(r.Reasons)-shownMax)
			break
		}
		w.line("%8d %s", reason.Recipients, plain(reason.Reason))
	}
	w.line("-- %d Kbytes in %d messages for %d recipients", (r.Bytes+1023)/1024, r.Messages, r.Recipients)
	return w.err
}
