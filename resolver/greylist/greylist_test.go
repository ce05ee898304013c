package greylist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"meta1/mta/store"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
)

var testConfig = Config{
	Wait: 5 * time.Minute, Expire: 24 * time.Hour, WhiteExpire: 30 * 24 * time.Hour, WhiteTimeout: 60 * 24 * time.Hour,
	Limit: 1000, Netmask: 0xFFFFFFFF, Prefix6: 64,
}

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t testing.TB, disk pvfs.FS, cfg Config) *Store {
	t.Helper()
	s, err := Open("greylist", cfg, deps(disk))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func deps(disk pvfs.FS) Deps {
	return Deps{FS: crashfs.FS(disk, nil), Log: slog.New(slog.DiscardHandler)}
}

func check(t testing.TB, s *Store, k Key, after time.Duration) State {
	t.Helper()
	st, err := s.Check(context.Background(), k, begin.Add(after))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func client(ip string) Key { return Key{Client: netip.MustParseAddr(ip)} }

// README 3.9.4: unknown, grey, white, and the times between them.
func TestStates(t *testing.T) {
	const day = 24 * time.Hour
	for name, visits := range map[string][]struct {
		at   time.Duration
		want State
	}{
		"confirmed":         {{0, Grey}, {time.Minute, Grey}, {5 * time.Minute, White}, {6 * time.Minute, White}, {20 * day, White}},
		"too early":         {{0, Grey}, {299 * time.Second, Grey}, {300 * time.Second, White}},
		"too late":          {{0, Grey}, {day + time.Second, Grey}, {day + time.Minute, Grey}, {day + 6*time.Minute, White}},
		"just in time":      {{0, Grey}, {day, White}},
		"stale":             {{0, Grey}, {time.Hour, White}, {time.Hour + 60*day + time.Second, Grey}},
		"kept by its mail":  {{0, Grey}, {time.Hour, White}, {50 * day, White}, {100 * day, White}, {150 * day, White}},
		"old but not stale": {{0, Grey}, {time.Hour, White}, {59 * day, White}},
		"clock goes back":   {{time.Hour, Grey}, {0, Grey}, {5 * time.Minute, White}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, crashfs.New(), testConfig)
			defer s.Close()
			for i, v := range visits {
				if got := check(t, s, client("192.0.2.1"), v.at); got != v.want {
					t.Errorf("visit %d: %v, want %v", i, got, v.want)
				}
			}
			if s.count.Load() != 1 {
				t.Errorf("%d entries", s.count.Load())
			}
		})
	}
}

// README 3.9.4: a client that mails regularly stays white, however short the timeout is
// beside the time after which it may be forgotten.
func TestShortTimeout(t *testing.T) {
	cfg := testConfig
	cfg.WhiteTimeout = 12 * time.Hour
	s := open(t, crashfs.New(), cfg)
	defer s.Close()
	check(t, s, client("192.0.2.1"), 0)
	for at := time.Hour; at < 72*time.Hour; at += time.Hour {
		if got := check(t, s, client("192.0.2.1"), at); got != White {
			t.Fatalf("after %v: %v", at, got)
		}
	}
}

