package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/queue/vfs"
)

// crashes copies a disk before each operation that changes it: as kill -9 leaves it,
// and as a power cut does.
type crashes struct {
	mem *pvfs.MemFS
	rnd *rand.Rand

	mu  sync.Mutex // guards all
	all map[string]*pvfs.MemFS
}

func (c *crashes) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, percent := range []int{100, 50, 0} {
		name := fmt.Sprintf("%d%% kept before operation %d, kind %d on %s", percent, len(c.all), op.Kind, op.Path)
		c.all[name] = c.mem.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rnd})
	}
	return nil
}

func (c *crashes) String() string { return "crashes" }

// TestCrashWhileOpening crashes the opening of a store that was killed, at each write:
// the next opening must succeed and find all records.
func TestCrashWhileOpening(t *testing.T) {
	const records = 5
	for round := range 10 { // what Pebble does meanwhile differs a little each time
		mem, _ := usedStore(t, records, 1000)
		c := &crashes{mem: mem, rnd: rand.New(rand.NewPCG(uint64(round), 1)), all: map[string]*pvfs.MemFS{}}
		s, err := Open(vfs.FromPebble(errorfs.Wrap(mem, c), smallDisk), "db", options(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if len(c.all) < 30 {
			t.Fatalf("only %d crashes", len(c.all))
		}
		for name, disk := range c.all {
			if err := reopen(t, disk, records); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func reopen(t *testing.T, disk *pvfs.MemFS, records int) error {
	s, err := Open(vfs.FromPebble(disk, smallDisk), "db", options(t))
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range records {
		_, closer, err := s.Get([]byte{'k', byte(i)})
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if err := closer.Close(); err != nil {
			return err
		}
	}
	return nil
}
