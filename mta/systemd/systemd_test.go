package systemd

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	Notify("READY=1")
	b := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"x")
	Notify("READY=1") // nobody there: no harm
}

// TestWatchdogInterval: only what systemd asks of this process counts.
func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"200000", "", 200 * time.Millisecond},
		{"200000", "17", 200 * time.Millisecond},
		{"200000", "18", 0},
		{"0", "17", 0},
		{"-1", "17", 0},
		{"soon", "17", 0},
		{"86400000000", "", 24 * time.Hour},
		{"86400000001", "", 0},
	} {
		env := map[string]string{"WATCHDOG_USEC": c.usec, "WATCHDOG_PID": c.pid}
		if got := WatchdogInterval(func(name string) string { return env[name] }, 17); got != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}
