package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "meta1"

// layers lists every package of the module, the lowest layer last. Imports point
// down only. "x/*" stands for the packages directly below x that are not named.
var layers = []struct {
	level    int
	packages string
	// among says that packages of this layer may import one another (the compiler
	// refuses cycles).
	among bool
}{
	{8, "examples/*", false}, // policy milters to copy from
	{8, "main e2e scripts/*", false},
	{7, "mta mta/cli mta/control mta/story mta/api mta/pmult mta/settings mta/dryrun", true}, // mta/pmult joins pmilter and server/milter
	{6, "queue resolver server client", false},
	{5, "queue/fsck queue/aq server/authn/verify", false},
	{4, "queue/intake queue/verdict queue/admit queue/content queue/journal server/authn/*", false},
	{4, "mta/whatif mta/provision", false},
	{3, "queue/* resolver/* server/* client/* mta/explain mta/lda mta/submit mta/trial mta/logfmt mta/maillog mta/maildrop mta/listen mta/service mta/verify mta/access mta/console mta/migrate mta/handover", false},
	{2, "mta/msg mta/tlsconf", true},         // tlsconf judges by msg.TLSRequirements
	{2, "mta/store mta/store/salvage", true}, // salvage reads what is left of a store
	{2, "mta/cdb", true},                     // its files end with the envelope, as mta/msg has it
	{2, "mta/tracing", false},
	{2, "client/ehlo client/wire", false}, // what sessions and transactions stand on
	{2, "pmilter", false},                 // its goroutines are kept by mta/supervise
	{2, "mta/dsn mta/dayfiles queue/entry queue/pace queue/retry queue/turns queue/verp confparse/manual", false},
	{2, "server/authn/dmarc server/crowd", false},
	{1, "confparse maps mta/vfs/crashfs", true}, // confparse stands on its own confparse/syntax, the tests of maps on mta/vfs/crashfs
	{1, "mta/vfs", true},                             // a file system that counts for mta/copies
	{1, "mta/exit", true},                            // a mistake of confparse has a status of its own
	{1, "mta/migrate/postfix", false},                // Postfix's own language
	{1, "confparse/mailutils", true},                 // stands on confparse/syntax
	{1, "mta/tlsconf/pki mta/tlsconf/tlstest", true}, // the tests of pki use tlstest
	{1, "mta/smtp mta/sasl mta/sevenbit mta/supervise mta/histogram mta/lists mta/mailbox mta/logline mta/openapi mta/account mta/limits mta/systemd mta/tlsconf/ciphers mta/copies confparse/syntax", false},
}

// goPackage is what go list -json tells of a package.
type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestLayers(t *testing.T) {
	for _, goos := range []string{"linux", "freebsd", "openbsd", "darwin"} {
		t.Run(goos, func(t *testing.T) {
			t.Parallel()
			packages := goList(t, goos)
			if len(packages) < 10 {
				t.Fatalf("go list names %d packages: something is wrong with the test", len(packages))
			}
			for _, e := range wrongArrows(packages) {
				t.Error(e)
			}
		})
	}
}

// TestLayersChecker gives the checker arrows that it must refuse, and some that it
// must not.
func TestLayersChecker(t *testing.T) {
	cases := []struct {
		from, to string
		ok       bool
	}{
		{"main", "mta/cli", true},
		{"e2e", "mta/smtp", true},
		{"mta/cli", "mta", true},
		{"mta", "mta/control", true},
		{"mta", "queue", true},
		{"mta", "queue/records", true},
		{"queue", "queue/records", true},
		{"queue", "mta/vfs", true},
		{"queue", "queue/fsck", true},
		{"queue", "queue/aq", true},
		{"queue/aq", "queue/sched", true},
		{"queue/aq", "queue/fsck", false},
		{"queue/aq", "queue/intake", true},
		{"queue/intake", "queue/sched", true},
		{"queue/intake", "queue/aq", false},
		{"queue/sched", "queue/aq", false},
		{"mta", "queue/fsck", true},
		{"queue/fsck", "queue/records", true},
		{"queue/records", "mta/store", true},
		{"queue/fsck", "mta/cdb", true},
		{"mta/cdb", "mta/vfs", true},
		{"mta/cdb", "mta/msg", true},
		{"resolver/greylist", "mta/store", true},
		{"queue/fsck", "mta/store/salvage", true},
		{"mta/store", "queue/records", false},
		{"resolver/dns", "mta/msg", true},
		{"mta/lda", "mta/smtp", true},
		{"mta/msg", "mta/smtp", true},

		{"mta/smtp", "mta/msg", false},
		{"mta/smtp", "maps", false},
		{"mta/msg", "queue", false},
		{"queue", "server", false},
		{"server", "queue", false},
		{"client", "resolver", false},
		{"queue", "mta", false},
		{"server", "queue/records", false}, // but see below: its tests may
		{"mta/lda", "queue/records", false},
		{"mta/cdb", "queue", false},
		{"queue/fsck", "queue", false},
		{"mta/cdb", "queue/records", false},
		{"queue/records", "queue/fsck", false},
		{"queue/records", "queue/journal", false},
		{"mta/vfs", "mta/cdb", false},
		{"mta/vfs", "queue/records", false},
		{"mta/cli", "main", false},
		{"mta", "e2e", false},
		{"queue", "queue/records/inner", false},
		{"unheard", "mta/smtp", false},
		{"mta/unheard", "mta/smtp", false},
	}
	for _, kind := range []string{"code", "test", "external test"} {
		for _, c := range cases {
			p := goPackage{ImportPath: fullPath(c.from)}
			to := []string{"fmt", fullPath(c.to), "github.com/miekg/dns"}
			switch kind {
			case "code":
				p.Imports = to
			case "test":
				p.TestImports = to
			default:
				p.XTestImports = append(to, p.ImportPath)
			}
			wrong := wrongArrows([]goPackage{p})
			want := c.ok || kind != "code" && c.from == "server" && c.to == "queue/records"
			if ok := len(wrong) == 0; ok != want {
				t.Errorf("%s of %s imports %s: allowed is %v, want %v (%v)", kind, c.from, c.to, ok, want, wrong)
			}
		}
	}
}

