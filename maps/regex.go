package maps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Limits of a regex map.
const (
	maxRegexes   = 10000
	maxRegexText = 4096 // bytes of one expression
)

// Regex is a map of type regex (README 10.1): expressions that are applied in their
// order until one matches. Matching takes time proportional to the key's length.
type Regex struct {
	rules         []regexRule
	caseSensitive bool
}

type regexRule struct {
	re    *regexp.Regexp
	value string
}

// OpenRegex reads a regex map. Unless caseSensitive is set keys become lower case
// before they are matched, as in all maps (README 6.5, item 2).
func OpenRegex(path string, caseSensitive bool) (*Regex, error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening map: %w", err)
	}
	defer f.Close()
	return ReadRegex(f, path, caseSensitive)
}

// ReadRegex reads a regex map from in; file is its name in messages.
func ReadRegex(in io.Reader, file string, caseSensitive bool) (*Regex, error) {
	m := &Regex{caseSensitive: caseSensitive}
	if err := readLines(in, file, m.add); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Regex) add(line string) error {
	rule, err := parseRegexLine(line)
	if err != nil {
		return err
	}
	if len(m.rules) >= maxRegexes {
		return fmt.Errorf("map has more than %d expressions", maxRegexes)
	}
	m.rules = append(m.rules, rule)
	return nil
}

// parseRegexLine reads /regex/flags value, where any character may stand for the
// slash.
func parseRegexLine(line string) (regexRule, error) {
	separator := line[0]
	if separator >= 'a' && separator <= 'z' || separator >= 'A' && separator <= 'Z' ||
		separator >= '0' && separator <= '9' || separator >= 0x80 || separator == '\\' {
		return regexRule{}, fmt.Errorf("line begins with %q, which cannot enclose an expression", separator)
	}
	end := strings.IndexByte(line[1:], separator)
	if end < 0 {
		return regexRule{}, fmt.Errorf("second %q is missing", separator)
	}
	text, rest := line[1:1+end], line[2+end:]
	i := strings.IndexAny(rest, " \t")
	if i < 0 {
		return regexRule{}, errors.New("expression has no value")
	}
	flags, value := rest[:i], strings.Trim(rest[i:], " \t")
	if value == "" {
		return regexRule{}, errors.New("expression has no value")
	}
	re, err := compilePOSIX(text, flags)
	return regexRule{re, value}, err
}

// compilePOSIX compiles an expression of regcomp(3): extended with the flag e, else
// basic; without regard to case with the flag i.
func compilePOSIX(text, flags string) (*regexp.Regexp, error) {
	extended, mode := false, "(?s)"
	for _, f := range flags {
		switch f {
		case 'e':
			extended = true
		case 'i':
			mode = "(?si)"
		default:
			return nil, fmt.Errorf("unknown flag %q, known are e and i", f)
		}
	}
	if text == "" || len(text) > maxRegexText {
		return nil, fmt.Errorf("expression has %d bytes, must have 1 to %d", len(text), maxRegexText)
	}
	t := posixTranslator{in: text, extended: extended}
	if err := t.run(); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(mode + t.out.String())
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", text, err)
	}
	return re, nil
}

// Blocking implements Map.
func (m *Regex) Blocking() bool { return false }

// Lookup implements Map.
func (m *Regex) Lookup(_ context.Context, key string) (string, Result) {
	if !m.caseSensitive {
		key = Lower(key)
	}
	for i := range m.rules {
		if m.rules[i].re.MatchString(key) {
			return m.rules[i].value, OK
		}
	}
	return "", NotFound
}

// posixTranslator turns a POSIX expression into one of package regexp. Only whether
// it matches counts, so that leftmost-longest makes no difference.
type posixTranslator struct {
	in       string
	extended bool
	i        int
	out      strings.Builder
}

func (t *posixTranslator) run() error {
	for t.i < len(t.in) {
		var err error
		switch c := t.in[t.i]; {
		case c == '[':
			err = t.bracket()
		case c == '\\':
			err = t.escape()
		case t.extended:
			t.out.WriteByte(c)
			t.i++
		default:
			t.basic(c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// basic writes a character of a basic expression: ( ) { } + ? | stand for
// themselves, * does at the begin, ^ and $ are anchors only at the ends of the
// expression or of a group.
func (t *posixTranslator) basic(c byte) {
	rest := t.in[t.i+1:]
	switch {
	case strings.IndexByte("(){}+?|", c) >= 0,
		c == '*' && t.atStart(),
		c == '^' && !t.atStart(),
		c == '$' && rest != "" && !strings.HasPrefix(rest, `\)`) && !strings.HasPrefix(rest, `\|`):
		t.out.WriteByte('\\')
	}
	t.out.WriteByte(c)
	t.i++
}

// atStart reports whether nothing that * could repeat stands before.
func (t *posixTranslator) atStart() bool {
	before := t.in[:t.i]
	return before == "" || before == "^" && t.in[t.i] == '*' || strings.HasSuffix(before, `\(`) || strings.HasSuffix(before, `\|`)
}

// escape translates a backslash and what follows it.
func (t *posixTranslator) escape() error {
	if t.i+1 >= len(t.in) {
		return errors.New("expression ends with a backslash")
	}
	c := t.in[t.i+1]
	t.i += 2
	switch {
	case c >= '1' && c <= '9':
		return errors.New("back-references are not possible")
	case !t.extended && strings.IndexByte("(){}+?|", c) >= 0:
		t.out.WriteByte(c) // special in a basic expression because of its backslash
	case c == '<' || c == '>':
		t.out.WriteString(`\b`)
	case strings.IndexByte("wWbBsS", c) >= 0:
		t.out.WriteString(`\` + string(c)) // the extensions of GNU and BSD
	default:
		t.out.WriteString(regexp.QuoteMeta(string(rune(c))))
	}
	return nil
}

// bracket copies [...], in which a backslash is an ordinary character (POSIX
// 9.3.5).
func (t *posixTranslator) bracket() error {
	start := t.i
	j := t.i + 1
	t.out.WriteByte('[')
	if strings.HasPrefix(t.in[j:], "^") {
		t.out.WriteByte('^')
		j++
	}
	for first := true; j < len(t.in); first = false {
		switch c := t.in[j]; {
		case c == ']' && !first:
			t.out.WriteByte(']')
			t.i = j + 1
			return nil
		case c == '[' && j+1 < len(t.in) && strings.IndexByte(":.=", t.in[j+1]) >= 0:
			n, err := t.class(t.in[j:])
			if err != nil {
				return err
			}
			j += n
			continue
		case c == '\\' || c == '[' || c == ']' || c == '^':
			t.out.WriteByte('\\')
			fallthrough
		default:
			t.out.WriteByte(c)
		}
		j++
	}
	return fmt.Errorf("bracket expression %q has no end", t.in[start:])
}

// class copies [:name:] and gives its length.
func (t *posixTranslator) class(s string) (int, error) {
	end := strings.Index(s[2:], s[1:2]+"]")
	if s[1] != ':' || end < 0 {
		return 0, fmt.Errorf("%q is not possible in brackets", s[:2])
	}
	n := 2 + end + 2
	t.out.WriteString(s[:n])
	return n, nil
}
