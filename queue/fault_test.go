package queue

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/vfs/crashfs"
)

// faultyDisk makes one call to the disk fail, or that and all later ones.
type faultyDisk struct {
	at   int // the call that fails, counted from 1 on; 0: none
	err  error
	stay bool

	mu   sync.Mutex // guards what follows
	on   bool
	n    int
	what string // the call that failed
	// failed are files whose sync failed; again those that were synced after that.
	failed map[string]bool
	again  []string
}

func (f *faultyDisk) String() string { return "faulty disk" }

// MaybeError is called before each operation on the disk.
func (f *faultyDisk) MaybeError(op errorfs.Op) error {
	if !mayFail(op.Kind) {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on {
		return nil
	}
	f.n++
	sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
	switch {
	case sync && f.failed[op.Path]:
		f.again = append(f.again, op.Path)
	case op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite:
		delete(f.failed, op.Path) // a new file of that name
	}
	if f.n != f.at && (!f.stay || f.n < f.at || f.at == 0) {
		return nil
	}
	if f.what == "" {
		f.what = fmt.Sprintf("call %d, kind %d on %s", f.n, op.Kind, op.Path)
	}
	if sync {
		f.failed[op.Path] = true
	}
	return f.err
}

// mayFail are the calls that a disk refuses: write, sync, create, rename, remove, link
// and mkdir.
func mayFail(k errorfs.OpKind) bool {
	switch k {
	case errorfs.OpCreate, errorfs.OpLink, errorfs.OpRemove, errorfs.OpRemoveAll, errorfs.OpRename, errorfs.OpReuseForWrite,
		errorfs.OpMkdirAll, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return true
	}
	return false
}

func (f *faultyDisk) set(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = on
}

// hit is the call that failed, or "".
func (f *faultyDisk) hit() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.what
}

// TestFaultAtAnyCall makes each call to the disk fail in turn, in one run for each of
// them: with EIO and with ENOSPC, once and from then on. A run takes a part of them;
// "make faults" takes all, by FAULTS_PART. Whatever the queue answers, after the next start
// everybody has got what was acknowledged to them; the process ends where it must, and
// no file is synced again whose sync has failed.
func TestFaultAtAnyCall(t *testing.T) {
	var calls int
	runFaulty(t, &faultyDisk{}, func(f *faultyDisk, _, _ snapshot) { calls = f.n })
	t.Logf("%d calls", calls)
	if calls < 100 {
		t.Fatal("the scenario makes too few calls")
	}
	part, _ := strconv.Atoi(os.Getenv("FAULTS_PART"))
	ends, lives, cuts := 0, 0, 0
	for i, mode := range []struct {
		err  error
		stay bool
	}{{syscall.EIO, false}, {syscall.ENOSPC, false}, {syscall.EIO, true}, {syscall.ENOSPC, true}} {
		for at := 1 + (part+i*faultStride/4)%faultStride; at <= calls; at += faultStride {
			f := &faultyDisk{at: at, err: mode.err, stay: mode.stay}
			name := fmt.Sprintf("%v stay=%v at %d", mode.err, mode.stay, at)
			ok := t.Run(name, func(t *testing.T) {
				runFaulty(t, f, func(f *faultyDisk, s, cut snapshot) {
					if s.over != nil {
						ends++
					} else {
						lives++
					}
					if len(f.again) > 0 && s.over == nil {
						t.Errorf("synced again: %q", f.again)
					}
					synctest.Test(t, func(t *testing.T) { replay(t, s) })
					if cut.disk != nil {
						cuts++
						synctest.Test(t, func(t *testing.T) { replay(t, cut) })
					}
				})
				if t.Failed() {
					t.Logf("%s failed", f.what)
				}
			})
			if !ok {
				return
			}
		}
	}
	t.Logf("the process ended %d times, and went on %d times; %d power cuts behind a fault", ends, lives, cuts)
	if ends == 0 || lives == 0 || cuts == 0 {
		t.Error("one of the ways was never taken")
	}
}

// runFaulty runs the scenario with a fault and calls check with what it leaves at its
// end, and at a power cut before that.
func runFaulty(t *testing.T, f *faultyDisk, check func(f *faultyDisk, end, cut snapshot)) {
	f.failed = map[string]bool{}
	var s *story
	var end, cut snapshot
	func() {
		defer func() {
			// A process that was ended leaves goroutines that cannot go on.
			if v := recover(); v != nil && (s.over == nil || !strings.Contains(fmt.Sprint(v), "deadlock")) {
				panic(v)
			}
			cut = s.cut
			s.forget() // they keep hold of it
		}()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			s = newStory(w)
			end = s.faulty(f)
		})
	}()
	check(f, end, cut)
}

// forget gives the memory of a scenario back.
func (s *story) forget() {
	_ = s.w.disk.RemoveAll("spool")
	_ = crashfs.FS(s.w.disk, nil).SyncDir(".")
	s.disk, s.acked, s.done, s.w.delivered, s.cut = nil, nil, nil, nil, snapshot{}
}

// faulty runs the scenario on a disk with a fault. If the process ends, what is left is
// what is on the disk at that moment.
func (s *story) faulty(f *faultyDisk) snapshot {
	w := s.w
	w.fs = crashfs.FS(errorfs.Wrap(w.disk, f), w.space)
	never := make(chan struct{})
	w.fatal = func(err error) {
		s.die(err)
		<-never
	}
	s.onAck = func() { s.crashAfter(f) }
	q := w.start()
	f.set(true)
	played := make(chan struct{})
	go func() { // it may be this goroutine in which the process ends
		defer close(played)
		s.run(q)
	}()
	select {
	case <-played:
	case <-w.ctx.Done():
	}
	s.mu.Lock()
	over := s.over
	s.mu.Unlock()
	f.set(false)
	if over == nil {
		// What a module that failed leaves is on the disk, too; see supervise for its restart.
		if err := w.stop(); err != nil {
			w.t.Logf("the queue ended with %v", err)
		}
		s.cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		end := s.snapshotLocked(f.what)
		end.disk, end.over = w.disk.Kill(), s.over
		return end
	}
	end := s.snapshotLocked(f.what)
	end.disk, end.over = s.disk, over
	return end
}

// crashAfter keeps what a power cut leaves after the first acknowledgement behind the
// fault: what was not synced is gone.
func (s *story) crashAfter(f *faultyDisk) {
	if f.hit() == "" || s.cut.disk != nil {
		return
	}
	s.cut = s.snapshotLocked("cut after " + f.hit())
	s.cut.disk = s.w.disk.Crash(crashfs.Nothing)
}

// die ends the process: nothing that happens from now on counts.
func (s *story) die(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return
	}
	s.over = err
	s.disk = s.w.disk.Crash(crashfs.Random(rand.New(rand.NewPCG(3, 4)), 50))
	s.cancel()
}
