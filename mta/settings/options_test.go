package settings

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"meta1/confparse"
)

// optionsCopy is the project's copy of the list of options that the README has;
// optionsList is the list itself, where the project stands beside it.
const (
	optionsCopy = "../../confparse/testdata/options.tsv"
	optionsList = "../../../shared/spec/options.tsv"
)

// readmeOption is one line of options.tsv.
type readmeOption struct {
	section, name, kind, typ, unit, deflt, readme, effect string
}

func readmeOptions(t *testing.T) []readmeOption {
	t.Helper()
	text, err := os.ReadFile(optionsCopy)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadFile(optionsList); err == nil {
		if !bytes.Equal(list, text) {
			t.Errorf("%s and %s differ", optionsList, optionsCopy)
		}
		text = list
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var list []readmeOption
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || f[0] == "section" {
			continue
		}
		if len(f) != 8 {
			t.Fatalf("options.tsv: %d columns in %q", len(f), line)
		}
		list = append(list, readmeOption{f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]})
	}
	return list
}

// sections are the paths at which a row stands in our tree: "*" is every module and
// service section, and smtpc has a tls section like that of smtps.
func (o *readmeOption) sections() []string {
	if rest, ok := strings.CutPrefix(o.section, "*"); ok {
		var all []string
		for _, s := range []string{"qmgr", "smar", "smtpc", "smtps", "service"} {
			all = append(all, s+rest)
		}
		return all
	}
	if rest, ok := strings.CutPrefix(o.section, "smtps/tls"); ok {
		return []string{o.section, "smtpc/tls" + rest}
	}
	return []string{o.section}
}

// inner are the options of a section whose type is the list of them.
func (o *readmeOption) inner() []string {
	if o.kind == "section" && strings.HasPrefix(o.typ, "cert_file ") {
		return strings.Fields(o.typ)
	}
	return nil
}

// sameType compares a type of options.tsv with one of ours. Some of that file are
// descriptions; some of ours have words in addition.
func (o *readmeOption) sameType(r *confparse.Row) bool {
	have := strings.Join(append([]string{r.Type}, r.Words...), " ")
	switch o.typ {
	case have:
		return true
	case "as smtps/tls", "cert_file key_file flags options CipherList CipherSuites":
		return r.Kind == confparse.KindSection && r.Type == ""
	case "flags starttls (and its negation) and others", "flags starttls and those of smtpc":
		return strings.HasPrefix(have, "flags starttls ")
	case "named connect mail rcpt data eom, repeatable":
		return have == "named, repeatable connect mail rcpt data eom"
	case "list of map names", "list of host:port":
		return have == "list"
	case "boolean expression, written with ==":
		return have == "boolean expression"
	}
	if o.name == "listen_socket" { // ours may stand several times
		return have == "repeatable"
	}
	want := strings.Fields(o.typ)
	if len(want) == 0 || want[0] != r.Type {
		return false
	}
	for _, w := range want[1:] { // README's words first, then ours
		if !strings.Contains(have+" ", " "+w+" ") {
			return false
		}
	}
	return len(want) == 1 || r.Type == "enum"
}

// TestReadmeOptions compares the whole tree of tables with options.tsv.
func TestReadmeOptions(t *testing.T) {
	rows := map[string]*confparse.Row{}
	all := confparse.Rows((&Config{}).Options())
	for i := range all {
		r := &all[i]
		key := r.Section + " " + string(r.Kind) + " " + r.Name
		if rows[key] != nil {
			t.Errorf("%s stands twice", key)
		}
		rows[key] = r
	}
	listed := map[*confparse.Row]bool{}
	list := readmeOptions(t)
	if len(list) < 300 {
		t.Fatalf("options.tsv has %d rows", len(list))
	}
	for i := range list {
		o := &list[i]
		for _, section := range o.sections() {
			key := section + " " + o.kind + " " + o.name
			r := rows[key]
			if r == nil {
				t.Errorf("%s is missing", key)
				continue
			}
			listed[r] = true
			for _, inner := range o.inner() {
				in := rows[section+"/"+o.name+" option "+inner]
				if in == nil {
					t.Errorf("%s: %s is missing", key, inner)
				}
				listed[in] = true
			}
			if !o.sameType(r) {
				t.Errorf("%s: type %s %v, not %s", key, r.Type, r.Words, o.typ)
			}
			if r.Unit != o.unit {
				t.Errorf("%s: unit %q, not %q", key, r.Unit, o.unit)
			}
			if o.deflt != "" && r.Default != o.deflt {
				t.Errorf("%s: default %q, not %q", key, r.Default, o.deflt)
			}
			// An option that would be real may have nothing to change, or not yet.
			if string(r.Effect) != o.effect && (o.effect != "real" || r.Effect == confparse.Host) {
				t.Errorf("%s: effect %s, not %s", key, r.Effect, o.effect)
			}
			if r.Readme != o.readme {
				t.Errorf("%s: README %s, not %s", key, r.Readme, o.readme)
			}
		}
	}
	for i := range all {
		r := &all[i]
		if own := r.Readme == "own"; own == listed[r] && r.Readme != "3.3" {
			t.Errorf("%s/%s: README %s, in options.tsv: %v", r.Section, r.Name, r.Readme, listed[r])
		}
	}
}

