package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ledger knows which messages were acknowledged and which arrived.
type ledger struct {
	t *testing.T
	// size is how large message number id is.
	size func(id int) int

	mu      sync.Mutex // guards the rest
	acked   map[int]bool
	arrived map[int]int
	next    int
}

func newLedger(t *testing.T, size func(id int) int) *ledger {
	return &ledger{t: t, size: size, acked: map[int]bool{}, arrived: map[int]int{}}
}

// mixed are sizes of which most are small and some too large for memory.
func mixed(id int) int {
	if id%40 == 0 {
		return 400_000
	}
	return 500 + id*37%6000
}

// message is message number id.
func (l *ledger) message(id int) message {
	return testMessage(id, l.size(id), fmt.Sprintf("u%d@sink%d.test", id, id%30))
}

func (l *ledger) take() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return l.next - 1
}

func (l *ledger) ack(id int) {
	l.mu.Lock()
	l.acked[id] = true
	l.mu.Unlock()
}

// arrive notes an arrival; it is a sink's keep.
func (l *ledger) arrive(a arrival) {
	id := testID(a.data)
	l.mu.Lock()
	l.arrived[id]++
	known := id >= 0 && id < l.next
	l.mu.Unlock()
	if !known {
		l.t.Errorf("a message arrived that was not sent: %.700q", a.data)
	} else if err := checkContent(a.data, l.message(id).data); err != nil {
		l.t.Errorf("message %d: %v", id, err)
	}
}

// missing counts the acknowledged messages, and those of them that have not
// arrived; it names some of these.
func (l *ledger) missing() (acked, n int, some []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.acked {
		if l.arrived[id] == 0 {
			if n++; len(some) < 10 {
				some = append(some, id)
			}
		}
	}
	return len(l.acked), n, some
}

// complete returns nil when every acknowledged message has arrived.
func (l *ledger) complete() error {
	if _, n, some := l.missing(); n > 0 {
		return fmt.Errorf("%d acknowledged messages have not arrived, for example %v", n, some)
	}
	return nil
}

// duplicates counts arrivals of messages that had arrived before.
func (l *ledger) duplicates() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, times := range l.arrived {
		n += times - 1
	}
	return n
}

// load sends messages over some sessions until stop is closed or meta1 is gone.
func (l *ledger) load(addr string, sessions int, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			k, err := dial(addr)
			if err != nil {
				return
			}
			defer k.close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := l.take()
				err := k.send(l.message(id))
				var refused *refusal
				switch {
				case err == nil:
					l.ack(id)
				case !errors.As(err, &refused):
					return
				}
			}
		})
	}
	return &wg
}

// TestKill9 ends meta1 with signal 9 under load, ten times, and starts it again.
// Every message that was answered 250 must arrive, unchanged; duplicates are
// counted and printed.
func TestKill9(t *testing.T) {
	const rounds = 10
	l := newLedger(t, mixed)
	s := newSink(t, "")
	s.keep = l.arrive
	var n atomic.Int64
	s.answer(func(verb, _ string) string {
		if verb != "RCPT" {
			return ""
		}
		time.Sleep(time.Millisecond) // so that some mail waits
		if n.Add(1)%10 == 0 {
			return "451 4.3.0 later"
		}
		return ""
	})
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), qmgr: "orphan_grace = 1s;"})
	recovered := 0
	for round := range rounds {
		stop := make(chan struct{})
		wg := l.load(m.smtp, 20, stop)
		time.Sleep(300*time.Millisecond + rand.N(1200*time.Millisecond))
		m.kill()
		close(stop)
		wg.Wait()
		acked, waiting, _ := l.missing()
		recovered += waiting
		start := time.Now()
		m.start()
		t.Logf("round %d: %d acknowledged so far, %d of them not delivered at the kill; up again after %v",
			round+1, acked, waiting, time.Since(start).Round(time.Millisecond))
	}
	must(t, 90*time.Second, l.complete)
	m.queueEmpty(30 * time.Second)
	acked, _, _ := l.missing()
	t.Logf("%d messages acknowledged, %d of them were in the queue at a kill, %d duplicates", acked, recovered, l.duplicates())
	if acked < 100*rounds || recovered < rounds {
		t.Errorf("too little load to show anything: %d messages, %d in the queue at a kill", acked, recovered)
	}
	must(t, 20*time.Second, func() error {
		if left := contentFiles(t, m.spool); len(left) > 0 {
			return fmt.Errorf("%d content files are left without a message, for example %s", len(left), left[0])
		}
		return nil
	})
	m.stop()
}

// TestStopUnderLoad ends meta1 in order under load: exit status 0, and every
// acknowledged message arrives after the next start, none twice.
func TestStopUnderLoad(t *testing.T) {
	l := newLedger(t, mixed)
	s := newSink(t, "")
	s.keep = l.arrive
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	for range 3 {
		stop := make(chan struct{})
		wg := l.load(m.smtp, 20, stop)
		time.Sleep(time.Second)
		m.stop()
		close(stop)
		wg.Wait()
		m.start()
	}
	must(t, 30*time.Second, l.complete)
	m.queueEmpty(10 * time.Second)
	acked, _, _ := l.missing()
	t.Logf("%d messages acknowledged", acked)
	if n := l.duplicates(); n > 0 {
		t.Errorf("%d duplicates although meta1 was ended in order", n)
	}
}

// contentFiles lists the content files of a spool (0/ to F/).
func contentFiles(t *testing.T, spool string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(spool, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && len(filepath.Base(filepath.Dir(path))) == 1 {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
