package client

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
)

// logLines collects log lines as maps.
type logLines struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *logLines) Write(p []byte) (int, error) {
	var m map[string]any
	if err := json.Unmarshal(p, &m); err != nil {
		return 0, err
	}
	delete(m, "time")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, m)
	return len(p), nil
}

func (l *logLines) logger() *slog.Logger {
	text := func(_ []string, a slog.Attr) slog.Attr { // as the program's own handler has it
		if s, ok := a.Value.Any().(fmt.Stringer); ok && a.Value.Kind() == slog.KindAny {
			a.Value = slog.StringValue(s.String())
		}
		return a
	}
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: text}))
}

// event is the nth line of an event, counted from 0, or nil.
func (l *logLines) event(name string, n int) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line["msg"] == name {
			if n == 0 {
				return line
			}
			n--
		}
	}
	return nil
}

// lineHas compares the fields of a line that stand in want.
func lineHas(t *testing.T, line map[string]any, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if got := line[name]; got != value {
			t.Errorf("%s=%v, want %v in %v", name, got, value, line)
		}
	}
}

// TestLog checks the lines of README 10.4.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs logLines
		n := newNetwork(
			stall(append(slices.Clone(hello), "DATA", "S: 250 ok", "S: 550 5.1.1 no, not here", "S: 250 ok", "S: 354 go", ".\r\n", "S: 250 2.0.0 queued")...),
			nil,
		)
		r := start(t, Config{Timing: true}, Deps{Log: logs.logger(), Process: 1}, n)
		q := question()
		q.Rcpts = append(q.Rcpts, q.Rcpts[0])
		if a := r.deliver(t, q); a.Session != "C010000000100000000" || a.Transaction != "C010000000200000000" {
			t.Errorf("answer %+v", a)
		}
		r.deliver(t, question())
		if len(logs.lines) != 8 {
			t.Fatalf("%d lines: %v", len(logs.lines), logs.lines)
		}
		lineHas(t, logs.lines[0], map[string]any{
			"msg": "connected", "level": "INFO", "da_se": "C010000000100000000", "status": "connected",
			"port": 25.0, "addr": "192.0.2.1", "host": "mx.example",
		})
		ids := map[string]any{"da_se": "C010000000100000000", "da_ta": "C010000000200000000", "ss_ta": "S00000000407EAE4E00"}
		for _, line := range logs.lines[1:6] {
			lineHas(t, line, ids)
		}
		lineHas(t, logs.lines[1], map[string]any{"msg": "MAIL", "mail": "<from@a.example>", "stat": 0.0, "reply": "250 ok"})
		lineHas(t, logs.lines[2], map[string]any{"msg": "RCPT", "rcpt": "<to@b.example>", "stat": 550.0, "reply": "550 5.1.1 no, not here"})
		lineHas(t, logs.lines[3], map[string]any{"msg": "RCPT", "rcpt": "<to@b.example>", "stat": 0.0, "reply": "250 ok"})
		both := map[string]any{"size": 21.0, "mail": "<from@a.example>", "rcpt": "<to@b.example>", "relay": "mx.example[192.0.2.1]:25"}
		lineHas(t, logs.lines[4], both)
		lineHas(t, logs.lines[5], both)
		lineHas(t, logs.lines[4], map[string]any{"msg": "delivery failed", "where": "rcpt", "stat": 550.0, "reply": "550 5.1.1 no, not here"})
		lineHas(t, logs.lines[5], map[string]any{"msg": "delivered", "where": "final_dot", "stat": 0.0, "reply": "250 2.0.0 queued"})
		lineHas(t, logs.lines[6], map[string]any{
			"msg": "not connected", "status": "failed", "where": "connect", "stat": 451.0,
			"reply": "451 4.4.1 connect to mx.example[192.0.2.1]:25: connection refused",
		})
		lineHas(t, logs.lines[7], map[string]any{"msg": "delivery failed", "where": "connect", "stat": 451.0})
	})
}

// TestTiming checks flag timing (README 8.6, item 3.2): the times add up to what the
// dialogue took, and a second transaction has no t_connect.
func TestTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs logLines
		n := newNetwork(acceptAll(sleep(3 * time.Second)))
		dial := n.dial
		deps := Deps{Log: logs.logger(), ReuseConnections: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			time.Sleep(2 * time.Second)
			return dial(ctx, network, addr)
		}}
		r := start(t, Config{Timing: true}, deps, nil)
		r.deliver(t, question())
		r.deliver(t, question())
		first, second := logs.event("delivered", 0), logs.event("delivered", 1)
		lineHas(t, first, map[string]any{"t_connect": 2e6, "t_eom": 3e6})
		lineHas(t, second, map[string]any{"t_connect": nil, "t_ehlo": nil, "t_eom": 3e6})
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if err := n.group.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestStatusAndMetrics asks for the snapshot and gathers the metrics; both count the
// same, also for a second client on the same registry, as after a restart.
func TestStatusAndMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	for run := 1; run <= 2; run++ {
		n := newNetwork(
			acceptAll(func() {}),
			stall(append(slices.Clone(hello), "DATA", "S: 250 ok", "S: 550 no", "S: 503 no")...),
			nil,
		)
		r := start(t, Config{}, Deps{Metrics: registry}, n)
		for range 3 {
			r.deliver(t, question())
		}
		status, err := r.ports.Status["smtpc"].Ask(context.Background(), msg.StatusQ{})
		if err != nil || status.Module != "smtpc" {
			t.Fatalf("%+v %v", status, err)
		}
		got := map[string]int64{}
		for _, v := range status.Values {
			got[v.Name] = v.Number
		}
		for name, want := range map[string]int64{
			"connections_opened": 2, "transactions": 2, "recipients_delivered": 1,
			"recipients_deferred": 1, "recipients_failed": 1, "threads_max": 1000,
		} {
			if got[name] != want {
				t.Errorf("%s=%d, want %d", name, got[name], want)
			}
		}
		// One that is hung up is busy until it is closed.
		if most := got["connections_busy_peak"]; most < 1 || most > 2 {
			t.Errorf("connections_busy_peak=%d", most)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		values := gather(t, registry)
		for name, want := range map[string]float64{
			`meta1_smtpc_recipients_total{delivered}`: 1, `meta1_smtpc_recipients_total{deferred}`: 1,
			`meta1_smtpc_recipients_total{failed}`: 1, `meta1_smtpc_connects_total{connected}`: 2,
			`meta1_smtpc_connects_total{failed}`: 1, `meta1_smtpc_delivery_seconds{}`: 3, `meta1_smtpc_content_bytes_total{}`: 21,
		} {
			if values[name] != want*float64(run) {
				t.Errorf("run %d: %s is %v, want %v", run, name, values[name], want*float64(run))
			}
		}
	}
}

// gather names each counter and histogram by its name and label values.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			values[name] = m.GetCounter().GetValue()
			if h := m.GetHistogram(); h != nil {
				values[name] = float64(h.GetSampleCount())
			}
		}
	}
	return values
}
