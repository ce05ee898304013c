package maildrop

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

func hello() *Message {
	return &Message{
		Sender: "me@a.example", Rcpts: []string{"x@b.example", "grüße@b.example"}, Notify: "NEVER", Ret: "HDRS", EnvID: "id", VERP: true,
		Time: time.Unix(1_700_000_000, 0).UTC(), Content: []byte("Subject: x\r\n\r\nhello\r\n"),
	}
}

// TestDrop: what is left is read again as it was, whatever the umask is.
func TestDrop(t *testing.T) {
	dir := t.TempDir() + "/drop"
	if err := Make(dir, AccessAll); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|AccessAll.Mode() {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	old := syscall.Umask(0o777)
	id, err := Drop(dir, hello())
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/mail." + id); err != nil || info.Mode() != 0o640 {
		t.Fatalf("%v %v", info, err)
	}
	m, err := load(dir+"/mail."+id, 1000)
	if err != nil {
		t.Fatal(err)
	}
	want := hello()
	if m.ID != id || m.Owner != uint32(os.Getuid()) || m.Sender != want.Sender || !slices.Equal(m.Rcpts, want.Rcpts) || m.Notify != "NEVER" ||
		m.Ret != "HDRS" || m.EnvID != "id" || !m.VERP || !m.Time.Equal(want.Time) || !bytes.Equal(m.Content, want.Content) {
		t.Errorf("%+v", m)
	}
	all, err := Waiting(dir)
	if err != nil || len(all) != 1 || all[0].Size != len(want.Content) {
		t.Errorf("%v %v", all, err)
	}
	if _, err := load(dir+"/mail."+id, 10); !errors.Is(err, errBad) {
		t.Errorf("more than is allowed: %v", err)
	}
	for _, bad := range []*Message{{}, {Rcpts: []string{"a b@c"}}, {Sender: "x\n", Rcpts: []string{"a@b.c"}}, {Rcpts: []string{"a@b.c"}, Notify: "x"}} {
		if _, err := Drop(dir, bad); err == nil {
			t.Errorf("%+v was left", bad)
		}
	}
	if _, err := Drop(dir+"/none", hello()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// queue is a QMGR that takes what is asked of it, or answers with reply.
type queue struct {
	ports *msg.Ports
	reply smtp.Reply
	inMax int64
	got   []msg.CommitQ
	files map[smtp.ID]*file
}

type file struct {
	msg.ContentWriter
	bytes.Buffer
	committed bool
}

func (f *file) Write(b []byte) (int, error)           { return f.Buffer.Write(b) }
func (f *file) Commit(*msg.Envelope) error            { f.committed = true; return nil }
func (f *file) Abort()                                {}
func (f *file) ReadAt(b []byte, _ int64) (int, error) { return copy(b, f.Bytes()), nil }

func (q *queue) Create(ta smtp.ID) (msg.ContentWriter, error) {
	f := &file{}
	q.files[ta] = f
	return f, nil
}

// newQueue makes a queue that answers in the goroutine of who asks.
func newQueue(t *testing.T) *queue {
	q := &queue{ports: msg.NewPorts(), files: map[smtp.ID]*file{}}
	n := uint64(0)
	_, stopAdmit := q.ports.Admit.OpenDirect(func(*msg.AdmitQ) (msg.AdmitA, bool) {
		n++
		return msg.AdmitA{ID: smtp.ID{Counter: n}, InlineMax: q.inMax}, true
	})
	_, stopCommit := q.ports.Commit.OpenDirect(func(c *msg.CommitQ) (msg.CommitA, bool) {
		if q.reply.IsZero() {
			q.got = append(q.got, *c)
		}
		return msg.CommitA{Reply: q.reply}, true
	})
	t.Cleanup(stopAdmit)
	t.Cleanup(stopCommit)
	return q
}

// collector makes one for a new directory.
func (q *queue) collector(t *testing.T) (c *Collector, dir string) {
	dir = t.TempDir() + "/drop"
	if err := Make(dir, AccessAll); err != nil {
		t.Fatal(err)
	}
	return New(Deps{
		Config: Config{Dir: dir, Access: AccessAll, Interval: 5 * time.Second, SizeMax: 1 << 20}, Hostname: "mx.example", Ports: q.ports, Content: q,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}), dir
}

func value(c prometheus.Counter) float64 {
	var m dto.Metric
	_ = c.Write(&m) // it never fails
	return m.GetCounter().GetValue()
}

func leave(t *testing.T, dir string) string {
	t.Helper()
	id, err := Drop(dir, hello())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, e.Name())
	}
	return all
}

