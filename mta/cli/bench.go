package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"meta1/mta/exit"
	"meta1/mta/trial"
)

// The most that a bench does.
const (
	benchMessagesMax = 10_000_000
	benchSessionsMax = 1000
	benchSizeMax     = 64 << 20
)

func benchCommand(e *Env) *cobra.Command {
	var cfg trial.BenchConfig
	var asJSON bool
	c := &cobra.Command{
		Use: "bench", Short: "Measure what this machine can do", Args: noArgs,
		Long: `bench measures the time of a sync of the disk, and how many messages a second a meta1 of its own relays on
this machine, from sessions one at a time and many at a time, which send and take the mail within this command. Its
queue is a new directory below --dir, which must lie on the disk that is meant, and is removed at the end; a meta1 that runs is not
touched. It uses the configuration that meta1 has by default: maps, filters, TLS and DNS cost more. Source and sink share the
processors with meta1, and other work does, so a quiet machine gives more.

A message is acknowledged when it is on the disk: with one session each waits for a sync, with many they share one. The exit
status is 1 if a message was refused or did not arrive.`,
		Example: `  meta1 bench --dir /var/spool
  meta1 bench --count 50000 --sessions 100 --size 20000 --json`,
		RunE: func(c *cobra.Command, _ []string) error { return runBench(c.Context(), e, cfg, asJSON) },
	}
	f := c.Flags()
	f.StringVar(&cfg.Dir, "dir", ".", "directory on the disk that is measured")
	f.IntVar(&cfg.Messages, "count", 5000, "messages with many sessions; one session sends a fifth of them")
	f.IntVar(&cfg.Sessions, "sessions", 50, "sessions at a time")
	f.IntVar(&cfg.Size, "size", 1024, "size of each message in bytes")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func runBench(ctx context.Context, e *Env, cfg trial.BenchConfig, asJSON bool) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if cfg.Messages < 1 || cfg.Messages > benchMessagesMax || cfg.Sessions < 1 || cfg.Sessions > benchSessionsMax || cfg.Size < 0 || cfg.Size > benchSizeMax {
		return &usageError{fmt.Errorf("at most %d messages of %d bytes in %d sessions are possible", benchMessagesMax, benchSizeMax, benchSessionsMax)}
	}
	if cfg.Executable, err = os.Executable(); err != nil {
		return &statusError{exit.OSErr, fmt.Errorf("finding our own binary: %w", err)}
	}
	r, err := trial.Bench(ctx, cfg)
	if err != nil {
		return &statusError{1, err}
	}
	return printBench(e.Stdout, &r, asJSON)
}

func printBench(w io.Writer, r *trial.BenchResult, asJSON bool) error {
	if asJSON {
		type load struct {
			trial.BenchLoad
			Median float64 `json:"median_ms"`
			P99    float64 `json:"p99_ms"`
		}
		var loads []load
		for _, l := range r.Loads {
			loads = append(loads, load{l, ms(l.Median), ms(l.P99)})
		}
		return printJSON(w, struct {
			*trial.BenchResult
			SyncMedian float64 `json:"sync_median_ms"`
			SyncP99    float64 `json:"sync_p99_ms"`
			Loads      []load  `json:"loads"`
		}{r, ms(r.SyncMedian), ms(r.SyncP99), loads})
	}
	var out strings.Builder
	fmt.Fprintf(&out, "disk: a sync of 4 KiB takes %.2f ms, 1 of 100 more than %.2f ms (%d syncs)\n", ms(r.SyncMedian), ms(r.SyncP99), r.Syncs)
	for _, l := range r.Loads {
		sessions := "1 session:"
		if l.Sessions != 1 {
			sessions = fmt.Sprintf("%d sessions:", l.Sessions)
		}
		fmt.Fprintf(&out, "%-13s %8.0f messages a second relayed; acknowledged after %.2f ms, 1 of 100 after more than %.2f ms (%d messages)\n",
			sessions, l.Rate, ms(l.Median), ms(l.P99), l.Messages)
	}
	fmt.Fprintf(&out, "meta1 took %.3f s of processor time for 1,000 messages, its start included, and %.0f MiB of memory at most\n", r.CPU, r.Memory)
	_, err := io.WriteString(w, out.String())
	return err
}
