package mta

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"meta1/mta/settings"
)

// TestGlobalLog: the section log of all is that of meta1 itself and of each section that
// has none; last words go to standard error all the same.
func TestGlobalLog(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "meta1.conf")
	const text = `allow_root = true;
log { facility = local3; ident = "gateway"; }
log_file = "log";
smtps { listen_socket { type = inet; port = 2525; } log { facility = local4; } }
smtps other { id = 1; listen_socket { type = inet; port = 2526; } }
`
	for name, content := range map[string]string{file: text, filepath.Join(dir, "mt"): ""} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, _, err := Check(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range c.Commons() {
		want := settings.LogConfig{Present: true, Facility: "local3", Ident: "gateway"}
		if of.Section == "smtps" {
			want = settings.LogConfig{Present: true, Facility: "local4"}
		}
		if of.Log.Facility != want.Facility || of.Log.Ident != want.Ident || !of.Log.Present {
			t.Errorf("%s logs by %+v, want %+v", of.Section, of.Log, want)
		}
	}
	l, err := openLogs(c, dir, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop()
	if _, err := l.logger("mta", &Common{Section: settings.OwnSection, Log: c.Log}); err != nil {
		t.Fatal(err)
	}
	if len(l.current().syslog) != 1 || l.onStderr("mta").Handler() == slog.DiscardHandler {
		t.Errorf("%d connections to syslog; the last words are dropped: %v", len(l.current().syslog), l.onStderr("mta").Handler() == slog.DiscardHandler)
	}
}
