package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/vfs/crashfs"
)

// faults lets calls to the disk fail.
type faults struct {
	mu    sync.Mutex // guards what follows
	judge func(op errorfs.Op) error
	hits  int
}

func (f *faults) String() string { return "faults" }

func (f *faults) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.judge == nil {
		return nil
	}
	err := f.judge(op)
	if err != nil {
		f.hits++
	}
	return err
}

func (f *faults) set(judge func(op errorfs.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judge = judge
}

// faultyStore is an open store on a disk with faults. What ended it comes by ended.
func faultyStore(t *testing.T) (s *Store, f *faults, disk *crashfs.Disk, ended chan error) {
	t.Helper()
	f, disk, ended = new(faults), crashfs.New(), make(chan error, 1)
	o := options(t)
	o.LogSize = memTableMin
	o.Fatal = func(err error) { ended <- err }
	s, err := Open(crashfs.FS(errorfs.Wrap(disk, f), smallDisk), "db", o)
	if err != nil {
		t.Fatal(err)
	}
	return s, f, disk, ended
}

// fill commits so much that a log is ended and a table written. It ends without a word
// if the store does.
func fill(s *Store, records int) error {
	for i := range records {
		b := s.NewBatch()
		if err := b.Set(fmt.Append(nil, "k", i), bytes.Repeat([]byte("v"), 50_000), nil); err != nil {
			return err
		}
		if err := s.Commit(b); err != nil {
			return err
		}
	}
	return nil
}

// TestNoDescriptor: too many open files make a store wait, whatever it wants to open.
func TestNoDescriptor(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE} {
		synctest.Test(t, func(t *testing.T) {
			s, f, disk, ended := faultyStore(t)
			f.set(func(op errorfs.Op) error {
				switch op.Kind {
				case errorfs.OpCreate, errorfs.OpReuseForWrite, errorfs.OpOpen, errorfs.OpOpenDir:
					return errno
				}
				return nil
			})
			done := make(chan error, 1)
			go func() { done <- fill(s, 100) }()
			time.Sleep(10 * time.Minute)
			select {
			case err := <-ended:
				t.Fatalf("%v ended the store: %v", errno, err)
			case err := <-done:
				t.Fatalf("%v: wrote 5 MB in a log of 1 MB: %v", errno, err)
			default:
			}
			f.mu.Lock()
			hits := f.hits
			f.mu.Unlock()
			if hits > 4000 {
				t.Errorf("tried %d times in 10 minutes", hits)
			}
			f.set(nil)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := check(t, disk, 100); err != nil {
				t.Error(err)
			}
		})
	}
}

// check opens a store and looks for the records of fill.
func check(t *testing.T, disk *crashfs.Disk, records int) error {
	s, err := Open(crashfs.FS(disk, smallDisk), "db", options(t))
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range records {
		if _, ok, err := s.Reader().Get(fmt.Append(nil, "k", i)); !ok || err != nil {
			return fmt.Errorf("record %d: found %v, %w", i, ok, err)
		}
	}
	return nil
}

