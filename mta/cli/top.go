package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"meta1/mta/control"
	"meta1/mta/msg"
)

// The size of a terminal that does not tell its own, and of what is printed elsewhere.
const (
	topWidth  = 100
	topHeight = 40
)

func topCommand(e *Env) *cobra.Command {
	var to target
	every := 2 * time.Second
	var once, asJSON bool
	c := &cobra.Command{
		Use: "top", Short: "Watch what goes on", Args: noArgs,
		Long: `top shows on a terminal, every two seconds: rates a minute, the queue by destination and by
reason, the hosts that are closed or for which most waits, and the sessions that go on longest. An interrupt (^C) ends it. What
is not a terminal gets it once as plain text, and so does --once.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if every < time.Second {
				every = time.Second
			}
			return to.ask(func(k *control.Client) error {
				out, screen := e.Stdout.(*os.File)
				if asJSON {
					t, err := look(c.Context(), k)
					if err != nil {
						return err
					}
					return printJSON(e.Stdout, t)
				}
				if once || !screen || !term.IsTerminal(int(out.Fd())) {
					t, err := look(c.Context(), k)
					if err != nil {
						return err
					}
					return t.print(e.Stdout, nil, topWidth, topHeight, time.Local)
				}
				return watch(c.Context(), k, out, every)
			})
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&once, "once", false, "print once, as plain text")
	c.Flags().Var((*timeValue)(&every), "every", "`time` between two looks; without it 2s")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, once")
	return c
}

// topView is what top shows.
type topView struct {
	Stats       control.Stats       `json:"stats"`
	Summary     control.Summary     `json:"queue"`
	Hosts       control.Hosts       `json:"hosts"`
	Connections control.Connections `json:"connections"`
	Drain       control.Drain       `json:"drain"`
}

func look(ctx context.Context, k *control.Client) (t *topView, err error) {
	t = &topView{}
	if t.Stats, err = k.Stats(ctx); err != nil {
		return nil, err
	}
	if t.Summary, err = k.Summary(ctx, control.SummaryQuestion{}); err != nil {
		return nil, err
	}
	if t.Hosts, err = k.Hosts(ctx, false); err != nil {
		return nil, err
	}
	if t.Connections, err = k.Connections(ctx); err != nil {
		return nil, err
	}
	t.Drain, err = k.DrainState(ctx)
	return t, err
}

// watch shows it on a terminal until somebody ends it.
func watch(ctx context.Context, k *control.Client, out *os.File, every time.Duration) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")       // the other screen, without a cursor
	defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l") // and back
	var last *topView
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		t, err := look(ctx, k)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil {
			width, height = topWidth, topHeight
		}
		var page strings.Builder
		if err := t.print(&page, last, width, height-1, time.Local); err != nil {
			return err
		}
		last = t
		w := bufio.NewWriter(out)
		_, _ = w.WriteString("\x1b[H")
		for line := range strings.Lines(page.String()) {
			_, _ = w.WriteString(strings.TrimRight(line, "\n") + "\x1b[K\r\n")
		}
		_, _ = w.WriteString("\x1b[J")
		if err := w.Flush(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// print prints it within so many columns and lines. last is what was seen before, for the rates of now; nil:
// those of the last minute are shown.
func (t *topView) print(out io.Writer, last *topView, width, height int, zone *time.Location) error {
	var lines []string
	add := func(format string, args ...any) {
		line := []rune(plain(fmt.Sprintf(format, args...)))
		lines = append(lines, strings.TrimRight(string(line[:min(len(line), max(width, 20))]), " "))
	}
	s := &t.Stats
	add("meta1 %s, up %s, takes mail: %s", s.Time.In(zone).Format("15:04:05"), ago(s.Time, s.Started), s.Accepting)
	if t.Drain.Phase != control.NotDraining && t.Drain.Phase != "" {
		add("%s: %s; %d to deliver, %d kept", t.Drain.Phase, t.Drain.Reason, t.Drain.Left, t.Drain.Kept)
	}
	add("sessions %d of %d, deliveries %d, active queue %d of %d, deferred %d", s.Now["sessions"], s.Now["sessions_max"], s.Now["in_flight"], s.Now["AQ_entries"], s.Now["AQ_entries_max"], s.Now["deferred"])
	add("")
	add("%-9s %9s %9s %9s %9s %9s %9s", "a minute", "sessions", "messages", "accepted", "delivered", "deferrals", "bounced")
	row := func(name string, rate func(string) float64) {
		add("%-9s %9s %9s %9s %9s %9s %9s", name, perMinute(rate("sessions")), perMinute(rate("messages")), perMinute(rate("accepted")),
			perMinute(rate("delivered")), perMinute(rate("deferrals")), perMinute(rate("bounced")))
	}
	if last != nil {
		took := s.Time.Sub(last.Stats.Time).Seconds()
		row("now", func(name string) float64 {
			return max(float64(s.Counts[name]-last.Stats.Counts[name]), 0) / max(took, 0.1)
		})
	}
	row("1 min", func(name string) float64 { return s.Rates["1m"][name] })
	row("15 min", func(name string) float64 { return s.Rates["15m"][name] })
	parts := 4
	each := max((height-len(lines)-2*parts)/parts, 2) // lines for each part
	add("")
	add("%-40s %8s %8s %8s  %s", "QUEUE BY DESTINATION", "ALL", "<20 min", ">5 h", "WAITS")
	for i := range t.Summary.Destinations[:min(each, len(t.Summary.Destinations))] {
		d := &t.Summary.Destinations[i]
		wait := d.Reason
		if !d.NextTry.IsZero() {
			wait = "until " + d.NextTry.In(zone).Format("15:04:05") + ": " + wait
		}
		add("%-40s %8d %8d %8d  %s", d.Destination, d.Recipients, d.Ages[0]+d.Ages[1]+d.Ages[2], d.Ages[7]+d.Ages[8]+d.Ages[9], wait)
	}
	add("")
	add("%8s  %s", "QUEUE", "BY REASON")
	for _, r := range t.Summary.Reasons[:min(each, len(t.Summary.Reasons))] {
		add("%8d  %s", r.Recipients, r.Reason)
	}
	add("")
	add("%-40s %-7s %6s %6s %8s  %s", "SLOWEST HOSTS", "STATE", "IN USE", "WINDOW", "WAITING", "REASON")
	hosts := slices.Clone(t.Hosts.Hosts)
	slices.SortStableFunc(hosts, func(a, b control.Host) int {
		closed := func(h *control.Host) int { return map[bool]int{true: 0, false: 1}[h.State == msg.HostClosed] }
		return cmp.Or(cmp.Compare(closed(&a), closed(&b)), cmp.Compare(b.Waiting, a.Waiting))
	})
	for i := range hosts[:min(each, len(hosts))] {
		h := &hosts[i]
		add("%-40s %-7s %6d %6d %8d  %s", h.Host, h.State, h.InUse, h.Window, h.Waiting, hostReason(h, zone))
	}
	add("")
	add("%-4s %-20s %-30s %-10s %8s %8s", "WAY", "SESSION", "PEER", "STATE", "FOR", "MESSAGES")
	for i := range t.Connections.Connections[:min(each, len(t.Connections.Connections))] {
		c := &t.Connections.Connections[i]
		add("%-4s %-20s %-30s %-10s %8s %8d", c.Direction, cmp.Or(c.ID, "-"), cmp.Or(c.Name, c.Peer), c.State, ago(s.Time, c.Since), c.Messages)
	}
	_, err := io.WriteString(out, strings.Join(lines[:min(len(lines), max(height, 10))], "\n")+"\n")
	return err
}
