package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/msg"
)

// asker is a command that asks the running meta1 and prints the answer, as text or as JSON.
func asker[A any](e *Env, c *cobra.Command, ask func(c *cobra.Command, k *control.Client, args []string) (A, error), print func(io.Writer, A) error) *cobra.Command {
	var to target
	var asJSON bool
	c.RunE = func(c *cobra.Command, args []string) error {
		return to.ask(func(k *control.Client) error {
			a, err := ask(c, k, args)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(e.Stdout, a)
			}
			return print(e.Stdout, a)
		})
	}
	to.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func statsCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "stats", Short: "Show counts and rates", Args: noArgs,
		Long: `stats shows what was done since the start of each module (sessions and messages that came in,
recipients that were accepted, delivered, deferred, bounced), the same as rates a minute within the last
1, 5 and 15 minutes, and what goes on now.`,
	}
	return asker(e, c, func(c *cobra.Command, k *control.Client, _ []string) (control.Stats, error) {
		return k.Stats(c.Context())
	}, printStats)
}

// statNames are the counts in the order of a message's life.
func statNames() []string {
	return []string{"sessions", "messages", "received_bytes", "accepted", "transactions", "delivered", "deferrals", "bounced", "dropped"}
}

func printStats(out io.Writer, s control.Stats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "count\ttotal\tmin 1\tmin 5\tmin 15\t")
	for _, name := range statNames() {
		fmt.Fprintf(w, "%s\t%d\t", name, s.Counts[name])
		for _, window := range []string{"1m", "5m", "15m"} {
			fmt.Fprintf(w, "%s\t", perMinute(s.Rates[window][name]))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n(the last three are a minute)\n\n")
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "accepting\t%s\n", plain(s.Accepting))
	for _, name := range slices.Sorted(maps.Keys(s.Now)) {
		fmt.Fprintf(w, "%s\t%d\n", plain(name), s.Now[name])
	}
	return w.Flush()
}

// perMinute is a rate a second as one a minute.
func perMinute(rate float64) string { return strconv.FormatFloat(60*rate, 'f', 1, 64) }

func connectionsCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "connections", Short: "Show who is connected", Args: noArgs,
		Long: `connections shows the sessions of clients (in) and the connections to hosts (out): the
identifier as logs have it, who is at the other end, what it does and since when, when the connection began, and
how many messages came or went by it. "connections close ID" ends one.`,
	}
	asker(e, c, func(c *cobra.Command, k *control.Client, _ []string) (control.Connections, error) {
		return k.Connections(c.Context())
	}, func(out io.Writer, all control.Connections) error { return printConnections(out, all, time.Now()) })
	c.AddCommand(closeCommand(e))
	return c
}

func printConnections(out io.Writer, all control.Connections, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WAY\tID\tSECTION\tPEER\tNAME\tUSER\tTLS\tSTATE\tFOR\tOPEN\tMESSAGES")
	for i := range all.Connections {
		c := &all.Connections[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", c.Direction, orDash(c.ID), plain(c.Section), plain(c.Peer), orDash(c.Name),
			orDash(c.User), orDash(c.TLS), c.State, ago(now, c.Since), ago(now, c.Begun), c.Messages)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if all.More {
		_, err := fmt.Fprintln(out, "there are more")
		return err
	}
	return nil
}

// ago is how long ago something was.
func ago(now, then time.Time) string { return max(now.Sub(then), 0).Round(time.Second).String() }

func closeCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "close id", Short: "End a connection at once", Args: exactlyOne,
		Long: `close ends the connection of an identifier at once. A message that was on its way and not
acknowledged is sent again: by the client, or by meta1 at its next attempt. The exit status is 1 if there is no
such connection.`,
	}
	return asker(e, c, func(c *cobra.Command, k *control.Client, args []string) (control.Closed, error) {
		done, err := k.CloseConnection(c.Context(), args[0])
		if err == nil && !done {
			err = &statusError{1, fmt.Errorf("there is no connection %s", plain(args[0]))}
		}
		return control.Closed{Closed: done}, err
	}, func(out io.Writer, _ control.Closed) error {
		_, err := fmt.Fprintln(out, "closed")
		return err
	})
}

