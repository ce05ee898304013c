package e2e

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pure are the packages that decide and do nothing else: whoever calls them passes the time
// in and does what comes out.
var pure = []string{"queue/aq", "queue/expand", "queue/intake", "queue/lookup", "queue/pace", "queue/retry", "queue/sched", "queue/turns", "queue/verdict", "server/condition", "server/crowd"}

// impure are packages that a pure one must not import.
var impure = []string{"os", "net", "context", "time/tzdata", "syscall", "os/exec", "io/fs", "math/rand", "math/rand/v2"}

// ofTheClock are names of package time that ask or wait for the clock.
var ofTheClock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer", "Sleep"}

// TestPurePackages: the core of the queue has no goroutine, no channel, no clock and no disk.
func TestPurePackages(t *testing.T) {
	for _, p := range pure {
		files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(p), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", p, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range impurities(fset, f) {
				t.Error(e)
			}
		}
		out, err := exec.Command("go", "list", "-deps", module+"/"+p).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			if strings.Contains(dep, "cockroachdb") || strings.HasPrefix(dep, module+"/mta/store") || strings.HasPrefix(dep, module+"/mta/vfs") {
				t.Errorf("%s depends on %s", p, dep)
			}
		}
	}
}

// TestPurePackagesChecker gives the checker what it must refuse.
func TestPurePackagesChecker(t *testing.T) {
	const source = `package p
import (
	"os"
	"time"
)
func f(c chan int) time.Duration {
	go f(nil)
	c <- 1
	select {}
	_ = os.Args
	time.Sleep(1)
	return time.Since(time.Now())
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(impurities(fset, f)); n != 8 {
		t.Errorf("%d of 8 impurities were found: %q", n, impurities(fset, f))
	}
}

// TestRacedPackages: the race detector leaves out no package that starts a goroutine
// (RACED in the Makefile).
func TestRacedPackages(t *testing.T) {
	t.Parallel()
	unraced := []string{"queue/records", "queue/fsck", "mta/store/salvage", "queue/sched", "queue/aq", "confparse/manual", "confparse/syntax"}
	// What the detector leaves out, in whole or in part, runs without it (PLAIN).
	out, err := output(exec.Command("make", "-s", "-C", "..", "print-plain"))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := slices.Clone(unraced)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "../e2e/") {
			return err
		}
		text, err := os.ReadFile(path)
		part := filepath.Base(path) == "race_on_test.go" || bytes.Contains(text, []byte("testing.Short()")) || bytes.Contains(text, []byte("pgregory.net/rapid"))
		if dir := strings.TrimPrefix(filepath.Dir(path), "../"); part && !slices.Contains(whole, dir) {
			whole = append(whole, dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range whole {
		if !slices.Contains(strings.Fields(out), "meta1/"+dir) {
			t.Errorf("%s is run by nobody in whole: PLAIN in the Makefile lacks it", dir)
		}
	}
	for _, dir := range unraced {
		files, err := filepath.Glob("../" + dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v %v", dir, files, err)
		}
		for _, name := range files {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok {
					t.Errorf("%s: starts a goroutine", fset.Position(g.Pos()))
				}
				return true
			})
		}
	}
}

// impurities are what a pure file must not have.
func impurities(fset *token.FileSet, f *ast.File) (all []string) {
	add := func(n ast.Node, what string) { all = append(all, fset.Position(n.Pos()).String()+": "+what) }
	for _, i := range f.Imports {
		if slices.Contains(impure, strings.Trim(i.Path.Value, `"`)) {
			add(i, "imports "+i.Path.Value)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add(n, "starts a goroutine")
		case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
			add(n, "uses a channel")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(ofTheClock, n.Sel.Name) {
				add(n, "asks the clock: time."+n.Sel.Name)
			}
		}
		return true
	})
	return all
}
