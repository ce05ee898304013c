package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buildDir holds the binary; TestMain makes and removes it.
var buildDir string

// binary builds meta1 once for all tests, and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "meta1")
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version=e2e", "-o", path, ".")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, err
})

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "meta1-e2e")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755) // tests run the binary as other users, too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	buildDir = dir
	return m.Run()
}

// meta1 is the path of the built binary.
func meta1(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// settings make the configuration of one MTA. The texts go into the sections of
// the same name.
type settings struct {
	mailertable                           string
	global, qmgr, smar, smtps, smtpc, add string
	flags                                 string // further ones of smtps, each behind ", "
	spool                                 string // default: a folder of the test
}

// mta is one running meta1 and what belongs to it.
type mta struct {
	t       *testing.T
	dir     string // holds everything that follows
	conf    string // the configuration file
	spool   string // the main queue directory
	log     string // what it prints
	smtp    string // listens here
	metrics string // and here for HTTP

	as    *syscall.Credential // runs as this account; nil for the test's own
	files int                 // that it may have open, so that it cannot raise the limit; 0: no limit of ours
	group string              // the control group that it is started in; "": the test's own
	env   []string            // further variables of its environment
	cmd   *exec.Cmd           // nil while it does not run
	ended chan struct{}
}

// newMTA writes the configuration of an MTA that relays for 127.0.0.0/8.
func newMTA(t *testing.T, s settings) *mta {
	t.Helper()
	m := &mta{t: t, dir: testDir(t), smtp: freeAddr(t), metrics: freeAddr(t)}
	m.conf, m.log, m.spool = m.dir+"/meta1.conf", m.dir+"/log", s.spool
	if m.spool == "" {
		m.spool = m.dir + "/spool"
	}
	writeFile(t, m.conf, fmt.Sprintf(`# made by a test
hostname = "mta.test";
working_directory = "%s";
%s
metrics { address = 127.0.0.1; port = %s; }
%s
qmgr {
  retry_delay_min = 1s; retry_delay_max = 3s;
  smtps { connection_rate_max = 1000000; connections_max = 1000; }
  %s
}
smar {
  mailertable { file = "mt"; }
  access_map { file = "access"; }
  %s
}
smtps {
  flags = { 8bitmime, access%s };
  listen_socket { type = inet; address = 127.0.0.1; port = %s; }
  %s
}
smtpc { %s }
%s
`, m.spool, account(), port(t, m.metrics), s.global, s.qmgr, s.smar, s.flags, port(t, m.smtp), s.smtps, s.smtpc, s.add))
	writeFile(t, m.dir+"/mt", s.mailertable)
	writeFile(t, m.dir+"/access", "cltaddr:127. relay\n")
	return m
}

// account are the options for a start as root: what serves mail is then nobody.
func account() string {
	if os.Geteuid() != 0 {
		return ""
	}
	return `user = "nobody"; group = "nogroup";`
}

// testDir is a short path, because sockets live below it, which every user may enter.
func testDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
			return
		}
		t.Logf("the test's files are left in %s", dir)
	})
	return dir
}

// run starts meta1 with a configuration and waits until it greets. It ends with the test.
func run(t *testing.T, s settings) *mta {
	t.Helper()
	m := newMTA(t, s)
	m.start()
	return m
}

// start starts the process and waits until it greets.
func (m *mta) start() {
	m.t.Helper()
	m.launch()
	m.ready()
}

// launch starts the process and does not wait for it.
func (m *mta) launch() {
	m.t.Helper()
	m.launchFrom(meta1(m.t))
}

// launchFrom is launch with a binary of its own.
func (m *mta) launchFrom(program string) {
	m.t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "serve", "-f", m.conf)
	if m.files > 0 {
		cmd = exec.Command("sh", "-c", `ulimit -n "$0" && exec "$@"`, fmt.Sprint(m.files), meta1(m.t), "serve", "-f", m.conf)
	}
	if m.group != "" {
		cmd = exec.Command("sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, m.group, meta1(m.t), "serve", "-f", m.conf)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.dir, log, log
	cmd.Env = append(os.Environ(), m.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.as}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.cmd, m.ended = cmd, ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if m.t.Failed() {
			m.showLog()
		}
	})
}

