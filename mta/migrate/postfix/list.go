package postfix

import (
	"fmt"
	"strings"
)

// Split divides a value at commas and white space, except inside of braces. An element keeps its
// braces. Braces that do not close are the error.
func Split(value string) ([]string, error) { return split(value, ", \t\r\n") }

// fields divides an entry of master.cf.
func fields(text string) ([]string, error) { return split(text, " \t\r\n") }

func split(value, separators string) ([]string, error) {
	var list []string
	level, start := 0, -1
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case level == 0 && strings.IndexByte(separators, c) >= 0:
			if start >= 0 {
				list = append(list, value[start:i])
			}
			start = -1
			continue
		case c == '{':
			level++
		case c == '}':
			if level--; level < 0 {
				return nil, fmt.Errorf("%.40q has a } without {", value)
			}
		}
		if start < 0 {
			start = i
		}
	}
	if level > 0 {
		return nil, fmt.Errorf("%.40q has a { without }", value)
	}
	if start >= 0 {
		list = append(list, value[start:])
	}
	return list, nil
}

// Table is a lookup table as a value names it.
type Table struct {
	Type string // hash, regexp, inline, ...; that behind proxy: if that is in front
	Name string // a path, or what inline: has in its braces
}

// String is the table as a value names it.
func (t Table) String() string { return t.Type + ":" + t.Name }

// ParseTable reads type:name; ok is false if the element is something else, such as a word or a path.
// Only a known type makes a table of an element, so that [host]:25 and inet:host:port are none.
func ParseTable(element, defaultType string) (t Table, ok bool) {
	element = strings.TrimPrefix(element, "proxy:")
	if strings.HasPrefix(element, "/") && defaultType != "" {
		return Table{defaultType, element}, true
	}
	kind, name, found := strings.Cut(element, ":")
	if !found || !tableTypes[kind] {
		return Table{}, false
	}
	return Table{kind, unbrace(name)}, true
}

// tableTypes are the types of tables that Postfix has (postconf -m, and those of its packages).
var tableTypes = map[string]bool{
	"btree": true, "cdb": true, "cidr": true, "dbm": true, "environ": true, "fail": true, "hash": true, "inline": true, "internal": true,
	"ldap": true, "lmdb": true, "memcache": true, "mysql": true, "netinfo": true, "nis": true, "nisplus": true, "pcre": true, "pgsql": true,
	"pipemap": true, "randmap": true, "regexp": true, "sdbm": true, "socketmap": true, "sqlite": true, "static": true, "tcp": true, "texthash": true,
	"unionmap": true, "unix": true, "mongodb": true, "debug": true,
}
