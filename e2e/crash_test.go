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
	// rcpts is how many recipients it has; nil: one.
	rcpts func(id int) int

	mu      sync.Mutex // guards the rest
	acked   map[int]bool
	arrived map[parcel]int
	next    int
}

// parcel is a message for one recipient.
type parcel struct {
	id   int
	rcpt string
}

func newLedger(t *testing.T, size func(id int) int) *ledger {
	return &ledger{t: t, size: size, acked: map[int]bool{}, arrived: map[parcel]int{}}
}

// mixed are sizes of which most are small and some too large for memory.
func mixed(id int) int {
	if id%40 == 0 {
		return 400_000
	}
	return 500 + id*37%6000
}

// count is how many recipients message number id has.
func (l *ledger) count(id int) int {
	if l.rcpts == nil {
		return 1
	}
	return l.rcpts(id)
}

// rcptOf is recipient i of message number id.
func rcptOf(id, i int) string { return fmt.Sprintf("u%d@sink%d.test", id, (id+i*7)%30) }

// message is message number id.
func (l *ledger) message(id int) message {
	rcpts := make([]string, l.count(id))
	for i := range rcpts {
		rcpts[i] = rcptOf(id, i)
	}
	m := testMessage(id, l.size(id), "")
	m.rcpts = rcpts
	return m
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
	for _, r := range a.rcpts {
		l.arrived[parcel{id, r}]++
	}
	known := id >= 0 && id < l.next
	l.mu.Unlock()
	if !known {
		l.t.Errorf("a message arrived that was not sent: %.700q", a.data)
	} else if err := checkContent(a.data, l.message(id).data); err != nil {
		l.t.Errorf("message %d: %v", id, err)
	}
}

// missing counts the acknowledged messages, and those of them that have not
// arrived for each recipient; it names some of these.
func (l *ledger) missing() (acked, n int, some []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.acked {
		if l.completeLocked(id) {
			continue
		}
		if n++; len(some) < 10 {
			some = append(some, id)
		}
	}
	return len(l.acked), n, some
}

func (l *ledger) completeLocked(id int) bool {
	for i := range l.count(id) {
		if l.arrived[parcel{id, rcptOf(id, i)}] == 0 {
			return false
		}
	}
	return true
}

// more waits until a number of further messages are acknowledged.
func (l *ledger) more(n int) {
	l.t.Helper()
	before, _, _ := l.missing()
	must(l.t, func() error {
		if acked, _, _ := l.missing(); acked < before+n {
			return fmt.Errorf("%d of %d further messages are acknowledged", acked-before, n)
		}
		return nil
	})
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

// delivered counts the recipients that got their message.
func (l *ledger) delivered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.arrived)
}

// load sends messages over some sessions until stop is closed or meta1 is gone.
func (l *ledger) load(addr string, sessions int, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() { l.session(addr, stop) })
	}
	return &wg
}

// reload is load that connects anew whenever meta1 is gone.
func (l *ledger) reload(addr string, sessions int, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			for {
				l.session(addr, stop)
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	return &wg
}

// session sends messages over one session.
func (l *ledger) session(addr string, stop <-chan struct{}) {
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
}

// killRounds is how often TestKill9 kills.
const killRounds = 100

// TestKill9 ends meta1 with signal 9 under load, 100 times, at random moments of
// which some lie in its start and its recovery. Every message that was answered 250
// must arrive for each of its recipients, unchanged; duplicates are counted and printed.
func TestKill9(t *testing.T) {
	l := newLedger(t, mixed)
	l.rcpts = func(id int) int { return 1 + id%3 }
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
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr),
		// A small budget, so that content goes to files before its first attempt, too.
		qmgr: "orphan_grace = 1s; content_memory_max = 512KB;",
	})
	stop := make(chan struct{})
	wg := l.reload(m.smtp, 10, stop)
	recovered, starting := 0, 0
	began := time.Now()
	starts := time.Millisecond // how long a start took
	for round := range killRounds {
		launched := time.Now()
		m.launch()
		if round%3 == 2 { // at once, or in the start
			time.Sleep(rand.N(2 * starts))
			starting++
		} else {
			m.ready()
			starts = time.Since(launched)
			l.more(rand.N(150))
		}
		m.kill()
		acked, waiting, _ := l.missing()
		recovered += waiting
		if (round+1)%10 == 0 {
			t.Logf("round %d after %v: %d acknowledged so far, %d of them not delivered at the kill",
				round+1, time.Since(began).Round(time.Millisecond), acked, waiting)
		}
	}
	close(stop)
	wg.Wait()
	m.start()
	must(t, l.complete)
	m.queueEmpty()
	acked, _, _ := l.missing()
	t.Logf("%d rounds, %d of them killed in the start: %d messages acknowledged, all delivered to %d recipients, %d duplicates; %d were in the queue at a kill",
		killRounds, starting, acked, l.delivered(), l.duplicates(), recovered)
	if acked < 20*killRounds || recovered < killRounds {
		t.Errorf("too little load to show anything: %d messages, %d in the queue at a kill", acked, recovered)
	}
	must(t, func() error {
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
	must(t, l.complete)
	m.queueEmpty()
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