// TestLayersOfTests: a test may use a leaf package of another module, as a peer.
func TestLayersOfTests(t *testing.T) {
	to := []string{fullPath("mta/lda")}
	if wrong := wrongArrows([]goPackage{{ImportPath: fullPath("client"), XTestImports: to}}); len(wrong) > 0 {
		t.Error(wrong)
	}
	if wrong := wrongArrows([]goPackage{{ImportPath: fullPath("client"), Imports: to}}); len(wrong) != 1 {
		t.Errorf("client imports mta/lda: %v", wrong)
	}
}

// wrongArrows returns an error for each import that does not point down.
func wrongArrows(packages []goPackage) []error {
	var wrong []error
	check := func(from, path string, test bool) {
		if path != module && !strings.HasPrefix(path, module+"/") || path == fullPath(from) {
			return
		}
		if err := arrow(from, shortPath(path), test); err != nil {
			wrong = append(wrong, err)
		}
	}
	for _, p := range packages {
		from := shortPath(p.ImportPath)
		if level, _ := layerOf(from); level == 0 {
			wrong = append(wrong, fmt.Errorf("%s is in no layer: add it to the list above and to ARCHITECTURE.md", from))
		}
		for _, path := range p.Imports {
			check(from, path, false)
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			check(from, path, true)
		}
	}
	return wrong
}

// arrow judges one import.
func arrow(from, to string, test bool) error {
	fromLevel, among := layerOf(from)
	toLevel, _ := layerOf(to)
	switch {
	case fromLevel == 0 || toLevel == 0:
		return fmt.Errorf("%s imports %s: no layer", from, to)
	case toLevel > fromLevel:
		return fmt.Errorf("%s (layer %d) imports %s (layer %d): imports point down only", from, fromLevel, to, toLevel)
	case toLevel == fromLevel && !among:
		return fmt.Errorf("%s imports %s: packages of layer %d never import one another", from, to, fromLevel)
	case toLevel >= 3 && toLevel <= 5 && fromLevel <= 6 && owner(from) != owner(to) && !test:
		return fmt.Errorf("%s imports %s, which belongs to %s", from, to, owner(to))
	}
	return nil
}

// layerOf returns the layer of a package, 0 for none. A pattern counts only when
// no layer names the package itself.
func layerOf(path string) (level int, among bool) {
	for _, l := range layers {
		if slices.Contains(strings.Fields(l.packages), path) {
			return l.level, l.among
		}
	}
	parent, _, ok := cutLast(path)
	for _, l := range layers {
		if ok && slices.Contains(strings.Fields(l.packages), parent+"/*") {
			return l.level, l.among
		}
	}
	return 0, false
}

// owner is the top-level package that a package belongs to.
func owner(path string) string {
	top, _, _ := strings.Cut(path, "/")
	return top
}

func cutLast(path string) (parent, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

func shortPath(path string) string {
	if path == module {
		return "main"
	}
	return strings.TrimPrefix(path, module+"/")
}

func fullPath(short string) string {
	if short == "main" {
		return module
	}
	return module + "/" + short
}

// goList asks the go command for all packages of the module.
func goList(t *testing.T, goos string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}
