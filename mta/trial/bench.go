package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"meta1/mta/supervise"
)

// BenchConfig says what a bench measures.
type BenchConfig struct {
	// Executable is the meta1 that is measured, as a process of its own.
	Executable string
	// Dir is on the disk that is measured. A directory is made in it, and removed at the end.
	Dir      string
	Messages int // with many sessions; one session sends a fifth
	Sessions int
	Size     int // bytes of each message
}

// BenchResult is what was measured.
type BenchResult struct {
	Syncs      int           `json:"syncs"` // of 4 KiB each, at the end of a file, one after the other
	SyncMedian time.Duration `json:"-"`
	SyncP99    time.Duration `json:"-"`
	Loads      []BenchLoad   `json:"loads"`
	// CPU is the processor time of meta1 in seconds for 1,000 messages, its start and end included,
	// and Memory its largest resident memory in MiB; 0 where the system does not tell.
	CPU    float64 `json:"cpu_seconds_per_1000"`
	Memory float64 `json:"memory_mib"`
}

// BenchLoad is one load.
type BenchLoad struct {
	Sessions int `json:"sessions"`
	Messages int `json:"messages"`
	// Rate is messages a second from the first connection until the sink had the last one.
	Rate float64 `json:"messages_per_second"`
	// Median and P99 are times from MAIL to the reply to the final dot.
	Median time.Duration `json:"-"`
	P99    time.Duration `json:"-"`
}

const (
	benchSyncs    = 500
	benchSyncTime = 3 * time.Second // for all of them
	benchPatience = time.Minute     // until meta1 serves, until mail arrives without another one arriving, until it ends
	benchPause    = 10 * time.Millisecond
	benchLogShown = 2 << 10 // bytes of the end of the log in an error
)

// Bench measures the disk, and then how fast meta1 relays on this host: from a source in this
// process to a sink in this process, over the loopback interface, with the settings that it has by
// default. All mail is accepted and arrives, or it is an error. ctx ends it early.
func Bench(ctx context.Context, cfg BenchConfig) (r BenchResult, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "meta1-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := r.measureSyncs(ctx, filepath.Join(dir, "disk")); err != nil {
		return r, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	b := bench{cfg: cfg, dir: dir, sink: NewSink(SinkConfig{})}
	g := supervise.NewGroup(ctx)
	defer func() {
		g.Stop()
		err = errors.Join(err, g.Wait())
	}()
	g.Go(func(ctx context.Context) error { return b.sink.Serve(ctx, l) })
	if err := b.start(ctx, l.Addr().(*net.TCPAddr).Port); err != nil {
		return r, err
	}
	g.Go(func(context.Context) error { b.wait(); return nil })
	defer func() { err = errors.Join(err, b.stop(&r)) }()
	if err := b.ready(ctx); err != nil {
		return r, err
	}
	for _, load := range []BenchLoad{{Sessions: 1, Messages: max(cfg.Messages/5, 1)}, {Sessions: cfg.Sessions, Messages: cfg.Messages}} {
		if err := b.run(ctx, &load); err != nil {
			return r, err
		}
		r.Loads = append(r.Loads, load)
	}
	return r, nil
}

