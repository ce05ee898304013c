package lda

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// speak runs a session over a pipe: it sends input at once and returns all that the
// agent said.
func speak(t *testing.T, o Options, input string) (said string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { said = converse(t, o, input) })
	return said
}

// converse is speak in a bubble, where the agent has nothing more to say when time passes.
func converse(t *testing.T, o Options, input string) string {
	ours, theirs := net.Pipe()
	g := supervise.NewGroup(context.Background())
	o.Conn = theirs
	g.Go(func(ctx context.Context) error { return Run(ctx, o) })
	g.Go(func(context.Context) error {
		_, _ = io.WriteString(ours, input) // fails when the agent closes first
		return nil
	})
	var out bytes.Buffer
	r := bufio.NewReader(ours)
	quiet := strings.HasSuffix(input, "QUIT\r\n")
	for {
		if !quiet { // the client goes away when the agent has nothing more to say
			_ = ours.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		}
		line, err := r.ReadString('\n')
		out.WriteString(line)
		if err != nil {
			break
		}
	}
	_ = ours.Close()
	if err := g.Wait(); err != nil {
		t.Errorf("run: %v", err)
	}
	return out.String()
}

// withoutIDs leaves the identifiers out of replies.
func withoutIDs(said string) string {
	return regexp.MustCompile(`delivered as L[0-9A-F]{16}`).ReplaceAllString(said, "delivered")
}

