package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLittleMemory: 1000 clients send messages of 120 KB to a next hop that takes 300 ms for
// each, and meta1 has 256 MB of memory for all of its defaults. It is slower, but alive, and
// everything that was acknowledged arrives.
func TestLittleMemory(t *testing.T) {
	group := newMemoryGroup(t, 256<<20)
	l := newLedger(t, func(int) int { return 120_000 })
	s := newSink(t, "")
	s.keep = l.arrive
	s.answer(func(verb, _ string) string {
		if verb == "." {
			time.Sleep(300 * time.Millisecond) // the next hop's time
		}
		return ""
	})
	m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr)})
	m.group = group.path
	m.start()
	if out, err := m.command("ctl", "status"); err != nil || !strings.Contains(out, "content_memory_max is") {
		t.Errorf("ctl status does not tell what was lowered: %v\n%s", err, out)
	}
	stop := make(chan struct{})
	senders := l.reload(m.smtp, 1000, stop)
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		m.alive()
	}
	close(stop)
	senders.Wait()
	acked, _, _ := l.missing()
	if acked < 500 {
		t.Errorf("%d messages were acknowledged within 8 seconds", acked)
	}
	m.alive()
	s.answer(func(string, string) string { return "" })
	must(t, l.complete)
	m.alive()
	t.Logf("%d messages, %d of them twice, with at most %s bytes of memory", acked, l.duplicates(), group.peak())
	m.stop()
}

// memoryGroup is a control group with a limit of memory.
type memoryGroup struct {
	path     string
	peakFile string
}

// newMemoryGroup makes a group of version 2, or of version 1 where that has the memory. It
// skips the test if neither can be made.
func newMemoryGroup(t *testing.T, limit int64) memoryGroup {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Skip("no control groups: " + err.Error())
	}
	var why []string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		g, limitFile := memoryGroup{}, ""
		switch {
		case len(f) < 4:
			continue
		case f[2] == "cgroup2":
			_ = os.WriteFile(filepath.Join(f[1], "cgroup.subtree_control"), []byte("+memory"), 0) // perhaps it is on already
			limitFile, g.peakFile = "memory.max", "memory.peak"
		case f[2] == "cgroup" && strings.Contains(","+f[3]+",", ",memory,"):
			limitFile, g.peakFile = "memory.limit_in_bytes", "memory.max_usage_in_bytes"
		default:
			continue
		}
		if g.path, err = os.MkdirTemp(f[1], "meta1-e2e"); err != nil {
			why = append(why, err.Error())
			continue
		}
		t.Cleanup(func() { _ = within(func() error { return os.Remove(g.path) }) }) // it is busy for a moment
		file, err := os.OpenFile(filepath.Join(g.path, limitFile), os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprint(file, limit)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			why = append(why, err.Error())
			continue
		}
		_ = os.WriteFile(filepath.Join(g.path, "memory.swap.max"), []byte("0"), 0)
		return g
	}
	t.Skip("no control group with a limit of memory can be made: " + strings.Join(why, "; "))
	return memoryGroup{}
}

// peak is the most memory that was used, as text.
func (g memoryGroup) peak() string {
	text, err := os.ReadFile(filepath.Join(g.path, g.peakFile))
	if err != nil {
		return "unknown" // before Linux 5.19
	}
	return strings.TrimSpace(string(text))
}
