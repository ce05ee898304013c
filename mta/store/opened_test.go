package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/vfs/crashfs"
)

// crash is a disk as a crash leaves it.
type crash struct {
	name  string
	disk  *crashfs.Disk
	acked int // records that had been committed
}

// crashes crashes a disk before each operation that changes it: by kill -9, and by
// power cuts that lose all that was not synced, the last changes of it, or any.
type crashes struct {
	disk *crashfs.Disk
	rnd  *rand.Rand
	// stride: before each call that has such a number.
	stride int

	mu    sync.Mutex // guards all
	calls int
	acked int
	all   []crash
}

func (c *crashes) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls++; c.calls%c.stride != 0 {
		return nil
	}
	before := fmt.Sprintf("before operation %d, kind %d on %s", c.calls, op.Kind, op.Path)
	c.all = append(c.all,
		crash{"kill " + before, c.disk.Kill(), c.acked},
		crash{"power cut, nothing kept, " + before, c.disk.Crash(crashfs.Nothing), c.acked},
		crash{"power cut, names in order, " + before, c.disk.Crash(crashfs.Ordered(c.rnd)), c.acked},
		crash{"power cut " + before, c.disk.Crash(crashfs.Random(c.rnd, c.rnd.IntN(101))), c.acked},
	)
	return nil
}

func (c *crashes) String() string { return "crashes" }

// TestCrashWhileOpening crashes the opening of a store that was killed, at each write:
// the next opening must succeed and find all records.
func TestCrashWhileOpening(t *testing.T) {
	const records = 5
	for round := range 5 { // what Pebble does meanwhile differs a little each time
		disk, _ := usedStore(t, records, 1000)
		c := &crashes{disk: disk, rnd: rand.New(rand.NewPCG(uint64(round), 1)), acked: records, stride: 1}
		s, err := Open(crashfs.FS(errorfs.Wrap(disk, c), smallDisk), "db", options(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		c.reopenAll(t, 30/sample())
	}
}

// TestCrashOfANewStore crashes the making of a store.
func TestCrashOfANewStore(t *testing.T) {
	disk := crashfs.New()
	c := &crashes{disk: disk, rnd: rand.New(rand.NewPCG(1, 1)), stride: sample()}
	s, err := Open(crashfs.FS(errorfs.Wrap(disk, c), smallDisk), "db", options(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.reopenAll(t, 30)
}

// sample is each so manieth crash that is looked at.
func sample() int {
	if testing.Short() {
		return 5
	}
	return 1
}

// TestCrashAtWork crashes a store that commits, removes, flushes and begins new logs:
// the next opening must succeed and find what was committed, and nothing that was removed.
func TestCrashAtWork(t *testing.T) {
	disk := crashfs.New()
	c := &crashes{disk: disk, rnd: rand.New(rand.NewPCG(2, 2)), stride: 3 * sample()}
	o := options(t)
	o.LogSize = memTableMin
	s, err := Open(crashfs.FS(errorfs.Wrap(disk, c), smallDisk), "db", o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		b := s.NewBatch()
		if err := errors.Join(b.Set([]byte{'k', byte(i)}, bytes.Repeat([]byte{'v'}, 50_000), nil), b.Delete([]byte{'x', byte(i - 1)}, nil),
			b.Set([]byte{'x', byte(i)}, nil, nil)); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(b); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.acked = i + 1
		c.mu.Unlock()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.reopenAll(t, 150/sample())
}

// reopenAll opens the store on all disks; there must be so many at least.
func (c *crashes) reopenAll(t *testing.T, least int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) < least {
		t.Fatalf("only %d crashes", len(c.all))
	}
	for _, crash := range c.all {
		// The next process may have a power cut of its own: what it had found in the memory
		// of the system after a kill must not be lost then.
		opened, err := reopen(t, crash.disk, crash.acked)
		if err == nil {
			_, err = reopen(t, opened, crash.acked)
		}
		if err != nil {
			t.Errorf("%s: %v", crash.name, err)
		}
	}
}

// reopen opens the store and looks for its records. It returns the disk as a power cut
// leaves it while the store is open.
func reopen(t *testing.T, disk *crashfs.Disk, records int) (cut *crashfs.Disk, err error) {
	s, err := Open(crashfs.FS(disk, smallDisk), "db", options(t))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for i := range records {
		_, closer, err := s.Get([]byte{'k', byte(i)})
		if err != nil {
			return nil, fmt.Errorf("record %d of %d: %w", i, records, err)
		}
		if err := closer.Close(); err != nil {
			return nil, err
		}
		if i == records-1 {
			continue // the last removal may or may not have been committed
		}
		if _, closer, err := s.Get([]byte{'x', byte(i)}); err == nil {
			return nil, errors.Join(fmt.Errorf("record %d of %d has come back", i, records), closer.Close())
		} else if !errors.Is(err, pebble.ErrNotFound) {
			return nil, err
		}
	}
	return disk.Crash(crashfs.Nothing), nil
}
