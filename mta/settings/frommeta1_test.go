package settings

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"meta1/confparse"
)

// TestFromMeTA1 compares the tables of docs/from-meta1.md with options.tsv and with
// our options: which of MeTA1's have no effect here, and which defaults are ours
// because MeTA1's README gives none. TestReadmeOptions sees to it that type, unit
// and default of all others are those of MeTA1.
func TestFromMeTA1(t *testing.T) {
	rows := map[string]*confparse.Row{}
	all := confparse.Rows((&Config{}).Options())
	for i := range all {
		section := all[i].Section
		if section == "global" {
			section = "the file"
		}
		rows[section+" "+all[i].Name] = &all[i]
	}
	idle, defaults := map[string]bool{}, map[string]bool{}
	list := readmeOptions(t)
	for i := range list {
		o := &list[i]
		for _, section := range o.sections() {
			if section == "global" {
				section = "the file"
			}
			names := []string{section + " " + o.name}
			for _, inner := range o.inner() {
				names = append(names, section+"/"+o.name+" "+inner)
			}
			for _, name := range names {
				r := rows[name]
				switch {
				case r == nil:
					t.Errorf("%s is missing", name)
				case r.Effect == confparse.Host && section == "service": // it has its effect there
				case r.Effect != confparse.Real:
					idle[name] = true
				case o.deflt == "" && r.Default != "" && r.Default != "off":
					defaults[name+" "+defaultWithUnit(r)] = true
				}
			}
		}
	}
	if len(idle) < 50 || len(defaults) < 50 {
		t.Fatalf("%d options without effect and %d defaults: too few to believe", len(idle), len(defaults))
	}
	text, err := os.ReadFile("../../docs/from-meta1.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		title  string
		option *regexp.Regexp // with the default, if the table has it
		want   map[string]bool
	}{
		{"## Options without effect", regexp.MustCompile("`(\\w+)`()"), idle},
		{"## Defaults that MeTA1's README does not give", regexp.MustCompile("`(\\w+)`( [^,`]+)"), defaults},
	} {
		_, rest, found := strings.Cut(string(text), "\n"+part.title+"\n")
		if !found {
			t.Fatalf("the page has no %q", part.title)
		}
		rest, _, _ = strings.Cut(rest, "\n## ")
		have := map[string]bool{}
		for line := range strings.Lines(rest) {
			cells := strings.Split(line, "|")
			if len(cells) < 4 || strings.TrimSpace(cells[1]) == "section" || strings.HasPrefix(cells[1], "---") {
				continue
			}
			for name := range strings.SplitSeq(strings.ReplaceAll(strings.TrimSpace(cells[1]), "`", ""), ", ") {
				sections := []string{name}
				if strings.HasPrefix(name, "*") {
					sections = (&readmeOption{section: name}).sections()
				}
				for _, section := range sections {
					for _, m := range part.option.FindAllStringSubmatch(cells[2], -1) {
						have[section+" "+m[1]+strings.TrimRight(m[2], " ")] = true
					}
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(part.want)) {
			if !have[name] {
				t.Errorf("%s: lacks %s", part.title, name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(have)) {
			if !part.want[name] {
				t.Errorf("%s: %s does not belong there", part.title, name)
			}
		}
	}
}

// defaultWithUnit is a default as a person reads it: "10000 KB".
func defaultWithUnit(r *confparse.Row) string {
	if n, err := strconv.Atoi(r.Default); err != nil || n == 0 || r.Unit == "" || r.Unit == "entries" {
		return r.Default
	}
	return fmt.Sprintf("%s %s", r.Default, r.Unit)
}
