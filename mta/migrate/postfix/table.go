package postfix

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Entry is an entry of a table.
type Entry struct {
	Key, Value string
	Line       int // 0 for a table inside of a value

	// Of regexp and pcre tables. The key is the expression.
	Pattern bool
	Flags   string
	Not     bool // the entry holds for what does not match; of cidr tables, too
	// Net is the key of a cidr table.
	Net netip.Prefix
}

// ErrType is the error for a table whose type only a running Postfix can ask.
var ErrType = errors.New("tables of this type are answered by another program")

// ErrSource is the error for a database whose text is not there.
var ErrSource = errors.New("the text of the database is not there; postmap -s prints it")

// Read reads the text of a table: of an indexed one (hash, btree, lmdb, cdb, dbm, sdbm) the file beside the
// database, of which it was made. alias reads the syntax of alias files, as alias_maps have it. Paths are
// relative to dir.
func (t Table) Read(dir string, alias bool) ([]Entry, error) {
	switch t.Type {
	case "inline":
		return inline(t.Name)
	case "static":
		return []Entry{{Key: "*", Value: t.Name}}, nil
	case "hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash":
		return t.readFile(dir, func(l line) (Entry, bool, error) { return indexed(l, alias) })
	case "regexp", "pcre":
		return t.readFile(dir, func(l line) (Entry, bool, error) { return pattern(l) })
	case "cidr":
		return t.readFile(dir, func(l line) (Entry, bool, error) { return cidr(l) })
	}
	return nil, ErrType
}

func (t Table) readFile(dir string, parse func(line) (Entry, bool, error)) ([]Entry, error) {
	path := t.Name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	var entries []Entry
	err := readFile(path, maxFile, func(l line) error {
		if len(entries) >= maxEntries {
			return fmt.Errorf("line %d: more than %d entries", l.number, maxEntries)
		}
		e, ok, err := parse(l)
		if err != nil {
			return fmt.Errorf("line %d: %w", l.number, err)
		}
		if ok {
			e.Line = l.number
			entries = append(entries, e)
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		for _, ending := range []string{".db", ".lmdb", ".cdb", ".dir"} {
			if _, statErr := os.Stat(path + ending); statErr == nil {
				return nil, ErrSource
			}
		}
	}
	return entries, err
}

// indexed reads "key value", or of alias files "key: value". Keys are folded as postmap folds them.
func indexed(l line, alias bool) (Entry, bool, error) {
	text := l.text
	if alias {
		key, value, ok := cutAlias(text)
		if !ok {
			return Entry{}, false, fmt.Errorf("%.60q has no colon behind its name", firstWord(text))
		}
		return Entry{Key: strings.ToLower(key), Value: value}, value != "", nil
	}
	i := strings.IndexAny(text, " \t")
	if i < 0 {
		return Entry{}, false, nil // postmap warns and goes on
	}
	return Entry{Key: strings.ToLower(text[:i]), Value: strings.TrimSpace(text[i:])}, true, nil
}

// cutAlias divides a line of an alias file at the colon outside of quotes, and takes the quotes of
// the name away.
func cutAlias(text string) (key, value string, ok bool) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ':' && !quoted:
			return strings.ReplaceAll(strings.TrimSpace(text[:i]), `"`, ""), strings.TrimSpace(text[i+1:]), true
		}
	}
	return "", "", false
}

// pattern reads /expression/flags value, with ! in front for what does not match.
func pattern(l line) (Entry, bool, error) {
	text := l.text
	if word := strings.ToLower(firstWord(text)); word == "if" || word == "endif" || strings.HasPrefix(word, "if/") || strings.HasPrefix(word, "if!") {
		return Entry{}, false, errors.New("if and endif cannot be translated")
	}
	e := Entry{Pattern: true}
	if e.Not = strings.HasPrefix(text, "!"); e.Not {
		text = strings.TrimSpace(text[1:])
	}
	if text == "" {
		return Entry{}, false, errors.New("there is no expression")
	}
	begin, end := text[0], 1
	for ; end < len(text) && text[end] != begin; end++ {
		if text[end] == '\\' {
			end++
		}
	}
	if end >= len(text) {
		return Entry{}, false, fmt.Errorf("the expression has no second %q", begin)
	}
	e.Key = text[1:end]
	rest := text[end+1:]
	i := strings.IndexAny(rest, " \t")
	if i < 0 {
		return Entry{}, false, errors.New("the expression has no value")
	}
	e.Flags, e.Value = rest[:i], strings.TrimSpace(rest[i:])
	return e, true, nil
}

// cidr reads "network value", with ! in front for what is not in the network.
func cidr(l line) (Entry, bool, error) {
	text := l.text
	if word := strings.ToLower(firstWord(text)); word == "if" || word == "endif" {
		return Entry{}, false, errors.New("if and endif cannot be translated")
	}
	e := Entry{}
	if e.Not = strings.HasPrefix(text, "!"); e.Not {
		text = strings.TrimSpace(text[1:])
	}
	i := strings.IndexAny(text, " \t")
	if i < 0 {
		return Entry{}, false, fmt.Errorf("%.60q has no value", text)
	}
	e.Key, e.Value = text[:i], strings.TrimSpace(text[i:])
	var err error
	if e.Net, err = ParseNet(e.Key); err != nil {
		return Entry{}, false, err
	}
	return e, true, nil
}

// ParseNet reads an address or network as Postfix writes them: 192.0.2.0/24, [2001:db8::]/32, [::1]. One
// of IPv4 in IPv6 ([::ffff:127.0.0.0]/104) is that of IPv4.
func ParseNet(s string) (netip.Prefix, error) {
	p, err := parseNet(s)
	if err == nil && p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%.60q is not a network", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

func parseNet(s string) (netip.Prefix, error) {
	plain := strings.NewReplacer("[", "", "]", "").Replace(s)
	if strings.Contains(plain, "/") {
		p, err := netip.ParsePrefix(plain)
		if err != nil || p.Masked() != p {
			return netip.Prefix{}, fmt.Errorf("%.60q is not a network", s)
		}
		return p, nil
	}
	a, err := netip.ParseAddr(plain)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%.60q is not an address", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// inline reads { key = value, { key = text with blanks } }.
func inline(text string) ([]Entry, error) {
	list, err := Split(text)
	if err != nil {
		return nil, err
	}
	// Without braces blanks may stand around =: key = value.
	var joined []string
	for i := 0; i < len(list); i++ {
		e := list[i]
		for i+1 < len(list) && !strings.HasPrefix(e, "{") && (strings.HasSuffix(e, "=") || strings.HasPrefix(list[i+1], "=")) {
			i++
			e += list[i]
		}
		joined = append(joined, e)
	}
	var entries []Entry
	for _, e := range joined {
		s, err := setting(unbrace(e))
		if err != nil {
			return nil, err
		}
		entries = append(entries, Entry{Key: strings.ToLower(s.Name), Value: s.Value})
	}
	return entries, nil
}