// ready waits for the greeting.
func (m *mta) ready() {
	m.t.Helper()
	must(m.t, func() error {
		select {
		case <-m.ended:
			m.t.Fatalf("meta1 ended: %v\n%s", m.cmd.ProcessState, tail(m.log, 20))
		default:
		}
		k, err := dial(m.smtp)
		if err == nil {
			k.close()
		}
		return err
	})
}

// kill ends the process at once, with signal 9.
func (m *mta) kill() {
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// stop ends the process in order and fails the test when it does not end well.
func (m *mta) stop() {
	m.t.Helper()
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(hangs):
		m.t.Fatalf("meta1 did not end within %v of SIGTERM", hangs)
	}
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		m.t.Fatalf("meta1 ended with %d after SIGTERM\n%s", code, tail(m.log, 20))
	}
}

// alive fails the test if the process has ended.
func (m *mta) alive() {
	m.t.Helper()
	select {
	case <-m.ended:
		m.t.Fatalf("meta1 ended: %v\n%s", m.cmd.ProcessState, tail(m.log, 30))
	default:
	}
}

// command runs a command of meta1 on this configuration and returns what it prints.
func (m *mta) command(args ...string) (string, error) {
	m.t.Helper()
	return commandIn(m.t, m.dir, nil, append(args, "-f", m.conf)...)
}

// commandIn runs meta1 in a directory, with some standard input.
func commandIn(t *testing.T, dir string, stdin io.Reader, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(meta1(t), args...)
	cmd.Dir, cmd.Stdin = dir, stdin
	return output(cmd)
}

// output runs a command, unless it hangs, and returns what it prints.
func output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	limit := time.AfterFunc(hangs, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !limit.Stop() {
		err = fmt.Errorf("it ran for more than %v", hangs)
	}
	return out.String(), err
}

// queueEntry is what mailq --json tells of a message.
type queueEntry struct {
	QueueID    string `json:"queue_id"`
	QueueName  string `json:"queue_name"`
	Recipients []struct {
		Address     string `json:"address"`
		DelayReason string `json:"delay_reason"`
	} `json:"recipients"`
}

// queue lists the queue.
func (m *mta) queue() ([]queueEntry, error) {
	m.t.Helper()
	out, err := m.command("mailq", "--json")
	if err != nil {
		return nil, fmt.Errorf("mailq: %w: %s", err, out)
	}
	var entries []queueEntry
	for line := range strings.Lines(out) {
		var e queueEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("mailq --json prints %q: %w", line, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// queueShows returns nil when the queue holds n messages, each with a reason for
// its delay.
func (m *mta) queueShows(n int, reason string) error {
	m.t.Helper()
	queue, err := m.queue()
	if err != nil {
		return err
	}
	if len(queue) != n {
		return fmt.Errorf("mailq lists %d of %d messages", len(queue), n)
	}
	for _, e := range queue {
		for _, r := range e.Recipients {
			if !strings.Contains(r.DelayReason, reason) {
				return fmt.Errorf("mailq: %s waits for %q, not for %q", r.Address, r.DelayReason, reason)
			}
		}
	}
	return nil
}

// queueEmpty waits until the queue holds nothing.
func (m *mta) queueEmpty() {
	m.t.Helper()
	must(m.t, func() error { return m.queueShows(0, "") })
}

// get fetches a page of the metrics listener.
func (m *mta) get(path string) (string, error) {
	client := http.Client{Timeout: hangs}
	r, err := client.Get("http://" + m.metrics + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, r.Status, body)
	}
	return string(body), err
}

func (m *mta) showLog() { m.t.Logf("end of its log:\n%s", tail(m.log, 15)) }

// tail is the end of a file.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-n-1):], "")
}
