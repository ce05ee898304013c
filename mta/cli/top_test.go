package cli

import (
	"strings"
	"testing"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
)

// TestTop: what top shows fits into its window, has all parts, and cannot steer the terminal.
func TestTop(t *testing.T) {
	now := time.Unix(1795314258, 0).UTC()
	sum := control.NewSummarizer(now)
	for range 50 {
		sum.Add(&msg.ListEntry{State: msg.StateDeferred, Arrival: now.Add(-time.Hour), Dest: "mx:a\x1b[2J.test", Reason: "451 4.7.1 later\r\n", NextTry: now.Add(time.Minute)})
	}
	v := &topView{
		Stats: control.Stats{
			Time: now, Started: now.Add(-time.Hour), Accepting: "yes", Counts: map[string]int64{"accepted": 120},
			Now: map[string]int64{"sessions": 3, "sessions_max": 1000}, Rates: map[string]map[string]float64{"1m": {"accepted": 2}},
		},
		Summary: sum.Summary(),
		Hosts: control.Hosts{Hosts: []control.Host{
			{Host: "busy.test", State: msg.HostServes, Waiting: 9}, {Host: "closed.test", State: msg.HostClosed, Until: now, Reason: "no route"},
		}},
		Connections: control.Connections{Connections: []control.Connection{{ID: "S2", Direction: "in", Peer: "192.0.2.1", State: "data", Since: now.Add(-5 * time.Second)}}},
		Drain:       control.Drain{Phase: control.Draining, Reason: "upgrade"},
	}
	before := &topView{Stats: control.Stats{Time: now.Add(-2 * time.Second), Counts: map[string]int64{"accepted": 100}}}
	for _, size := range []struct{ width, height int }{{100, 40}, {40, 12}, {1, 1}} {
		var out strings.Builder
		if err := v.print(&out, before, size.width, size.height, time.UTC); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		if n := strings.Count(text, "\n"); n > max(size.height, 10) {
			t.Errorf("%d lines of %d", n, size.height)
		}
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > max(size.width, 20) {
				t.Errorf("%d columns of %d: %q", n, size.width, line)
			}
		}
		if strings.ContainsAny(text, "\x1b\r") {
			t.Errorf("%q", text)
		}
		if size.width < 100 {
			continue
		}
		for _, want := range []string{"draining: upgrade", "600.0", "120.0", "mx:a?[2J.test", "451 4.7.1 later", "192.0.2.1", "data"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		if strings.Index(text, "closed.test") > strings.Index(text, "busy.test") {
			t.Errorf("closed hosts come first:\n%s", text)
		}
	}
}
