package mta

import (
	"slices"
	"strings"

	"meta1/confparse"
)

// notYet are the words by which an option's documentation says that there is no
// behaviour behind it.
const notYet = "not yet in effect"

// warnNotYet warns of all options, flags and sections that a file sets and that do
// nothing yet, so that nobody relies on them. What is in such a section is not named.
func warnNotYet(result *confparse.Result) {
	if result.Root == nil {
		return
	}
	var warnings []confparse.Diagnostic
	warn := func(d confparse.Diagnostic) {
		known := func(w confparse.Diagnostic) bool { return w.Pos == d.Pos }
		if !slices.ContainsFunc(result.Warnings, known) {
			warnings = append(warnings, d)
		}
	}
	inSection(result.Root, warn)
	result.Warnings = append(result.Warnings, warnings...)
}

func inSection(s *confparse.Section, warn func(confparse.Diagnostic)) {
	for _, v := range s.Settings {
		if v.IsSet && isNotYet(v.Option) {
			warn(s.Diagnose(confparse.SeverityWarning, v.Option.Name, "%s is %s", v.Option.Name, notYet))
		}
	}
	for _, sub := range s.Subs {
		i := slices.IndexFunc(s.Table.Options, func(o confparse.Option) bool {
			return o.Kind == confparse.KindSection && o.Name == sub.Keyword
		})
		switch {
		case !sub.Present:
		case i >= 0 && isNotYet(&s.Table.Options[i]):
			warn(sub.Diagnose(confparse.SeverityWarning, "", "section %s is %s", sub.Title(), notYet))
		default:
			inSection(sub, warn)
		}
	}
}

// isNotYet says whether the documentation of an option says that it does nothing. A
// remark on a part of it has a colon behind.
func isNotYet(o *confparse.Option) bool {
	doc := strings.ToLower(strings.TrimSuffix(o.Doc, "."))
	return o.Effect != confparse.Host && (strings.HasSuffix(doc, notYet) || strings.Contains(doc, notYet+":"))
}
