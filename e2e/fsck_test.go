package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// badDay is an MTA with mail for one destination that is up and one that is down: each
// message has a recipient at both.
type badDay struct {
	*ledger
	m        *mta
	up, down *sink
	n        int
}

func newBadDay(t *testing.T, qmgr string) *badDay {
	b := &badDay{ledger: newLedger(t, mixed), up: newSink(t, ""), down: newSink(t, ""), n: 60}
	b.down.keep = b.arrive
	b.down.close()
	b.m = run(t, settings{mailertable: toPort(t, "up.test", b.up.addr) + toPort(t, ".", b.down.addr), qmgr: qmgr})
	for range b.n {
		id := b.take()
		msg := b.message(id)
		msg.rcpts = append(msg.rcpts, fmt.Sprintf("u%d@up.test", id))
		if err := sendOne(b.m.smtp, msg); err != nil {
			t.Fatal(err)
		}
		b.ack(id)
	}
	must(t, func() error { return b.m.queueShows(b.n, "") })
	must(t, func() error { // the log is written some time later
		log, err := os.ReadFile(b.m.log)
		if n := deliveries(log); n != b.n {
			return fmt.Errorf("%d of %d deliveries are in the log: %w", n, b.n, err)
		}
		return nil
	})
	return b
}

// deliveries counts the recipients that have ended, as a log says.
func deliveries(log []byte) (n int) {
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte("rcpt_id=")) && bytes.Contains(line, []byte("stat=0")) {
			n++
		}
	}
	return n
}

// fsck runs meta1 fsck and returns its exit status.
func (b *badDay) fsck(args ...string) (code int, out string) {
	b.t.Helper()
	out, err := b.m.command(append([]string{"fsck"}, args...)...)
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode(), out
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return 0, out
}

// refused expects that a start is refused and names fsck.
func (b *badDay) refused() {
	b.t.Helper()
	code, out := b.m.fails()
	if code != 74 {
		b.t.Errorf("exit status %d, want 74", code)
	}
	says(b.t, out, "meta1 fsck")
}

// overwrite overwrites bytes in the middle of the newest log of a store.
func (b *badDay) overwrite(dir string) {
	b.t.Helper()
	logs, err := filepath.Glob(filepath.Join(b.m.spool, dir, "*.log"))
	if err != nil || len(logs) == 0 {
		b.t.Fatal("no logs", err)
	}
	slices.Sort(logs)
	name := logs[len(logs)-1]
	text, err := os.ReadFile(name)
	if err != nil {
		b.t.Fatal(err)
	}
	end := len(bytes.TrimRight(text, "\x00"))
	for i := range 64 {
		text[end/2+i] ^= 0xff
	}
	writeFile(b.t, name, string(text))
}

// remove removes directories of the spool.
func (b *badDay) remove(dirs ...string) {
	b.t.Helper()
	for _, dir := range dirs {
		if err := os.RemoveAll(filepath.Join(b.m.spool, dir)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// foreign expects that everything in the spool belongs to the account that serves.
func (b *badDay) foreign() {
	b.t.Helper()
	info, err := os.Stat(b.m.spool)
	if err != nil {
		b.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	err = filepath.WalkDir(b.m.spool, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != owner {
			b.t.Errorf("%s belongs to another user", path)
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestFsck damages the store of a stopped meta1 in several ways: a start refuses, or keeps
// the damaged files, meta1 fsck repairs, and after that every recipient that was
// acknowledged gets the mail. Those that had got it do not get it again, because the log
// knows.
func TestFsck(t *testing.T) {
	const inFiles = "IBDB { content_max = 0B; }"
	for name, c := range map[string]struct {
		qmgr   string
		damage func(*badDay) (args []string)
	}{
		"store lost": {inFiles, func(b *badDay) []string {
			b.remove("defedb")
			b.refused()
			return nil
		}},
		"log damaged": {inFiles, func(b *badDay) []string {
			b.overwrite("defedb")
			return nil
		}},
		"log damaged, then started": {inFiles, func(b *badDay) []string {
			b.overwrite("defedb")
			b.m.start()
			b.m.stop()
			kept, err := filepath.Glob(filepath.Join(b.m.spool, "defedb.damaged-*"))
			if err != nil || len(kept) != 1 {
				b.t.Fatal(kept, err)
			}
			return []string{"--from", kept[0]}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBadDay(t, c.qmgr)
			time.Sleep(time.Second) // what has ended is written down a moment later
			b.m.kill()
			args := c.damage(b)
			if code, out := b.fsck(); code != 4 && args == nil {
				t.Errorf("a check ends with %d:\n%s", code, out)
			}
			code, out := b.fsck(append([]string{"--rebuild", "--log", b.m.log}, args...)...)
			if code != 1 {
				t.Errorf("a repair ends with %d:\n%s", code, out)
			}
			verdict := out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]
			if !strings.HasPrefix(verdict, "repaired: ") {
				t.Errorf("the last line is %s", verdict)
			}
			code, out = b.fsck("--content", "-q")
			if code != 0 || !strings.HasPrefix(out, "clean: ") {
				t.Errorf("a check after the repair ends with %d:\n%s", code, out)
			}
			b.foreign()
			b.down.open()
			b.m.start()
			must(t, b.complete)
			b.m.queueEmpty()
			if n := b.up.count(); n != b.n && args == nil { // a start on a damaged log cannot know
				t.Errorf("%d mails arrived twice where they had arrived before", n-b.n)
			}
			b.m.stop()
			if code, out := b.fsck("-q"); code != 0 {
				t.Errorf("a check at the end finds %d:\n%s", code, out)
			}
		})
	}
}

// TestFsckOfARunningOne: meta1 checks itself while it works, and refuses a repair.
func TestFsckOfARunningOne(t *testing.T) {
	t.Parallel()
	b := newBadDay(t, "")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			id := b.take()
			if err := sendOne(b.m.smtp, b.message(id)); err == nil {
				b.ack(id)
			}
		}
	})
	for _, args := range [][]string{{"-q"}, {"--content", "-q"}, {"--json"}} {
		if code, out := b.fsck(args...); code != 0 {
			t.Errorf("fsck %v of a queue at work ends with %d:\n%s", args, code, out)
		}
	}
	close(stop)
	wg.Wait()
	for _, flag := range []string{"--repair", "--rebuild"} {
		code, out := b.fsck(flag)
		if code != 69 {
			t.Errorf("%s of a running meta1 ends with %d:\n%s", flag, code, out)
		}
		says(t, out, "stop meta1 first")
	}
	b.down.open()
	must(t, b.complete)
	b.m.stop()
	if code, out := b.fsck("--log", b.m.log); code != 64 {
		t.Errorf("--log without a repair ends with %d:\n%s", code, out)
	}
	// Without its control socket a running one still has the lock.
	b.m.start()
	if err := os.Rename(b.m.spool+"/control", b.m.spool+"/elsewhere"); err != nil {
		t.Fatal(err)
	}
	code, out := b.fsck("--repair")
	if code != 69 {
		t.Errorf("a repair of a spool in use ends with %d:\n%s", code, out)
	}
	says(t, out, "in use")
}
