package maps

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// peer finds a program that make needs installs. Its absence fails the test where
// make runs it, and skips it elsewhere.
func peer(t *testing.T, name string) string {
	t.Helper()
	cache := os.Getenv("META1_TEST_CACHE")
	for _, dir := range []string{"usr/sbin", "usr/bin"} {
		if p := filepath.Join(cache, "peers", dir, name); cache != "" && exists(p) {
			return p
		}
	}
	p, err := exec.LookPath(name)
	switch {
	case err == nil:
		return p
	case cache == "":
		t.Skipf("%s is not installed; make test demands it", name)
	default:
		t.Fatalf("%s is missing; make needs installs it", name)
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func create(t testing.TB, name, text string, o CreateOptions) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if _, err := Create(path, strings.NewReader(text), o); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) fileMap {
	t.Helper()
	m, err := openCreated(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const sample = `# aliases
postmaster: <root@example.org>
mylist: <a@example.org>
  <b@example.org>
User+Detail	value
oci:	5
to:root error:551 5.7.1 No mail to root
to:abuse: quick:ok
`

func TestCreate(t *testing.T) {
	for _, name := range []string{"x.db", "x.cdb"} {
		t.Run(name, func(t *testing.T) {
			path := create(t, name, sample, CreateOptions{})
			m := open(t, path)
			for key, want := range map[string]string{
				"postmaster": "<root@example.org>", "mylist": "<a@example.org> <b@example.org>", "user+detail": "value",
				"oci:": "5", "to:root": "error:551 5.7.1 No mail to root", "to:abuse": "quick:ok", "postmaster:": "", "nobody": "", "": "",
			} {
				v, r := m.Lookup(context.Background(), key)
				if v != want || (r == OK) != (want != "") {
					t.Errorf("%q: %q %v, want %q", key, v, r, want)
				}
			}
			var out bytes.Buffer
			if err := Dump(path, &out); err != nil {
				t.Fatal(err)
			}
			want := "postmaster\t<root@example.org>\nmylist\t<a@example.org> <b@example.org>\nuser+detail\tvalue\noci:\t5\n" +
				"to:root\terror:551 5.7.1 No mail to root\nto:abuse\tquick:ok\n"
			if out.String() != want {
				t.Errorf("dump:\n%s", out.String())
			}
			if v, ok, err := Query(path, "USER+detail"); v != "value" || !ok || err != nil {
				t.Errorf("query: %q %v %v", v, ok, err)
			}
			if v, ok, err := Query(path, "nobody"); ok || err != nil {
				t.Errorf("query: %q %v %v", v, ok, err)
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(entries) != 1 {
				t.Errorf("left behind: %v %v", entries, err)
			}
		})
	}
}

func TestCreateOptions(t *testing.T) {
	m := open(t, create(t, "x.db", "User: V\n", CreateOptions{CaseSensitive: true, Verbatim: true}))
	for key, want := range map[string]Result{"User:": OK, "user:": NotFound, "User": NotFound} {
		if _, r := m.Lookup(context.Background(), key); r != want {
			t.Errorf("%s: %v, want %v", key, r, want)
		}
	}
	if _, err := Create(filepath.Join(t.TempDir(), "x"), strings.NewReader(""), CreateOptions{Type: "btree"}); err == nil {
		t.Error("an unknown type was accepted")
	}
}

// Bad lines are all reported, and the old map stays.
func TestCreateErrors(t *testing.T) {
	for _, name := range []string{"x.db", "x.cdb"} {
		path := create(t, name, "old value\n", CreateOptions{})
		before, _ := os.ReadFile(path)
		_, err := Create(path, strings.NewReader("a 1\nb\na 2\nA: 3\n"), CreateOptions{Source: "src"})
		if err == nil {
			t.Fatalf("%s: bad input was accepted", name)
		}
		if !strings.Contains(err.Error(), `src:2: key "b" has no value`) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = Create(path, strings.NewReader("a 1\na 2\nA: 3\n"), CreateOptions{Source: "src"})
		if err == nil || !strings.Contains(err.Error(), `src:2: key "a" is already in line 1`) || !strings.Contains(err.Error(), `src:3: key "a" is already in line 1`) {
			t.Errorf("%s: %v", name, err)
		}
		after, _ := os.ReadFile(path)
		entries, _ := os.ReadDir(filepath.Dir(path))
		if !bytes.Equal(before, after) || len(entries) != 1 {
			t.Errorf("%s: the old map was touched, or %d files are there", name, len(entries))
		}
	}
}

func TestCreateKeepsMode(t *testing.T) {
	path := create(t, "x.db", "a b\n", CreateOptions{})
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path, strings.NewReader("a c\n"), CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := Create(filepath.Join(t.TempDir(), "no/such/x.db"), strings.NewReader("a b\n"), CreateOptions{}); err == nil {
		t.Error("a map was created in a folder that does not exist")
	}
}

// A map survives writing and reading whatever its entries are.
func TestCreateProperty(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		entries := rapid.MapOf(rapid.StringMatching(`[!-~]{1,12}`), rapid.StringMatching(`[!-~]([ -~]{0,40}[!-~])?`)).Draw(rt, "entries")
		name := rapid.SampledFrom([]string{"p.db", "p.cdb"}).Draw(rt, "type")
		b := newHashBuilder("x", true)
		c := newCDBBuilder()
		for k, v := range entries {
			if b.add(Entry{Key: k, Value: v}) != nil || c.add(Entry{Key: k, Value: v}) != nil {
				rt.Fatal("add")
			}
		}
		data, err := b.finish()
		if strings.HasSuffix(name, ".cdb") {
			data, err = c.finish()
		}
		if err != nil || writeFile(filepath.Join(dir, name), data) != nil {
			rt.Fatal(err)
		}
		m, err := openCreated(filepath.Join(dir, name))
		if err != nil {
			rt.Fatal(err)
		}
		for k, v := range entries {
			if got, r := m.Lookup(context.Background(), k); got != v || r != OK {
				rt.Fatalf("%q: %q %v, want %q", k, got, r, v)
			}
			if _, r := m.Lookup(context.Background(), k+"x"); (r == OK) != has(entries, k+"x") {
				rt.Fatalf("%q: %v", k+"x", r)
			}
		}
		n := 0
		if err := m.Each(func(k, v []byte) error {
			n++
			if entries[string(k)] != string(v) {
				return fmt.Errorf("%q: %q", k, v)
			}
			return nil
		}); err != nil || n != len(entries) {
			rt.Fatalf("%d entries, %v", n, err)
		}
	})
}

func has(m map[string]string, k string) bool { _, ok := m[k]; return ok }

func TestDamagedHash(t *testing.T) {
	good, err := os.ReadFile(create(t, "x.db", "a b\nc d\n", CreateOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut":      func(b []byte) []byte { return b[:len(b)-1] },
		"longer":   func(b []byte) []byte { return append(b, 0) },
		"empty":    func([]byte) []byte { return nil },
		"record":   func(b []byte) []byte { b[hashHeaderSize+1] ^= 1; return b },
		"table":    func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"version":  func(b []byte) []byte { b[8] = 9; return b },
		"magic":    func(b []byte) []byte { b[0] = 'X'; return b },
		"slots":    func(b []byte) []byte { b[24] = 3; return b },
		"berkeley": func(b []byte) []byte { copy(b[12:], "\x61\x15\x06\x00"); return b },
		"text":     func([]byte) []byte { return []byte(strings.Repeat("key value\n", 20)) },
	} {
		if m, err := newHash(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s: accepted, %d entries", name, m.Len())
		} else if name == "berkeley" && !strings.Contains(err.Error(), "createmap") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// postmap makes a command of Postfix's postmap that needs no installed Postfix: its
// libraries and its cdb maps are where the program was unpacked, its accounts are some
// that any Debian has. myhostname keeps it from asking DNS for our name.
func postmap(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program := peer(t, "postmap")
	dir := t.TempDir()
	mainCF := "compatibility_level = 3.6\nmyhostname = mail.example.org\nmail_owner = daemon\nsetgid_group = games\n"
	lib := filepath.Join(filepath.Dir(program), "../lib/postfix")
	if exists(filepath.Join(lib, "postfix-cdb.so")) {
		mainCF += "shlib_directory = " + filepath.Clean(lib) + "\nmeta_directory = " + dir + "\n"
	}
	for name, text := range map[string]string{
		"main.cf": mainCF, "dynamicmaps.cf": "cdb\tpostfix-cdb.so\tdict_cdb_open\tmkmap_cdb_open\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, append([]string{"-c", dir}, args...)...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Clean(lib))
	return cmd
}

// Files of cdb(1), of postmap with and without the final NUL, and ours.
func TestCDBPeers(t *testing.T) {
	dir := t.TempDir()
	const text = "alpha one\nbeta+x two words\ngamma three\n"
	want := map[string]string{"alpha": "one", "beta+x": "two words", "gamma": "three"}
	run := func(stdin, name string, args ...string) string {
		t.Helper()
		var cmd *exec.Cmd
		if name == "postmap" {
			cmd = postmap(t, args...)
		} else {
			cmd = exec.Command(peer(t, name), args...)
		}
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	verify := func(t *testing.T, path string) {
		t.Helper()
		m, err := OpenCDB(path, false)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if got, r := m.Lookup(context.Background(), strings.ToUpper(k)); r != OK || got != v {
				t.Errorf("%s: %q %v, want %q", k, got, r, v)
			}
		}
		for _, k := range []string{"", "alph", "alphaa", "delta", "alpha\x00"} {
			if got, r := m.Lookup(context.Background(), k); r != NotFound {
				t.Errorf("%q: %q %v", k, got, r)
			}
		}
	}
	t.Run("cdb", func(t *testing.T) {
		path := filepath.Join(dir, "tiny.cdb")
		run(text, "cdb", "-c", "-m", path)
		verify(t, path)
	})
	for _, flag := range []string{"-n", "-N"} {
		t.Run("postmap"+flag, func(t *testing.T) {
			path := filepath.Join(dir, "post")
			os.WriteFile(path, []byte(text), 0o600)
			run("", "postmap", flag, "cdb:"+path)
			verify(t, path+".cdb")
		})
	}
	t.Run("ours", func(t *testing.T) {
		path := filepath.Join(dir, "ours.cdb")
		if _, err := Create(path, strings.NewReader(text), CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		verify(t, path)
		for k, v := range want {
			if got := run("", "cdb", "-q", path, k); got != v {
				t.Errorf("cdb -q %s: %q", k, got)
			}
		}
		if got := run("", "cdb", "-d", "-m", path); got != text {
			t.Errorf("cdb -d:\n%s", got)
		}
		if got := run("", "postmap", "-q", "beta+x", "cdb:"+strings.TrimSuffix(path, ".cdb")); got != "two words\n" {
			t.Errorf("postmap -q: %q", got)
		}
	})
}

// The output of Berkeley DB's db_dump is a source, too.
func TestDbDump(t *testing.T) {
	hexed := "VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\nHEADER=END\n " +
		hex.EncodeToString([]byte("postmaster")) + "\n " + hex.EncodeToString([]byte("<root@example.org>")) + "\n " +
		hex.EncodeToString([]byte("nul\x00")) + "\n " + hex.EncodeToString([]byte("ends\x00")) + "\nDATA=END\n"
	printed := "VERSION=3\nformat=print\ntype=hash\nHEADER=END\n postmaster\n <root@example.org>\n nul\\00\n ends\\00\nDATA=END\n"
	for _, text := range []string{hexed, printed} {
		m := open(t, create(t, "x.db", text, CreateOptions{}))
		for k, v := range map[string]string{"postmaster": "<root@example.org>", "nul": "ends"} {
			if got, r := m.Lookup(context.Background(), k); r != OK || got != v {
				t.Errorf("%s: %q %v", k, got, r)
			}
		}
	}
	for text, want := range map[string]string{
		"VERSION=3\ntype=queue\nHEADER=END\nDATA=END\n":  "queue",
		"VERSION=3\nHEADER=END\n 61\n":                   "not complete",
		"VERSION=3\nHEADER=END\n 61\nDATA=END\n":         "no value",
		"VERSION=3\nHEADER=END\n 6x\n 61\nDATA=END\n":    "decoded",
		"VERSION=3\nHEADER=END\n61\n 61\nDATA=END\n":     "space",
		"VERSION=3\nformat=print\nHEADER=END\n a\\1\n b": "escape",
	} {
		if _, err := Create(filepath.Join(t.TempDir(), "x"), strings.NewReader(text), CreateOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Issue: 1,000,000 entries are built within 10 s and looked up under 2 µs.
func TestMillion(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("slow")
	}
	for _, name := range []string{"big.db", "big.cdb"} {
		path := filepath.Join(t.TempDir(), name)
		start := time.Now()
		if _, err := Create(path, millionLines(), CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		built := time.Since(start)
		m := open(t, path)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start = time.Now()
		const n = 200000
		for i := range n {
			if v, r := m.Lookup(context.Background(), fmt.Sprintf("user%d@example.org", i*5)); r != OK || v == "" {
				t.Fatalf("%d: %q %v", i*5, v, r)
			}
		}
		each := time.Since(start) / n
		runtime.ReadMemStats(&after)
		t.Logf("%s: built in %v, lookup %v, %d bytes allocated each", name, built, each, (after.TotalAlloc-before.TotalAlloc)/n)
		if built > 10*time.Second || each > 20*time.Microsecond {
			t.Errorf("%s: built in %v, lookup %v", name, built, each)
		}
	}
}

// millionLines is a source of a million entries.
func millionLines() *bytes.Buffer {
	var b bytes.Buffer
	for i := range 1000000 {
		fmt.Fprintf(&b, "user%d@example.org\tmailbox%d@host.example.org\n", i, i)
	}
	return &b
}

func BenchmarkHashLookup(b *testing.B) {
	path := filepath.Join(b.TempDir(), "big.db")
	if _, err := Create(path, millionLines(), CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	m := open(b, path)
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = fmt.Sprintf("user%d@example.org", i*244)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.Lookup(context.Background(), keys[i&4095])
		i++
	}
}

func FuzzHash(f *testing.F) {
	for _, text := range []string{"", "a b\n", "a b\nc d\ne f\ng h\n"} {
		b := newHashBuilder("f", false)
		ReadSource(strings.NewReader(text), "f", b.add)
		data, err := b.finish()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "a")
	}
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		h, err := parseHashHeader(data)
		if err != nil {
			return
		}
		m := &Hash{header: h, data: data, table: data[h.table:]} // as if the checksum were right
		m.Lookup(context.Background(), key)
		m.Each(func(k, v []byte) error { return nil })
	})
}

func FuzzCDB(f *testing.F) {
	b := newCDBBuilder()
	b.add(Entry{Key: "a", Value: "b"})
	b.add(Entry{Key: "c", Value: "d"})
	data, err := b.finish()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, "a")
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		m, err := newCDB(data, false)
		if err != nil {
			return
		}
		m.Lookup(context.Background(), key)
		m.Each(func(k, v []byte) error { return nil })
	})
}

func FuzzDump(f *testing.F) {
	f.Add("VERSION=3\nformat=print\ntype=hash\nHEADER=END\n a\\00\n b\nDATA=END\n")
	f.Add("VERSION=3\nHEADER=END\n 61\n 62\nDATA=END\n")
	f.Fuzz(func(t *testing.T, text string) {
		readAnySource(strings.NewReader(text), "f", func(e Entry) error {
			if e.Key == "" && e.Value == "" {
				t.Error("empty entry")
			}
			return nil
		})
	})
}
