package greylist

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

var testConfig = Config{
	Wait: 5 * time.Minute, Expire: 24 * time.Hour, WhiteExpire: 30 * 24 * time.Hour, WhiteTimeout: 60 * 24 * time.Hour,
	Limit: 1000, Netmask: 0xFFFFFFFF, Prefix6: 64,
}

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t testing.TB, fs vfs.FS, cfg Config) *Store {
	t.Helper()
	s, err := Open("greylist", fs, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func check(t testing.TB, s *Store, k Key, after time.Duration) State {
	t.Helper()
	st, err := s.Check(k, begin.Add(after))
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
			s := open(t, vfs.NewMem(), testConfig)
			defer s.Close()
			for i, v := range visits {
				if got := check(t, s, client("192.0.2.1"), v.at); got != v.want {
					t.Errorf("visit %d: %v, want %v", i, got, v.want)
				}
			}
			if s.Len() != 1 {
				t.Errorf("%d entries", s.Len())
			}
		})
	}
}

func TestKeys(t *testing.T) {
	cfg := testConfig
	cfg.Netmask = 0xFFFFFF00
	s := open(t, vfs.NewMem(), cfg)
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
	fs := vfs.NewMem()
	s := open(t, fs, testConfig)
	for i := range 50 {
		check(t, s, client(fmt.Sprintf("192.0.2.%d", i)), 0)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs, testConfig)
	defer s.Close()
	if s.Len() != 50 {
		t.Errorf("%d entries after a restart", s.Len())
	}
	if got := check(t, s, client("192.0.2.7"), time.Hour); got != White {
		t.Errorf("%v after a restart", got)
	}
}

// A crash may lose the last entries, but the store opens and counts right.
func TestCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs, testConfig)
	for i := range 200 {
		check(t, s, client(fmt.Sprintf("192.0.%d.%d", i/100, i%100)), 0)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	s.Close()
	s = open(t, crashed, testConfig)
	defer s.Close()
	if n := entries(t, s); n != s.Len() || n > 200 {
		t.Errorf("%d entries, counted %d", n, s.Len())
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
	fs := vfs.NewMem()
	s := open(t, fs, testConfig)
	if err := s.db.Set([]byte(keyVersion), make([]byte, 8), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open("greylist", fs, testConfig, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("an unknown version was opened")
	}
	if _, err := Open("x", fs, Config{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a prefix of 0 was accepted")
	}
}

// README 3.9.4: entries are removed only above the limit, and only expired ones; if
// none is expired the limit is exceeded.
func TestExpire(t *testing.T) {
	cfg := testConfig
	cfg.Limit = 100
	s := open(t, vfs.NewMem(), cfg)
	defer s.Close()
	ip := func(i int) Key {
		return Key{Client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	for i := range 300 {
		check(t, s, ip(i), time.Duration(i)*time.Second)
	}
	if s.Len() != 300 {
		t.Errorf("%d entries although none is expired", s.Len())
	}
	check(t, s, ip(5), time.Hour) // white: must stay
	for i := 1000; i < 1100; i++ {
		check(t, s, ip(i), 25*time.Hour)
	}
	if n := s.Len(); n < 100 || n > 102 {
		t.Errorf("%d entries after the old ones expired, limit is 100", n)
	}
	if got := check(t, s, ip(5), 26*time.Hour); got != White {
		t.Errorf("a white entry was removed: %v", got)
	}
	if n := entries(t, s); n != s.Len() {
		t.Errorf("%d entries, counted %d", n, s.Len())
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
		fs := vfs.NewMem()
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
		if s.Len() != len(m) || entries(t, s) != len(m) {
			rt.Fatalf("%d entries, want %d", s.Len(), len(m))
		}
	})
}

// A check among many entries; the target is 50 µs at 1,000,000.
func BenchmarkCheck(b *testing.B) {
	s, err := Open(b.TempDir(), nil, Config{
		Wait: time.Minute, Expire: time.Hour, WhiteExpire: 24 * time.Hour, WhiteTimeout: 48 * time.Hour,
		Limit: 900000, Netmask: 0xFFFFFFFF, Prefix6: 64,
	}, slog.New(slog.DiscardHandler))
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