// TestTable finds rows that cannot work.
func TestTable(t *testing.T) {
	if err := confparse.CheckTable((&Config{}).Options()); err != nil {
		t.Error(err)
	}
}

// TestEffect: what an option does is said by its row, and by nothing else.
func TestEffect(t *testing.T) {
	effects := map[string]confparse.Effect{}
	for _, r := range confparse.Rows((&Config{}).Options()) {
		effects[r.Section+"/"+r.Name] = r.Effect
		if doc := strings.ToLower(r.Doc); strings.Contains(doc, "not yet") || strings.Contains(doc, "it has no effect") && r.Name != "user" && r.Name != "group" {
			t.Errorf("%s/%s: the documentation says what the field Effect is for: %s", r.Section, r.Name, r.Doc)
		}
	}
	for path, want := range map[string]confparse.Effect{
		"smtps/daemon_address":                    confparse.Real,
		"smtps/protected_recipients":              confparse.Real,
		"smtps/protected_recipients/allow_by":     confparse.Real,
		"smtps/DKIM_signing/sign/keyfile":         confparse.Real,
		"smtps/policy_milter/timeout":             confparse.Real,
		"smtps/tls/DHParam/bits":                  confparse.Host,
		"smar/debug_level":                        confparse.None,
		"qmgr/DEFEDB/delay_between_2_checkpoints": confparse.None,
		"qmgr/DEFEDB/remove_unused_logfiles":      confparse.None,
		"qmgr/IQDB/cache_entries_max":             confparse.None,
		"qmgr/IQDB/hash_table_entries":            confparse.None,
		"smar/greylisting/main_DB_name":           confparse.None,
		"smar/greylisting/secondary_DB_name":      confparse.None,
		"service/path":                            confparse.Host,
	} {
		if effects[path] != want {
			t.Errorf("%s: effect %q, want %q", path, effects[path], want)
		}
	}
}

// TestRestarts: an option or a section that only a restart changes is one of these, whose reason was thought about. All others
// must be classed as at once or new sessions, and obey.
func TestRestarts(t *testing.T) {
	list := map[string]string{
		"global/hostname":                              "it stands in what was logged, stored and said to others; ids and loops are told by it",
		"global/CDB_base_directory":                    "the spool's place",
		"global/working_directory":                     "the spool's place",
		"qmgr/DEFEDB/base_directory":                   "the spool's place",
		"qmgr/DEFEDB/log_directory":                    "the spool's place",
		"global/user":                                  "the account",
		"global/group":                                 "the account",
		"global/allow_root":                            "the account",
		"global/landlock":                              "the kernel only narrows it",
		"smtps/CDB_gid":                                "content files that are there have the group",
		"qmgr/control_socket":                          "who controls meta1 would be cut off",
		"qmgr/IBDB/size":                               "Pebble takes it when it opens the store",
		"qmgr/DEFEDB/page_size":                        "Pebble takes it when it opens the store",
		"qmgr/DEFEDB/cache_size":                       "Pebble takes it when it opens the store",
		"qmgr/DEFEDB/KBytes_written_for_checkpointing": "Pebble takes it when it opens the store",
	}
	for _, r := range confparse.Rows((&Config{}).Options()) {
		if r.Reload != confparse.Restart {
			continue
		}
		if list[r.Section+"/"+r.Name] == "" {
			t.Errorf("%s/%s needs a restart, since %q: is there no way without?", r.Section, r.Name, r.Why)
		}
		if r.Why == "" {
			t.Errorf("%s/%s needs a restart and does not say why", r.Section, r.Name)
		}
	}
}
