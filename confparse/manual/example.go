package manual

import (
	"cmp"
	"strings"

	"meta1/confparse"
)

const (
	maxDepth  = 32 // of sections, should a table contain itself
	pageWidth = 78
)

// Example makes a configuration file that sets nothing: every option with its
// default and documentation, as comments.
func Example(root *confparse.Table) string {
	var b strings.Builder
	b.WriteString("# Every option of meta1.conf with its default.\n")
	exampleTable(&b, root, "", 0)
	return b.String()
}

func exampleTable(b *strings.Builder, t *confparse.Table, indent string, depth int) {
	if t == nil || depth > maxDepth {
		return
	}
	var flags []string
	for i := range t.Options {
		o := &t.Options[i]
		switch o.Kind {
		case confparse.KindOption, "":
			b.WriteString("\n" + wrapComment(indent, o.Doc) + indent + "#" + o.Name + assign(o) + o.Default + ";")
			if o.Default == "" {
				b.WriteString("  # " + o.Expects())
			}
			b.WriteString("\n")
		case confparse.KindFlag:
			flags = append(flags, wrapComment(indent+"  ", o.Doc)+indent+"  #"+o.Name+",\n")
		case confparse.KindSection:
			name := ""
			if o.Named {
				name = " " + cmp.Or(strings.Join(o.Words[:min(1, len(o.Words))], ""), "name")
			}
			b.WriteString("\n" + wrapComment(indent, o.Doc) + indent + "#" + o.Name + name + " {\n")
			exampleTable(b, o.Sample(), indent+"  ", depth+1)
			b.WriteString(indent + "#}\n")
		}
	}
	if len(flags) > 0 {
		b.WriteString("\n" + indent + "#flags = {\n" + strings.Join(flags, "") + indent + "#};\n")
	}
}

// wrapComment writes text as comment lines of at most pageWidth characters.
func wrapComment(indent, text string) string {
	var b strings.Builder
	line := indent + "#"
	for _, w := range strings.Fields(text) {
		if len(line)+1+len(w) > pageWidth && line != indent+"#" {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + w
	}
	if line != indent+"#" {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// assign is the mark between the name of o and its value.
func assign(o *confparse.Option) string {
	if o.Type == confparse.Expr {
		return " == "
	}
	return " = "
}
