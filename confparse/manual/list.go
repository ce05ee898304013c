package manual

import (
	"cmp"
	"strings"

	"meta1/confparse"
)

// Text lists rows as lines of words with tabs between, with a line of names first:
// the columns of options.tsv, then limits, reload and documentation.
func Text(rows []confparse.Row) string {
	var b strings.Builder
	b.WriteString("section\tname\tkind\ttype\tunit\tdefault\treadme\teffect\tmin\tmax\treload\tdoc\n")
	for _, r := range rows {
		words := strings.Join(append([]string{r.Type}, r.Words...), " ")
		b.WriteString(strings.Join([]string{
			r.Section, r.Name, string(r.Kind), words, r.Unit, r.Default, r.Readme,
			string(r.Effect), r.Min, r.Max, string(r.Reload), strings.Join(strings.Fields(r.Doc), " "),
		}, "\t") + "\n")
	}
	return b.String()
}

// Verbose is what meta1 serve -V ... -VVVVVV show of the configuration (README 3.1):
// from level 5 all options with their defaults, from level 6 all flags and
// the words of options, too.
func Verbose(root *confparse.Table, level int) string {
	var b strings.Builder
	for _, r := range confparse.Rows(root) {
		if level < 5 || r.Kind == confparse.KindFlag && level < 6 || r.Kind == confparse.KindSection {
			continue
		}
		value := r.Default
		if r.Kind == confparse.KindFlag {
			value = "flag, " + value
		}
		b.WriteString(r.Section + "/" + r.Name + ": " + cmp.Or(value, "(no default)"))
		if level >= 6 && len(r.Words) > 0 {
			b.WriteString(" (of " + strings.Join(r.Words, ", ") + ")")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
