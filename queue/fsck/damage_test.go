package fsck

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/vfs/crashfs"
	"meta1/queue/entry"
	"meta1/queue/records"
)

// damage is one way to damage a file of a store.
type damage struct {
	name string
	how  func(b []byte) []byte
	// silent: nobody can tell it from a crash.
	silent bool
}

func damages(size int) (all []damage) {
	for _, at := range []int{0, 6, 20, size / 4, size / 2, size * 3 / 4, size - 30, size - 1} {
		all = append(all, damage{name: fmt.Sprintf("byte %d", at), how: func(b []byte) []byte { b[at] ^= 0x55; return b }, silent: at >= size-30})
	}
	third := func(b []byte) []byte { clear(b[len(b)/3 : len(b)/3*2]); return b }
	return append(
		all,
		damage{name: "zeros in the middle", how: third},
		damage{name: "zeros at the beginning", how: func(b []byte) []byte { clear(b[:len(b)/3]); return b }},
		damage{name: "cut", how: func(b []byte) []byte { return b[:len(b)/2] }, silent: true},
		damage{name: "empty", how: func([]byte) []byte { return nil }, silent: true},
	)
}

// TestDamagedFiles damages each kind of file of the store in many ways, repairs, and
// expects that all recipients are tried whose content is not lost itself.
func TestDamagedFiles(t *testing.T) {
	base := newSpool(t)
	base.fill()
	n := 0
	for _, ending := range []string{".log", ".sst", "MANIFEST"} {
		name := base.last("spool/defedb", ending)
		size := 0
		base.change(name, func(b []byte) []byte { size = len(strings.TrimRight(string(b), "\x00")); return b })
		for _, d := range damages(size) {
			if n++; n%damageStride != 0 {
				continue
			}
			t.Run(name+" "+d.name, func(t *testing.T) {
				s := base.clone(t)
				s.change(name, d.how)
				damagedAndRepaired(s, d.silent && ending == ".log")
			})
		}
		t.Run(name+" missing", func(t *testing.T) {
			s := base.clone(t)
			s.must(s.disk.Remove(name))
			damagedAndRepaired(s, false)
		})
	}
}

// damagedAndRepaired expects that a check changes nothing, and a repair saves what can be
// saved. silent excuses all that a crash might have taken along.
func damagedAndRepaired(s *spool, silent bool) {
	s.t.Helper()
	s.run(nil)
	all, _ := s.run(rebuild)
	s.nothingLeft(all, true)
	lost, twice := s.judge(func(addr string) bool { return silent || inline(addr) })
	again, _ := s.run(nil)
	s.nothingLeft(again, true)
	s.t.Logf("%d lost, %d twice", lost, twice)
}

// nothingLeft expects that everything was repaired, but for the loss of content that was
// in the damaged store.
func (s *spool) nothingLeft(all []Finding, damaged bool) {
	s.t.Helper()
	for _, f := range all {
		if f.Severity != Note && f.Done == "" && (f.Code != "content-missing" && f.Code != "aside" || !damaged) {
			s.t.Errorf("left: %s", f.String())
		}
	}
}

// killer counts the operations on a disk that change it, and takes a picture of the disk
// as a crash in front of one of them leaves it.
type killer struct {
	disk *pvfs.MemFS
	at   int

	mu       sync.Mutex // guards what follows
	n        int
	snapshot *pvfs.MemFS
	op       string
}

func (k *killer) String() string { return "killer" }

func (k *killer) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n++; k.n == k.at {
		k.snapshot = k.disk.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(3, uint64(k.at)))})
		k.op = fmt.Sprintf("operation %d kind %d on %s", k.n, op.Kind, op.Path)
	}
	return nil
}

func (k *killer) result() (n int, op string, snapshot *pvfs.MemFS) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.n, k.op, k.snapshot
}

// TestRepairSurvivesCrashes crashes a repair in front of its changes of the disk. Then a
// further repair must save as much as one that was not crashed.
func TestRepairSurvivesCrashes(t *testing.T) {
	for name, damage := range map[string]func(*spool){
		"log": func(s *spool) {
			s.change(s.last("spool/defedb", ".log"), func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+600]); return b })
		},
		"manifest": func(s *spool) {
			s.change(s.last("spool/defedb", "MANIFEST"), func(b []byte) []byte { b[40] ^= 1; return b })
		},
		"all": func(s *spool) { s.remove("spool/defedb") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpool(t)
			s.fill()
			damage(s)
			s.crashRepairs(t)
		})
	}
}

