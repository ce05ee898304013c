package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPowerCut copies the disk of a meta1 under load at random moments, in one step,
// and starts meta1 on each copy, as after a power cut: what was in the page cache alone
// is gone. Every message that was acknowledged before the copy was begun must arrive,
// before the end of the copy or after the start on it.
func TestPowerCut(t *testing.T) {
	needRoot(t, "it mounts file systems")
	const cuts = 4
	p := newPowerCut(t)
	l := newLedger(t, mixed)
	s := newSink(t, "")
	s.keep = l.arrive
	var n atomic.Int64
	s.answer(func(verb, _ string) string {
		if verb == "RCPT" && n.Add(1)%5 == 0 { // so that some mail goes to the DEFEDB
			return "451 4.3.0 later"
		}
		return ""
	})
	m := run(t, settings{spool: p.at, mailertable: toPort(t, ".", s.addr), qmgr: "orphan_grace = 1s;"})
	stop := make(chan struct{})
	wg := l.load(m.smtp, 20, stop)
	var images []*cutImage
	for i := range cuts {
		l.more(20 + rand.N(300))
		images = append(images, p.cut(l, i))
	}
	close(stop)
	wg.Wait()
	m.kill()
	p.unmount()
	for i, image := range images {
		acked, waiting := image.check(p)
		t.Logf("cut %d: %d messages acknowledged, %d of them not delivered before, all there", i+1, acked, waiting)
		if waiting == 0 {
			t.Errorf("cut %d shows nothing: the queue was empty", i+1)
		}
	}
}

// powerCut is a disk that can be copied in one step: an image with ext4 on it, which
// lies on XFS, where a copy shares its blocks.
type powerCut struct {
	t     *testing.T
	base  string // where the XFS is mounted
	image string
	at    string // where the image is mounted
}

func newPowerCut(t *testing.T) *powerCut {
	t.Helper()
	dir := testDir(t)
	p := &powerCut{t: t, base: dir + "/xfs", at: dir + "/mnt"}
	p.image = p.base + "/disk"
	for _, d := range []string{p.base, p.at} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.format(dir+"/pool", 2<<30, "mkfs.xfs", "-q", "-m", "reflink=1")
	must1(t, "mount", "-o", "loop", dir+"/pool", p.base)
	t.Cleanup(func() { p.umount(p.base) })
	p.format(p.image, 256<<20, "mkfs.ext4", "-q", "-F", "-m", "0")
	p.mount(p.image)
	t.Cleanup(p.unmount)
	return p
}

func (p *powerCut) format(image string, size int64, command ...string) {
	p.t.Helper()
	writeFile(p.t, image, "")
	if err := os.Truncate(image, size); err != nil {
		p.t.Fatal(err)
	}
	must1(p.t, command[0], append(command[1:], image)...)
}

// mount mounts an image. Its journal is written by syncs alone, not every five seconds.
func (p *powerCut) mount(image string) {
	p.t.Helper()
	must1(p.t, "mount", "-o", "loop,commit=300", image, p.at)
	if err := os.Chown(p.at, 65534, 65534); err != nil {
		p.t.Fatal(err)
	}
}

func (p *powerCut) unmount() { p.umount(p.at) }

func (p *powerCut) umount(at string) {
	p.t.Helper()
	must(p.t, func() error {
		out, err := exec.Command("umount", at).CombinedOutput()
		if err != nil && strings.Contains(string(out), "not mounted") {
			return nil
		}
		return err
	})
}

// cutImage is the disk at a power cut.
type cutImage struct {
	t         *testing.T
	path      string
	acked     []int        // before the copy was begun
	delivered map[int]bool // before it had ended
	size      func(id int) int
}

// cut copies the disk.
func (p *powerCut) cut(l *ledger, i int) *cutImage {
	p.t.Helper()
	c := &cutImage{t: p.t, path: filepath.Join(p.base, fmt.Sprintf("cut%d", i)), delivered: map[int]bool{}, size: l.size}
	l.mu.Lock()
	for id := range l.acked {
		c.acked = append(c.acked, id)
	}
	l.mu.Unlock()
	must1(p.t, "cp", "--reflink=always", p.image, c.path)
	l.mu.Lock()
	for p := range l.arrived {
		c.delivered[p.id] = true
	}
	l.mu.Unlock()
	return c
}

// check starts meta1 on a copy and waits for all that it must deliver.
func (c *cutImage) check(p *powerCut) (acked, waiting int) {
	c.t.Helper()
	p.mount(c.path)
	defer p.unmount()
	l := newLedger(c.t, c.size)
	l.next = 1 << 30
	for _, id := range c.acked {
		if !c.delivered[id] {
			l.ack(id)
		}
	}
	s := newSink(c.t, "")
	s.keep = l.arrive
	m := run(c.t, settings{spool: p.at, mailertable: toPort(c.t, ".", s.addr), qmgr: "orphan_grace = 1s;"})
	must(c.t, l.complete)
	m.queueEmpty()
	must(c.t, func() error {
		if left := contentFiles(c.t, m.spool); len(left) > 0 {
			return errors.New("content is left without a message: " + left[0])
		}
		return nil
	})
	m.stop()
	s.close()
	return len(c.acked), len(l.acked)
}
