package arc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta1/mta/tlsconf"
	"meta1/server/dkim"
)

// TestSealer: the first key of the file that is in use seals, and another takes its turn.
func TestSealer(t *testing.T) {
	dir := t.TempDir()
	file := func(name, kind string) string {
		_, text, err := dkim.MakePrivate(kind, 2048)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	now := time.Date(2027, 1, 30, 12, 0, 0, 0, time.UTC)
	c := Config{Seal: []dkim.Section{
		{KeyFile: file("old", dkim.KindRSA), Domain: "Example.org", Selector: "old", NotBefore: "2027-01-30"},
		{KeyFile: file("new", dkim.KindRSA), Domain: "example.org", Selector: "new", NotBefore: "2027-01-31"},
		{KeyFile: file("ed", dkim.KindEd25519), Domain: "example.org", Selector: "ed"},
	}}
	s, err := NewSealer(c, dkim.Deps{Now: func() time.Time { return now }}, "mx.example.org")
	if err != nil {
		t.Fatal(err)
	}
	seal := func() string {
		_, made, err := s.Seal(strings.NewReader(base))
		if err != nil {
			return err.Error()
		}
		return made.String()
	}
	if got := seal(); got != "i=1 cv=none old._domainkey.example.org rsa-sha256" {
		t.Error(got)
	}
	now = now.Add(24 * time.Hour)
	if got := seal(); got != "i=1 cv=none new._domainkey.example.org rsa-sha256" {
		t.Error(got)
	}
	now = now.Add(-48 * time.Hour)
	if got := seal(); got != "i=1 cv=none ed._domainkey.example.org ed25519-sha256" {
		t.Error(got)
	}
	later := Config{Seal: c.Seal[:2]}
	if err := s.Reconfigure(later); err != nil {
		t.Fatal(err)
	}
	if got := seal(); got != errNoKey.Error() {
		t.Error(got)
	}
	world := func(string) bool { return true }
	var texts []string
	for _, f := range Check(later, tlsconf.OS{}, world, now) {
		texts = append(texts, f.Option+" "+f.Text)
	}
	if all := strings.Join(texts, "\n"); !strings.Contains(all, "seal#1/keyfile everybody may read") || !strings.Contains(all, "nothing is sealed until then") {
		t.Error(all)
	}
	later.Seal[0].KeyFile = filepath.Join(dir, "none")
	if err := s.Reconfigure(later); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
	if _, err := NewSealer(later, dkim.Deps{}, ""); err == nil || errors.Is(err, errNoKey) {
		t.Error(err)
	}
}
