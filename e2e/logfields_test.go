package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestDocsLogFields: docs/logging.md has each field that is logged, and each has a name that is the same in every format:
// lower case, since the journal has it in upper case, and no longer than RFC 5424 allows.
func TestDocsLogFields(t *testing.T) {
	t.Parallel()
	names := map[string]token.Position{}
	for _, dir := range []string{"client", "maps", "mta", "queue", "resolver", "server"} {
		err := filepath.WalkDir("../"+dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "cli" || d.Name() == "lda" || d.Name() == "tlstest"): // commands, not the server
				return filepath.SkipDir
			case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				for _, name := range fieldNames(n) {
					names[name] = fset.Position(n.Pos())
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 100 {
		t.Errorf("only %d fields were found: they are made in another way now?", len(names))
	}
	_, table, _ := strings.Cut(readFile(t, "../docs/logging.md"), "\n## The fields\n")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(table, -1) {
		for _, name := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row[1], -1) {
			documented = append(documented, name[1])
		}
	}
	plain := regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
	var missing []string
	for name, at := range names {
		if !plain.MatchString(name) {
			t.Errorf("%s: %q has another name in other formats", at, name)
		}
		if !slices.Contains(documented, name) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("docs/logging.md lacks %q", missing)
	}
	for _, name := range documented {
		if _, logged := names[name]; !logged && !slices.Contains([]string{"time", "sev", "module", "event", "check"}, name) {
			t.Errorf("docs/logging.md has %s, which is never logged", name)
		}
	}
}

// fieldNames are the fields that a call logs: slog.String("name", …), and the names in log.Warn("text", "name", …).
func fieldNames(n ast.Node) (names []string) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return nil
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	text := func(i int) {
		if i >= len(call.Args) {
			return
		}
		if lit, ok := call.Args[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				names = append(names, s)
			}
		}
	}
	switch name := method.Sel.Name; {
	case lastName(method.X) == "slog" && slices.Contains([]string{"String", "Int", "Int64", "Uint64", "Any", "Bool", "Duration", "Time", "Float64"}, name):
		text(0)
	case strings.EqualFold(lastName(method.X), "log") && slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, name):
		for i := 1; i < len(call.Args); i += 2 {
			text(i)
		}
	}
	return names
}
