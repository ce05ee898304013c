package e2e

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDiskFull fills a small spool, first by mail, then from outside to the last
// block. meta1 must refuse with 452, stay alive, start again on the full disk, and
// deliver all it had acknowledged when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, fs := range []string{"ext4", "tmpfs"} {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			needRoot(t, "it mounts a file system")
			d := newDiskTest(t, fs)
			n := d.fillByMail()
			t.Logf("%d messages of 100 kB fill it", n)
			if n < 50 {
				t.Errorf("refused after %d messages of 100 kB although there were 64 MB", n)
			}
			d.fill()
			d.refuses()
			time.Sleep(4 * time.Second) // deliveries are tried, fail, and are deferred anew
			d.fill()
			d.refuses()

			for _, end := range []func(){d.m.stop, d.m.kill} {
				end()
				d.fill() // the end may have made room
				if out, err := d.m.command("fsck", "-q"); err != nil {
					t.Errorf("fsck on a full disk: %v\n%s", err, out)
				}
				d.m.start()
				d.fill() // and the start as well
				d.refuses()
			}
			time.Sleep(2 * time.Second)
			d.m.alive()

			d.release()
			d.sink.answer(func(string, string) string { return "" })
			must(t, d.complete)
			d.m.queueEmpty()
			must(t, d.send)
			must(t, d.complete)
			t.Logf("duplicates: %d", d.duplicates())
		})
	}
}

// diskTest is an MTA on a small file system, whose next hop refuses at first.
type diskTest struct {
	*ledger
	m       *mta
	sink    *sink
	outside string // the file that fills the disk from outside
}

func newDiskTest(t *testing.T, fs string) *diskTest {
	t.Helper()
	mnt := mount64MB(t, fs)
	d := &diskTest{ledger: newLedger(t, func(int) int { return 100_000 }), sink: newSink(t, ""), outside: mnt + "/outside"}
	d.sink.keep = d.arrive
	d.sink.answer(func(verb, _ string) string { return map[string]string{"RCPT": "451 4.3.0 later"}[verb] })
	d.m = run(t, settings{
		spool:       mnt,
		mailertable: toPort(t, ".", d.sink.addr),
		qmgr:        "disk_space_min = 8192; disk_space_ok = 10240;",
	})
	return d
}

// send sends the next message.
func (d *diskTest) send() error {
	id := d.take()
	err := sendOne(d.m.smtp, d.message(id))
	if err == nil {
		d.ack(id)
	}
	return err
}

// fillByMail sends messages until one is refused, and returns how many were taken.
func (d *diskTest) fillByMail() int {
	d.t.Helper()
	for n := range 1000 {
		if err := d.send(); err != nil {
			d.is452(err)
			return n
		}
	}
	d.t.Fatal("1000 messages of 100 kB went into 64 MB")
	return 0
}

// is452 fails the test unless a message was refused with 452.
func (d *diskTest) is452(err error) {
	d.t.Helper()
	var refused *refusal
	if !errors.As(err, &refused) || !strings.HasPrefix(refused.reply, "452") {
		d.m.alive()
		d.t.Fatalf("full disk: a message was answered %v, want 452", err)
	}
}

// refuses fails the test unless a small message is refused with 452.
func (d *diskTest) refuses() {
	d.t.Helper()
	d.m.alive()
	d.is452(sendOne(d.m.smtp, testMessage(1<<30, 200, "small@sink.test")))
}

// fill takes what is left of the disk from outside. release gives it back.
func (d *diskTest) fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.outside, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		_, err := f.Write(make([]byte, size))
		if errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
	_ = f.Sync()
	time.Sleep(500 * time.Millisecond) // meta1 looks at the disk now and then
}

func (d *diskTest) release() {
	d.t.Helper()
	if err := os.Remove(d.outside); err != nil {
		d.t.Fatal(err)
	}
}

// mount64MB makes and mounts a file system; it is unmounted at the end.
func mount64MB(t *testing.T, fs string) string {
	t.Helper()
	dir := testDir(t)
	at := dir + "/mnt"
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := []string{"mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", at}
	if fs != "tmpfs" {
		image := dir + "/image"
		writeFile(t, image, "")
		if err := os.Truncate(image, 64<<20); err != nil {
			t.Fatal(err)
		}
		// no blocks reserved for root, who fills the disk: meta1 is not root
		must1(t, "mkfs."+fs, "-q", "-F", "-m", "0", image)
		mount = []string{"mount", "-o", "loop", image, at}
	}
	must1(t, mount[0], mount[1:]...)
	if err := os.Chown(at, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		must(t, func() error { return exec.Command("umount", at).Run() })
	})
	return at
}

// must1 runs a program and fails the test unless it succeeds.
func must1(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := output(peerCommand(t, name, args...)); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
