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

func newBadDay(t *testing.T) *badDay {
	b := &badDay{ledger: newLedger(t, mixed), up: newSink(t, ""), down: newSink(t, ""), n: 60}
	b.down.keep = b.arrive
	b.down.close()
	b.m = run(t, settings{mailertable: toPort(t, "up.test", b.up.addr) + toPort(t, ".", b.down.addr), qmgr: "orphan_grace = 1s;"})
	for range b.n {
		id := b.take()
		msg := b.message(id)
		msg.rcpts = append(msg.rcpts, fmt.Sprintf("u%d@up.test", id))
		if err := sendOne(b.m.smtp, msg); err != nil {
			t.Fatal(err)
		}
		b.ack(id)
	}
	must(t, 30*time.Second, func() error { return b.m.queueShows(b.n, "") })
	must(t, 30*time.Second, func() error { // the log is written some time later
		log, err := os.ReadFile(b.m.log)
		if n := bytes.Count(log, []byte("event=delivered, rcpt_id=")); n != b.n {
			return fmt.Errorf("%d of %d deliveries are in the log: %w", n, b.n, err)
		}
		return nil
	})
	return b
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

// TestFsck damages the databases of a stopped meta1 in several ways: a start refuses,
// meta1 fsck repairs, and after that every recipient that was acknowledged gets the mail.
// Those that had got it do not get it again, because the log knows.
func TestFsck(t *testing.T) {
	for name, damage := range map[string]func(*badDay){
		"defedb lost":       func(b *badDay) { b.remove("defedb") },
		"ibdb lost":         func(b *badDay) { b.remove("ibdb") },
		"both lost":         func(b *badDay) { b.remove("ibdb", "defedb") },
		"log of the ibdb":   func(b *badDay) { b.overwrite("ibdb") },
		"log of the defedb": func(b *badDay) { b.overwrite("defedb") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBadDay(t)
			time.Sleep(time.Second) // what has ended is written down a moment later
			b.m.kill()
			damage(b)
			b.refused()
			if code, out := b.fsck(); code != 4 {
				t.Errorf("a check ends with %d:\n%s", code, out)
			}
			code, out := b.fsck("--rebuild", "--log", b.m.log)
			if code != 1 {
				t.Errorf("a repair ends with %d:\n%s", code, out)
			}
			t.Log(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
			if code, out := b.fsck("--content", "-q"); code != 0 {
				t.Errorf("a check after the repair ends with %d:\n%s", code, out)
			}
			b.foreign()
			b.down.open()
			b.m.start()
			must(t, 30*time.Second, b.complete)
			b.m.queueEmpty(20 * time.Second)
			if n := b.up.count(); n != b.n {
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
	b := newBadDay(t)
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
	must(t, 60*time.Second, b.complete)
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
