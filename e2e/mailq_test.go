package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs"
	"meta1/queue/records"
)

// longQueue is a spool with very many deferred messages, of one recipient each; the destinations and
// reasons are few, the addresses are not.
type longQueue struct {
	*mta
	n int
}

// reasons of a longQueue, by the number of the message.
func delayReason(i int) string {
	return []string{
		"451 4.4.1 connect to mx.example.com[192.0.2.1]:25: connection refused",
		"451 4.7.1 <recipient@example.com>: Recipient address rejected: \"greylisted\", see https://example.com/?a&b",
		"421 4.7.0 [TSS04] too much mail; try again later",
	}[i%3]
}

// newLongQueue makes the spool and starts meta1 on it.
func newLongQueue(t *testing.T, n int) *longQueue {
	m := newMTA(t, settings{})
	conf, err := os.ReadFile(m.conf)
	if err != nil { // what waits longer than retry_delay_max is tried at once
		t.Fatal(err)
	}
	writeFile(t, m.conf, strings.Replace(string(conf), "retry_delay_max = 3s", "retry_delay_max = 4d", 1))
	m.start()
	m.stop()
	dir, began := m.spool+"/defedb", time.Now()
	owner := ownerOf(t, dir)
	db, err := records.Open(vfs.Real(), dir, store.Options{Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, n, time.Now().Add(-time.Hour))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(m.spool, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the queue of %d was made in %v", n, time.Since(began).Round(time.Second))
	m.start()
	return &longQueue{mta: m, n: n}
}

func ownerOf(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

// fill puts n deferred messages into a store. They are not due for days.
func fill(t *testing.T, db *records.DB, n int, arrival time.Time) {
	t.Helper()
	first, err := db.ReserveIDs(uint64(n))
	if err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	for i := range n {
		e := &msg.Envelope{
			TA: smtp.ID{Counter: first + uint64(i)}, Session: smtp.ID{Counter: first}, Arrival: arrival.Add(time.Duration(i) * time.Millisecond),
			Client: msg.Client{IP: netip.MustParseAddr("192.0.2.7"), Helo: "client.example.net", Name: "client.example.net", Protocol: "ESMTP"},
			Mail:   msg.Mail{From: smtp.Path{Local: "sender" + strconv.Itoa(i), Domain: "example.org"}},
			Rcpts:  []msg.Rcpt{{To: smtp.Path{Local: "recipient" + strconv.Itoa(i), Domain: "example.com"}}},
		}
		st := &records.State{
			Ref: records.Ref{TA: e.TA}, NextTry: arrival.Add(48*time.Hour + time.Duration(i)*time.Millisecond), Stored: arrival, Waited: time.Minute, Attempts: 3,
			Dest: fmt.Sprintf("mx:example%d.com", i%50), Reason: delayReason(i),
		}
		err := b.Accept(e, 3000, nil)
		if err == nil {
			err = b.DropAccepted(e.TA, nil)
		}
		if err == nil {
			err = b.Put(st, nil)
		}
		if err == nil && ((i+1)%5000 == 0 || i == n-1) {
			err = db.Commit(b)
			b = db.NewBatch()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.Discard()
}

// usage is what a command cost.
type usage struct {
	first, whole   time.Duration // until its first line, and its end
	client, server time.Duration // of processors
	clientMax      int64         // its largest memory, in bytes
	serverGrew     int64         // by how much the server's largest was more than its memory before
	lines          int
}

func (u usage) String() string {
	return fmt.Sprintf("%d lines; first after %v, all after %v; CPU of the client %v, of the server %v; memory of the client %d MB, more in the server %d MB", u.lines,
		u.first.Round(time.Millisecond), u.whole.Round(time.Millisecond), u.client.Round(time.Millisecond), u.server.Round(time.Millisecond), u.clientMax>>20, u.serverGrew>>20)
}

// startSmall runs a command and writes its largest memory, in KiB, to a file.
const startSmall = `
import os, sys
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) & 255)
`

// watch runs a command of meta1 and gives each line of its output to f.
func (q *longQueue) watch(f func(line []byte), args ...string) (u usage) {
	q.t.Helper()
	before, rest := cpuOf(q.t, q.cmd.Process.Pid), memoryOf(q.t, q.cmd.Process.Pid, "VmRSS")
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", q.cmd.Process.Pid), []byte("5"), 0) // the largest memory begins anew
	// What the kernel says of a program's largest memory begins with that of who started it, so a small one does.
	most := filepath.Join(q.dir, "most")
	cmd := exec.Command("/usr/bin/python3", append([]string{"-c", startSmall, most, meta1(q.t)}, append(args, "-f", q.conf)...)...)
	cmd.Dir, cmd.Stderr = q.dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		q.t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		q.t.Fatal(err)
	}
	limit := time.AfterFunc(hangs, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		if u.lines++; u.lines == 1 {
			u.first = time.Since(began)
		}
		if f != nil {
			f(lines.Bytes())
		}
	}
	if err := cmd.Wait(); err != nil || lines.Err() != nil {
		q.t.Fatalf("meta1 %s: %v %v", strings.Join(args, " "), err, lines.Err())
	}
	u.whole = time.Since(began)
	u.client = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	text, err := os.ReadFile(most)
	kb, ok := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || ok != nil {
		q.t.Fatalf("the memory of meta1 %s: %v %v", strings.Join(args, " "), err, ok)
	}
	u.clientMax = kb << 10
	u.server = cpuOf(q.t, q.cmd.Process.Pid) - before
	u.serverGrew = memoryOf(q.t, q.cmd.Process.Pid, "VmHWM") - rest
	return u
}

// cpuOf is the time of processors that a process has used.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memoryOf is a line of the status of a process, in bytes.
func memoryOf(t *testing.T, pid int, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), name+":")
	var kb int64
	if _, err := fmt.Sscanf(after, "%d kB", &kb); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return kb << 10
}

// memoryMax bounds the memory of the client, and what listing takes more in the server, in bytes: a queue of a
// million takes no more than one of ten thousand.
const memoryMax = 160 << 20

// list runs a command and checks what it costs.
func (q *longQueue) list(f func(line []byte), args ...string) {
	q.t.Helper()
	u := q.watch(f, args...)
	q.t.Logf("meta1 %s: %v", strings.Join(args, " "), u)
	if u.clientMax > memoryMax || u.serverGrew > memoryMax {
		q.t.Errorf("meta1 %s needs too much memory", strings.Join(args, " "))
	}
}

// TestMailqLong lists a long queue in every way, and chooses from it: nothing is missed or told twice, and
// the memory does not depend on the length. META1_MAILQ_ENTRIES is the length: make million.
func TestMailqLong(t *testing.T) {
	n := 10_000
	if s := os.Getenv("META1_MAILQ_ENTRIES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Parallel()
	}
	q := newLongQueue(t, n)
	of := func(reason int) int { return (n - reason + 2) / 3 }

	entries, last := 0, ""
	q.list(func(line []byte) {
		if entries++; bytes.HasPrefix(line, []byte{'S'}) {
			last = string(line)
		} else if bytes.HasPrefix(line, []byte("-- ")) && string(line) != fmt.Sprintf("-- %d Kbytes in %d messages for %d recipients", (3000*n+1023)/1024, n, n) {
			t.Errorf("%s", line)
		}
	}, "mailq")
	if entries != 4*n+2 || !strings.HasSuffix(last, fmt.Sprintf("  <sender%d@example.org>", n-1)) {
		t.Errorf("mailq prints %d lines, and last %s", entries, last)
	}
	q.listJSON()

	var sum strings.Builder
	q.list(func(line []byte) { sum.Write(line) }, "mailq", "--summary", "--json")
	var s control.Summary
	if err := json.Unmarshal([]byte(sum.String()), &s); err != nil {
		t.Fatal(err)
	}
	if s.Messages != n || s.Recipients != n || s.States["deferred"] != n || len(s.Destinations) != 50 || s.Destinations[0].Recipients != n/50 || s.Destinations[0].Ages[4] != n/50 || len(s.Reasons) != 3 {
		t.Errorf("%+v", s)
	}
	for _, r := range s.Reasons {
		if i := slices.Index([]string{delayReason(0), delayReason(1), delayReason(2)}, r.Reason); i < 0 || r.Recipients != of(i) {
			t.Errorf("%d recipients wait for %q", r.Recipients, r.Reason)
		}
	}

	choose := func(want int, args ...string) {
		t.Helper()
		done := 0
		q.list(func(line []byte) { _, _ = fmt.Sscanf(string(line), args[0]+": %d recipients", &done) }, append([]string{"queue"}, args...)...)
		if done != want {
			t.Errorf("%s: %d recipients, want %d", args, done, want)
		}
	}
	choose(0, "hold", "--min-age", "2h")
	choose(of(2), "hold", "--reason", "too much mail", "--min-age", "20m")
	choose(0, "hold", "--reason", "too much mail", "--unheld")
	choose(0, "remove", "--held", "--max-age", "10m")
	choose(n/50, "remove", "--hop", "example7.com", "--max-age", "2h")
}

// listJSON checks mailq --json: the members of postqueue -j in each object, and each message once.
func (q *longQueue) listJSON() {
	n, before := 0, ""
	q.list(func(line []byte) {
		if n++; n%997 == 0 || n == q.n { // to decode all takes longer than the rest of the test
			var m struct {
				QueueName    string `json:"queue_name"`
				QueueID      string `json:"queue_id"`
				ArrivalTime  int64  `json:"arrival_time"`
				MessageSize  int64  `json:"message_size"`
				ForcedExpire *bool  `json:"forced_expire"`
				Sender       string `json:"sender"`
				Recipients   []struct {
					Address     string `json:"address"`
					DelayReason string `json:"delay_reason"`
				} `json:"recipients"`
			}
			err := json.Unmarshal(line, &m)
			if err != nil || m.QueueName != "deferred" || m.QueueID != field(line, "queue_id") || m.ArrivalTime == 0 || m.MessageSize != 3000 || m.ForcedExpire == nil ||
				m.Sender != fmt.Sprintf("sender%d@example.org", n-1) || len(m.Recipients) != 1 || m.Recipients[0].Address != fmt.Sprintf("recipient%d@example.com", n-1) || m.Recipients[0].DelayReason != delayReason(n-1) {
				q.t.Errorf("%s: %v", line, err)
			}
		}
		id := field(line, "queue_id")
		if id <= before {
			q.t.Errorf("%s comes behind %s", id, before)
		}
		before = id
	}, "mailq", "--json")
	if n != q.n {
		q.t.Errorf("mailq --json lists %d messages", n)
	}
}

// field is a text of a line of JSON, without a look at the rest.
func field(line []byte, name string) string {
	_, rest, _ := bytes.Cut(line, []byte(`"`+name+`":"`))
	value, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(value)
}
