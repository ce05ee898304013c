//go:build linux

// Command bench measures meta1 and Postfix as relays on this machine, in turn in one
// run, and writes docs/benchmark.md. "make bench" runs it, as root and
// after "make needs", which unpacks Postfix from Debian.
//
// It is source and sink of the mail in one process, so that it knows of each message when
// it was sent and when it arrived, and that it arrived once and unchanged. Each run gets a
// fresh queue below -dir, which must be on the disk that is to be measured.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// scenario is a load.
type scenario struct {
	name, what string
	n          int // messages
	size       int // of the content, in bytes
	sessions   int
	reconnect  bool          // a connection for each message
	every      time.Duration // between messages, whatever became of those before; 0: as fast as it goes
	hanging    int           // further messages, to a host that accepts connections and is silent
	deferred   bool          // the next hop answers 451 until all were tried
	tls        tlsUse
	milter     bool // the MTA asks a filter that goes on with everything
}

func scenarios() []scenario {
	return []scenario{
		{name: "c1", what: "1 session, 1 KiB", n: 2000, size: 1 << 10, sessions: 1},
		{name: "c50", what: "50 sessions, 1 KiB", n: 5000, size: 1 << 10, sessions: 50},
		{name: "c50nr", what: "50 sessions, 1 KiB, a connection for each message", n: 5000, size: 1 << 10, sessions: 50, reconnect: true},
		{name: "100k", what: "50 sessions, 100 KiB", n: 2000, size: 100 << 10, sessions: 50},
		{name: "tls", what: "50 sessions, 10 KiB, TLS on both sides", n: 5000, size: 10 << 10, sessions: 50, tls: useTLS},
		{name: "tlsnr", what: "the same, a connection and a full handshake for each message", n: 2000, size: 10 << 10, sessions: 50, reconnect: true, tls: useTLS},
		{name: "tlsres", what: "the same, and TLS sessions are resumed", n: 2000, size: 10 << 10, sessions: 50, reconnect: true, tls: resumeTLS},
		{name: "milter1", what: "50 sessions, 1 KiB, one milter that changes nothing", n: 5000, size: 1 << 10, sessions: 50, milter: true},
		{name: "lat", what: "20 messages a second, 1 KiB", n: 200, size: 1 << 10, sessions: 1, every: 50 * time.Millisecond},
		{name: "good", what: "20 sessions, 4,000 messages", n: 4000, size: 1 << 10, sessions: 20},
		{name: "hang", what: "the same, and 1,000 to a host that hangs", n: 4000, size: 1 << 10, sessions: 20, hanging: 1000},
		{name: "defer", what: "20,000 messages while the next hop answers 451", n: 20_000, size: 1 << 10, sessions: 50, deferred: true},
	}
}

type settings struct {
	reps, scale int
	names       []string // of scenarios; none: all
	dir         string   // for queues
	meta1       string   // the binary
	postfix     string   // the directory in which Postfix was unpacked
	profiles    string   // directory for profiles of meta1; "": none, and Postfix runs, too
	x25519      bool     // the source offers no other key exchange
	report      string   // file into which the report goes; "": standard output
}

