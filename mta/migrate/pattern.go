package migrate

import (
	"errors"
	"fmt"
	"strings"

	"meta1/maps"
	"meta1/mta/migrate/postfix"
)

// pattern adds an entry of a regexp or pcre table to the patterns of the access map.
func (m *migrator) pattern(s *postfix.Service, name, tag string, entry postfix.Entry, rhs string, t postfix.Table) {
	line, err := patternLine(tag, entry, rhs)
	if err == nil {
		_, err = maps.ReadRegex(strings.NewReader(line+"\n"), "pattern", false)
	}
	if err != nil {
		m.note(s, name, NotCarried, fmt.Sprintf("The pattern in line %d of %s has no counterpart: %v.", entry.Line, t.String(), reason(err)))
		return
	}
	key, value, _ := strings.Cut(line, "ei ")
	m.accessRE.add(key+"ei", value, m.why(s, name)+" ("+t.String()+")")
}

// patternLine writes an expression for keys of the access map, which begin with their tag.
func patternLine(tag string, entry postfix.Entry, rhs string) (string, error) {
	expr := strings.NewReplacer(`\d`, "[0-9]", `\w`, "[A-Za-z0-9_]", `\s`, "[ \t]", `\/`, "/", `\@`, "@", `\-`, "-", `(?:`, "(").Replace(entry.Key)
	switch {
	case entry.Not:
		return "", errors.New("what does not match an expression cannot be looked up")
	case strings.Trim(entry.Flags, "im") != "" || strings.Contains(entry.Flags, "i"):
		return "", fmt.Errorf("flags %q: keys are looked up in lower case", entry.Flags)
	case strings.Contains(rhs, "$"):
		return "", errors.New("parts of the key cannot stand in the value")
	case strings.Contains(expr, "(?"):
		return "", errors.New("expressions are those of regcomp(3)")
	}
	anchored := strings.HasPrefix(expr, "^")
	if expr = strings.TrimPrefix(expr, "^"); strings.Contains(strings.ReplaceAll(expr, "[^", ""), "^") || anchored && topLevelBar(expr) {
		return "", errors.New("^ can only stand at the beginning of the whole expression")
	}
	front := "^" + tag
	if !anchored {
		front += ".*"
		if topLevelBar(expr) {
			expr = "(" + expr + ")"
		}
	}
	for _, separator := range "/~%!,;" {
		if !strings.ContainsRune(front+expr, separator) {
			return string(separator) + front + expr + string(separator) + "ei " + rhs, nil
		}
	}
	return "", errors.New("no character is left to enclose the expression")
}

// topLevelBar reports whether an expression has alternatives outside of parentheses.
func topLevelBar(expr string) bool {
	level := 0
	for i := 0; i < len(expr); i++ {
		switch expr[i] {
		case '\\':
			i++
		case '(', '[':
			level++
		case ')', ']':
			level--
		case '|':
			if level <= 0 {
				return true
			}
		}
	}
	return false
}

// accessMap declares the access map, and the patterns if there are any.
func (m *migrator) accessMap() {
	smar := m.root.sub("smar", "")
	if len(m.accessRE.lines) == 0 {
		smar.sub("access_map", "").set("file", text(m.access.name), "")
		return
	}
	for _, f := range []struct{ name, kind, file string }{{"access_entries", "text", m.access.name}, {"access_patterns", "regex", m.accessRE.name}} {
		t := smar.sub("map", f.name)
		t.set("type", f.kind, "")
		t.set("file", text(f.file), "")
	}
	all := smar.sub("map", "access_all")
	all.set("type", "sequence", "")
	all.set("maps", list("access_entries", "access_patterns"), "")
	smar.sub("access_map", "").set("name", "access_all", "")
}
