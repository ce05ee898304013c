package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSinkAndSource: "meta1 source" sends through meta1 to "meta1 sink", which refuses, delays
// and cuts, and all arrives.
func TestSinkAndSource(t *testing.T) {
	t.Parallel()
	const n = 300
	at := freeAddr(t)
	sink := exec.Command(meta1(t), "sink", "--listen", at, "--json", "--on", "rcpt 20% reply 450 4.2.1 try later", "--on", "dot 5% cut", "--on", "connect delay 5ms")
	var out strings.Builder
	sink.Stdout = &out
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sink.Wait() }()
	t.Cleanup(func() { _ = sink.Process.Kill() })
	m := run(t, settings{mailertable: toPort(t, ".", at)})
	text, err := commandIn(t, "", nil, "source", "--server", m.smtp, "--count", "300", "--sessions", "10", "--to", "u%d@sink.test", "--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var sent struct{ Accepted, Failed int }
	if err := json.Unmarshal([]byte(text), &sent); err != nil || sent.Accepted != n || sent.Failed != 0 {
		t.Fatalf("%v\n%s", err, text)
	}
	m.queueEmpty()
	if err := sink.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	var seen struct{ Messages, Refusals, Cuts int }
	if err := json.Unmarshal([]byte(out.String()), &seen); err != nil || seen.Messages != n || seen.Refusals == 0 || seen.Cuts == 0 {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestBench: "meta1 bench" measures a meta1 of its own, all mail arrives, and nothing is left.
func TestBench(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text, err := commandIn(t, "", nil, "bench", "--dir", dir, "--count", "50", "--sessions", "5", "--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var r struct {
		Syncs  int
		Median float64 `json:"sync_median_ms"`
		CPU    float64 `json:"cpu_seconds_per_1000"`
		Memory float64 `json:"memory_mib"`
		Loads  []struct {
			Sessions, Messages int
			Rate               float64 `json:"messages_per_second"`
			Median             float64 `json:"median_ms"`
		}
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Syncs == 0 || r.Median <= 0 || r.CPU <= 0 || r.Memory < 1 || len(r.Loads) != 2 {
		t.Fatalf("%v\n%s", err, text)
	}
	for i, sessions := range []int{1, 5} {
		if l := r.Loads[i]; l.Sessions != sessions || l.Messages != []int{10, 50}[i] || l.Rate <= 0 || l.Median <= 0 {
			t.Errorf("load %d: %+v", i, l)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
	if text, err := commandIn(t, "", nil, "bench", "--dir", filepath.Join(dir, "nowhere")); err == nil {
		t.Errorf("a directory that is not there: %s", text)
	}
}
