package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// script runs lines such as "create a/f", "write a/f text", "sync a/f", "syncdir a".
func script(t *testing.T, disk pvfs.FS, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if err := step(disk, strings.Fields(line)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

func step(disk pvfs.FS, words []string) error {
	name := words[1]
	open := func(open func() (pvfs.File, error), use func(pvfs.File) error) error {
		f, err := open()
		if err != nil {
			return err
		}
		return errors.Join(use(f), f.Close())
	}
	old := func() (pvfs.File, error) { return disk.OpenReadWrite(name, pvfs.WriteCategoryUnspecified) }
	switch words[0] {
	case "mkdir":
		return disk.MkdirAll(name, 0o755)
	case "create":
		return open(func() (pvfs.File, error) { return disk.Create(name, pvfs.WriteCategoryUnspecified) },
			func(pvfs.File) error { return nil })
	case "write": // at the end
		return open(old, func(f pvfs.File) error {
			info, err := f.Stat()
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte(words[2]), info.Size())
			return err
		})
	case "overwrite": // from the beginning
		return open(old, func(f pvfs.File) error { _, err := f.Write([]byte(words[2])); return err })
	case "sync":
		return open(old, pvfs.File.Sync)
	case "syncdir":
		return open(func() (pvfs.File, error) { return disk.OpenDir(name) }, pvfs.File.Sync)
	case "remove":
		return disk.Remove(name)
	case "removeall":
		return disk.RemoveAll(name)
	case "rename":
		return disk.Rename(name, words[2])
	case "link":
		return disk.Link(name, words[2])
	}
	return errors.New("no such step")
}

// tree is all that is on a disk, as "name=content" and "dir/".
func tree(t *testing.T, disk pvfs.FS, dir string) (all []string) {
	t.Helper()
	names, err := disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := disk.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			all = append(append(all, path+"/"), tree(t, disk, path)...)
			continue
		}
		all = append(all, path+"="+string(contentOf(t, disk, path)))
	}
	return all
}

