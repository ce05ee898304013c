package migrate

import (
	"strings"
)

// mapFile is the text of a map that is written.
type mapFile struct {
	name, about string
	secret      bool // mode 0600, and nothing of it is printed
	lines       []mapLine
	seen        map[string]int // places of keys in lines
}

type mapLine struct{ key, value, why string }

func newMap(name, about string) *mapFile {
	return &mapFile{name: name, about: about, seen: map[string]int{}}
}

// add adds an entry. The first one of a key holds, as the first table does that Postfix looks into: it
// reports whether that is this one, or one with the same value.
func (m *mapFile) add(key, value, why string) bool {
	id := strings.ToLower(strings.TrimSuffix(key, ":"))
	if i, ok := m.seen[id]; ok {
		return m.lines[i].value == value
	}
	m.seen[id] = len(m.lines)
	m.lines = append(m.lines, mapLine{key, value, why})
	return true
}

// has reports whether there is an entry for a key.
func (m *mapFile) has(key string) bool {
	_, ok := m.seen[strings.ToLower(key)]
	return ok
}

// replace changes the value of an entry.
func (m *mapFile) replace(key, value string) {
	if i, ok := m.seen[strings.ToLower(key)]; ok {
		m.lines[i].value = value
	}
}

// text is the file: entries under a comment that says where they come from.
func (m *mapFile) text() string {
	var b strings.Builder
	b.WriteString("# " + m.about + "\n")
	last := ""
	for _, l := range m.lines {
		if l.why != last {
			b.WriteString("\n# " + oneLine(l.why) + "\n")
			last = l.why
		}
		b.WriteString(l.key + "  " + oneLine(l.value) + "\n")
	}
	return b.String()
}