// measureSyncs appends to a file and makes it durable, again and again.
func (r *BenchResult) measureSyncs(ctx context.Context, name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close() // it is of no use any more
	var took []time.Duration
	block := bytes.Repeat([]byte{'x'}, 4<<10)
	for start := time.Now(); len(took) < benchSyncs && time.Since(start) < benchSyncTime && ctx.Err() == nil; {
		if _, err := f.Write(block); err != nil {
			return err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	if len(took) > 0 {
		slices.Sort(took)
		r.Syncs, r.SyncMedian, r.SyncP99 = len(took), took[len(took)/2], took[len(took)*99/100]
	}
	return ctx.Err()
}

// bench is one run of meta1.
type bench struct {
	cfg     BenchConfig
	dir     string
	sink    *Sink
	address string // of meta1
	log     *os.File
	process *exec.Cmd
	ended   chan struct{} // closed when it has ended
	sent    int
}

// benchConf relays everything from this host to the sink.
const benchConf = `hostname = "bench.invalid";
working_directory = "spool";
allow_root = true;
qmgr { smtps { connection_rate_max = 1000000; connections_max = 1000000; } }
smar {
  mailertable { file = "mt"; }
  access_map { file = "access"; }
}
smtps {
  flags = { 8bitmime, access };
  listen_socket { type = inet; address = 127.0.0.1; port = %d; }
}
smtpc { }
`

// start starts meta1, which is to deliver to a port.
func (b *bench) start(ctx context.Context, sinkPort int) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	b.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for name, text := range map[string]string{
		"meta1.conf": fmt.Sprintf(benchConf, port),
		"mt":         fmt.Sprintf(". %d^esmtp:[127.0.0.1]\n", sinkPort),
		"access":     "cltaddr:127. relay\n",
	} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if b.log, err = os.Create(filepath.Join(b.dir, "log")); err != nil {
		return err
	}
	b.process = exec.CommandContext(ctx, b.cfg.Executable, "serve", "--hints", "never", "-f", "meta1.conf")
	b.process.Dir, b.process.Stdout, b.process.Stderr = b.dir, b.log, b.log
	b.process.Cancel = func() error { return b.process.Process.Signal(syscall.SIGTERM) }
	b.process.WaitDelay = benchPatience
	b.ended = make(chan struct{})
	if err := b.process.Start(); err != nil {
		return errors.Join(err, b.log.Close())
	}
	return nil
}

// freePort is a port of the loopback interface that nobody listens on now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// wait waits until meta1 ends.
func (b *bench) wait() {
	_ = b.process.Wait() // its state tells
	close(b.ended)
}

// ready waits until meta1 serves.
func (b *bench) ready(ctx context.Context) error {
	for limit := time.Now().Add(benchPatience); ; {
		conn, err := net.Dial("tcp", b.address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-b.ended:
			return b.failed("meta1 has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(benchPause):
		}
		if time.Now().After(limit) {
			return b.failed("meta1 does not listen")
		}
	}
}

// failed is an error with the end of meta1's log.
func (b *bench) failed(what string) error {
	text, err := os.ReadFile(b.log.Name())
	if err != nil {
		return fmt.Errorf("%s, and its log cannot be read: %w", what, err)
	}
	return fmt.Errorf("%s; the end of its log: %s", what, text[max(len(text)-benchLogShown, 0):])
}

// run sends the messages of one load and waits until all have arrived.
func (b *bench) run(ctx context.Context, load *BenchLoad) error {
	before := b.sink.Stats().Messages
	start := time.Now()
	sent := Send(ctx, SourceConfig{
		Network: "tcp", Addr: b.address, From: "source@bench.invalid", To: "u%d@sink.invalid", Messages: load.Messages, Sessions: load.Sessions,
		Rcpts: 1, Size: b.cfg.Size, Pipeline: true, Timeout: benchPatience,
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case sent.Failed > 0:
		return b.failed(fmt.Sprintf("%d messages were not accepted: %v", sent.Failed, sent.Replies))
	}
	b.sent += sent.Accepted
	arrived, moved := before, time.Now()
	for arrived < before+int64(load.Messages) {
		time.Sleep(time.Millisecond)
		if n := b.sink.Stats().Messages; n != arrived {
			arrived, moved = n, time.Now()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(moved) > benchPatience:
			return b.failed(fmt.Sprintf("%d messages have not arrived", before+int64(load.Messages)-arrived))
		}
	}
	load.Rate = float64(load.Messages) / time.Since(start).Seconds()
	load.Median, load.P99 = sent.Median, sent.P99
	return nil
}

// stop ends meta1 and notes what it has used.
func (b *bench) stop(r *BenchResult) error {
	_ = b.process.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-b.ended:
	case <-time.After(benchPatience):
		_ = b.process.Process.Kill()
		<-b.ended
	}
	if st := b.process.ProcessState; st != nil && b.sent > 0 {
		r.CPU = (st.UserTime() + st.SystemTime()).Seconds() * 1000 / float64(b.sent)
		r.Memory = peakMemory(st)
	}
	return b.log.Close()
}

// peakMemory is the largest resident memory of a process in MiB.
func peakMemory(st *os.ProcessState) float64 {
	u, ok := st.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(u.Maxrss) / maxrssPerMiB
}
