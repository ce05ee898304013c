package mta

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/mta/control"
	"meta1/mta/supervise"
)

// logBuffer takes the log of a running MTA.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is an MTA that runs in this process.
type running struct {
	t       *testing.T
	dir     string // of its configuration; the spool is below it
	status  control.Status
	signals chan os.Signal
	log     *logBuffer
	group   *supervise.Group
	control *control.Client
}

// write writes a file of the configuration.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts an MTA and waits until it serves. mt is its mailertable.
func start(t *testing.T, mt, extra string) *running { return startAs(t, "mx.test", mt, extra) }

func startAs(t *testing.T, host, mt, extra string) *running {
	t.Helper()
	dir := shortDir(t)
	write(t, dir+"/meta1.conf", strings.Replace(config(dir, extra), "mx.test", host, 1))
	write(t, dir+"/mt", mt)
	write(t, dir+"/access", "cltaddr:127. relay\n")
	return startIn(t, dir)
}

// startIn starts the MTA whose configuration is dir/meta1.conf, and its spool dir/spool.
func startIn(t *testing.T, dir string, change ...func(*Setup)) *running {
	t.Helper()
	r := &running{t: t, dir: dir, signals: make(chan os.Signal, 4), log: &logBuffer{}, group: supervise.NewGroup(context.Background())}
	ready := make(chan control.Status, 1)
	r.group.Go(func(ctx context.Context) error {
		s := Setup{
			File: dir + "/meta1.conf", Version: "1.2", Executable: os.Args[0], Stderr: r.log, Signals: r.signals,
			Exit:  func(status int) { panic(fmt.Sprintf("exit %d", status)) },
			Ready: func(s control.Status, _ *Config) { ready <- s },
		}
		for _, f := range change {
			f(&s)
		}
		return Run(ctx, s)
	})
	t.Cleanup(r.stop)
	select {
	case r.status = <-ready:
	case <-r.group.Context().Done():
		t.Fatalf("it ended: %v\n%s", r.group.Wait(), r.log)
	case <-time.After(5 * time.Minute):
		t.Fatalf("it is not ready after 5 minutes\n%s", r.log)
	}
	r.control = control.NewClient(dir + "/spool/control")
	t.Cleanup(r.control.Close)
	return r
}

func config(dir, extra string) string {
	return fmt.Sprintf(`hostname = mx.test; working_directory = "%s/spool"; allow_root = true;
metrics { port = 0; pprof = true; }
qmgr { retry_delay_min = 1s; retry_delay_max = 1s; }
smar { mailertable { file = mt; } access_map { file = access; } }
smtps { listen_socket { address = 127.0.0.1; port = 0; } flags = { access, 8bitmime }; }
%s
`, dir, extra)
}

// shortDir is a directory whose sockets have short paths.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mta")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// stop stops it; a second call does nothing.
func (r *running) stop() {
	r.t.Helper()
	r.group.Stop()
	if err := r.group.Wait(); err != nil {
		r.t.Errorf("it ended with: %v\n%s", err, r.log)
	}
}

// address is where a section listens.
func (r *running) address(section string) string {
	r.t.Helper()
	for _, l := range r.status.Listen {
		if l.Section == section {
			return l.Address
		}
	}
	r.t.Fatalf("%s does not listen", section)
	return ""
}

func (r *running) get(path string) (status int, body string) {
	r.t.Helper()
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := c.Get("http://" + r.address("metrics") + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return a.StatusCode, string(b)
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 15_000 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s: not within 5 minutes", what)
}
