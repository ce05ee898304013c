package salvage

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/store"
	"meta1/mta/vfs/crashfs"
)

func space() (int64, int64) { return 1 << 30, 64 << 20 }

func known(key []byte) bool {
	return len(key) == 10 && (key[0] == 'c' || key[0] == 'e') || len(key) == 14 && key[0] == 'd'
}

func key(prefix byte, n int) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{prefix}, uint64(n)), 0)
}

// write is one record that was written, in the order of writing.
type write struct {
	key, value string
	gone       bool
}

// used is a store as kill -9 leaves it, and what was written to it.
type used struct {
	disk   *pvfs.MemFS
	writes []write
}

// live are the records that the store has.
func (u *used) live() map[string]string {
	m := map[string]string{}
	for _, w := range u.writes {
		if delete(m, w.key); !w.gone {
			m[w.key] = w.value
		}
	}
	return m
}

// newUsed fills a store with records like the IBDB's: batches of envelopes with
// contents of the given size, of which some are removed later. flush says after how
// many batches a table is written; 0 for never.
func newUsed(t *testing.T, batches, content, flush int) *used {
	t.Helper()
	u := &used{disk: pvfs.NewCrashableMem()}
	s, err := store.Open(crashfs.FS(u.disk, space), "db", store.Options{
		Name: "TEST", Version: 1, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, content)
	for i := range batches {
		b := s.NewBatch()
		for j := range 5 {
			n := i*5 + j
			for k := range text {
				text[k] = byte(rnd.Uint32())
			}
			u.set(t, b, key('e', n), []byte(fmt.Sprintf("envelope %d %x", n, text[:min(len(text), 30)])))
			u.set(t, b, key('c', n), text)
			if old := n - 7; old > 0 && old%3 == 0 {
				u.gone(t, b, key('e', old))
				u.gone(t, b, key('c', old))
			}
		}
		if err := s.Commit(b); err != nil {
			t.Fatal(err)
		}
		if flush > 0 && i%flush == flush-1 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	u.disk = clone(u.disk)
	return u
}

func clone(disk *pvfs.MemFS) *pvfs.MemFS {
	return disk.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
}

func (u *used) set(t *testing.T, b *pebble.Batch, k, v []byte) {
	t.Helper()
	u.writes = append(u.writes, write{key: string(k), value: string(v)})
	if err := b.Set(k, v, nil); err != nil {
		t.Fatal(err)
	}
}

func (u *used) gone(t *testing.T, b *pebble.Batch, k []byte) {
	t.Helper()
	u.writes = append(u.writes, write{key: string(k), gone: true})
	if err := b.SingleDelete(k, nil); err != nil {
		t.Fatal(err)
	}
}

// file gives the last file of the store with the ending that is not empty, and its
// content.
func (u *used) file(t *testing.T, ending string) (name string, content []byte) {
	t.Helper()
	names, err := u.disk.List("db")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, n := range slices.Backward(names) {
		if !strings.Contains(n, ending) {
			continue
		}
		if content = contentOf(t, u.disk, "db/"+n); len(content) > 0 {
			return "db/" + n, content
		}
	}
	t.Fatalf("no %s among %v", ending, names)
	return "", nil
}

func contentOf(t *testing.T, disk *pvfs.MemFS, name string) []byte {
	t.Helper()
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// with is a disk on which one file has another content.
func with(t *testing.T, disk *pvfs.MemFS, name string, content []byte) *pvfs.MemFS {
	t.Helper()
	disk = clone(disk)
	f, err := disk.Create(name, pvfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(slices.Clone(content)); err != nil {
		t.Fatal(err)
	}
	return disk
}

func listing(t *testing.T, disk *pvfs.MemFS) string {
	t.Helper()
	names, err := disk.List("db")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		info, err := disk.Stat(filepath.Join("db", n))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, n, info.Size(), info.ModTime())
	}
	return b.String()
}

// salvage reads a store, and checks that it was not changed.
func salvage(t *testing.T, disk *pvfs.MemFS) (got map[string]string, damages []Damage) {
	t.Helper()
	before := listing(t, disk)
	s, err := Open(crashfs.FS(disk, space), "db", Options{Known: known})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got = map[string]string{}
	last := ""
	err = s.Scan(nil, nil, func(k, v []byte) (bool, error) {
		if string(k) <= last {
			t.Errorf("%x comes behind %x", k, last)
		}
		last = string(k)
		got[last] = string(v)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range got {
		if g, ok, err := s.Get([]byte(k)); err != nil || !ok || string(g) != v {
			t.Fatalf("Get of %x: %v, %v", k, ok, err)
		}
	}
	if after := listing(t, disk); after != before {
		t.Errorf("the store was changed from\n%sto\n%s", before, after)
	}
	return got, s.Damages()
}

// judge compares what was salvaged with what was there: only records of one stretch of
// the writing (or of the keys) of at most max bytes may be missing, all of them covered
// by a damage; what has come back must have been there once.
func (u *used) judge(t *testing.T, got map[string]string, damages []Damage, max int) (lost int) {
	t.Helper()
	was := map[string]bool{}
	for _, w := range u.writes {
		was[w.key+"="+w.value] = true
	}
	for k, v := range got {
		if k != "\x00version" && !was[k+"="+v] {
			t.Errorf("%x is %x, and never was", k, v)
		}
	}
	size := 0
	for k, v := range u.live() {
		g, ok := got[k]
		if ok && g == v {
			continue
		}
		lost++
		size += len(k) + len(v)
		if !slices.ContainsFunc(damages, func(d Damage) bool { return d.Covers([]byte(k)) || d.Note && strings.HasSuffix(d.File, ".log") }) {
			t.Fatalf("%x is lost (or old) and in no damage of %v", k, damages)
		}
	}
	if size > max {
		t.Errorf("%d records with %d bytes are lost, at most %d were damaged: %v", lost, size, max, damages)
	}
	return lost
}

func TestWhole(t *testing.T) {
	for _, u := range []*used{newUsed(t, 0, 0, 0), newUsed(t, 30, 100, 0), newUsed(t, 30, 20000, 0), newUsed(t, 40, 300, 8)} {
		got, damages := salvage(t, u.disk)
		u.judge(t, got, nil, 0)
		if want := len(u.live()); len(got) != want+1 { // and the version
			t.Errorf("%d records, want %d", len(got), want+1)
		}
		for _, d := range damages {
			if !d.Note {
				t.Errorf("damage of a store that is whole: %v", d)
			}
		}
	}
}

// places are positions in a file: all of the beginning and the end, and many between.
func places(n int) (at []int) {
	for i := 0; i < n; i++ {
		if i < 24 && i%edgeStride == 0 || i >= n-64 && i%(3*edgeStride) == 0 || i%(n/placesMany+1) == 0 {
			at = append(at, i)
		}
	}
	return at
}

// TestDamagedLog damages the log byte by byte, by stretches and by its end.
// TestRangesDeleted: what stands beside the removal of a range is read, in a log and in a
// table.
func TestRangesDeleted(t *testing.T) {
	for _, flush := range []bool{false, true} {
		u := newUsed(t, 1, 10, 0)
		s, err := store.Open(crashfs.FS(u.disk, space), "db", store.Options{
			Name: "TEST", Version: 1, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		u.set(t, b, key('e', 100), []byte("before"))
		if err := b.DeleteRange([]byte("d"), []byte("e"), nil); err != nil {
			t.Fatal(err)
		}
		u.set(t, b, key('e', 101), []byte("behind"))
		if err := s.Commit(b); err != nil {
			t.Fatal(err)
		}
		if flush {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		u.disk = clone(u.disk)
		_ = s.Close()
		got, damages := salvage(t, u.disk)
		if lost := u.judge(t, got, damages, 0); lost > 0 || len(damages) > 0 {
			t.Errorf("flushed %v: %d lost, %v", flush, lost, damages)
		}
	}
}

func TestDamagedLog(t *testing.T) {
	for name, u := range map[string]*used{"small": newUsed(t, 60, 100, 0), "large": newUsed(t, 7, 20000, 0), "behind tables": newUsed(t, 45, 100, 10)} {
		t.Run(name, func(t *testing.T) {
			log, whole := u.file(t, ".log")
			lost := 0
			for _, at := range places(len(whole)) {
				b := slices.Clone(whole)
				b[at] ^= 0x41
				got, damages := salvage(t, with(t, u.disk, log, b))
				lost += u.judge(t, got, damages, store.BlockLen+2*20100)
			}
			if lost == 0 {
				t.Error("nothing was ever lost")
			}
			for _, at := range []int{0, 100, len(whole) / 3, len(whole) / 2} {
				for _, fill := range []byte{0, 0xff} {
					b := slices.Clone(whole)
					end := min(at+len(b)/4, len(b))
					for i := at; i < end; i++ {
						b[i] = fill
					}
					got, damages := salvage(t, with(t, u.disk, log, b))
					u.judge(t, got, damages, len(b)/4+2*store.BlockLen+20100)
				}
				got, _ := salvage(t, with(t, u.disk, log, whole[:at]))
				u.judge(t, got, []Damage{{}}, len(whole)-at+store.BlockLen+20100)
			}
		})
	}
}

// TestDamagedTable damages a table byte by byte, cuts it short and removes it, with
// and without a manifest.
func TestDamagedTable(t *testing.T) {
	u := newUsed(t, 40, 200, 40)
	sst, whole := u.file(t, ".sst")
	manifest, _ := u.file(t, "MANIFEST")
	noManifest := &used{disk: clone(u.disk), writes: u.writes}
	if err := noManifest.disk.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	const blockSize = 4096 + 400
	for name, u := range map[string]*used{"with manifest": u, "without": noManifest} {
		t.Run(name, func(t *testing.T) {
			lost, whole1 := 0, 0
			for _, at := range places(len(whole)) {
				b := slices.Clone(whole)
				b[at] ^= 0x41
				got, damages := salvage(t, with(t, u.disk, sst, b))
				n := u.judge(t, got, damages, blockSize)
				if lost += n; n == 0 {
					whole1++
				}
			}
			if lost == 0 || whole1 == 0 {
				t.Errorf("%d records were lost, nothing in %d cases", lost, whole1)
			}
			for _, at := range []int{0, 10, 5000, len(whole) / 2, len(whole) - 100, len(whole) - 1} {
				got, damages := salvage(t, with(t, u.disk, sst, whole[:at]))
				u.judge(t, got, damages, (len(whole)-at)+blockSize)
				b := append(slices.Clone(whole[:at]), make([]byte, len(whole)-at)...)
				got, damages = salvage(t, with(t, u.disk, sst, b))
				u.judge(t, got, damages, (len(whole)-at)+blockSize)
			}
			// A block and the index at once.
			b := slices.Clone(whole)
			b[9000] ^= 1
			b[len(b)-20] ^= 1
			got, damages := salvage(t, with(t, u.disk, sst, b))
			u.judge(t, got, damages, blockSize)
		})
	}
	disk := clone(u.disk)
	if err := disk.Remove(sst); err != nil {
		t.Fatal(err)
	}
	got, damages := salvage(t, disk)
	u.judge(t, got, damages, 1<<30)
	if len(damages) == 0 {
		t.Error("a missing table is no damage")
	}
}

// TestDamagedManifest removes or damages what names the files.
func TestDamagedManifest(t *testing.T) {
	u := newUsed(t, 40, 200, 10)
	for _, name := range []string{"MANIFEST-", "marker.manifest", "marker.format", "OPTIONS-"} {
		disk := clone(u.disk)
		names, err := disk.List("db")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if strings.HasPrefix(n, name) {
				_ = disk.Remove("db/" + n)
			}
		}
		got, damages := salvage(t, disk)
		u.judge(t, got, damages, 0)
	}
	manifest, whole := u.file(t, "MANIFEST-")
	for at := 0; at < len(whole); at += 1 + len(whole)/placesMany {
		b := slices.Clone(whole)
		b[at] ^= 0x41
		got, damages := salvage(t, with(t, u.disk, manifest, b))
		u.judge(t, got, damages, 0)
	}
}

// TestNothingThere: an empty or missing directory is damage, but no error.
func TestNothingThere(t *testing.T) {
	disk := pvfs.NewCrashableMem()
	for range 2 {
		got, damages := readAll(t, disk)
		if len(got) != 0 || len(damages) != 1 || damages[0].Note {
			t.Errorf("%v, %v", got, damages)
		}
		if err := disk.MkdirAll("db", 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func readAll(t *testing.T, disk *pvfs.MemFS) (map[string]string, []Damage) {
	t.Helper()
	s, err := Open(crashfs.FS(disk, space), "db", Options{Known: known})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := map[string]string{}
	err = s.Scan(nil, nil, func(k, v []byte) (bool, error) { got[string(k)] = string(v); return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	return got, s.Damages()
}
