package confparse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/confparse/syntax"
)

// FuzzParse reads arbitrary text with the table of all options. It must end; what
// it accepts must be the same when shown or formatted and read again; what it says
// must be fit for a terminal.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.conf", "testdata/*/*/*.conf", "testdata/*.conf"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	s := &spec{rows: specRows(f)}
	f.Fuzz(func(t *testing.T, text string) {
		res, err := load(s.root(), text)
		if err != nil {
			checkPrintable(t, err.Error())
		} else if err := checkRoundTrip(s.root, text, res); err != nil {
			t.Fatal(err)
		}
		formatted, err := Format("f", []byte(text))
		if err != nil {
			checkPrintable(t, err.Error())
		} else if err := checkFormatted(formatted); err != nil {
			t.Fatal(err)
		}
	})
}

func checkPrintable(t *testing.T, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && syntax.IsControl(r) }); i >= 0 {
		t.Errorf("byte %#x in a message: %q", text[i], text)
	}
}
