package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exConfig is the exit status for a wrong configuration (EX_CONFIG of sysexits.h).
const exConfig = 78

// fails starts meta1, which must end by itself, and returns its
// exit status and what it printed.
func (m *mta) fails() (code int, out string) {
	m.t.Helper()
	m.launch()
	select {
	case <-m.ended:
	case <-time.After(hangs):
		m.t.Fatal("meta1 goes on although it cannot")
	}
	return m.cmd.ProcessState.ExitCode(), tail(m.log, 100)
}

// says fails the test unless all words are in a text.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
	if strings.Contains(text, "goroutine ") {
		t.Errorf("it panicked:\n%s", text)
	}
}

// untouched fails the test if a file or folder is there.
func untouched(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s was made", path)
	}
}

// TestWrongConfiguration: exit status 78, file, line and reason, all errors at once,
// and nothing was touched.
func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		s     settings
		words []string
	}{
		"unknown option":  {settings{qmgr: "AQ_entires_max = 5;"}, []string{"meta1.conf:", "AQ_entires_max", "AQ_entries_max"}},
		"unknown section": {settings{smar: "maip x { type = hash; }"}, []string{"meta1.conf:", "maip"}},
		"wrong type":      {settings{smtps: "message_size_max = much;"}, []string{"meta1.conf:", "message_size_max", "much"}},
		"syntax":          {settings{smtpc: "IO_timeout = ;"}, []string{"meta1.conf:"}},
		"two errors": {
			settings{qmgr: "retry_delay_mix = 5;", smtps: "flags = { 9bitmime };"},
			[]string{"retry_delay_mix", "9bitmime"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMTA(t, c.s)
			code, out := m.fails()
			if code != exConfig {
				t.Errorf("exit status %d, want %d", code, exConfig)
			}
			says(t, out, c.words...)
			untouched(t, m.spool)
			if out, err := m.command("config", "check"); err == nil {
				t.Errorf("config check accepts it:\n%s", out)
			} else {
				says(t, out, c.words...)
			}
		})
	}
	t.Run("no such file", func(t *testing.T) {
		t.Parallel()
		m := newMTA(t, settings{})
		m.conf = m.dir + "/missing.conf"
		code, out := m.fails()
		if code != exConfig {
			t.Errorf("exit status %d, want %d", code, exConfig)
		}
		says(t, out, "missing.conf")
	})
	t.Run("missing map", func(t *testing.T) {
		t.Parallel()
		m := newMTA(t, settings{})
		if err := os.Remove(m.dir + "/mt"); err != nil {
			t.Fatal(err)
		}
		code, out := m.fails()
		if code == 0 {
			t.Error("exit status 0")
		}
		says(t, out, m.dir+"/mt")
	})
}

// TestPortInUse: the error names the address, and no spool is made.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"smtp", "metrics"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			m := newMTA(t, settings{})
			addr := map[string]string{"smtp": m.smtp, "metrics": m.metrics}[which]
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			code, out := m.fails()
			if code == 0 || code == exConfig {
				t.Errorf("exit status %d", code)
			}
			says(t, out, addr, "in use")
			untouched(t, m.spool)
		})
	}
}

