package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// TestDiskFails has meta1 work on a disk that can no longer be written, though it seems
// to have room: its syncs fail. meta1 must end by itself, with EX_IOERR, and when the
// disk is mended and checked, it must start and deliver what is there: nearly all that was
// acknowledged, but for what the device lost (lostMax).
func TestDiskFails(t *testing.T) {
	needRoot(t, "it mounts file systems")
	d := newBadDisk(t)
	l := newLedger(t, func(id int) int { return []int{1000, 50_000, 200_000}[id%3] })
	s := newSink(t, "")
	told := atomic.Int64{}
	s.keep = func(a arrival) {
		if l.lostOnDisk(a) {
			told.Add(1)
		} else {
			l.arrive(a)
		}
	}
	s.answer(func(verb, _ string) string { return map[string]string{"RCPT": "451 4.3.0 later"}[verb] })
	m := run(t, settings{spool: d.at, mailertable: toPort(t, ".", s.addr)})
	stop := make(chan struct{})
	wg := l.load(m.smtp, 10, stop)
	select {
	case <-m.ended:
	case <-time.After(60 * time.Second):
		t.Error("meta1 works on although nothing can be written")
		m.kill()
	}
	close(stop)
	wg.Wait()
	const ioErr = 74
	if code := m.cmd.ProcessState.ExitCode(); code != ioErr {
		t.Errorf("meta1 ended with %v, want the status %d", m.cmd.ProcessState, ioErr)
	}
	acked, _, _ := l.missing()
	t.Logf("ended after %d messages: %s", acked, tail(m.log, 1))
	if acked < 20 {
		t.Errorf("only %d messages were acknowledged", acked)
	}
	d.mend()
	s.answer(func(string, string) string { return "" })
	m.start()
	m.queueEmpty(60 * time.Second)
	_, missing, _ := l.missing()
	t.Logf("the device lost %d messages that were synced; the senders of %d were told", missing+int(told.Load()), told.Load())
	if missing+int(told.Load()) > lostMax {
		t.Errorf("more than %d", lostMax)
	}
	id := l.take()
	if err := sendOne(m.smtp, l.message(id)); err != nil {
		t.Fatal(err)
	}
	l.ack(id)
	must(t, 20*time.Second, func() error {
		if _, n, _ := l.missing(); n > missing {
			return errors.New("a message to the mended disk has not arrived")
		}
		return nil
	})
	m.stop()
}

// lostMax bounds the messages that a failing device may lose. A program of twenty lines
// that writes and syncs one file and one log record after the other loses the last of
// both on such a device in about half of its runs, though their syncs had succeeded;
// meta1 has as many under way as there are sessions. So this test is of how meta1 ends
// and starts; what it promises of acknowledged mail is proved where the disk keeps what
// it has synced (Kill9, PowerCut, package queue).
const lostMax = 20

// ourRcpt is a recipient of a test message, as a notice names it.
var ourRcpt = regexp.MustCompile(`<(u(\d+)@[a-z0-9.]+)>`)

// lostOnDisk tells whether an arrival is the notice that the content of a message was
// lost, and counts it as that message's end.
func (l *ledger) lostOnDisk(a arrival) bool {
	if a.from != "" || !bytes.Contains(a.data, []byte("lost on disk")) {
		return false
	}
	found := false
	for _, m := range ourRcpt.FindAllSubmatch(a.data, -1) {
		id, err := strconv.Atoi(string(m[2]))
		if err != nil {
			continue
		}
		found = true
		l.mu.Lock()
		l.arrived[parcel{id, string(m[1])}]++
		l.mu.Unlock()
	}
	return found
}

// badDisk is a file system on a loop device whose file lies on a tmpfs that is smaller
// than the device.
type badDisk struct {
	t               *testing.T
	back, image, at string
}

func newBadDisk(t *testing.T) *badDisk {
	t.Helper()
	dir := testDir(t)
	d := &badDisk{t: t, back: dir + "/back", image: dir + "/back/image", at: dir + "/mnt"}
	for _, name := range []string{d.back, d.at} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	must1(t, "mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", d.back)
	t.Cleanup(func() { d.unmount(d.back) })
	writeFile(t, d.image, "")
	if err := os.Truncate(d.image, 400<<20); err != nil {
		t.Fatal(err)
	}
	must1(t, "mkfs.ext4", "-q", "-F", "-m", "0", d.image)
	must1(t, "mount", "-o", "loop", d.image, d.at)
	t.Cleanup(func() { d.unmount(d.at) })
	if err := os.Chown(d.at, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *badDisk) unmount(at string) {
	must(d.t, 10*time.Second, func() error { return exec.Command("umount", at).Run() })
}

// mend gives the disk its full size, and checks it as an operator would.
func (d *badDisk) mend() {
	d.t.Helper()
	d.unmount(d.at)
	must1(d.t, "mount", "-o", "remount,size=600m", d.back)
	out, err := output(exec.Command("e2fsck", "-f", "-y", d.image))
	if err != nil {
		d.t.Logf("e2fsck: %v\n%s", err, out) // 1: it has mended something
	}
	must1(d.t, "mount", "-o", "loop", d.image, d.at)
}
