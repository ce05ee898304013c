package logfmt_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/logfmt"
	"meta1/mta/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output remembers each write.
type output struct {
	mu     sync.Mutex // guards writes
	writes []string
	err    error
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	o.writes = append(o.writes, string(b))
	return len(b), nil
}

func (o *output) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.writes
	o.writes = nil
	return w
}

func expect(t *testing.T, o *output, want ...string) {
	t.Helper()
	if got := o.take(); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Fatalf("written %q, want %q", got, want)
	}
}

func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		w := logfmt.NewWriter(&out)
		w.Put(slog.LevelInfo, []byte("before\n"))
		expect(t, &out, "before\n")

		ctx, cancel := context.WithCancel(context.Background())
		g := supervise.NewGroup(ctx)
		g.Go(w.Run)
		synctest.Wait()
		w.Put(slog.LevelInfo, []byte("1\n"))
		w.Put(slog.LevelInfo, []byte("2\n"))
		synctest.Wait()
		expect(t, &out)
		time.Sleep(51 * time.Millisecond)
		synctest.Wait()
		expect(t, &out, "1\n2\n")

		w.Put(slog.LevelInfo, []byte("3\n"))
		w.Put(slog.LevelWarn, []byte("4\n"))
		synctest.Wait()
		expect(t, &out, "3\n4\n")

		big := strings.Repeat("x", 64<<10) + "\n"
		w.Put(slog.LevelInfo, []byte(big))
		synctest.Wait()
		expect(t, &out, big)

		w.Put(slog.LevelInfo, []byte("last\n"))
		cancel()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		expect(t, &out, "last\n")
		w.Put(slog.LevelInfo, []byte("after\n"))
		expect(t, &out, "after\n")
	})
}

func TestWriterFails(t *testing.T) {
	out := output{err: errors.New("disk full")}
	w := logfmt.NewWriter(&out)
	w.Put(slog.LevelInfo, []byte("1\n"))
	w.Put(slog.LevelInfo, []byte("2\n"))
	if n := w.Dropped(); n != 2 {
		t.Errorf("dropped %d lines, want 2", n)
	}
	out.err = nil
	w.Put(slog.LevelInfo, []byte("3\n"))
	got := strings.Join(out.take(), "")
	if want := regexp.MustCompile(`^\S+Z sev=WARN, event=log lines were dropped, lines=2\n3\n$`); !want.MatchString(got) {
		t.Errorf("written %q", got)
	}
	if n := w.Dropped(); n != 2 {
		t.Errorf("dropped %d lines, want 2", n)
	}
}

// stuck is an output that takes nothing until it is freed.
type stuck struct {
	output
	free chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.free
	return s.output.Write(b)
}

// TestNobodyReads: whoever logs never waits for an output that takes nothing, but for a
// line of FATAL, and that for a second; what does not fit is dropped, counted, and told of
// when the output goes on.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuck{free: make(chan struct{})}
		w := logfmt.NewWriter(out)
		w.JSON(true)
		ctx, cancel := context.WithCancel(context.Background())
		g := supervise.NewGroup(ctx)
		g.Go(w.Run)
		synctest.Wait()
		began := time.Now()
		line := []byte(strings.Repeat("x", 1023) + "\n")
		const lines = 5000
		for i := range lines {
			w.Put([]slog.Level{slog.LevelInfo, slog.LevelWarn, slog.LevelError}[i%3], line)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("logging waited for %v", took)
		}
		dropped := w.Dropped()
		if dropped < lines-2100 || dropped > lines-1000 {
			t.Errorf("dropped %d of %d lines of a kilobyte", dropped, lines)
		}
		w.Put(logfmt.LevelFatal, []byte("f\n"))
		if took := time.Since(began); took > time.Second {
			t.Errorf("the last line waited for %v", took)
		}
		var other output
		began = time.Now()
		w.SetOutput(&other) // the log file is opened again
		cancel()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the end waited for %v", took)
		}
		dropped = w.Dropped()
		close(out.free)
		synctest.Wait()
		all := strings.Join(out.take(), "") + strings.Join(other.take(), "")
		told := regexp.MustCompile(`"event":"log lines were dropped","lines":(\d+)}`).FindAllStringSubmatch(all, -1)
		if len(told) != 1 || told[0][1] != strconv.FormatUint(dropped, 10) {
			t.Errorf("dropped %d, told of %v", dropped, told)
		}
		if n := strings.Count(all, "xxx\n") + strings.Count(all, "f\n") + int(dropped); n != lines+1 {
			t.Errorf("%d lines of %d are written or counted", n, lines+1)
		}
	})
}