// maildirs lists every file below root with its content; the changing part of file
// names is left out.
func maildirs(t testing.TB, root string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, filepath.Dir(path))
		out = append(out, fmt.Sprintf("%s: %q", rel, text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// TestSessions plays the files in testdata/session: input up to "==", the replies up to the
// next "==", then what is on disk. "option NAME" lines at the top set options.
func TestSessions(t *testing.T) {
	files, err := filepath.Glob("testdata/session/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(text), "\n==\n")
			o := Options{MailDir: t.TempDir(), Create: true, Hostname: "lda.example"}
			send := input
			for {
				line, rest, _ := strings.Cut(send, "\n")
				if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "option ") {
					break
				}
				setOption(t, &o, line)
				send = rest
			}
			send = strings.ReplaceAll(send+"\n", "\n", "\r\n")
			send = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\x00`, "\x00").Replace(send)
			got := strings.ReplaceAll(withoutIDs(speak(t, o, send)), "\r\n", "\n") + "==\n" + maildirs(t, o.MailDir)
			if *update {
				if err := os.WriteFile(file, []byte(input+"\n==\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func setOption(t *testing.T, o *Options, line string) {
	t.Helper()
	switch line {
	case "option nocreate":
		o.Create = false
	case "option size":
		o.SizeMax = 30
	case "option rcpts":
		o.RcptsMax = 2
	default:
		if !strings.HasPrefix(line, "#") {
			t.Fatalf("unknown %q", line)
		}
	}
}

func TestUserOf(t *testing.T) {
	for local, want := range map[string]string{
		"user": "user", "User": "user", "user+detail": "user", "USER+A+B": "user", "a.b-c_d9": "a.b-c_d9",
		strings.Repeat("x", 64): strings.Repeat("x", 64),
		"":                      "", "+x": "", ".": "", "..": "", "a..b": "", ".hidden": "", "-rf": "", "a/b": "", "../x": "", "a\x00b": "",
		"a b": "", `"q"`: "", "grün": "", "a%b": "", strings.Repeat("x", 65): "",
	} {
		if got, ok := userOf(local); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", local, got, ok, want)
		}
	}
}

const hello = "LHLO client\r\n"

func message(from, body string, to ...string) string {
	s := "MAIL FROM:<" + from + ">\r\n"
	for _, r := range to {
		s += "RCPT TO:<" + r + ">\r\n"
	}
	return s + "DATA\r\n" + body + ".\r\n"
}

// TestLargeMessages: content beyond what is held in memory arrives whole, whatever
// its lines, for each recipient.
func TestLargeMessages(t *testing.T) {
	bodies := map[string]string{
		"lines":      strings.Repeat("0123456789012345678901234567890\r\n", 20000),
		"dots":       strings.Repeat("..\r\n", 100000),
		"long lines": strings.Repeat(strings.Repeat("y", 40000)+"\r\n", 20),
		"bare CR":    strings.Repeat("x\ry\r\r\n", 50000),
		"dot and CR": strings.Repeat("x\r\n..\rx\r\n", 10000) + "x\r\r\n",
		"edge":       strings.Repeat("z", 16<<10-1) + "\r\n" + strings.Repeat("z", 16<<10-2) + "\r\n",
		"bare LF":    strings.Repeat("x\ny\n", 40000) + "\r\n",
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			o := Options{MailDir: t.TempDir(), Create: true}
			out := speak(t, o, hello+message("f@x.example", body, "one@y.example", "two@y.example")+"QUIT\r\n")
			if strings.Count(out, "250 2.1.5 delivered") != 2 {
				t.Fatalf("said %q", out)
			}
			kept := strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\n..", "\n.")
			kept = strings.TrimPrefix(kept, ".")
			for _, user := range []string{"one", "two"} {
				files, _ := filepath.Glob(filepath.Join(o.MailDir, user, "new", "*"))
				if len(files) != 1 {
					t.Fatalf("%s: %v", user, files)
				}
				text, err := os.ReadFile(files[0])
				want := "Return-Path: <f@x.example>\nDelivered-To: " + user + "@y.example\n" + kept
				if err != nil || string(text) != want {
					t.Errorf("%s: %d bytes, want %d (%v)", user, len(text), len(want), err)
				}
			}
		})
	}
}

// faulty is a Maildir that fails where it is told to.
type faulty struct {
	maildir
	at  string
	err error
}

func (f *faulty) create(name string) (file, error) {
	if f.at == "create" {
		return nil, f.err
	}
	inner, err := f.maildir.create(name)
	return &faultyFile{file: inner, f: f}, err
}

func (f *faulty) publish(name string) error {
	if f.at == "publish" {
		return f.err
	}
	return f.maildir.publish(name)
}

func (f *faulty) sync() error {
	if f.at == "syncdir" {
		return f.err
	}
	return f.maildir.sync()
}

type faultyFile struct {
	file
	f *faulty
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if f.f.at == "write" {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, f.f.err
	}
	return f.file.Write(p)
}

func (f *faultyFile) Sync() error {
	if f.f.at == "sync" {
		return f.f.err
	}
	return f.file.Sync()
}

func (f *faultyFile) Close() error {
	err := f.file.Close()
	if f.f.at == "close" {
		return f.f.err
	}
	return err
}

// TestDiskFaults fails each call in turn for one recipient of two: its reply is
// temporary and nothing of it stays, the other is delivered.
func TestDiskFaults(t *testing.T) {
	for _, at := range []string{"open", "create", "write", "sync", "close", "publish", "syncdir"} {
		for reply, cause := range map[string]error{
			"452 4.3.1 no space left for mail": syscall.ENOSPC, "452 4.2.2 mailbox is full": syscall.EDQUOT,
			"451 4.3.0 cannot deliver into the mailbox now": syscall.EIO,
		} {
			t.Run(at+"/"+cause.Error(), func(t *testing.T) {
				o := Options{MailDir: t.TempDir(), Create: true}
				o.open = func(root, user string, create bool) (maildir, error) {
					if user == "bad" && at == "open" {
						return nil, &os.PathError{Op: "mkdir", Path: user, Err: cause}
					}
					m, err := openBox(root, user, create)
					if user == "bad" && err == nil {
						m = &faulty{maildir: m, at: at, err: &os.PathError{Op: at, Path: user, Err: cause}}
					}
					return m, err
				}
				out := speak(t, o, hello+message("", "x\r\n", "bad@y.example", "good@y.example")+"QUIT\r\n")
				replies := reply + "\r\n250 2.1.5 delivered\r\n"
				if at == "open" {
					replies = "250 2.1.0 ok\r\n" + reply + "\r\n250 2.1.5 ok\r\n"
				}
				if !strings.Contains(withoutIDs(out), replies) {
					t.Errorf("said %q", out)
				}
				want := `good/new: "Return-Path: <>\nDelivered-To: good@y.example\nx\n"`
				if got := maildirs(t, o.MailDir); got != want {
					t.Errorf("on disk: %s", got)
				}
			})
		}
	}
}

// TestMaildirRemoved: a Maildir that went away while it was kept open is opened anew.
func TestMaildirRemoved(t *testing.T) {
	o := Options{MailDir: t.TempDir(), Create: true}
	s, err := newStore(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	a := &agent{Options: o, store: s, stop: context.Background()}
	setDefaults(&a.Options)
	a.log = a.Log
	send := func() string {
		ours, theirs := net.Pipe()
		g := supervise.NewGroup(context.Background())
		g.Go(func(context.Context) error { a.serve(theirs); return nil })
		g.Go(func(context.Context) error {
			_, err := io.WriteString(ours, hello+message("", "x\r\n", "u@y.example")+"QUIT\r\n")
			return err
		})
		out, _ := io.ReadAll(ours)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for range 2 {
		if out := send(); !strings.Contains(out, "250 2.1.5 delivered") {
			t.Fatalf("said %q", out)
		}
		if got := strings.Count(maildirs(t, o.MailDir), "u/new"); got != 1 {
			t.Fatalf("%d messages", got)
		}
		if err := os.RemoveAll(filepath.Join(o.MailDir, "u")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSymbolicLinks: nobody can have the agent write elsewhere by a link.
func TestSymbolicLinks(t *testing.T) {
	for _, where := range []string{"u", "u/tmp", "u/new", "u/cur"} {
		t.Run(where, func(t *testing.T) {
			o := Options{MailDir: t.TempDir(), Create: true}
			elsewhere := t.TempDir()
			link := filepath.Join(o.MailDir, where)
			if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(elsewhere, link); err != nil {
				t.Fatal(err)
			}
			out := speak(t, o, hello+message("", "x\r\n", "u@y.example")+"QUIT\r\n")
			if !strings.Contains(out, "451 4.3.0") || strings.Contains(out, "delivered") {
				t.Errorf("said %q", out)
			}
			if e, err := os.ReadDir(elsewhere); err != nil || len(e) != 0 {
				t.Errorf("elsewhere: %v %v", e, err)
			}
		})
	}
}

// TestCutOff: a client that goes away inside of a message leaves nothing.
func TestCutOff(t *testing.T) {
	whole := hello + message("f@x.example", strings.Repeat("line\r\n", 50000), "u@y.example")
	for _, n := range []int{len(hello), 60, 90, 1000, 100_000, len(whole) - 3, len(whole) - 1} {
		o := Options{MailDir: t.TempDir(), Create: true}
		if out := speak(t, o, whole[:n]); strings.Contains(out, "delivered") {
			t.Errorf("%d bytes: said %q", n, out)
		}
		if got := maildirs(t, o.MailDir); got != "" {
			t.Errorf("%d bytes: on disk %.100s", n, got)
		}
	}
}

// TestConcurrent delivers from many sessions to one user and others; syncs are shared.
func TestConcurrent(t *testing.T) {
	var mu sync.Mutex
	syncs := 0
	o := Options{MailDir: t.TempDir(), Create: true}
	o.open = func(root, user string, create bool) (maildir, error) {
		m, err := openBox(root, user, create)
		if err != nil {
			return nil, err
		}
		return &counted{maildir: m, sync1: func() { mu.Lock(); syncs++; mu.Unlock(); time.Sleep(time.Millisecond) }}, nil
	}
	l, err := Listen(filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	o.Listener = l
	ctx, cancel := context.WithCancel(context.Background())
	g := supervise.NewGroup(ctx)
	g.Go(func(ctx context.Context) error { return Run(ctx, o) })
	const sessions, each = 20, 25
	clients := supervise.NewGroup(context.Background())
	for i := range sessions {
		clients.Go(func(context.Context) error {
			c, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			input := hello
			for k := range each {
				input += message("", fmt.Sprintf("%d of %d\r\n", k, i), "all@y.example", fmt.Sprintf("u%d@y.example", i))
			}
			if _, err := io.WriteString(c, input+"QUIT\r\n"); err != nil {
				return err
			}
			out, err := io.ReadAll(c)
			if n := strings.Count(string(out), "250 2.1.5 delivered"); n != 2*each || err != nil {
				return fmt.Errorf("%d delivered, %w", n, err)
			}
			return nil
		})
	}
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	files, _ := filepath.Glob(filepath.Join(o.MailDir, "all", "new", "*"))
	if len(files) != sessions*each {
		t.Errorf("%d files", len(files))
	}
	if most := sessions*each*2 - sessions*each/4; syncs > most {
		t.Errorf("%d syncs of directories for %d deliveries, at most %d", syncs, 2*sessions*each, most)
	}
	t.Logf("%d syncs of directories for %d deliveries", syncs, 2*sessions*each)
}

type counted struct {
	maildir
	sync1 func()
}

func (c *counted) sync() error {
	c.sync1()
	return c.maildir.sync()
}

// TestStop: at the end an idle session is closed at once, one inside of a message may
// finish, and one that hangs is cut off.
func TestStop(t *testing.T) {
	for _, c := range []struct{ name, before, after, want string }{
		{"idle", hello, "", "421 4.3.2"},
		{"finishes", hello + "MAIL FROM:<>\r\nRCPT TO:<u@y.example>\r\nDATA\r\nx\r\n", ".\r\n", "250 2.1.5 delivered\r\n421 4.3.2"},
		{"hangs", hello + "MAIL FROM:<>\r\nRCPT TO:<u@y.example>\r\nDATA\r\nx\r\n", "", "421 4.3.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{MailDir: t.TempDir(), Create: true, StopTimeout: 300 * time.Millisecond}
			l, err := Listen(filepath.Join(t.TempDir(), "sock"))
			if err != nil {
				t.Fatal(err)
			}
			o.Listener = l
			ctx, cancel := context.WithCancel(context.Background())
			g := supervise.NewGroup(ctx)
			g.Go(func(ctx context.Context) error { return Run(ctx, o) })
			nc, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := io.WriteString(nc, c.before); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(nc)
			last := "250 SIZE"
			if c.name != "idle" {
				last = "354"
			}
			for line := ""; !strings.HasPrefix(line, last); {
				if line, err = r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			if _, err := io.WriteString(nc, c.after); err != nil && c.after != "" {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(r)
			if !strings.HasPrefix(withoutIDs(string(rest)), c.want) {
				t.Errorf("said %q", rest)
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStdin takes what a service may be started with on descriptor 0.
func TestStdin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lf, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer lf.Close()
	gotL, gotC, err := Stdin(lf)
	if gotL == nil || gotC != nil || err != nil {
		t.Fatalf("listener: %v %v %v", gotL, gotC, err)
	}
	gotL.Close()

	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	cf, err := client.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer cf.Close()
	gotL, gotC, err = Stdin(cf)
	if gotL != nil || gotC == nil || err != nil {
		t.Fatalf("connection: %v %v %v", gotL, gotC, err)
	}
	gotC.Close()

	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, _, err = Stdin(null); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("null: %v", err)
	}
}

// TestListen replaces the socket of a dead process, and nothing else.
func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second: %v", err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	third, err := Listen(path)
	if err != nil {
		t.Fatalf("third: %v", err)
	}
	third.Close()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(plain); err == nil {
		t.Error("listens in place of a file")
	}
	if b, err := os.ReadFile(plain); string(b) != "x" {
		t.Errorf("file is %q %v", b, err)
	}
}

func TestRunErrors(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	for name, o := range map[string]Options{
		"no socket":    {MailDir: t.TempDir()},
		"no directory": {MailDir: filepath.Join(t.TempDir(), "none"), Conn: theirs},
		"file":         {MailDir: os.Args[0], Conn: theirs},
	} {
		if err := Run(context.Background(), o); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSession: whatever a client sends, the session ends without a panic, and files in
// new are exactly the messages that were confirmed.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		hello + message("a@b.example", "x\r\n", "u@y.example"), hello + "MAIL FROM:<\"a>b\"@c>\r\nRCPT TO:<u@x>\r\nDATA\r\n..\r\n.\r\n",
		"RSET\r\nHELO x\r\nVRFY x\r\n", hello + "MAIL FROM:<> SIZE=99999999999\r\n", hello + "DATA\r\n", "\x00\n\n\n",
		hello + message("", ".\n.\r\n.\r\n", "u@y.example", "v@y.example") + "QUIT\r\n", strings.Repeat("x", 40000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input string) {
		o := Options{MailDir: t.TempDir(), Create: true, SizeMax: 1000}
		var out bytes.Buffer
		a := &agent{Options: o, stop: context.Background()}
		setDefaults(&a.Options)
		a.log = a.Log
		var err error
		if a.store, err = newStore(a.Options); err != nil {
			t.Fatal(err)
		}
		defer a.store.close()
		a.serve(&canned{in: strings.NewReader(input), out: &out})
		if strings.Contains(out.String(), "421 4.3.0") {
			t.Fatal("panic")
		}
		said := strings.Count(out.String(), "250 2.1.5 delivered as L")
		files, _ := filepath.Glob(filepath.Join(o.MailDir, "*", "new", "*"))
		left, _ := filepath.Glob(filepath.Join(o.MailDir, "*", "tmp", "*"))
		if len(files) != said || len(left) != 0 {
			t.Fatalf("%d confirmed, %d in new, %d in tmp", said, len(files), len(left))
		}
	})
}

// canned is a connection with all input at hand.
type canned struct {
	net.Conn
	in  io.Reader
	out io.Writer
}

func (c *canned) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *canned) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *canned) Close() error                     { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkDeliver is one message of 1 KiB over a Unix socket, by 20 sessions, to one user, on
// the file system of the temporary directory.
func BenchmarkDeliver(b *testing.B) {
	o := Options{MailDir: b.TempDir(), Create: true}
	l, err := Listen(filepath.Join(b.TempDir(), "sock"))
	if err != nil {
		b.Fatal(err)
	}
	o.Listener = l
	ctx, cancel := context.WithCancel(context.Background())
	g := supervise.NewGroup(ctx)
	g.Go(func(ctx context.Context) error { return Run(ctx, o) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			b.Error(err)
		}
	}()
	body := strings.Repeat("0123456789012345678901234567890123456789012345678901234567890\r\n", 16)
	b.SetParallelism(10)
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		if _, err := io.WriteString(c, hello); err != nil {
			b.Error(err)
			return
		}
		for pb.Next() {
			if _, err := io.WriteString(c, message("", body, "u@y.example")); err != nil {
				b.Error(err)
				return
			}
			for line := ""; !strings.HasPrefix(line, "250 2.1.5 delivered"); {
				if line, err = r.ReadString('\n'); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
}

// TestLog: each line has the id of its session, those of a message that of the
// transaction, which the client learns from the replies; and a client that says QUIT and
// goes is nothing to tell of.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	o := Options{MailDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, dir := range []string{"good/tmp", "good/new", "good/cur"} {
		if err := os.MkdirAll(filepath.Join(o.MailDir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(o.MailDir, "bad"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := speak(t, o, hello+message("a@b.example", "x\r\n", "bad@y.example", "good@y.example")+"QUIT\r\n")
	_, id, _ := strings.Cut(out, "delivered as ")
	id, _, _ = strings.Cut(id, "\r")
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || len(id) != 17 {
		t.Fatalf("id %q in\n%s", id, &log)
	}
	session := regexp.MustCompile(`lda_se=L[0-9A-F]{16} `)
	for i, want := range []string{"cannot deliver", "delivered"} {
		if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], " lda_ta="+id+" ") || session.FindString(lines[i]) != session.FindString(lines[0]) {
			t.Errorf("line %s", lines[i])
		}
	}
}

// TestQuitUnheard: a client may close as soon as it has said QUIT, as SMTPC does with an
// idle connection.
func TestQuitUnheard(t *testing.T) {
	var log bytes.Buffer
	o := Options{MailDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	a := &agent{Options: o, stop: context.Background()}
	setDefaults(&a.Options)
	a.log = a.Log
	a.serve(&canned{in: io.MultiReader(strings.NewReader(hello), strings.NewReader("QUIT\r\n")), out: gone{}})
	if log.Len() > 0 {
		t.Errorf("logged %s", &log)
	}
	a.serve(&canned{in: strings.NewReader(hello + "QUIT\r\n"), out: gone{}})
	if !strings.Contains(log.String(), "broken pipe") {
		t.Errorf("a client that did not get its replies is not told of: %s", &log)
	}
}

// gone is a client that has closed: of what is written to it the reply to QUIT fails.
type gone struct{}

func (gone) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("221 ")) {
		return 0, syscall.EPIPE
	}
	return len(p), nil
}
