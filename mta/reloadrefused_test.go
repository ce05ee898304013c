package mta

import (
	"log/slog"
	"strings"
	"testing"
)

// TestReloadRefused: while an upgrade goes on, and in a process that ends after it, a reload touches nothing; the answer and the log
// say so, since the new process may have read the configuration before.
func TestReloadRefused(t *testing.T) {
	for want, set := range map[string]func(*mta){
		"an upgrade goes on: reload when it has ended":   func(m *mta) { m.hand.active.Store(true) },
		"this process ends: reload the one that follows": func(m *mta) { m.stopping.Store(true) },
	} {
		log := &logBuffer{}
		m := &mta{log: slog.New(slog.NewTextHandler(log, nil))}
		set(m)
		r := m.Reload(t.Context(), false)
		if len(r.Errors) != 1 || r.Errors[0] != want || r.Generation != 1 {
			t.Errorf("%+v, want %q", r, want)
		}
		if text := log.String(); !strings.Contains(text, "reload refused") || !strings.Contains(text, want) {
			t.Errorf("the log has %q", text)
		}
	}
}