func TestKeys(t *testing.T) {
	cfg := testConfig
	cfg.Netmask = 0xFFFFFF00
	s := open(t, crashfs.New(), cfg)
	defer s.Close()
	full := func(ip, from, to string) Key { return Key{netip.MustParseAddr(ip), from, to} }
	for i, c := range []struct {
		first, second Key
		same          bool
	}{
		{client("10.0.0.1"), client("10.0.0.200"), true}, // README: 0xFFFFFF00
		{client("10.0.1.1"), client("10.0.2.1"), false},
		{client("10.0.3.1"), client("::ffff:10.0.3.9"), true},
		{client("2001:db8:1::1"), client("2001:db8:1::ffff"), true},
		{client("2001:db8:2::1"), client("2001:db8:2:1::1"), false},
		{full("10.1.0.1", "a@x", "b@y"), full("10.1.0.2", "a@X", "b@Y"), true},
		{full("10.2.0.1", "a@x", "b@y"), full("10.2.0.1", "a@x", "c@y"), false},
		{full("10.3.0.1", "a@x", "b@y"), full("10.3.0.1", "A@x", "b@y"), false},
		{full("10.4.0.1", "", "b@y"), client("10.4.0.1"), false},
		{full("10.5.0.1", "ab", "c"), full("10.5.0.1", "a", "bc"), false},
	} {
		if check(t, s, c.first, 0) != Grey {
			t.Errorf("%d: known before", i)
		}
		if got := check(t, s, c.second, time.Hour) == White; got != c.same {
			t.Errorf("%d: same entry %v, want %v", i, got, c.same)
		}
	}
}

func TestRestart(t *testing.T) {
	fs := crashfs.New()
	s := open(t, fs, testConfig)
	for i := range 50 {
		check(t, s, client(fmt.Sprintf("192.0.2.%d", i)), 0)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs, testConfig)
	defer s.Close()
	if s.count.Load() != 50 {
		t.Errorf("%d entries after a restart", s.count.Load())
	}
	if got := check(t, s, client("192.0.2.7"), time.Hour); got != White {
		t.Errorf("%v after a restart", got)
	}
}

// A crash may lose the last entries, but the store opens and counts right.
func TestCrash(t *testing.T) {
	fs := crashfs.New()
	s := open(t, fs, testConfig)
	for i := range 200 {
		check(t, s, client(fmt.Sprintf("192.0.%d.%d", i/100, i%100)), 0)
	}
	all := slices.Collect(maps.Values(maps.Collect(fs.States(20, rand.New(rand.NewPCG(1, 2))))))
	s.Close()
	for _, crashed := range append(all, fs.Kill()) {
		s = open(t, crashed, testConfig)
		if n := entries(t, s); int64(n) != s.count.Load() || n > 200 {
			t.Errorf("%d entries, counted %d", n, s.count.Load())
		}
		s.Close()
	}
}

// entries counts what is stored, and checks that every entry has its index.
func entries(t testing.TB, s *Store) int {
	t.Helper()
	count := func(prefix byte) (n int) {
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		return n
	}
	n, index := count(prefixEntry), count(prefixIndex)
	if n != index {
		t.Errorf("%d entries and %d of the index", n, index)
	}
	return n
}

func TestVersion(t *testing.T) {
	fs := crashfs.New()
	s := open(t, fs, testConfig)
	if err := s.db.Set([]byte("\x00version"), make([]byte, 4), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open("greylist", testConfig, deps(fs)); !errors.Is(err, store.ErrVersion) {
		t.Errorf("an unknown version was opened: %v", err)
	}
	if _, err := Open("x", Config{}, deps(fs)); err == nil {
		t.Error("a prefix of 0 was accepted")
	}
}

// badDisk is a disk that can be full, broken, or hang.
type badDisk struct {
	*crashfs.Disk
	fail atomic.Pointer[func(op errorfs.Op) error]
}

func (d *badDisk) String() string { return "bad disk" }

func (d *badDisk) MaybeError(op errorfs.Op) error {
	if f := d.fail.Load(); f != nil && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		return (*f)(op)
	}
	return nil
}

func (d *badDisk) set(f func(op errorfs.Op) error) { d.fail.Store(&f) }

// badStore is a store on a bad disk that knows one client.
func badStore(t *testing.T) (*Store, *badDisk) {
	t.Helper()
	d := &badDisk{Disk: crashfs.New()}
	s := open(t, errorfs.Wrap(d.Disk, d), testConfig)
	check(t, s, client("192.0.2.1"), 0)
	return s, d
}

