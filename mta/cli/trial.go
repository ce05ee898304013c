package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta/exit"
	"meta1/mta/trial"
)

// tlsKinds are the values of the flag --tls of sink and source.
var tlsKinds = []string{"none", "starttls", "implicit"}

// sinkFlags are the flags of meta1 sink.
type sinkFlags struct {
	listen, tls, cert, key string
	on                     []string
	cfg                    trial.SinkConfig
	count                  int64
	json                   bool
}

func sinkCommand(e *Env) *cobra.Command {
	var o sinkFlags
	c := &cobra.Command{
		Use: "sink", Short: "Take mail and forget it, for trials", Args: noArgs,
		Long: `sink is an SMTP or LMTP server for trials. It takes all mail and forgets it, unless rules say
otherwise, and prints what it has seen when it ends: by a signal, or after --count messages. It takes
mail from anybody, so let it listen where only you can reach it.

Each --on gives a rule, and the rules of a stage are tried in their order until one answers:

  ` + trial.RuleUsage + `.

With LMTP a rule for dot is tried for each recipient.`,
		Example: `  meta1 sink --listen 127.0.0.1:2526 --on 'rcpt 10% reply 450 4.2.1 try later' --on 'dot delay 200ms'
  meta1 sink --lmtp --listen /tmp/lmtpsock --dump /tmp/mail
  meta1 sink --tls starttls --on 'starttls 5% cut' --count 1000 --json`,
		RunE: func(c *cobra.Command, _ []string) error { return runSink(c.Context(), e, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:2526", "host:port, or path of a Unix socket")
	f.BoolVar(&o.cfg.LMTP, "lmtp", false, "speak LMTP")
	f.StringArrayVar(&o.on, "on", nil, "a rule")
	f.StringVar(&o.tls, "tls", "none", "none, starttls or implicit")
	f.StringVar(&o.cert, "cert", "", "file with the certificate, in PEM format; without it one is made up")
	f.StringVar(&o.key, "key", "", "file with its key, in PEM format")
	f.StringVar(&o.cfg.Dump, "dump", "", "directory in which each message becomes a file; it is made if it is missing")
	f.Uint64Var(&o.cfg.Seed, "seed", 1, "of the chance with which rules hit")
	f.Int64Var(&o.count, "count", 0, "end after so many messages; 0: not")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func runSink(ctx context.Context, e *Env, o *sinkFlags) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for _, text := range o.on {
		r, err := trial.ParseRule(text)
		if err != nil {
			return &usageError{err}
		}
		o.cfg.Rules = append(o.cfg.Rules, r)
	}
	if err := o.withTLS(); err != nil {
		return err
	}
	if o.cfg.Dump != "" {
		if err := os.MkdirAll(o.cfg.Dump, 0o700); err != nil {
			return &statusError{exit.CantCreate, fmt.Errorf("the directory of --dump: %w", err)}
		}
	}
	network := networkOf(o.listen)
	l, err := net.Listen(network, o.listen)
	if err != nil {
		return &statusError{exit.TempFail, err}
	}
	s := trial.NewSink(o.cfg)
	served := make(chan error, 1)
	serveCtx, end := context.WithCancel(ctx)
	defer end()
	go func() { served <- s.Serve(serveCtx, l) }()
	fmt.Fprintf(e.Stderr, "listening on %s\n", l.Addr())
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-tick.C:
			if o.count > 0 && s.Stats().Messages >= o.count {
				tick.Stop()
				end()
			}
		case err := <-served:
			tick.Stop()
			return errors.Join(err, printSink(e, s.Stats(), o.json))
		}
	}
}

// withTLS reads or makes the certificate.
func (o *sinkFlags) withTLS() error {
	if !slices.Contains(tlsKinds, o.tls) {
		return &usageError{fmt.Errorf("--tls is one of %s", strings.Join(tlsKinds, ", "))}
	}
	if o.tls == "none" {
		return nil
	}
	var cert tls.Certificate
	var err error
	if o.cert != "" {
		cert, err = tls.LoadX509KeyPair(o.cert, cmp.Or(o.key, o.cert))
	} else {
		cert, err = trial.SelfSigned("sink.invalid")
	}
	if err != nil {
		return &statusError{exit.Usage, err}
	}
	o.cfg.TLS, o.cfg.Implicit = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, o.tls == "implicit"
	return nil
}

func printSink(e *Env, st trial.SinkStats, asJSON bool) error {
	if asJSON {
		return printJSON(e.Stdout, st)
	}
	_, err := fmt.Fprintf(e.Stdout, "%d messages for %d recipients with %d bytes over %d connections (%d with TLS); %d refusals, %d connections cut\n",
		st.Messages, st.Recipients, st.Bytes, st.Connections, st.Handshakes, st.Refusals, st.Cuts)
	return err
}

// sourceFlags are the flags of meta1 source.
type sourceFlags struct {
	tls  string
	cfg  trial.SourceConfig
	json bool
}

func sourceCommand(e *Env) *cobra.Command {
	var o sourceFlags
	c := &cobra.Command{
		Use: "source", Short: "Send made-up mail, for trials", Args: noArgs,
		Long: `source sends made-up messages by SMTP or LMTP as fast as the server takes them, or at a given
rate, and prints how many were accepted, how fast, and the replies that refused any. It tries nothing
again. The exit status is 1 if a message was not accepted. It does not verify certificates.`,
		Example: `  meta1 source --server 127.0.0.1:2525 --count 10000 --sessions 50 --to 'u%d@sink.test'
  meta1 source --server mx.example.net:25 --rate 20 --each 1 --tls starttls --count 1000`,
		RunE: func(c *cobra.Command, _ []string) error { return runSource(c.Context(), e, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.cfg.Addr, "server", "127.0.0.1:2525", "host:port, or path of a Unix socket")
	f.BoolVar(&o.cfg.LMTP, "lmtp", false, "speak LMTP")
	f.StringVar(&o.tls, "tls", "none", "none, starttls or implicit")
	f.StringVar(&o.cfg.From, "from", "source@example.invalid", "the sender")
	f.StringVar(&o.cfg.To, "to", "sink@example.invalid", "the recipient; %d in it stands for a number that grows")
	f.IntVar(&o.cfg.Messages, "count", 100, "how many messages; 0: until a signal comes")
	f.IntVar(&o.cfg.Sessions, "sessions", 1, "sessions at a time")
	f.IntVar(&o.cfg.Each, "each", 0, "messages over one connection; 0: any number")
	f.IntVar(&o.cfg.Rcpts, "rcpts", 1, "recipients of each message")
	f.IntVar(&o.cfg.Size, "size", 1024, "size of each message in bytes")
	f.Float64Var(&o.cfg.Rate, "rate", 0, "messages a second of all sessions together; 0: as many as go")
	f.BoolVar(&o.cfg.Pipeline, "pipeline", false, "send MAIL, RCPT and DATA together")
	f.DurationVar(&o.cfg.Timeout, "timeout", 5*time.Minute, "for one reply")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return c
}

// The most that a source does at a time.
const (
	sourceSessionsMax = 100_000
	sourceSizeMax     = 1 << 30
	sourceRcptsMax    = 10_000
)

func runSource(ctx context.Context, e *Env, o *sourceFlags) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c := &o.cfg
	switch {
	case !slices.Contains(tlsKinds, o.tls):
		return &usageError{fmt.Errorf("--tls is one of %s", strings.Join(tlsKinds, ", "))}
	case c.Sessions < 1 || c.Sessions > sourceSessionsMax || c.Rcpts < 1 || c.Rcpts > sourceRcptsMax || c.Size > sourceSizeMax:
		return &usageError{fmt.Errorf("at most %d sessions, %d recipients and %d bytes are possible", sourceSessionsMax, sourceRcptsMax, sourceSizeMax)}
	case c.Messages < 0 || c.Each < 0 || c.Rate < 0 || math.IsNaN(c.Rate) || c.Timeout <= 0:
		return &usageError{errors.New("a number is negative")}
	case strings.ContainsAny(c.From+c.To, "\r\n"):
		return &usageError{errors.New("an address holds an end of line")}
	}
	c.Network = networkOf(c.Addr)
	if o.tls != "none" {
		host, _, _ := net.SplitHostPort(c.Addr)
		c.TLS, c.Implicit = &tls.Config{ServerName: host, InsecureSkipVerify: true}, o.tls == "implicit"
	}
	r := trial.Send(ctx, *c)
	if err := printSource(e.Stdout, &r, o.json); err != nil {
		return err
	}
	if r.Failed > 0 {
		return &statusError{1, fmt.Errorf("%d messages were not accepted", r.Failed)}
	}
	return nil
}

func printSource(w io.Writer, r *trial.SourceResult, asJSON bool) error {
	if asJSON {
		return printJSON(w, struct {
			*trial.SourceResult
			Median float64 `json:"median_ms"`
			P99    float64 `json:"p99_ms"`
			Max    float64 `json:"max_ms"`
		}{r, ms(r.Median), ms(r.P99), ms(r.Max)})
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d messages for %d recipients accepted in %.3f s: %.1f a second; %d failed\n",
		r.Accepted, r.Rcpts, r.Seconds, float64(r.Accepted)/max(r.Seconds, 1e-9), r.Failed)
	if r.Accepted > 0 {
		fmt.Fprintf(&out, "from MAIL to the last reply: median %.1f ms, 99 %% %.1f ms, longest %.1f ms\n", ms(r.Median), ms(r.P99), ms(r.Max))
	}
	texts := make([]string, 0, len(r.Replies))
	for text := range r.Replies {
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(a, b string) int { return cmp.Or(r.Replies[b]-r.Replies[a], strings.Compare(a, b)) })
	for _, text := range texts {
		fmt.Fprintf(&out, "%6d  %s\n", r.Replies[text], text)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// networkOf tells a path from host:port.
func networkOf(addr string) string {
	if strings.Contains(addr, "/") {
		return "unix"
	}
	return "tcp"
}
