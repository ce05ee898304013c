package migrate

import (
	"slices"
	"strings"
	"testing"

	"meta1/mta/migrate/postfix"
)

// TestEveryParameter: each parameter that Postfix knows has a row.
func TestEveryParameter(t *testing.T) {
	known := postfix.New().Defaults
	if len(known) < 800 {
		t.Fatalf("%d parameters", len(known))
	}
	used := map[string]bool{}
	table := NewTable()
	for name := range known {
		r := table.row(name)
		if r == nil {
			t.Errorf("%s has no row", name)
			continue
		}
		used[r.Name] = true
	}
	for _, r := range Rows() {
		names := strings.Fields(r.Name)
		if !used[r.Name] && !ofTransport(known, names[0]) && !slices.ContainsFunc(names, func(n string) bool { return used[n] }) {
			t.Errorf("the row %q is for no parameter", r.Name)
		}
		for _, n := range names {
			if _, ok := known[n]; !ok && !strings.Contains(n, "*") && !ofTransport(known, n) {
				t.Errorf("Postfix has no parameter %s", n)
			}
		}
		if r.Fate != Translated && (r.Note == "" || !strings.HasSuffix(r.Note, ".")) || r.Fate == Translated && r.To == "" {
			t.Errorf("%s: says too little: %+v", r.Name, r)
		}
	}
}

// TestRowsOnce: no parameter stands in two rows.
func TestRowsOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rows() {
		for _, n := range strings.Fields(r.Name) {
			if seen[n] {
				t.Errorf("%s has two rows", n)
			}
			seen[n] = true
		}
	}
}

// ofTransport reports whether a parameter is one that each transport has: smtp_destination_..., which
// postconf -d does not list.
func ofTransport(known map[string]string, name string) bool {
	_, rest, _ := strings.Cut(name, "_")
	_, of := known["default_"+rest]
	_, initial := known[rest]
	return of || initial || strings.HasPrefix(name, "local_")
}