// TestQuota: a full quota is a full disk.
func TestQuota(t *testing.T) {
	s, f, disk, ended := faultyStore(t)
	f.set(func(op errorfs.Op) error {
		if _, err := disk.Stat("db/BALLAST.0"); err == nil && op.Kind == errorfs.OpFileWrite {
			return syscall.EDQUOT
		}
		return nil
	})
	if err := fill(s, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Stat("db/BALLAST.1"); err != nil {
		t.Error("more than one part of the reserve was given up: ", err)
	}
	if f.hits == 0 || len(ended) > 0 {
		t.Errorf("%d failures, %d ends", f.hits, len(ended))
	}
	f.set(nil)
	if !s.Refill() {
		t.Error("the reserve is not complete")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOneFailureEndsTheStore: one failed write or sync of any file is the end, once, and no
// commit succeeds after it, whatever the disk says.
func TestOneFailureEndsTheStore(t *testing.T) {
	cases := map[string]func(op errorfs.Op) bool{
		"write to the log":    func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") },
		"write to a table":    func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") },
		"creation of a table": func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") },
		"sync of the log": func(op errorfs.Op) bool {
			return (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".log")
		},
		"sync of the directory": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSync && op.Path == "db" },
	}
	for name, hit := range cases {
		t.Run(name, func(t *testing.T) {
			s, f, _, ended := faultyStore(t)
			f.set(func(op errorfs.Op) error {
				if f.hits == 0 && hit(op) {
					return syscall.EIO
				}
				return nil
			})
			done := make(chan error, 1)
			go func() { done <- fill(s, 100) }() // it may never return
			if err := <-ended; !errors.Is(err, syscall.EIO) {
				t.Errorf("ended with %v", err)
			}
			if err := s.Err(); !errors.Is(err, syscall.EIO) {
				t.Errorf("the store's state is %v", err)
			}
			b := s.NewBatch()
			if err := s.Commit(b); !errors.Is(err, syscall.EIO) {
				t.Errorf("a commit after the end: %v", err)
			}
			select {
			case err := <-done:
				if err == nil {
					t.Error("all was committed")
				}
			default:
			}
			if len(ended) > 0 {
				t.Error("ended twice")
			}
		})
	}
}

// TestReserveFails: a disk that fails while the reserve is made again is broken.
func TestReserveFails(t *testing.T) {
	s, f, disk, ended := faultyStore(t)
	if err := disk.Remove("db/BALLAST.1"); err != nil {
		t.Fatal(err)
	}
	f.set(func(op errorfs.Op) error {
		if strings.Contains(op.Path, "BALLAST") && op.Kind == errorfs.OpFileSync {
			return syscall.EIO
		}
		return nil
	})
	go s.Refill()
	if err := <-ended; !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "BALLAST.1") {
		t.Errorf("ended with %v", err)
	}
}

// TestDirectoryRemoved: records in files that nobody can find are no longer confirmed.
func TestDirectoryRemoved(t *testing.T) {
	for name, remove := range map[string]func(*crashfs.Disk) error{
		"removed": func(d *crashfs.Disk) error { return d.RemoveAll("db") },
		"renamed": func(d *crashfs.Disk) error { return d.Rename("db", "other") },
		"emptied": func(d *crashfs.Disk) error { return errors.Join(d.RemoveAll("db"), d.MkdirAll("db", 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, _, disk, ended := faultyStore(t)
			if err := fill(s, 1); err != nil {
				t.Fatal(err)
			}
			if err := remove(disk); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- fill(s, 1) }()
			if err := <-ended; !strings.Contains(err.Error(), "removed") || !strings.Contains(err.Error(), "db") {
				t.Errorf("ended with %v", err)
			}
			if len(done) > 0 {
				t.Errorf("the commit returned %v", <-done)
			}
		})
	}
}

// TestFatalHappensDuringACommit: a commit during which the store was given up is no
// success, though its own sync was.
func TestFatalDuringACommit(t *testing.T) {
	s, f, _, ended := faultyStore(t)
	f.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			f.judge = nil
			go s.end.giveUp(errors.New("the journal of the file system was aborted"))
			<-ended
		}
		return nil
	})
	if err := fill(s, 1); err == nil {
		t.Error("the commit was confirmed")
	}
}

// TestMetrics: the numbers of a store are there while it is open, also when it was given up.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := options(t)
	o.Metrics = reg
	fsys := crashfs.FS(crashfs.New(), smallDisk)
	for range 2 {
		s, err := Open(fsys, "db", o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if got := gathered(t, reg); len(got) != len(numbers) || got["meta1_store_written_bytes_total"] == 0 || got["meta1_store_failed"] != 0 {
			t.Errorf("numbers %v", got)
		}
		err = errors.New("broken")
		s.end.why.Store(&err)
		if got := gathered(t, reg); len(got) != 1 || got["meta1_store_failed"] != 1 {
			t.Errorf("numbers of a broken store: %v", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := gathered(t, reg); len(got) != 0 {
			t.Errorf("numbers of a closed store: %v", got)
		}
	}
}

func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		if l := m.GetLabel()[0]; l.GetName() != "store" || l.GetValue() != "TEST" {
			t.Errorf("label %v", l)
		}
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return got
}

// TestFormatIsPinned: whoever raises it must know that older programs cannot go back.
func TestFormatIsPinned(t *testing.T) {
	if Format != 24 {
		t.Errorf("stores would be written in format %d", Format)
	}
	s, _, _, _ := faultyStore(t)
	defer s.Close()
	if got := s.FormatMajorVersion(); got != Format {
		t.Errorf("a new store has format %d", got)
	}
}

// TestReserveIsNotCompressible: a part of the reserve must be as large on a file
// system that compresses.
func TestReserveIsNotCompressible(t *testing.T) {
	s, _, disk, _ := faultyStore(t)
	defer s.Close()
	b := read(t, disk, "db/BALLAST.0")
	count := [256]int{}
	for _, c := range b {
		count[c]++
	}
	for c, n := range count {
		if n < len(b)/300 || n > len(b)/220 {
			t.Fatalf("%d of %d bytes are %d", n, len(b), c)
		}
	}
	for _, c := range disk.Pending() {
		if strings.Contains(c.Path, "BALLAST") {
			t.Errorf("not synced: %v", c)
		}
	}
}
