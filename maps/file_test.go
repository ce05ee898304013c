package maps

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// peer finds a program that make needs installs. Its absence fails the test where
// make runs it, and skips it elsewhere.
func peer(t *testing.T, name string) string {
	t.Helper()
	cache := cmp.Or(os.Getenv("META1_TEST_CACHE"), "/var/cache/meta1-test")
	for _, dir := range []string{"usr/sbin", "usr/bin"} {
		if p := filepath.Join(cache, "peers", dir, name); exists(p) {
			return p
		}
	}
	p, err := exec.LookPath(name)
	switch {
	case err == nil:
		return p
	case os.Getenv("META1_TEST_PEERS") == "":
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

func open(t testing.TB, path string) *CDB {
	t.Helper()
	m, err := OpenCDB(path, true)
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
ehlo: <c@example.org>
cltaddr:2001:db8:	relay
`

func TestCreate(t *testing.T) {
	for _, name := range []string{"x.db", "x.cdb"} {
		t.Run(name, func(t *testing.T) {
			path := create(t, name, sample, CreateOptions{})
			m := open(t, path)
			for key, want := range map[string]string{
				"postmaster": "<root@example.org>", "mylist": "<a@example.org> <b@example.org>", "user+detail": "value",
				"oci:": "5", "to:root": "error:551 5.7.1 No mail to root", "to:abuse": "quick:ok", "nobody": "", "nobody:": "", "": "",
				"ehlo": "<c@example.org>", "cltaddr:2001:db8:": "relay", "postmaster::": "",
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
			want := "postmaster\t<root@example.org>\nmylist\t<a@example.org> <b@example.org>\nuser+detail\tvalue\noci\t5\n" +
				"to:root\terror:551 5.7.1 No mail to root\nto:abuse\tquick:ok\nehlo\t<c@example.org>\ncltaddr:2001:db8\trelay\n"
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
	wrong := CreateOptions{Check: func(e Entry) error { return fmt.Errorf("%s is wrong", e.Key) }}
	if _, err := Create(filepath.Join(t.TempDir(), "x"), strings.NewReader("a: b\n"), wrong); err == nil || err.Error() != "input:1: a: is wrong" {
		t.Errorf("a check: %v", err)
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
		const name = "p.db"
		b := newCDBBuilder("x", true)
		for k, v := range entries {
			if b.add(Entry{Key: k, Value: v}) != nil {
				rt.Fatal("add")
			}
		}
		data, err := b.finish()
		if err != nil || writeFile(realFolders{}, filepath.Join(dir, name), data) != nil {
			rt.Fatal(err)
		}
		m, err := OpenCDB(filepath.Join(dir, name), true)
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

// TestDamaged: a map that createmap made and that has changed since is not used.
func TestDamaged(t *testing.T) {
	good, err := os.ReadFile(create(t, "x.db", "a b\nc d\n", CreateOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"half":      func(b []byte) []byte { return b[:len(b)/2] },
		"record":    func(b []byte) []byte { b[cdbHeaderSize+9] ^= 1; return b },
		"table":     func(b []byte) []byte { b[len(b)-cdbTrailerSize-1] ^= 1; return b },
		"header":    func(b []byte) []byte { b[0] ^= 1; return b },
		"sum":       func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"berkeley":  func(b []byte) []byte { copy(b[12:], "\x61\x15\x06\x00"); return b },
		"text":      func([]byte) []byte { return []byte(strings.Repeat("key value\n", 20)) },
		"long text": func([]byte) []byte { return []byte(strings.Repeat("key value\n", 2000)) },
	} {
		if _, err := newCDB(change(bytes.Clone(good)), false); err == nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), "createmap") && !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestColon: both forms of a map read README's files as README has them: aliases whose
// keys are words of the access map, and tags without an argument.
func TestColon(t *testing.T) {
	const text = "to: <a@b>\nfrom: <c@d>\nehlo: user\ncltaddr: quick:relay\ncltaddr:10.\trelay\nplain e\n"
	made := open(t, create(t, "x.db", text, CreateOptions{}))
	flat, err := ReadText(strings.NewReader(text), "x", false)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"to": "<a@b>", "from": "<c@d>", "EHLO": "user", "cltaddr:": "quick:relay", "cltaddr:10.": "relay", "plain": "e", "cltaddr:1": "", ":": "",
	} {
		for name, m := range map[string]Map{"hash": made, "text": flat} {
			if v, r := m.Lookup(context.Background(), strings.ToLower(key)); v != want || (r == OK) != (want != "") {
				t.Errorf("%s, %q: %q %v, want %q", name, key, v, r, want)
			}
			_, value, _ := Find(context.Background(), m, "", slices.Values([]string{key}))
			if value != want {
				t.Errorf("%s, %q by parts: %q, want %q", name, key, value, want)
			}
		}
	}
	if _, err := ReadText(strings.NewReader("a: b\na c\n"), "x", false); err == nil || err.Error() != `x:2: key "a" is already in line 1` {
		t.Errorf("with and without colon: %v", err)
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
	run := func(t *testing.T, stdin, name string, args ...string) string {
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
		run(t, text, "cdb", "-c", "-m", path)
		verify(t, path)
	})
	for _, flag := range []string{"-n", "-N"} {
		t.Run("postmap"+flag, func(t *testing.T) {
			path := filepath.Join(dir, "post")
			os.WriteFile(path, []byte(text), 0o600)
			run(t, "", "postmap", flag, "cdb:"+path)
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
			if got := run(t, "", "cdb", "-q", path, k); got != v {
				t.Errorf("cdb -q %s: %q", k, got)
			}
		}
		if got := run(t, "", "cdb", "-d", "-m", path); got != text {
			t.Errorf("cdb -d:\n%s", got)
		}
		if got := run(t, "", "postmap", "-q", "beta+x", "cdb:"+strings.TrimSuffix(path, ".cdb")); got != "two words\n" {
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

// TestMillion: a lookup in a large map allocates the value and nothing else.
func TestMillion(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("it makes a map of a million entries: the run without the race detector has it")
	}
	path := filepath.Join(t.TempDir(), "big.db")
	if made, err := Create(path, millionLines(), CreateOptions{}); err != nil || made.Entries != 1000000 {
		t.Fatal(made, err)
	}
	m := open(t, path)
	i := 0
	allocs := testing.AllocsPerRun(1000, func() {
		key := [...]string{"user0@example.org", "user999999@example.org", "user500000@example.org", "user1000000@example.org"}[i%4]
		if v, r := m.Lookup(context.Background(), key); (r == OK) != (i%4 < 3) || (v != "") != (r == OK) {
			t.Fatalf("%s: %q %v", key, v, r)
		}
		i++
	})
	if allocs > 1 {
		t.Errorf("%v allocations a lookup", allocs)
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

func BenchmarkLookup(b *testing.B) {
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

func FuzzCDB(f *testing.F) {
	b := newCDBBuilder("f", false)
	b.add(Entry{Key: "a", Value: "b"})
	b.add(Entry{Key: "c", Value: "d"})
	data, err := b.finish()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, "a")
	f.Add(data[:len(data)-cdbTrailerSize], "c:")
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
