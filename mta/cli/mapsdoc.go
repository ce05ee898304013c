package cli

import (
	_ "embed"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"text/template"

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
// program filled in.
func mapsManual() (string, error) {
	lookups := template.FuncMap{
		"keys":        addressKeys,
		"domains":     func() string { return quoted(maps.DomainKeys("host.example.org", maps.DotSubdomain)) },
		"names":       func() string { return quoted(maps.DomainKeys("host.example.org.", maps.DotSubdomain)) },
		"ips":         func() string { return quoted(maps.IPKeys(netip.MustParseAddr("10.1.2.3"))) },
		"ip6s":        func() string { return quoted(maps.IPKeys(netip.MustParseAddr("2001:db8::1"))) },
		"access":      func() []access.Tag { return access.Tags() },
		"qmgr":        conf.Tags,
		"rhs":         func(t access.Tag) string { return t.Expects() },
		"mailertable": mailertable.Options,
		"conf":        (&msg.Conf{}).Options,
		"tls":         func() *confparse.Table { return subTable((&msg.Conf{}).Options(), "tls_requirements") },
		"options":     optionTable,
	}
	t, err := template.New("maps").Funcs(lookups).Parse(mapsPage)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, nil); err != nil {
		return "", err
	}
	return b.String(), nil
}

// quoted lists keys for a sentence.
func quoted(keys iter.Seq[string]) string {
	var list []string
	for k := range keys {
		list = append(list, "`"+k+"`")
	}
	return strings.Join(list, ", ")
}

// keyStep is one key of an address, and the step that it belongs to.
type keyStep struct{ Key, Why string }

// addressKeys are the keys of an address in their order, as they are looked up.
func addressKeys() (list []keyStep) {
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
		list = append(list, keyStep{key, why})
	}
	return list
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