// exactlyOne refuses any other number of arguments.
func exactlyOne(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{errors.New("give one identifier")}
	}
	return nil
}

func throttleCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "throttle", Short: "Show and set limits while meta1 runs", Args: noArgs,
		Long: `throttle shows the limits that were set while meta1 runs, with reason and end. Limits only
lower what the configuration allows, and end with meta1.`,
	}
	asker(e, c, func(c *cobra.Command, k *control.Client, _ []string) ([]control.Throttle, error) {
		return k.Throttles(c.Context())
	}, printThrottles)
	c.AddCommand(throttleSetCommand(e), throttleClearCommand(e))
	return c
}

func printThrottles(out io.Writer, all []control.Throttle) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no limits are set")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LIMIT\tFOR\tMAX\tSET\tUNTIL\tREASON")
	for i := range all {
		l := &all[i]
		net, until := l.Net, "cleared"
		if net == "" {
			net = "all others"
		}
		if !l.Until.IsZero() {
			until = l.Until.Local().Format("Jan _2 15:04:05")
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", l.Kind, plain(net), l.Max, l.Set.Local().Format("Jan _2 15:04:05"), until, plain(l.Reason))
	}
	return w.Flush()
}

func throttleSetCommand(e *Env) *cobra.Command {
	var q control.ThrottleQuestion
	c := &cobra.Command{
		Use: "set limit number", Short: "Set a limit",
		Long: `set sets a limit at once, in place of one of the same kind for the same addresses:

  in_open   connections that one client address may have at once
  in_rate   connections that one client address may make within a minute
  out_open  deliveries at once to one host (at least 1; hold keeps mail back)

It holds for the address or net of --net, else for all addresses but those of this host (127.0.0.0/8 and ::1).
Open connections go on. The reason is shown by throttle and stands in the log.`,
		Example: `  meta1 ctl throttle set in_open 2 --net 192.0.2.0/24 --for 1h --reason "flood, ticket 4711"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &usageError{errors.New("give a limit and a number")}
			}
			return nil
		},
	}
	asker(e, c, func(c *cobra.Command, k *control.Client, args []string) ([]control.Throttle, error) {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return nil, &usageError{fmt.Errorf("%q is no number", args[1])}
		}
		q.Kind, q.Max = msg.ThrottleKind(args[0]), n
		return k.Throttle(c.Context(), q)
	}, printThrottles)
	f := c.Flags()
	f.StringVar(&q.Net, "net", "", "an address or a net, such as 192.0.2.0/24")
	f.StringVar(&q.Reason, "reason", "", "why; it is needed")
	f.Var((*timeValue)(&q.For), "for", "how long, a `time` such as 30m or 2h; without it until it is cleared")
	_ = c.MarkFlagRequired("reason") // fails only for a flag that does not exist
	return c
}

func throttleClearCommand(e *Env) *cobra.Command {
	q := control.ThrottleQuestion{Clear: true}
	var all bool
	c := &cobra.Command{
		Use: "clear [limit]", Short: "End a limit", Args: maxArgs(1),
		Long: `clear ends the limit of a kind, for the addresses of --net if it was set for some, or all limits with
--all. It prints those that are left.`,
	}
	asker(e, c, func(c *cobra.Command, k *control.Client, args []string) ([]control.Throttle, error) {
		if all == (len(args) == 1) {
			return nil, &usageError{errors.New("give a limit, or --all")}
		}
		if len(args) == 1 {
			q.Kind = msg.ThrottleKind(args[0])
		}
		return k.Throttle(c.Context(), q)
	}, printThrottles)
	c.Flags().StringVar(&q.Net, "net", "", "the address or net for which it was set")
	c.Flags().BoolVar(&all, "all", false, "end all limits")
	return c
}

func drainCommand(e *Env) *cobra.Command {
	var q control.DrainQuestion
	var to target
	var wait, asJSON, show bool
	c := &cobra.Command{
		Use: "drain", Short: "Take no more mail, deliver what can be delivered, then end", Args: noArgs,
		Long: `drain has meta1 refuse new sessions and messages with 421, so that clients go elsewhere or come
again, and deliver what can be delivered now. When nothing is left but what waits for its next time or is held, or
when --until is over, meta1 ends as by stop; the rest stays in the queue on disk, for the next start there. /readyz and
status say that it drains. With --keep meta1 goes on running when it is drained.

With --to the rest is handed over to another MTA by SMTP when nothing is left that can be delivered, or when half
of the time is over: deferred mail, too, but not what is held. --to is written as in a mailertable, such as
mx2.example.org, [192.0.2.2], or 2525^esmtp:[192.0.2.2]. That MTA must let this one relay. What it does not take, for
whatever reason, stays in the queue here; nothing bounces because of its refusal. There the mail begins anew: its
time in the queue (queue_return) counts from its arrival there.

With --wait the command returns when meta1 has ended, or with --keep when it is drained. --cancel has it take mail
again.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return to.ask(func(k *control.Client) error {
				var d control.Drain
				var err error
				if show {
					d, err = k.DrainState(c.Context())
				} else {
					d, err = k.Drain(c.Context(), q)
				}
				if err != nil {
					return err
				}
				if wait && !q.Cancel {
					d, err = awaitDrain(c, k, d)
				}
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e.Stdout, d)
				}
				return printDrain(e.Stdout, d)
			})
		},
	}
	to.flags(c)
	f := c.Flags()
	f.StringVar(&q.Reason, "reason", "", "why, for clients, log and status")
	f.Var((*timeValue)(&q.Until), "until", "the longest `time` to wait for deliveries; without it 5m")
	f.StringVar(&q.To, "to", "", "hand the rest over to this `host`, as a mailertable names it; without it the rest stays")
	f.BoolVar(&q.Keep, "keep", false, "go on running when it is drained")
	f.BoolVar(&q.Flush, "flush", false, "try deferred mail once more at the beginning")
	f.BoolVar(&q.Cancel, "cancel", false, "take mail again")
	f.BoolVar(&wait, "wait", false, "wait for its end, or until it is drained")
	f.BoolVar(&show, "status", false, "only show where a drain stands")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// awaitDrain waits until a drain is over: the last state that was seen.
