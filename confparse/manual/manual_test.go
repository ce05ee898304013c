package manual

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// golden compares got with a file, or rewrites it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs. got:\n%s\nwant:\n%s", file, got, want)
	}
}

// small is a table with one of everything.
func small() *confparse.Table {
	service := func(string, string) *confparse.Table {
		return &confparse.Table{Options: []confparse.Option{
			{Name: "path", Type: confparse.Path, Effect: confparse.Host, Required: true, Into: new(string), Doc: "Program.", Readme: "3.7"},
		}}
	}
	element := func(string) *confparse.Table {
		return &confparse.Table{Options: []confparse.Option{
			{Name: "value", Type: confparse.Int, Required: true, Into: new(int), Doc: "Its value.", Readme: "own"},
		}}
	}
	tls := &confparse.Table{Options: []confparse.Option{
		{Name: "cert_file", Type: confparse.File, Default: "cert.pem", Into: new(string), Doc: "Certificate.", Readme: "3.10"},
	}}
	qmgr := &confparse.Table{Options: []confparse.Option{
		{
			Name: "AQ_entries_max", Type: confparse.Int, Unit: "entries", Default: "8192", Min: "1", Into: new(int), Reload: confparse.AtOnce,
			Doc: "Size of the active queue.", Readme: "3.8",
		},
		{Name: "timeout", Type: confparse.Time, Default: "1h 5m", Max: "1d", Into: new(time.Duration), Doc: "How long.", Readme: "own"},
		{Name: "delimiter", Type: confparse.String, Default: `"="`, Into: new(string), Doc: ".Quoted 'as' \\it is.", Readme: "own"},
		{Name: "threads_max", Type: confparse.Int, Effect: confparse.Host, Doc: "Number of threads.", Readme: "8.3"},
		{Name: "access", Kind: confparse.KindFlag, Into: new(bool), Doc: "Ask the access map.", Readme: "3.10"},
		{Name: "strict", Kind: confparse.KindFlag, Default: "true", Into: new(bool), Doc: "Be strict.", Readme: "own"},
		{Name: "tls", Kind: confparse.KindSection, Doc: "TLS.", Readme: "3.10", Sub: tls},
	}}
	return &confparse.Table{Any: service, Options: []confparse.Option{
		{Name: "hostname", Type: confparse.String, DefaultWords: "host's own FQDN", Into: new(string), Doc: "Name of this host.", Readme: "3.4"},
		{Name: "qmgr", Kind: confparse.KindSection, Doc: "The queue.", Readme: "3.8", Sub: qmgr},
		{Name: "element", Kind: confparse.KindSection, Named: true, Doc: "An element.", Readme: "own", New: element},
	}}
}

// TestDocumentation compares the lists and manuals of the small table.
func TestDocumentation(t *testing.T) {
	table := small()
	golden(t, "testdata/options.txt", Text(confparse.Rows(table)))
	golden(t, "testdata/manual.md", Markdown(table))
	golden(t, "testdata/manual.5", Man(table))
	golden(t, "testdata/example.conf", Example(table))
	for level, want := range map[int]int{1: 0, 4: 0, 5: 8, 6: 10, 9: 10} {
		if got := strings.Count(Verbose(table, level), "\n"); got != want {
			t.Errorf("-V times %d shows %d lines, want %d:\n%s", level, got, want, Verbose(table, level))
		}
	}
}

// TestLoop gives Example a table that contains itself.
func TestLoop(t *testing.T) {
	loop := &confparse.Table{}
	loop.Options = []confparse.Option{{Name: "s", Kind: confparse.KindSection, Sub: loop, Doc: "d", Readme: "own"}}
	if n := strings.Count(Example(loop), "#s {"); n != maxDepth+1 {
		t.Errorf("%d sections", n)
	}
}
