package settings

import (
	"path/filepath"
	"testing"

	"meta1/confparse"
)

// TestReadme loads the examples that stand in MeTA1's README. What their conversion to
// text has lost is restored; each file says what.
func TestReadme(t *testing.T) {
	files, err := filepath.Glob("../../confparse/testdata/readme/*.conf")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if _, _, err := Load(file, confparse.LoadOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}
