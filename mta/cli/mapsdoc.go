package cli

import (
	_ "embed"
	"fmt"
	"iter"
	"net/netip"
	"strings"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/msg"
	"meta1/queue/conf"
	"meta1/resolver/access"
	"meta1/resolver/mailertable"
)

//go:embed maps.md.tmpl
var mapsPage string

// mapsManual is the page about the maps, in Markdown: its text with the tables of the
// program filled in. (With text/template in the program the linker could leave out no exported method of
// any type, for a template may name it: that is half as much program again.)
func mapsManual() (string, error) {
	words := map[string]string{
		"keys":        addressKeys(),
		"domains":     quoted(maps.DomainKeys("host.example.org", maps.DotSubdomain)),
		"names":       quoted(maps.DomainKeys("host.example.org.", maps.DotSubdomain)),
		"ips":         quoted(maps.IPKeys(netip.MustParseAddr("10.1.2.3"))),
		"ip6s":        quoted(maps.IPKeys(netip.MustParseAddr("2001:db8::1"))),
		"access":      accessTags(),
		"mailertable": optionTable(mailertable.Options()),
		"conf":        optionTable((&msg.Conf{}).Options()),
		"tls":         optionTable(subTable((&msg.Conf{}).Options(), "tls_requirements")),
		"qmgr":        qmgrTags(),
	}
	var b strings.Builder
	rest := mapsPage
	for {
		text, after, found := strings.Cut(rest, "{{")
		b.WriteString(text)
		if !found {
			return b.String(), nil
		}
		name, behind, closed := strings.Cut(after, "}}")
		word, known := words[name]
		if !closed || !known {
			return "", fmt.Errorf("filling in the page about the maps: unknown word %q", name)
		}
		b.WriteString(word)
		rest = behind
	}
}

// accessTags are the rows of the table of tags of the access map.
func accessTags() string {
	var b strings.Builder
	for _, t := range access.Tags() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", t.Name, t.Doc, t.Keys, t.Expects())
	}
	return b.String()
}

// qmgrTags are the rows of the table of tags of QMGR's map.
func qmgrTags() string {
	var b strings.Builder
	for _, t := range conf.Tags() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", t.Name, t.Keys, t.Values, t.Doc)
	}
	return b.String()
}

// quoted lists keys for a sentence.
func quoted(keys iter.Seq[string]) string {
	var list []string
	for k := range keys {
		list = append(list, "`"+k+"`")
	}
	return strings.Join(list, ", ")
}

// addressKeys are the rows of the table of keys of an address, in the order in which they are looked up, each
// with the step that it belongs to.
func addressKeys() string {
	var b strings.Builder
	steps := []struct {
		of  maps.Steps
		why string
	}{
		{maps.FullAddress, "`full_address`"},
		{maps.DetailPlus, "`detail_plus`"},
		{maps.DetailStar, "`detail_star`"},
		{maps.Star, "`star`"},
		{maps.MatchDetail | maps.FullAddress, "`implicitly_match_detail`"},
		{maps.Domain, "`domain`"},
		{maps.LocalPart, "the local part"},
		{maps.LocalPart | maps.MatchDetail, "the local part, `implicitly_match_detail`"},
	}
	a := maps.ParseAddress("user+detail", "host.example.org", "+")
	for key := range a.Keys(maps.AllAddress | maps.MatchDetail) {
		why := ""
		for _, s := range steps {
			for k := range a.Keys(s.of | maps.DotSubdomain) {
				if why == "" && k == key {
					why = s.why
				}
			}
		}
		if at := strings.IndexByte(key, '@'); at >= 0 && strings.HasPrefix(key[at:], "@.") {
			why += ", `dotsubdomain`"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", key, why)
	}
	return b.String()
}

// subTable is the table of a section of t.
func subTable(t *confparse.Table, name string) *confparse.Table {
	for i := range t.Options {
		if o := &t.Options[i]; o.Name == name {
			return o.Sub
		}
	}
	return &confparse.Table{}
}

// optionTable lists options as a Markdown table.
func optionTable(t *confparse.Table) string {
	var b strings.Builder
	b.WriteString("| option | value | |\n|---|---|---|\n")
	for i := range t.Options {
		o := &t.Options[i]
		name, value := o.Name+" =", o.Expects()
		switch o.Kind {
		case confparse.KindSection:
			name, value = o.Name+" { }", "a section"
		case confparse.KindFlag:
			name, value = "flags = "+o.Name, "a flag; no_"+o.Name+" clears it"
		}
		if o.Default != "" {
			value += "; default " + o.Default
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, value, o.Doc)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