// TestTake: a message gets into the queue with its envelope and the owner of its file, inline or as a content file.
func TestTake(t *testing.T) {
	for _, inMax := range []int64{0, 10} {
		q := newQueue(t)
		q.inMax = inMax
		c, dir := q.collector(t)
		leave(t, dir)
		if err := c.round(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if len(q.got) != 1 || len(names(t, dir)) > 0 {
			t.Fatalf("%d messages, %q is left", len(q.got), names(t, dir))
		}
		e, content := q.got[0].Envelope, q.got[0].Inline
		if inMax > 0 {
			f := q.files[e.TA]
			if f == nil || !f.committed || content != nil {
				t.Fatalf("no content file: %v", f)
			}
			content = f.Bytes()
		}
		head, rest, _ := strings.Cut(string(content), "\r\n")
		if !strings.HasPrefix(head, "Received: by mx.example (meta1, from userid ") || rest != string(hello().Content) || q.got[0].Size != int64(len(content)) {
			t.Errorf("%q", content)
		}
		if e.Mail.From.Addr() != "me@a.example" || !e.Mail.VERP || !e.Mail.UTF8 || e.Mail.Ret != "HDRS" || e.Mail.EnvID != "id" || len(e.Rcpts) != 2 || e.Rcpts[0].Notify != "NEVER" {
			t.Errorf("%+v", e)
		}
		if n := value(c.counts[taken]); n != 1 {
			t.Errorf("%v were counted", n)
		}
	}
}

// TestHostile: what strangers put there is neither taken nor followed nor waited for, and what others own stays as it is.
func TestHostile(t *testing.T) {
	q := newQueue(t)
	c, dir := q.collector(t)
	outside := t.TempDir() + "/outside"
	whole, err := encode(hello())
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	torn := bytes.Replace(whole, []byte("hello"), []byte("hallo"), 1)
	put := func(name string, b []byte) string {
		if err := os.WriteFile(dir+"/"+name, b, 0o640); err != nil {
			t.Fatal(err)
		}
		return dir + "/" + name
	}
	for _, err := range []error{
		os.WriteFile(outside, whole, 0o600), os.Symlink(outside, dir+"/mail.link"), os.Link(outside, dir+"/mail.hard"), syscall.Mkfifo(dir+"/mail.fifo", 0o666),
		os.Mkdir(dir+"/mail.dir", 0o777), os.Mkdir(dir+"/mail.full", 0o777), os.WriteFile(dir+"/mail.full/x", nil, 0o600), os.Symlink("/", dir+"/root"),
		os.Chtimes(put("new.old", nil), old, old), os.Chtimes(put("bad.new", nil), old, old), os.Chtimes(put("bad.old", nil), old, old.Add(-badTime)),
		os.Truncate(put("mail.huge", nil), 1<<40),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	put("mail.empty", nil)
	put("mail.torn", torn)
	put("mail.half", whole[:len(whole)/2])
	put("new.young", whole)
	put("junk", whole)
	leave(t, dir)
	for range 2 {
		if err := c.round(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if len(q.got) != 1 {
		t.Errorf("%d messages were taken", len(q.got))
	}
	want := []string{"bad.empty", "bad.half", "bad.hard", "bad.huge", "bad.new", "bad.torn", "mail.full", "new.young"}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if b, err := os.ReadFile(outside); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("the file of another was changed: %v", err)
	}
}

// TestRefused: what the queue refuses for now is tried again, later and later; what it refuses for good is kept for the postmaster.
func TestRefused(t *testing.T) {
	q := newQueue(t)
	c, dir := q.collector(t)
	id := leave(t, dir)
	q.reply = smtp.NewReply(452, "4.3.1", "full")
	now := time.Now()
	for i := range 1000 {
		if err := c.round(t.Context(), now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if n := value(c.counts[postponed]); n != 8 || c.waiting.Load() != 1 { // after 0, 5, 15, 35, 75, 155, 315 and 635 seconds
		t.Errorf("%v tries in 1000 seconds, %d wait", n, c.waiting.Load())
	}
	q.reply = smtp.NewReply(550, "5.0.0", "no")
	if err := c.round(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"bad." + id}) || c.waiting.Load() != 0 {
		t.Errorf("left are %q", got)
	}
}

// TestRun looks at the start and then again and again, also before QMGR runs.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		c, dir := q.collector(t)
		ctx, cancel := context.WithCancel(t.Context())
		g := supervise.NewGroup(ctx)
		g.Go(c.Run)
		synctest.Wait()
		leave(t, dir)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if len(q.got) != 1 {
			t.Errorf("%d messages", len(q.got))
		}
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestPrepare: another directory, access, interval and size hold at once; what was left before is taken up, and what is discarded leaves
// nothing behind.
func TestPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		c, dir := q.collector(t)
		g := supervise.NewGroup(t.Context())
		g.Go(c.Run)
		synctest.Wait()
		leave(t, dir)
		took := func() int { return int(value(c.counts[taken])) }
		next := t.TempDir() + "/next"
		change := func(conf Config, want int) {
			t.Helper()
			commit, _, err := c.Prepare(conf)
			if err != nil {
				t.Fatal(err)
			}
			commit()
			synctest.Wait()
			if took() != want {
				t.Errorf("%d messages, not %d", took(), want)
			}
		}
		conf := Config{Dir: next, Access: AccessGroup, Interval: time.Minute, SizeMax: 1 << 20}
		_, discard, err := c.Prepare(conf)
		if err != nil {
			t.Fatal(err)
		}
		if discard(); took() > 0 {
			t.Error("what was discarded had an effect")
		}
		if _, err := os.Stat(next); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory is left: %v", err)
		}
		change(conf, 1) // from the former directory
		leave(t, next)
		time.Sleep(50 * time.Second)
		if synctest.Wait(); took() != 1 {
			t.Error("it has looked too early")
		}
		time.Sleep(11 * time.Second)
		if synctest.Wait(); took() != 2 {
			t.Errorf("%d messages", took())
		}
		conf.Access = AccessAll
		_, discard, err = c.Prepare(conf)
		if err != nil {
			t.Fatal(err)
		}
		discard()
		if info, err := os.Stat(next); err != nil || info.Mode().Perm() != 0o730 || info.Mode()&fs.ModeSticky == 0 {
			t.Errorf("the mode is %v, %v", info.Mode(), err)
		}
		conf.Access = AccessNone
		change(conf, 2)
		leave(t, next)
		time.Sleep(time.Hour)
		conf.Access, conf.SizeMax = AccessAll, 1
		change(conf, 2)
		if n := value(c.counts[bad]); n != 1 {
			t.Errorf("%v messages are too large", n)
		}
		if _, _, err := c.Prepare(Config{Dir: next + "/a/b", Access: AccessAll}); err == nil {
			t.Error("a directory that cannot be made is no error")
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestDown: while QMGR does not run a message stays, without a complaint.
func TestDown(t *testing.T) {
	q := &queue{ports: msg.NewPorts()}
	c, dir := q.collector(t)
	id := leave(t, dir)
	if err := c.round(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"mail." + id}) || value(c.counts[postponed]) != 0 {
		t.Errorf("left are %q", got)
	}
}

// FuzzDecode: whatever is in a file, it is refused or makes a valid envelope and content.
func FuzzDecode(f *testing.F) {
	whole, err := encode(hello())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("{}\n\nsha256 \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if !errors.Is(err, errBad) {
				t.Error(err)
			}
			return
		}
		if _, err := m.envelope(); err != nil || bytes.Count(m.Content, []byte("\n")) != bytes.Count(m.Content, []byte("\r\n")) {
			t.Errorf("%+v %v", m, err)
		}
	})
}

// FuzzSigned changes what is inside the checksum.
func FuzzSigned(f *testing.F) {
	f.Add(`{"meta1_maildrop":1,"size":0,"sender":"","rcpts":["a@b.c"]}`, "")
	f.Add(`null`, "x")
	f.Fuzz(func(t *testing.T, head, content string) {
		b := []byte(head + "\n" + content)
		m, err := decode(seal(b))
		if err == nil && (len(m.Rcpts) == 0 || len(m.Rcpts) > RcptsMax || string(m.Content) != content) {
			t.Errorf("%+v", m)
		}
	})
}
