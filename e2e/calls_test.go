package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// callsMax is how many calls of the system a message of 1 KiB may cost at most, in and out over connections
// that are kept, from one client that uses PIPELINING: what they are for, and how many they were when this
// was written, with room for what a busy machine changes. Time is no part of it.
// Lower a figure when it falls for good (docs/performance.md).
var callsMax = map[string]float64{
	"write to a socket":  4.5, // 4: two times replies; MAIL, RCPT and DATA; the content. A further connection has 2 more
	"read from a socket": 6.1, // 4.3: commands, content, two times replies; more if they come in pieces
	"read of nothing":    6.1, // 0.8: the Go runtime tries to read before it waits, so it is each read at most
	"sync":               2.1, // 1.0: the record of a delivery shares the next sync, if that is not too late
	"write to a file":    4.1, // 1.1: the log of the store for each sync; lines of the log each 50 ms
	"stat":               2.1, // 1.0: for each sync
	"other":              1.0, // 0.02: statfs
}

// TestCallsPerMessage counts the calls of the system for a message, which are most of what it costs.
func TestCallsPerMessage(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr)})
	calls := m.dir + "/calls"
	// What the runtime's scheduler does depends on the machine.
	const scheduling = "exit,futex,nanosleep,epoll_pwait,sched_yield,tgkill,getpid,gettid,rt_sigreturn,rt_sigprocmask,sigaltstack,clone,clone3,prctl,mmap,munmap,madvise,restart_syscall,epoll_ctl,rseq,set_robust_list"
	strace := peerCommand(t, "strace").Path
	wrapper := m.dir + "/traced"
	writeFile(t, wrapper, fmt.Sprintf("#!/bin/sh\nexec %s -D -f --seccomp-bpf -q -y -e 'trace=!%s' -e signal=none -o %s %s \"$@\"\n", strace, scheduling, calls, meta1(t)))
	if err := os.Chmod(wrapper, 0o755); err != nil {
		t.Fatal(err)
	}
	m.launchFrom(wrapper)
	m.ready()
	const warm, n = 10, 100
	k, err := dial(m.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	send := func(from, to int) {
		for id := from; id < to; id++ {
			if err := k.send(testMessage(id, 1024, fmt.Sprintf("u%d@a.test", id))); err != nil {
				t.Fatal(err)
			}
		}
		s.waitFor(to)
	}
	send(0, warm)
	if _, err := k.cmd("NOOP begin"); err != nil {
		t.Fatal(err)
	}
	send(warm, warm+n)
	if _, err := k.cmd("NOOP end"); err != nil {
		t.Fatal(err)
	}
	m.stop()
	must(t, func() error {
		if !strings.Contains(string(readFile(t, calls)), "+++ exited with 0") {
			return fmt.Errorf("strace has not written all")
		}
		return nil
	})
	counts := classes(t, string(readFile(t, calls)))
	if counts["write to a socket"] < 4*n || counts["sync"] < n {
		t.Errorf("strace has not seen all: %v", counts)
	}
	for class, count := range counts {
		each := float64(count) / n
		t.Logf("%-20s %6.2f a message", class, each)
		if limit, ok := callsMax[class]; !ok || each > limit {
			t.Errorf("%s: %.2f for each message, want at most %.1f", class, each, limit)
		}
	}
}

var callLine = regexp.MustCompile(`^\d+ +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)$`)

// classes counts the calls between the two marks, by what they are for.
func classes(t *testing.T, trace string) map[string]int {
	t.Helper()
	_, trace, begun := strings.Cut(trace, "NOOP begin")
	trace, _, ended := strings.Cut(trace, "NOOP end")
	if !begun || !ended {
		t.Fatalf("strace shows no marks:\n%.2000s", trace)
	}
	counts := map[string]int{}
	other := map[string]int{}
	for line := range strings.Lines(trace) {
		m := callLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || m[2] != "(" { // the end of a call that another one interrupted
			if m != nil && m[1] == "read" && strings.Contains(m[3], "EAGAIN") {
				counts["read of nothing"]++
				counts["read from a socket"]--
			}
			continue
		}
		name, args := m[1], m[3]
		file := args[:min(len(args), 40)]
		socket := strings.Contains(file, "<socket:")
		switch {
		case strings.Contains(file, "<anon_inode:[event"): // the runtime's
		case name == "read" && strings.Contains(args, "EAGAIN"):
			counts["read of nothing"]++
		case name == "read" && socket:
			counts["read from a socket"]++
		case name == "write" && socket:
			counts["write to a socket"]++
		case name == "write", name == "pwrite64", name == "writev":
			counts["write to a file"]++
		case name == "fsync", name == "fdatasync", name == "sync_file_range":
			counts["sync"]++
		case strings.Contains(name, "stat"):
			counts["stat"]++
		default:
			counts["other"]++
			other[name]++
		}
	}
	t.Log("other: ", other)
	return counts
}
