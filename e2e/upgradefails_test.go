package e2e

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestUpgradeFails: whatever is wrong with the new binary or the configuration, the old process goes on with the
// queue, and says why.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := newLineage(t, settings{mailertable: toPort(t, ".", s.addr)})
	m.begin()
	first := m.pid
	conf := readFile(t, m.conf)
	// Configurations with which the new process ends, or hangs, when it has the queue: the store is a damaged one, or
	// its manifest is a FIFO into which nobody writes.
	for _, store := range []string{"damaged", "hanging"} {
		writeFile(t, m.dir+"/"+store+".conf", strings.Replace(conf, "qmgr {", `qmgr { DEFEDB { base_directory = "`+store+`"; }`, 1))
		dir := m.spool + "/" + store
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir+"/marker.manifest.000001.MANIFEST-000001", "")
		if store == "damaged" {
			writeFile(t, dir+"/MANIFEST-000001", "garbage")
		} else if err := syscall.Mkfifo(dir+"/MANIFEST-000001", 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := output(exec.Command("chown", "-R", "--reference="+m.spool, dir)); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	writeFile(t, m.dir+"/elsewhere.conf", strings.Replace(conf, m.spool, m.dir+"/other", 1))
	tests := []struct{ name, serve, conf, want string }{
		{"it is gone", "-", conf, "no such file or directory"},
		{"it is something else", "echo", conf, `is no meta1: its version is "hello"`},
		{"it hangs at once", "sleep", conf, "version has not ended within 1s"},
		{"a wrong configuration", "", conf + "\nsmtps wrong { frobnicate = 1; }\n", "meta1.conf:"},
		{"it crashes", "exit 3", conf, "the new process ended with exit status 3"},
		{"it is killed", "kill -9 $$", conf, "the new process ended with signal killed"},
		{"it hangs", "exec sleep 1000", conf, "the new process was not prepared within 1s"},
		{"another queue", "exec $REAL serve -f elsewhere.conf", conf, "an upgrade cannot change that"},
		{"a port of somebody", `exec $REAL serve -f "$3"`, strings.Replace(conf, "port = "+port(t, m.metrics), "port = "+port(t, s.addr), 1), "address already in use"},
		{"it fails with the queue", "exec $REAL serve -f damaged.conf", conf, "damaged"},
		{"it hangs with the queue", "exec $REAL serve -f hanging.conf", conf, "the new process was not ready within 1s"},
	}
	for _, tt := range tests {
		switch tt.serve {
		case "-":
			if err := os.Remove(m.program); err != nil {
				t.Fatal(err)
			}
		case "echo":
			m.replace([]byte("#!/bin/sh\necho hello\n"))
		case "sleep":
			m.replace([]byte("#!/bin/sh\nexec sleep 1000\n"))
		case "":
			m.install(meta1(t))
		default:
			m.script(tt.serve)
		}
		writeFile(t, m.conf, tt.conf)
		r := m.upgrade("--limit", "1s")
		if r.Done || r.Old.PID != first || !strings.Contains(r.Error, tt.want) {
			t.Errorf("%s: %+v, want %s", tt.name, r, tt.want)
		}
		if r.New.PID != 0 && lives(r.New.PID) {
			t.Errorf("%s: the new process %d lives", tt.name, r.New.PID)
		}
		n := s.count()
		if err := sendOne(m.smtp, testMessage(n, 500, "u@a.test")); err != nil {
			t.Fatalf("%s: the old process takes no mail: %v", tt.name, err)
		}
		s.waitFor(n + 1)
	}
	writeFile(t, m.conf, conf)
	m.install(meta1(t))
	if r := m.upgrade(); !r.Done || r.Old.PID != first {
		t.Errorf("a good one: %+v", r)
	}
	m.queueEmpty()
	m.stopAll()
}
