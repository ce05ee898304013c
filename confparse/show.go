package confparse

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meta1/confparse/syntax"
)

// format writes a value of o in the syntax of the configuration file.
func (o *Option) format(v any) string {
	switch v := v.(type) {
	case bool:
		return onOff(v)
	case int64:
		if o.isSize() {
			return formatSize(v)
		}
		return strconv.FormatInt(v, 10)
	case time.Duration:
		return formatTime(v)
	case netip.Addr:
		return v.String()
	case string:
		if o.Type == Expr {
			return v
		}
		return quote(v)
	case []string:
		return formatList(v, quote)
	case []netip.Addr:
		return formatList(v, netip.Addr.String)
	}
	return quote(fmt.Sprint(v))
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func formatList[T any](list []T, item func(T) string) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = item(v)
	}
	if len(words) == 0 {
		return "{ }"
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// formatSize gives the largest unit that divides n.
func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// formatTime gives a sequence such as 1h5m12s. What is below a millisecond cannot
// be written and is cut.
func formatTime(d time.Duration) string {
	if d < time.Millisecond {
		return "0s"
	}
	var b strings.Builder
	rest := int64(d)
	for _, u := range timeUnits {
		if n := rest / u.factor; n > 0 {
			b.WriteString(strconv.FormatInt(n, 10) + u.name)
			rest -= n * u.factor
		}
	}
	return b.String()
}

// quote writes a string so that it is read again as it is: as a bare word if it
// can be.
func quote(s string) string {
	bare := s != ""
	for i := 0; i < len(s) && bare; i++ {
		c := s[i]
		bare = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.IndexByte("_-./:@+", c) >= 0
	}
	if bare {
		return s
	}
	return syntax.Quoted(s)
}

// commentColumn is where Show puts the origin of a value.
const commentColumn = 44

// Show writes the effective configuration so that it can be read again and gives
// the same one. Behind each value stands its file and line. With defaults, what no
// file sets is shown, too, as comments.
func (r *Result) Show(defaults bool) string {
	if r.Root == nil {
		return ""
	}
	w := &shower{defaults: defaults}
	w.inside(r.Root, "")
	return w.b.String()
}

type shower struct {
	b        strings.Builder
	defaults bool
}

// line writes one line with its origin; what is not set becomes a comment.
func (w *shower) line(indent, text string, v *Setting) {
	if !v.IsSet {
		text = "#" + strings.ReplaceAll(text, "\n", "\n#")
	}
	fmt.Fprintf(&w.b, "%-*s  # %s\n", commentColumn, indent+text, v.Origin())
}

func (w *shower) inside(s *Section, indent string) {
	for _, v := range s.Settings {
		if v.Option.kind() == KindOption && (v.IsSet || w.defaults) {
			w.line(indent, v.Option.Name+v.Option.assign()+v.Text()+";", v)
		}
	}
	w.flags(s, indent)
	for _, c := range s.Subs {
		w.section(c, indent)
	}
}

// assign is the mark between the name of o and its value.
func (o *Option) assign() string {
	if o.Type == Expr {
		return " == "
	}
	return " = "
}

func (w *shower) section(s *Section, indent string) {
	if !s.Present {
		if w.defaults {
			w.absent(s, indent)
		}
		return
	}
	fmt.Fprintf(&w.b, "%-*s  # %s\n", commentColumn, indent+s.Title()+" {", s.Pos())
	w.inside(s, indent+"  ")
	w.b.WriteString(indent + "}\n")
}

// absent writes the defaults of a section that no file has.
func (w *shower) absent(s *Section, indent string) {
	in := &shower{defaults: true}
	in.inside(s, "  ")
	if in.b.Len() == 0 {
		return
	}
	fmt.Fprintf(&w.b, "%s#%s {\n", indent, s.Title())
	for line := range strings.Lines(in.b.String()) {
		w.b.WriteString(indent + "#" + line)
	}
	w.b.WriteString(indent + "#}\n")
}

func (w *shower) flags(s *Section, indent string) {
	var set, all []*Setting
	for _, v := range s.Settings {
		if v.Option.kind() == KindFlag {
			all = append(all, v)
			if v.IsSet {
				set = append(set, v)
			}
		}
	}
	list, mark := all, ""
	if !w.defaults {
		list = set
	}
	if len(list) == 0 {
		return
	}
	if len(set) == 0 {
		mark = "#"
	}
	w.b.WriteString(indent + mark + "flags = {\n")
	for _, v := range list {
		w.line(indent+"  ", flagText(v)+",", v)
	}
	w.b.WriteString(indent + mark + "};\n")
}

func flagText(v *Setting) string {
	if v.Value == false {
		return "no_" + v.Option.Name
	}
	return v.Option.Name
}

// Shown is one value of the effective configuration, for machines.
type Shown struct {
	Section string `json:"section"` // path as in Result.Origin; "" for the global section
	Name    string `json:"name"`
	Kind    Kind   `json:"kind"`
	// Value is a string, number, boolean or list of strings. Times are strings, sizes
	// bytes.
	Value any  `json:"value"`
	Set   bool `json:"set"`
	// Origin is "default" or file:line:col.
	Origin string `json:"origin"`
}

// Values lists the effective configuration, in the order of Show; without defaults
// only what a file sets.
func (r *Result) Values(defaults bool) []Shown {
	list := []Shown{}
	r.Each(func(s *Section, v *Setting) {
		if v.IsSet || defaults {
			shown := v.Shown(s)
			shown.Value = plain(v.Value)
			list = append(list, shown)
		}
	})
	return list
}

// Shown is the setting of a section as Values lists it, a secret as ***.
func (v *Setting) Shown(s *Section) Shown {
	value := v.Value
	if v.Option.Secret && value != "" {
		value = "***"
	}
	return Shown{
		Section: s.Path(), Name: v.Option.Name, Kind: v.Option.kind(),
		Value: plain(value), Set: v.IsSet, Origin: v.Origin().String(),
	}
}

// plain makes a value that encoding/json writes as Shown says.
func plain(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return formatTime(v)
	case netip.Addr:
		return v.String()
	case []netip.Addr:
		words := make([]string, len(v))
		for i, a := range v {
			words[i] = a.String()
		}
		return words
	}
	return v
}
