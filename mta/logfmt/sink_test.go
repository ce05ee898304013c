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
	expect(t, &out, "3\n")
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
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
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
		Facility: "local1", Ident: "meta1-MTA", Options: []string{"pid", "perror"}, Socket: path, Stderr: logfmt.NewWriter(&stderr),
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
	c = daemon(t, path)
	log.Error("again")
	if got := receive(t, c); !strings.HasPrefix(got, "<139>") || !strings.HasSuffix(got, "event=again") {
		t.Errorf("sent %q", got)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestSyslogNeverWaits(t *testing.T) {
	s, err := logfmt.NewSyslog(logfmt.SyslogConfig{Ident: "x", Socket: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		s.Put(slog.LevelInfo, []byte("line\n"))
	}
	if n := s.Dropped(); n != 5000-4096 {
		t.Errorf("dropped %d lines, want %d", n, 5000-4096)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
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