func awaitDrain(c *cobra.Command, k *control.Client, d control.Drain) (control.Drain, error) {
	for d.Phase == control.Draining || d.Phase == control.HandingOver || d.Phase == control.DrainEnds {
		time.Sleep(stopPause)
		now, err := k.DrainState(c.Context())
		if errors.Is(err, control.ErrNotRunning) || err != nil && d.Phase == control.DrainEnds {
			d.Phase = control.DrainEnds // the control socket is the last that is closed
			return d, nil
		}
		if err != nil {
			return d, err
		}
		d = now
	}
	if d.Phase == control.NotDraining {
		return d, &statusError{exit.TempFail, errors.New("the drain was cancelled")}
	}
	return d, nil
}

func printDrain(out io.Writer, d control.Drain) error {
	var err error
	switch d.Phase {
	case control.NotDraining:
		_, err = fmt.Fprintln(out, "no drain: mail is taken")
	case control.Draining:
		_, err = fmt.Fprintf(out, "draining until %s at most: %d recipients may be delivered, %d wait in the queue\n", d.Until.Local().Format("Jan _2 15:04:05"), d.Left, d.Kept)
	case control.HandingOver:
		_, err = fmt.Fprintf(out, "handing over to %s until %s at most: %d recipients on their way, %d wait in the queue\n", plain(d.To), d.Until.Local().Format("Jan _2 15:04:05"), d.Left, d.Kept)
	case control.Drained:
		_, err = fmt.Fprintf(out, "drained: %d recipients wait in the queue, new mail is refused\n", d.Left+d.Kept)
	case control.DrainEnds:
		_, err = fmt.Fprintf(out, "drained, and ended: %d recipients wait in the queue\n", d.Left+d.Kept)
	}
	return err
}
