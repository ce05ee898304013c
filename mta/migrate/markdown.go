package migrate

import "strings"

// Markdown is the table of all parameters for the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| Postfix | meta1 | | |\n|---|---|---|---|\n")
	for _, r := range Rows() {
		names := strings.Fields(r.Name)
		for i, n := range names {
			names[i] = "`" + n + "`"
		}
		to := r.To
		if to == "" {
			to = "–"
		}
		word := map[Group]string{Carried: "yes", Different: "with a difference", NotNeeded: "not needed", NotCarried: "no"}[r.Group()]
		b.WriteString("| " + strings.Join(names, ", ") + " | " + to + " | " + word + " | " + cell(r.Note) + " |\n")
	}
	return b.String()
}

// cell is text for a cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "*", "\\*").Replace(s)
}
