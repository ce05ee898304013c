package mta

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta1/mta/supervise"
)

// TestReloadLogs: where and how the log is written changes with a reload, and not with one that fails.
func TestReloadLogs(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "log_file = first;")
	read := func(file string) string {
		text, _ := os.ReadFile(r.dir + "/spool/" + file)
		return string(text)
	}
	logged := func(file, want string) {
		t.Helper()
		eventually(t, want+" in "+file, func() bool {
			_ = r.offer("smtps", "127.0.0.1", "x@a.test", "y@a.test")
			return strings.Contains(read(file), want)
		})
	}
	logged("first", "module=smtps")

	// Another part of the configuration is wrong, and then the second of two files.
	r.reconfigure("log_file = second;", "8bitmime };", `8bitmime }; tls { cert_file = "no.pem"; key_file = "no.key"; }`)
	r.refusesReload("no.pem")
	if err := os.MkdirAll(r.dir+"/spool/logs/smar.log", 0o755); err != nil {
		t.Fatal(err)
	}
	r.reconfigure("log_directory = logs;")
	r.refusesReload("smar.log")
	if list, err := os.ReadDir(r.dir + "/spool/logs"); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := os.Stat(r.dir + "/spool/second"); err == nil {
		t.Error("the log file of a reload that failed is there")
	}
	logged("first", "reload failed: nothing has changed")

	if err := os.Remove(r.dir + "/spool/logs/smar.log"); err != nil {
		t.Fatal(err)
	}
	r.reconfigure("log_directory = logs; log_format = json;")
	r.reload()
	first := read("first")
	logged("logs/smtps.log", `"module":"smtps"`)
	logged("logs/mta.log", `"event":"option changed"`)
	if now := read("first"); now != first {
		t.Errorf("the file that went has more: %q", strings.TrimPrefix(now, first))
	}

	socket := r.dir + "/spool/syslog"
	daemon, err := net.ListenPacket("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	r.reconfigure(fmt.Sprintf("log_level = 12; log { facility = local0; ident = gate; server = %q; }", socket), "log_level = 12;", "", "8bitmime };", "8bitmime }; log_level = 4;")
	r.reload()
	buffer := make([]byte, 64<<10)
	_ = daemon.SetReadDeadline(time.Now().Add(5 * time.Minute))
	for text := ""; !strings.Contains(text, "generation=3"); {
		n, _, err := daemon.ReadFrom(buffer)
		if err != nil {
			t.Fatal(err)
		}
		if text = string(buffer[:n]); !strings.HasPrefix(text, "<13") || !strings.Contains(text, "gate[") {
			t.Fatalf("%q", text)
		}
	}
	r.reconfigure("")
	r.reload()
	eventually(t, "a line on standard error", func() bool { return strings.Contains(r.log.String(), "generation=4") })
}

// TestReloadLosesNoLine: each line that is logged while the files change is in one of both, and whole.
func TestReloadLosesNoLine(t *testing.T) {
	dir := t.TempDir()
	conf := func(file string) *Config { return &Config{LogFile: file, LogFormat: "text"} }
	l, err := openLogs(conf("a"), dir, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	of := &Common{Section: unitQueue, LogLevel: 9}
	log, err := l.logger(unitQueue, of)
	if err != nil {
		t.Fatal(err)
	}
	l.start()
	const loggers, lines = 4, 500
	g := supervise.NewGroup(t.Context())
	for i := range loggers {
		log := log.With("logger", i)
		g.Go(func(context.Context) error {
			for n := range lines {
				log.Info("line", "n", n)
			}
			return nil
		})
	}
	for i := range 20 {
		c := conf([]string{"b", "a"}[i%2])
		c.QueueOf = *of
		_, commit, _, err := l.prepare(c)
		if err != nil {
			t.Fatal(err)
		}
		commit()
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	l.stop()
	seen := map[string]int{}
	for _, name := range []string{"a", "b"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			_, rest, _ := strings.Cut(line, "event=line, ")
			seen[rest]++
		}
	}
	for i := range loggers {
		for n := range lines {
			if key := fmt.Sprintf("logger=%d, n=%d\n", i, n); seen[key] != 1 {
				t.Fatalf("%q is there %d times", key, seen[key])
			}
		}
	}
	if len(seen) != loggers*lines {
		t.Errorf("%d different lines", len(seen))
	}
}