func contentOf(t *testing.T, disk pvfs.FS, name string) []byte {
	t.Helper()
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestStates compares all that a power cut can leave with what it should.
func TestStates(t *testing.T) {
	begin := []string{"create a", "write a old", "sync a", "create b", "write b B", "sync b", "mkdir d", "syncdir .", "syncdir d"}
	cases := map[string]struct {
		steps []string
		want  []string
	}{
		"all synced": {nil, []string{"a=old b=B d/"}},
		"creation": {
			[]string{"create f", "write f x", "sync f"}, // the sync does not make the name durable
			[]string{"a=old b=B d/", "a=old b=B d/ f=x"},
		},
		"creation, name synced": {
			[]string{"create f", "write f x", "syncdir ."},
			[]string{"a=old b=B d/ f=", "a=old b=B d/ f=x"},
		},
		"removal":         {[]string{"remove a"}, []string{"a=old b=B d/", "b=B d/"}},
		"removal, synced": {[]string{"remove a", "syncdir ."}, []string{"b=B d/"}},
		"two removals": {
			[]string{"remove a", "remove b"},
			[]string{"a=old b=B d/", "a=old d/", "b=B d/", "d/"},
		},
		"a creation, then a removal": {
			[]string{"create f", "sync f", "remove b"},
			[]string{"a=old b=B d/", "a=old b=B d/ f=", "a=old d/", "a=old d/ f="},
		},
		"rename in place of another": {
			[]string{"rename b a"},
			[]string{"a=B d/", "a=old b=B d/"},
		},
		"the usual way to replace a file": {
			[]string{"create f", "write f new", "sync f", "rename f a", "syncdir ."},
			[]string{"a=new b=B d/"},
		},
		"the same without the sync of the file": {
			[]string{"create f", "write f new", "rename f a", "syncdir ."},
			[]string{"a= b=B d/", "a=new b=B d/"},
		},
		"rename to another directory": {
			[]string{"rename b d/b"},
			[]string{"a=old b=B d/", "a=old b=B d/ d/b=B", "a=old d/", "a=old d/ d/b=B"},
		},
		"the same, new name synced": {
			[]string{"rename b d/b", "syncdir d"},
			[]string{"a=old b=B d/ d/b=B", "a=old d/ d/b=B"},
		},
		"content": {
			[]string{"write a er", "write a !"},
			[]string{"a=old b=B d/", "a=older b=B d/", "a=older! b=B d/"},
		},
		"content, synced": {[]string{"write a er", "sync a"}, []string{"a=older b=B d/"}},
		"overwritten": {
			[]string{"overwrite a gol"},
			[]string{"a=gol b=B d/", "a=old b=B d/"},
		},
		"file in a new directory": {
			[]string{"mkdir e", "create e/f", "write e/f x", "sync e/f", "syncdir e"},
			[]string{"a=old b=B d/", "a=old b=B d/ e/ e/f=x"},
		},
		"new directories": {
			[]string{"mkdir e/g"},
			[]string{"a=old b=B d/", "a=old b=B d/ e/", "a=old b=B d/ e/ e/g/"},
		},
		"second name": {
			[]string{"link a d/a", "remove a"},
			[]string{"a=old b=B d/", "a=old b=B d/ d/a=old", "b=B d/", "b=B d/ d/a=old"},
		},
		"content by two names": {
			[]string{"link a c", "syncdir .", "write c er"},
			[]string{"a=old b=B c=old d/", "a=older b=B c=older d/"},
		},
		"created anew": {
			[]string{"create a"},
			[]string{"a= b=B d/", "a=old b=B d/", "b=B d/"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			disk := New()
			script(t, disk, begin...)
			script(t, disk, c.steps...)
			live := strings.Join(tree(t, disk, "."), " ")
			found := map[string]bool{}
			for _, d := range disk.States(1<<10, nil) {
				found[strings.Join(tree(t, d, "."), " ")] = true
				if p := d.Pending(); len(p) > 0 {
					t.Errorf("not durable after a power cut: %v", p)
				}
			}
			got := slices.Sorted(maps.Keys(found))
			if !slices.Equal(got, c.want) {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if killed := strings.Join(tree(t, disk.Kill(), "."), " "); killed != live {
				t.Errorf("kill -9 left %s of %s", killed, live)
			}
			if all := strings.Join(tree(t, disk.Crash(Everything), "."), " "); all != live {
				t.Errorf("a power cut that loses nothing left %s of %s", all, live)
			}
		})
	}
}

// TestKillThenPowerCut: what was not synced before a kill is not synced after it.
func TestKillThenPowerCut(t *testing.T) {
	disk := New()
	script(t, disk, "create a", "write a x", "create b", "sync b", "syncdir .", "remove b", "mkdir d", "create d/c")
	next := disk.Kill()
	script(t, disk, "write a of-the-dead")
	script(t, next, "syncdir d")
	if got, want := fmt.Sprint(next.Pending()), "[write a page 0 remove b create d]"; got != want {
		t.Errorf("not durable: %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(tree(t, next.Crash(Nothing), ".")), "[a= b=]"; got != want {
		t.Errorf("left %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(tree(t, next, ".")), "[a=x d/ d/c=]"; got != want {
		t.Errorf("live %s, want %s", got, want)
	}
	script(t, next, "sync a", "syncdir .")
	if p := next.Pending(); len(p) > 0 {
		t.Errorf("not durable: %v", p)
	}
}

// TestPages: pages of a file are lost one by one, and the hole reads as zeros.
func TestPages(t *testing.T) {
	disk := New()
	script(t, disk, "create a", "syncdir .")
	whole := bytes.Repeat([]byte("x"), 3*pageSize-100)
	script(t, disk, "write a "+string(whole))
	sizes := map[int]bool{}
	for _, d := range disk.States(8, nil) {
		got := contentOf(t, d, "a")
		sizes[len(got)] = true
		for i, c := range got {
			if c != 'x' && (c != 0 || bytes.Contains(got[i/pageSize*pageSize:min(len(got), (i/pageSize+1)*pageSize)], []byte("x"))) {
				t.Fatalf("byte %d of %d is %q", i, len(got), c)
			}
		}
	}
	if got := slices.Sorted(maps.Keys(sizes)); !slices.Equal(got, []int{0, pageSize, 2 * pageSize, 3*pageSize - 100}) {
		t.Errorf("sizes %v", got)
	}
}

// TestCopiesAreApart: appending on one copy must not show on another, though they share
// pages.
func TestCopiesAreApart(t *testing.T) {
	disk := New()
	script(t, disk, "create a", "write a 1", "write a 2", "sync a", "syncdir .", "write a 3")
	copies := []*Disk{disk, disk.Kill(), disk.Crash(Everything), disk.Crash(Nothing)}
	for i, d := range copies {
		script(t, d, "write a "+string("abcd"[i]))
	}
	for i, want := range []string{"123a", "123b", "123c", "12d"} {
		if got := string(contentOf(t, copies[i], "a")); got != want {
			t.Errorf("copy %d is %q, want %q", i, got, want)
		}
	}
	if got := string(contentOf(t, copies[1].Crash(Nothing), "a")); got != "12" {
		t.Errorf("durable after the kill: %q", got)
	}
}

// TestSample: a disk with too many changes yields as many states as were asked for, which
// differ, and the same again for a seed.
func TestSample(t *testing.T) {
	sample := func() (all []string) {
		disk := New()
		for i := range 40 {
			script(t, disk, fmt.Sprintf("create f%d", i))
		}
		for name, d := range disk.States(50, rand.New(rand.NewPCG(1, 2))) {
			all = append(all, name+": "+strings.Join(tree(t, d, "."), " "))
		}
		return all
	}
	a, b := sample(), sample()
	if !slices.Equal(a, b) {
		t.Error("a seed does not give the same states again")
	}
	slices.Sort(a)
	if n := len(slices.Compact(a)); n < 45 {
		t.Errorf("%d of 50 states differ", n)
	}
}

// TestOrdered: names survive up to one of them.
func TestOrdered(t *testing.T) {
	seen := map[int]bool{}
	rnd := rand.New(rand.NewPCG(1, 2))
	disk := New()
	for i := range 5 {
		script(t, disk, fmt.Sprintf("create f%d", i))
	}
	for range 200 {
		names := tree(t, disk.Crash(Ordered(rnd)), ".")
		seen[len(names)] = true
		for i, name := range names {
			if name != fmt.Sprintf("f%d=", i) {
				t.Fatalf("left %v", names)
			}
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d of 6 states were seen", len(seen))
	}
}

// TestAsTheRealOne compares the disk with the operating system's file system, step by
// step, errors included.
func TestAsTheRealOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	paths := []string{"a", "b", "d", "d/a", "d/b", "e", "e/a", "a/x", "e/f/g"}
	verbs := []string{"mkdir", "create", "create", "write", "write", "overwrite", "remove", "rename", "rename", "link", "removeall"}
	for round := range 30 {
		real, disk := t.TempDir(), New()
		script(t, disk, "mkdir "+real)
		for n := range 60 {
			words := []string{verbs[rnd.IntN(len(verbs))], filepath.Join(real, paths[rnd.IntN(len(paths))]), strings.Repeat("w", rnd.IntN(9000))}
			if words[0] == "rename" || words[0] == "link" {
				words[2] = filepath.Join(real, paths[rnd.IntN(len(paths))])
				if info, err := disk.Stat(words[1]); err == nil && info.IsDir() && filepath.Dir(words[1]) != filepath.Dir(words[2]) {
					continue // not done here
				}
			}
			want, got := step(pvfs.Default, words), step(disk, words)
			if (want == nil) != (got == nil) || errors.Is(want, fs.ErrNotExist) != errors.Is(got, fs.ErrNotExist) || errors.Is(want, fs.ErrExist) != errors.Is(got, fs.ErrExist) {
				t.Fatalf("round %d step %d %.60q: %v, but in reality %v", round, n, words, got, want)
			}
			if a, b := tree(t, disk, real), tree(t, pvfs.Default, real); !slices.Equal(a, b) {
				t.Fatalf("round %d step %d %.60q: left %.300q, but in reality %.300q", round, n, words, a, b)
			}
		}
		_ = os.RemoveAll(real)
	}
}

func TestLock(t *testing.T) {
	disk := New()
	l, err := disk.Lock("LOCK")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Lock("LOCK"); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("locked twice: %v", err)
	}
	for _, d := range []*Disk{disk.Kill(), disk.Crash(Nothing)} {
		if _, err := d.Lock("LOCK"); err != nil {
			t.Errorf("locked by a dead process: %v", err)
		}
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := disk.Lock("LOCK"); err != nil {
		t.Errorf("not free: %v", err)
	}
}

// TestClosed: a closed file, and a directory taken for one, are errors.
func TestClosed(t *testing.T) {
	disk := New()
	script(t, disk, "mkdir d")
	dir, err := disk.OpenDir("d")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Read(make([]byte, 1)); err == nil {
		t.Error("read a directory")
	}
	f, err := disk.Create("d/f", pvfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write to a closed file: %v", err)
	}
	if f, err = disk.Open("d/f"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("wrote to a file that is open for reading")
	}
}

// TestPebble crashes a store of Pebble before its calls to the disk. Every commit that
// had ended must be there, and Pebble must open. As the queue's guard does (package
// store), it makes the name of a manifest durable before the marker that points to it.
func TestPebble(t *testing.T) {
	type crash struct {
		disk  *Disk
		op    string
		acked int
	}
	disk, rnd := New(), rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex // guards the next three and rnd: Pebble flushes in a goroutine of its own
	var crashes []crash
	acked, calls := 0, 0
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == errorfs.OpCreate && strings.Contains(op.Path, "marker.") {
			script(t, disk, "syncdir db")
		}
		if calls++; calls%3 == 0 {
			crashes = append(crashes, crash{disk.Crash(Random(rnd, rnd.IntN(101))), fmt.Sprintf("call %d, kind %d on %s", calls, op.Kind, op.Path), acked})
		}
		return nil
	})
	options := func(fs pvfs.FS) *pebble.Options {
		return &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 10, DisableAutomaticCompactions: true, Logger: quiet{t}}
	}
	script(t, disk, "mkdir db", "syncdir .")
	db, err := pebble.Open("db", options(errorfs.Wrap(disk, inject)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if err := db.Set(fmt.Append(nil, "key", i), bytes.Repeat([]byte("v"), 5000), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		acked = i + 1
		mu.Unlock()
		if i%20 == 19 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if len(crashes) < 30 {
		t.Fatalf("only %d crashes", len(crashes))
	}
	for _, c := range crashes {
		db, err := pebble.Open("db", options(c.disk))
		if err != nil {
			t.Fatalf("%s: %v", c.op, err)
		}
		for i := range c.acked {
			_, closer, err := db.Get(fmt.Append(nil, "key", i))
			if err != nil {
				t.Fatalf("%s: record %d of %d: %v", c.op, i, c.acked, err)
			}
			_ = closer.Close()
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// quiet drops Pebble's routine words.
type quiet struct{ t *testing.T }

func (quiet) Infof(string, ...any)             {}
func (q quiet) Errorf(format string, a ...any) { q.t.Logf(format, a...) }
func (q quiet) Fatalf(format string, a ...any) { q.t.Errorf(format, a...) }