// many asks for so many new clients that the store must write to its disk. It returns the
// first error.
func many(s *Store, from int) (err error) {
	for i := range 60_000 {
		n := from + i
		k := Key{Client: netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})}
		if _, err := s.Check(context.Background(), k, begin); err != nil {
			return err
		}
	}
	return nil
}

// TestFullDisk: on a full disk checks fail at once and mail passes; with room again
// greylisting goes on. Nothing hangs, neither does the end.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := badStore(t)
		d.set(func(op errorfs.Op) error {
			_, err := d.Stat("greylist/BALLAST.0")
			writes := op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite
			if err == nil && writes && !strings.Contains(op.Path, "BALLAST") {
				return syscall.ENOSPC // until a part of the reserve was given up
			}
			return nil
		})
		if err := many(s, 0); !errors.Is(err, errFull) {
			t.Fatalf("on a full disk: %v", err)
		}
		began := time.Now()
		for range 100 {
			if _, err := s.Check(context.Background(), client("192.0.2.1"), begin); !errors.Is(err, errFull) {
				t.Fatalf("on a full disk: %v", err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("100 checks waited for %v", took)
		}
		d.set(func(errorfs.Op) error { return nil })
		time.Sleep(fullPause)
		if got, err := s.Check(context.Background(), client("192.0.2.1"), begin.Add(time.Hour)); err != nil || got != White {
			t.Errorf("with room again: %v, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestBrokenDisk: a disk that fails makes every check fail at once, and Close ends.
func TestBrokenDisk(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
		t.Run(errno.Error(), func(t *testing.T) {
			s, d := badStore(t)
			d.set(func(op errorfs.Op) error {
				if strings.HasSuffix(op.Path, ".log") || strings.HasPrefix(op.Path, "greylist/BALLAST") {
					return errno
				}
				return nil
			})
			if err := many(s, 0); err == nil {
				t.Fatal("all was written")
			}
			<-s.broken // ENOSPC: the reserve cannot be given up, so this is the end, too
			for range 100 {
				if _, err := s.Check(context.Background(), client("192.0.2.1"), begin); !errors.Is(err, errno) {
					t.Fatalf("got %v", err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHangingDisk: a check on a disk that does not answer fails after a while, and those
// behind it, too.
func TestHangingDisk(t *testing.T) {
	s, d := badStore(t)
	hang := make(chan struct{})
	d.set(func(errorfs.Op) error { <-hang; return nil })
	ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, errSlow)
	defer cancel()
	var err error
	for n := 0; err == nil && n < 200_000; n++ { // until the memory of the store is full
		_, err = s.Check(ctx, Key{Client: netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})}, begin)
	}
	if !errors.Is(err, errSlow) {
		t.Errorf("got %v", err)
	}
	close(hang)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// README 3.9.4: entries are removed only above the limit, and only expired ones; if
// none is expired the limit is exceeded.
func TestExpire(t *testing.T) {
	cfg := testConfig
	cfg.Limit = 100
	s := open(t, crashfs.New(), cfg)
	defer s.Close()
	ip := func(i int) Key {
		return Key{Client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	for i := range 300 {
		check(t, s, ip(i), time.Duration(i)*time.Second)
	}
	if s.count.Load() != 300 {
		t.Errorf("%d entries although none is expired", s.count.Load())
	}
	check(t, s, ip(5), time.Hour) // white: must stay
	for i := 1000; i < 1100; i++ {
		check(t, s, ip(i), 25*time.Hour)
	}
	if n := s.count.Load(); n < 100 || n > 102 {
		t.Errorf("%d entries after the old ones expired, limit is 100", n)
	}
	if got := check(t, s, ip(5), 26*time.Hour); got != White {
		t.Errorf("a white entry was removed: %v", got)
	}
	if n := entries(t, s); int64(n) != s.count.Load() {
		t.Errorf("%d entries, counted %d", n, s.count.Load())
	}
}

// model is greylisting without limits, as README 3.9.4 describes it.
type model map[string]*struct {
	white       bool
	first, last time.Duration
}

func (m model) check(k string, at time.Duration, c Config) State {
	e := m[k]
	if e == nil || !e.white && at-e.first > c.Expire || e.white && at-e.last > c.WhiteTimeout {
		m[k] = &struct {
			white       bool
			first, last time.Duration
		}{false, at, at}
		return Grey
	}
	if !e.white && at-e.first < c.Wait {
		return Grey
	}
	e.white, e.last = true, at
	return White
}

func TestProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := testConfig
		cfg.WhiteExpire = 50 * 24 * time.Hour
		fs := crashfs.New()
		s := open(t, fs, cfg)
		defer func() { s.Close() }()
		m := model{}
		at := time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(rt, "visits") {
			at += time.Duration(rapid.SampledFrom([]int{1, 60, 299, 300, 3600, 86400, 86401, 3000000, 6000000}).Draw(rt, "pause")) * time.Second
			ip := fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 3).Draw(rt, "client"))
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				s.Close()
				s = open(t, fs, cfg)
			}
			want := m.check(ip, at, cfg)
			got := check(t, s, client(ip), at)
			// A white entry's time is written only in steps of a fiftieth of WhiteExpire,
			// so near the timeout the store may be a day ahead of the model.
			if got != want {
				if e := m[ip]; want == White && at-e.last > cfg.WhiteTimeout-cfg.WhiteExpire/updateStep {
					continue
				}
				if want == White {
					m[ip].white, m[ip].first, m[ip].last = false, at, at
					rt.Skip("difference by the step of updates")
				}
				rt.Fatalf("%s at %v: %v, want %v", ip, at, got, want)
			}
		}
		if s.count.Load() != int64(len(m)) || entries(t, s) != len(m) {
			rt.Fatalf("%d entries, want %d", s.count.Load(), len(m))
		}
	})
}

// A check among many entries; the target is 50 µs at 1,000,000.
func BenchmarkCheck(b *testing.B) {
	s, err := Open(b.TempDir(), Config{
		Wait: time.Minute, Expire: time.Hour, WhiteExpire: 24 * time.Hour, WhiteTimeout: 48 * time.Hour,
		Limit: 900000, Netmask: 0xFFFFFFFF, Prefix6: 64,
	}, Deps{FS: vfs.Real(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ip := func(i int) Key {
		return Key{Client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	for i := range 1000000 {
		check(b, s, ip(i*7919), time.Duration(i)*time.Millisecond)
	}
	b.Run("known", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			check(b, s, ip(i*7919%(1<<24)), 20*time.Minute)
		}
	})
	b.Run("new", func(b *testing.B) {
		worst := time.Duration(0)
		for i := 0; b.Loop(); i++ {
			start := time.Now()
			check(b, s, Key{Client: netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})}, 2*time.Hour+time.Duration(i)*time.Millisecond)
			worst = max(worst, time.Since(start))
		}
		b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
	})
}

// TestWould: what would become of a client is what becomes of it, and to ask is no visit.
func TestWould(t *testing.T) {
	s := open(t, crashfs.New(), testConfig)
	defer s.Close()
	for i, v := range []struct {
		would bool
		at    time.Duration
		want  State
	}{
		{true, 0, Grey},
		{true, 10 * time.Minute, Grey}, // the first was no visit
		{false, 20 * time.Minute, Grey},
		{true, 30 * time.Minute, White},
		{false, 21 * time.Minute, Grey},
		{false, 30 * time.Minute, White},
	} {
		got := State(0)
		if v.would {
			var err error
			if got, err = s.Would(t.Context(), client("192.0.2.1"), begin.Add(v.at)); err != nil {
				t.Fatal(err)
			}
		} else {
			got = check(t, s, client("192.0.2.1"), v.at)
		}
		if got != v.want {
			t.Errorf("question %d: %v, want %v", i, got, v.want)
		}
	}
}
