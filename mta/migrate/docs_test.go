package migrate

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of the documentation anew")

// TestDocumentation: the table of docs/from-postfix.md is that of the program.
func TestDocumentation(t *testing.T) {
	const file, begin, end = "../../docs/from-postfix.md", "<!-- parameters: made by go test ./mta/migrate -update -->\n", "<!-- end of parameters -->\n"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(old), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the page has no place for the table")
	}
	want := "\n" + Markdown() + "\n"
	if table == want {
		return
	}
	if !*update {
		t.Fatal("the table is another one: go test ./mta/migrate -update")
	}
	if err := os.WriteFile(file, []byte(head+begin+want+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