// TestUnwritableSpool runs meta1 as an account that may not write its spool.
func TestUnwritableSpool(t *testing.T) {
	needRoot(t, "it runs meta1 as nobody")
	t.Parallel()
	m := newMTA(t, settings{})
	if err := os.Mkdir(m.spool, 0o755); err != nil { // root's
		t.Fatal(err)
	}
	m.as = &syscall.Credential{Uid: 65534, Gid: 65534}
	code, out := m.fails()
	if code == 0 {
		t.Error("exit status 0")
	}
	says(t, out, m.spool, "permission denied")
	if names := mustFiles(t, m.spool); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

// queued starts an MTA whose next hop refuses, and queues n messages in it.
func queued(t *testing.T, n, size int) (*mta, *sink) {
	t.Helper()
	s := newSink(t, "")
	s.answer(func(verb, _ string) string { return map[string]string{"RCPT": "451 4.3.0 later"}[verb] })
	m := run(t, settings{
		mailertable: toPort(t, "client.test", s.addr) + toPort(t, ".", s.addr),
		qmgr:        "orphan_grace = 1s;",
	})
	for id := range n {
		if err := sendOne(m.smtp, testMessage(id, size, fmt.Sprintf("u%d@sink.test", id))); err != nil {
			t.Fatal(err)
		}
	}
	must(t, func() error { return m.queueShows(n, "451") })
	return m, s
}

// TestDamagedStore damages a file of the store. meta1 must not start as if
// nothing had happened, must name the store, and must not remove anything.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"MANIFEST-*", "marker.manifest.*"} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			m, _ := queued(t, 5, 2000)
			m.stop()
			dir := filepath.Join(m.spool, "defedb")
			damaged := damage(t, dir, pattern)
			before := mustFiles(t, dir)
			code, out := m.fails()
			if code == 0 {
				t.Error("exit status 0")
			}
			says(t, out, dir)
			for _, name := range before {
				if _, err := os.Stat(name); err != nil {
					t.Errorf("it removed %s (%s was damaged)", name, damaged)
				}
			}
		})
	}
}

// damage overwrites a file with zeros in its place, or removes it if it is empty.
func damage(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	name := names[len(names)-1]
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() == 0 {
		err = os.Rename(name, strings.Replace(name, "MANIFEST-", "MANIFEST-9", 1))
	} else {
		err = os.WriteFile(name, make([]byte, info.Size()), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestContentWithoutEnvelope puts a content file into the spool that no envelope
// names. It must not be sent and must not keep meta1 from its work; it is litter
// and is named in the log.
func TestContentWithoutEnvelope(t *testing.T) {
	t.Parallel()
	const n = 5
	m, s := queued(t, n, 300_000)
	m.stop()
	left := contentFiles(t, m.spool)
	if len(left) != n {
		t.Fatalf("%d content files in the spool, want %d", len(left), n)
	}
	data, err := os.ReadFile(left[0])
	if err != nil {
		t.Fatal(err)
	}
	const ta = "S000000000000000F00"
	litter := filepath.Join(m.spool, "F", ta)
	if err := os.WriteFile(litter, data, 0o640); err != nil {
		t.Fatal(err)
	}
	m.start()
	s.answer(func(string, string) string { return "" })
	s.waitFor(n)
	m.queueEmpty()
	checkArrivals(t, s, n, func(id int) message { return testMessage(id, 300_000, fmt.Sprintf("u%d@sink.test", id)) })
	must(t, func() error {
		if _, err := os.Stat(litter); err == nil {
			return fmt.Errorf("%s is still there after the grace time", litter)
		}
		return nil
	})
	says(t, tail(m.log, 10000), ta)
}

// TestEnvelopeWithoutContent removes the content file of one message. Its sender
// gets a DSN, and the others are delivered.
func TestEnvelopeWithoutContent(t *testing.T) {
	t.Parallel()
	const n = 5
	m, s := queued(t, n, 300_000)
	m.stop()
	left := contentFiles(t, m.spool)
	if len(left) != n {
		t.Fatalf("%d content files in the spool, want %d", len(left), n)
	}
	lost, err := os.ReadFile(left[2])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(left[2]); err != nil {
		t.Fatal(err)
	}
	m.start()
	s.answer(func(string, string) string { return "" })
	s.waitFor(n) // the others, and the DSN
	m.queueEmpty()
	seen, dsns := map[int]bool{}, 0
	for _, a := range s.arrivals() {
		if a.from == "" && a.rcpts[0] == "sender@client.test" {
			dsns++
			says(t, string(a.data), fmt.Sprintf("u%d@sink.test", testID(lost)))
		} else {
			seen[testID(a.data)] = true
		}
	}
	if len(seen) != n-1 || seen[testID(lost)] || dsns != 1 {
		t.Errorf("%d messages and %d DSNs arrived, want %d and 1", len(seen), dsns, n-1)
	}
	says(t, tail(m.log, 10000), filepath.Base(left[2]))
}