func main() {
	if os.Getenv(noopVariable) != "" {
		fmt.Fprintln(os.Stderr, "bench: milter:", serveNoop())
		os.Exit(1)
	}
	var s settings
	flag.IntVar(&s.reps, "reps", 3, "repetitions")
	flag.IntVar(&s.scale, "scale", 100, "percent of the messages of each scenario")
	flag.StringVar(&s.dir, "dir", "/var/tmp", "directory for the queues, on the disk that is to be measured")
	flag.StringVar(&s.meta1, "meta1", "./meta1", "the binary")
	flag.StringVar(&s.postfix, "postfix", filepath.Join(cache(), "peers"), "where Postfix was unpacked (make needs)")
	flag.StringVar(&s.profiles, "profiles", "", "leave profiles of meta1 in this directory, and do not run Postfix")
	flag.StringVar(&s.report, "report", "", "file in which the report is replaced; standard output without")
	flag.BoolVar(&s.x25519, "x25519", false, "the source offers the key exchange X25519 alone, so that both MTAs make the same handshake")
	names := flag.String("scenarios", "", "names, with commas between them; all without")
	flag.Parse()
	s.names = strings.FieldsFunc(*names, func(r rune) bool { return r == ',' })
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func cache() string {
	if dir := os.Getenv("META1_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/meta1-test"
}

func run(s settings) error {
	if os.Geteuid() != 0 {
		return errors.New("must be root: Postfix and the counting of processor time need it")
	}
	meta1, err := filepath.Abs(s.meta1)
	if err != nil {
		return err
	}
	kinds := []kind{{"Postfix", startPostfix(s.postfix)}, {"meta1", startMeta1(meta1, s.profiles != "")}}
	if s.profiles != "" {
		kinds = kinds[1:]
	}
	all := results{}
	for rep := range s.reps {
		for _, sc := range scenarios() {
			if len(s.names) > 0 && !slices.Contains(s.names, sc.name) {
				continue
			}
			sc.n, sc.hanging = max(sc.n*s.scale/100, 1), sc.hanging*s.scale/100
			for _, k := range kinds {
				r, err := measure(s, sc, k)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", sc.name, k.name, err)
				}
				fmt.Fprintf(os.Stderr, "bench: %d/%d %-6s %-8s %v\n", rep+1, s.reps, sc.name, k.name, r)
				all.add(sc.name, k.name, r)
			}
		}
	}
	if len(all) == 0 {
		return errors.New("there is no such scenario")
	}
	if s.profiles != "" {
		return nil
	}
	version, err := exec.Command(meta1, "version").Output()
	if err != nil {
		return fmt.Errorf("asking for the version: %w", err)
	}
	return writeReport(s, strings.TrimSpace(string(version)), all)
}

// result is what one run measured.
type result struct {
	rate                 float64       // messages per second, from the first (or the flush) to the last arrival
	accepted             float64       // messages per second, until the last was acknowledged
	cpu                  float64       // seconds of processor time per 1,000 messages
	load                 float64       // those of source and sink, on the same processors
	median, p99          time.Duration // from MAIL to the arrival
	memory               float64       // MiB, at most
	tried, listed        time.Duration // scenario defer: until all were tried, and of a listing
	lost, twice, damaged int
	damage               string // an example
	failures             int    // messages that were not acknowledged
	plain                int    // messages that came to the sink without TLS, in a scenario with it
	resumed              int    // connections of the source that resumed a TLS session
	firstFailure         string
}

func (r result) String() string {
	text := fmt.Sprintf("%.0f messages/s, median %v, p99 %v, %.3f CPU s per 1,000 and %.3f of source and sink, %.0f MiB", r.rate,
		r.median.Round(100*time.Microsecond), r.p99.Round(100*time.Microsecond), r.cpu, r.load, r.memory)
	if r.resumed > 0 {
		text += fmt.Sprintf(", %d TLS sessions resumed", r.resumed)
	}
	if wrong(r) > 0 {
		text += fmt.Sprintf("; %d lost, %d twice, %d damaged %s, %d in plain text; %d not accepted: %s",
			r.lost, r.twice, r.damaged, r.damage, r.plain, r.failures, r.firstFailure)
	}
	return text
}

// measure starts an MTA of a kind, sends it the mail of a scenario, and ends it.
func measure(s settings, sc scenario, k kind) (r result, err error) {
	dir, err := os.MkdirTemp(s.dir, "meta1-bench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return r, err
	}
	keys, err := makeKeys(sc.tls)
	if err != nil {
		return r, err
	}
	if keys != nil && s.x25519 {
		keys.source.CurvePreferences = []tls.CurveID{tls.X25519}
	}
	sink, err := newSink(sc, keys)
	if err != nil {
		return r, err
	}
	defer sink.close()
	if sc.milter {
		addr, end, err := startNoop()
		if err != nil {
			return r, err
		}
		defer end()
		sink.milter = addr
	}
	group, err := newGroup()
	if err != nil {
		return r, err
	}
	defer group.end()
	m, err := k.start(dir, sink, group)
	if err != nil {
		return r, err
	}
	if err := m.ready(); err != nil {
		return r, fmt.Errorf("%w\n%s", err, m.lastWords())
	}
	stop := group.watch()
	if s.profiles != "" {
		done := make(chan error, 1)
		go func() { done <- m.profile(s.profiles) }()
		defer func() { err = errors.Join(err, <-done) }()
	}
	begin, used, own := time.Now(), group.processor(), ownProcessor()
	src := newSource(sc, m.addr, sink)
	src.send()
	r.accepted = float64(src.acknowledged()) / time.Since(begin).Seconds()
	if sc.deferred {
		sink.waitRefused(src.acknowledged())
		r.tried = time.Since(begin)
		listing := time.Now()
		if err := m.list(); err != nil {
			return r, err
		}
		r.listed = time.Since(listing)
		sink.recover()
		begin = time.Now()
		for n := src.acknowledged(); sink.arrivals() < n && time.Since(begin) < quiet; {
			if err := m.flush(); err != nil { // again: it leaves alone what is just being tried
				return r, err
			}
			sink.waitArrived(n, 200*time.Millisecond)
		}
	}
	last := sink.waitArrived(src.acknowledged(), quiet)
	r.rate = float64(sink.arrivals()) / last.Sub(begin).Seconds()
	r.cpu = (group.processor() - used).Seconds() * 1000 / float64(sc.n)
	r.load = (ownProcessor() - own).Seconds() * 1000 / float64(sc.n)
	r.memory = stop()
	src.compare(&r)
	return r, nil
}
