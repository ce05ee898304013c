package dryrun

import (
	"strings"
	"testing"

	"meta1/confparse"
	"meta1/mta/explain"
	"meta1/mta/settings"
)

// TestRepliesNameOptions: the options that explain names are options.
func TestRepliesNameOptions(t *testing.T) {
	known := map[string]bool{}
	for _, r := range confparse.Rows((&settings.Config{}).Options()) {
		known[strings.TrimPrefix(r.Section+"/", "global/")+r.Name] = true
	}
	for _, r := range explain.Replies() {
		for _, o := range r.Options {
			if !known[o] {
				t.Errorf("%s: there is no option %s", r.String(), o)
			}
		}
	}
}