// crashRepairs crashes repairs of a damaged spool.
func (s *spool) crashRepairs(t *testing.T) {
	t.Helper()
	whole := s.clone(t)
	count := &killer{disk: whole.disk}
	whole.fs = crashfs.FS(errorfs.Wrap(whole.disk, count), space)
	whole.run(rebuild)
	n, _, _ := count.result()
	saved := whole.waiting()
	if n < 100 || len(saved) < 80 {
		t.Fatalf("a repair has only %d operations and saves %d recipients", n, len(saved))
	}
	unsaved := func(addr string) bool { _, ok := saved[addr]; return !ok }
	for at := 1; at <= n+10; at++ {
		if at%crashStride != 0 && (at < n-30 || raceEnabled) {
			continue // the stores change their places at the end
		}
		c := s.clone(t)
		k := &killer{disk: c.disk, at: at}
		c.fs = crashfs.FS(errorfs.Wrap(c.disk, k), space)
		c.run(rebuild)
		_, op, snapshot := k.result()
		if snapshot == nil {
			continue // Pebble works in the background: not each run has as many
		}
		ok := t.Run(op, func(t *testing.T) {
			c.t = t
			c.use(snapshot)
			c.afterACrash(unsaved)
		})
		if !ok {
			return
		}
	}
}

// afterACrash repairs again, and sometimes is asked to check first.
func (s *spool) afterACrash(unsaved func(string) bool) {
	s.t.Helper()
	s.run(nil)
	all, _ := s.run(rebuild)
	s.nothingLeft(all, true)
	s.judge(unsaved)
	all, _ = s.run(nil)
	s.nothingLeft(all, true)
	for _, name := range s.list("spool") {
		if strings.HasSuffix(name, ".new") || strings.HasSuffix(name, buildingEnd) {
			s.t.Errorf("%s is left", name)
		}
	}
}

// TestAnyRecords changes some records at random: a repair comes to an end, a further one
// finds nothing to do, all mail whose records are as they were is there, and none is said
// to be fresh or deferred that cannot be read.
func TestAnyRecords(t *testing.T) {
	base := newSpool(t)
	base.fill()
	for seed := range uint64(recordSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(7, seed))
			s := base.clone(t)
			db, _ := s.open()
			var keys [][]byte
			s.must(db.Store().Reader().Scan([]byte{1}, nil, func(k, _ []byte) (bool, error) {
				keys = append(keys, bytes.Clone(k))
				return true, nil
			}))
			harmed := map[int]bool{}
			b := db.NewBatch()
			for range 1 + rnd.IntN(12) {
				k := bytes.Clone(keys[rnd.IntN(len(keys))])
				key, err := records.ParseKey(k)
				s.must(err)
				harmed[int(key.TA.Counter)] = true
				switch rnd.IntN(5) {
				case 0:
					s.must(b.Delete(k))
				case 1:
					s.must(b.Set(k, []byte("junk")))
				case 2:
					s.must(b.Set(asideKey(k), []byte("junk")))
				case 3:
					s.must(errors.Join(b.Set(asideKey(k), nil), b.Delete(k)))
				default: // a record of another recipient or message
					k[len(k)-1] ^= 1
					k[0] = keys[rnd.IntN(len(keys))][0]
					if key, err := records.ParseKey(k); err == nil {
						harmed[int(key.TA.Counter)] = true
					}
					s.must(b.Set(k, nil))
				}
			}
			s.must(db.Commit(b))
			s.must(db.Close())
			s.run(repair)
			if all, sum := s.run(repair); sum.Repaired > 0 {
				t.Errorf("a second repair does %v", all)
			}
			all, _ := s.run(nil)
			for _, f := range all {
				if f.Severity == Repairable {
					t.Errorf("left: %s", f.String())
				}
			}
			s.judge(func(addr string) bool { return harmed[number(addr)] })
			db, _ = s.open()
			defer db.Close()
			v := db.View()
			defer v.Close()
			s.must(v.Entries(records.Ref{}, func(*records.Entry) bool { return true }))
			s.must(v.Recover(func(*records.Recovered) error { return nil }))
			s.must(v.Due(time.Unix(1<<33, 0), new(entry.Due), func(*records.Loaded) bool { return true }))
			if broken := v.Broken(); len(broken) > 0 {
				t.Errorf("still broken: %x %v", broken[0].Key, broken[0].Err)
			}
		})
	}
}