// TestStuckBeforeRun: an output that takes nothing holds the start up once, not with each
// line.
func TestStuckBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuck{free: make(chan struct{})}
		defer close(out.free)
		w := logfmt.NewWriter(out)
		began := time.Now()
		for range 100 {
			w.Put(slog.LevelInfo, []byte("line\n"))
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("100 lines waited for %v", took)
		}
	})
}

// TestWriterRace puts from many goroutines: no line may be lost or torn.
func TestWriterRace(t *testing.T) {
	var out output
	w := logfmt.NewWriter(&out)
	ctx, cancel := context.WithCancel(context.Background())
	run, put := supervise.NewGroup(ctx), supervise.NewGroup(context.Background())
	run.Go(w.Run)
	for i := range 8 {
		put.Go(func(context.Context) error {
			for n := range 1000 {
				w.Put(slog.LevelInfo, []byte(strconv.Itoa(i)+" "+strconv.Itoa(n)+"\n"))
			}
			return nil
		})
	}
	_ = put.Wait()
	cancel()
	_ = run.Wait()
	next := [8]int{}
	for _, line := range strings.Split(strings.TrimSuffix(strings.Join(out.take(), ""), "\n"), "\n") {
		who, n, _ := strings.Cut(line, " ")
		i, _ := strconv.Atoi(who)
		if n != strconv.Itoa(next[i]) {
			t.Fatalf("line %q, want number %d", line, next[i])
		}
		next[i]++
	}
	if next != [8]int{1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000} {
		t.Fatalf("lines lost: %v", next)
	}
}

func TestFileReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta1.log")
	f, err := logfmt.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Put(slog.LevelInfo, []byte("1\n"))
	if err := os.Rename(path, path+".0"); err != nil {
		t.Fatal(err)
	}
	f.Put(slog.LevelInfo, []byte("2\n"))
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	f.Put(slog.LevelInfo, []byte("3\n"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path + ".0": "1\n2\n", path: "3\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
	}
	if _, err := logfmt.OpenFile(filepath.Join(path, "x")); err == nil {
		t.Error("a file below a file was opened")
	}
}

func daemon(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	return c
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 16<<10)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c := daemon(t, path)
	var stderr output
	s, err := logfmt.NewSyslog(logfmt.SyslogConfig{
		Facility: "local1", Ident: "meta1-MTA", Options: []string{"perror"}, Server: path, Stderr: logfmt.NewWriter(&stderr),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := supervise.NewGroup(ctx)
	g.Go(s.Run)
	log := slog.New(logfmt.NewHandler(s, logfmt.Options{Module: "smtps", NoTime: true}))
	log.Warn("a, b")
	want := regexp.MustCompile(`^<140>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d meta1-MTA\[\d+\]: sev=WARN, module=smtps, event=a%2C b$`)
	if got := receive(t, c); !want.MatchString(got) {
		t.Errorf("sent %q", got)
	}
	expect(t, &stderr, "sev=WARN, module=smtps, event=a%2C b\n")

	_ = c.Close() // the daemon is started again
	_ = os.Remove(path)
	for i := range 10 { // lines that come meanwhile wait for it
		log.Error("meanwhile", slog.Int("n", i))
	}
	c = daemon(t, path)
	for i := range 10 {
		if got := receive(t, c); !strings.HasPrefix(got, "<139>") || !strings.HasSuffix(got, "event=meanwhile, n="+strconv.Itoa(i)) {
			t.Errorf("sent %q as line %d", got, i)
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestSyslogNeverWaits(t *testing.T) {
	s, err := logfmt.NewSyslog(logfmt.SyslogConfig{Ident: "x", Server: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := supervise.NewGroup(ctx)
	g.Go(s.Run)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 5000 {
		s.Put(slog.LevelInfo, line)
	}
	if n := s.Dropped(); n < 5000-2100 || n > 5000-900 {
		t.Errorf("dropped %d of 5000 lines of a kilobyte", n)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	if n := s.Dropped(); n != 5000 {
		t.Errorf("dropped %d lines, want all", n)
	}
}

func TestSyslogRefuses(t *testing.T) {
	for _, c := range []logfmt.SyslogConfig{{Facility: "post"}, {Facility: "mail", Options: []string{"pdi"}}} {
		if _, err := logfmt.NewSyslog(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
