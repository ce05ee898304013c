package confparse

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meta1/confparse/syntax"
)

// badValue is a value that does not fit its option.
type badValue struct {
	at         syntax.Span // of the list item; the zero span stands for the whole value
	msg        string
	expected   string
	suggestion string
}

func (b *badValue) Error() string { return b.msg }

func bad(expected, format string, args ...any) *badValue {
	return &badValue{msg: fmt.Sprintf(format, args...), expected: expected}
}

// measure is one unit and what it counts in the unit of storage.
type measure struct {
	name   string
	factor int64
}

// Units from the largest to the smallest (README 3.2.1); ms is ours, for options
// that are counted in it.
var (
	timeUnits = [...]measure{
		{"w", int64(7 * 24 * time.Hour)},
		{"d", int64(24 * time.Hour)},
		{"h", int64(time.Hour)},
		{"m", int64(time.Minute)},
		{"s", int64(time.Second)},
		{"ms", int64(time.Millisecond)},
	}
	sizeUnits = [...]measure{{"GB", 1 << 30}, {"MB", 1 << 20}, {"KB", 1 << 10}, {"B", 1}}
)

func factor(units []measure, name string) (int64, bool) {
	for _, u := range units {
		if strings.EqualFold(u.name, name) {
			return u.factor, true
		}
	}
	return 0, false
}

// isSize says whether values of o are stored in bytes.
func (o *Option) isSize() bool {
	if o.Type == Size {
		return true
	}
	_, ok := factor(sizeUnits[:], o.Unit)
	return o.Type == Int && ok
}

// isList says whether o takes several values.
func (o *Option) isList() bool {
	return o.Type == List || o.Type == Flags || o.Type == IPList
}

// convert makes the Go value of what stands in the file for o; dir is the folder
// that file names are relative to. The Go type is int64, time.Duration, bool,
// string, []string, netip.Addr or []netip.Addr.
func (o *Option) convert(f syntax.Form, values []syntax.Value, dir string) (any, *badValue) {
	if (o.Type == Expr) != (f == syntax.FormExpr) {
		if o.Type == Expr {
			return nil, bad(`"==" and an expression`, "it is no boolean expression")
		}
		return nil, bad(`"="`, `"==" is for boolean expressions only`)
	}
	if o.isList() {
		return o.convertList(f, values)
	}
	if f == syntax.FormList && len(values) != 1 {
		return nil, bad(o.Expects(), "a list is not one value")
	}
	v, b := o.scalar(values[0], dir)
	if b != nil {
		return nil, b
	}
	return v, o.limits(v)
}

func (o *Option) scalar(v syntax.Value, dir string) (any, *badValue) {
	if v.Words && o.Type != Time && !o.isSize() {
		return nil, bad(o.Expects()+"; several words are one string in double quotes",
			"%s has several words", syntax.ShownWord(v.Text))
	}
	switch o.Type {
	case Int, Size:
		return o.integer(v.Text)
	case Time:
		return o.duration(v.Text)
	case Bool:
		return o.boolean(v.Text)
	case Enum:
		return o.word(v.Text)
	case IP:
		return o.ip(v.Text)
	}
	return o.text(v.Text, dir)
}

// text checks the types that are stored as strings.
func (o *Option) text(s, dir string) (any, *badValue) {
	if o.Type != String && o.Type != Expr && strings.ContainsFunc(s, syntax.IsControl) {
		return nil, bad(o.Expects(), "control character in %s", syntax.ShownWord(s))
	}
	switch o.Type {
	case File:
		if s != "" {
			s = absolute(dir, s)
		}
	case Address:
		return o.address(s)
	case MapName, Expr:
		if s == "" {
			return nil, bad(o.Expects(), "the value is empty")
		}
	}
	return s, nil
}

// address takes local@domain, perhaps in angle brackets, and stores it without.
// That it is a Path of RFC 5321, section 4.1.2, in all respects is checked by who
// uses it.
func (o *Option) address(s string) (any, *badValue) {
	a := s
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
		a = s[1 : len(s)-1]
	}
	at := strings.LastIndexByte(a, '@')
	if s == "<>" {
		return "", nil
	}
	if at > 0 && at < len(a)-1 && len(a) <= 254 && a[0] != '<' && !strings.ContainsAny(a[at:], "<> \"") {
		return a, nil
	}
	return nil, bad(o.Expects(), "%s is no mail address", syntax.ShownWord(s))
}

func (o *Option) boolean(s string) (any, *badValue) {
	switch strings.ToLower(s) {
	case "1", "true", "on":
		return true, nil
	case "0", "false", "off":
		return false, nil
	}
	b := bad(o.Expects(), "%s is no boolean value", syntax.ShownWord(s))
	switch strings.ToLower(s) {
	case "yes", "y":
		b.suggestion = "did you mean on?"
	case "no", "n":
		b.suggestion = "did you mean off?"
	}
	return nil, b
}

// word finds a value of an Enum; without Words every word will do.
func (o *Option) word(s string) (any, *badValue) {
	for _, w := range o.Words {
		if strings.EqualFold(w, s) {
			return w, nil
		}
	}
	if len(o.Words) == 0 && s != "" && !strings.ContainsFunc(s, syntax.IsControl) {
		return s, nil
	}
	b := bad(o.Expects(), "%s is not one of its values", syntax.ShownWord(s))
	b.suggestion = DidYouMean(s, o.Words)
	return nil, b
}

func (o *Option) ip(s string) (any, *badValue) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return nil, bad(o.Expects(), "%s is no IP address", syntax.ShownWord(s))
	}
	return a, nil
}

func (o *Option) integer(s string) (any, *badValue) {
	if !o.isSize() {
		n, err := parseInt(s)
		if err != nil {
			return nil, bad(o.Expects(), "%s %v", syntax.ShownWord(s), err)
		}
		return n, nil
	}
	bare, ok := factor(sizeUnits[:], o.Unit)
	if !ok {
		bare = 1
	}
	n, err := parseQuantity(s, sizeUnits[:], bare)
	if err != nil {
		return nil, bad(o.Expects(), "%s %v", syntax.ShownWord(s), err)
	}
	return n, nil
}

// ParseTime reads a duration as the language has it: 5d, "1h 30m", 90s; a number
// alone is seconds. The error says what is wrong and not with what.
func ParseTime(s string) (time.Duration, error) {
	n, err := parseQuantity(s, timeUnits[:], int64(time.Second))
	return time.Duration(n), err
}

func (o *Option) duration(s string) (any, *badValue) {
	bare, ok := factor(timeUnits[:], o.Unit)
	if !ok {
		bare = int64(time.Second)
	}
	n, err := parseQuantity(s, timeUnits[:], bare)
	if err != nil {
		return nil, bad(o.Expects(), "%s %v", syntax.ShownWord(s), err)
	}
	return time.Duration(n), nil
}

var (
	errNoNumber = errors.New("is no number")
	errRange    = errors.New("is too large")
)

// parseInt reads a number with C's prefixes 0x and 0 (README 3.2.1).
func parseInt(s string) (int64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	base := 10
	switch {
	case len(digits) > 2 && (digits[:2] == "0x" || digits[:2] == "0X"):
		digits, base = digits[2:], 16
	case len(digits) > 1 && digits[0] == '0':
		digits, base = digits[1:], 8
	}
	n, err := strconv.ParseUint(digits, base, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > math.MaxInt64:
		return 0, errRange
	case err != nil && base == 8:
		return 0, errors.New("is no octal number, as the leading 0 says it is")
	case err != nil:
		return 0, errNoNumber
	case negative:
		return -int64(n), nil
	}
	return int64(n), nil
}

// parseQuantity adds up a sequence of numbers with units; a single number may go
// without one and counts bare.
func parseQuantity(s string, units []measure, bare int64) (int64, error) {
	var total int64
	for first := true; first || s != ""; first = false {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		if len(s) > 1 && s[0] == '0' && s[1]|0x20 == 'x' {
			digits = 2 + len(s[2:]) - len(strings.TrimLeft(s[2:], "0123456789abcdefABCDEF"))
		}
		n, err := parseInt(s[:digits])
		if err != nil {
			return 0, err
		}
		rest := strings.TrimLeft(s[digits:], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
		unit := s[digits : len(s)-len(rest)]
		f, ok := factor(units, unit)
		if unit == "" && first && rest == "" {
			f, ok = bare, true
		}
		switch {
		case !ok && unit == "":
			return 0, errors.New("has a number without a unit")
		case !ok:
			return 0, fmt.Errorf("has an unknown unit %s", syntax.ShownWord(unit))
		case n > 0 && f > math.MaxInt64/n || total > math.MaxInt64-n*f:
			return 0, errRange
		}
		total += n * f
		s = strings.TrimLeft(rest, " ")
	}
	return total, nil
}

// convertList makes the value of a List, Flags or IPList. A single value without
// braces is a list of its words: trusted_mechanisms = "PLAIN LOGIN" (README 3.10.2).
func (o *Option) convertList(f syntax.Form, values []syntax.Value) (any, *badValue) {
	if f == syntax.FormOption {
		values = splitValue(values[0])
	}
	if o.Type == IPList {
		ips := make([]netip.Addr, 0, len(values))
		for _, v := range values {
			a, b := o.ip(v.Text)
			if b != nil {
				b.at = v.At
				return nil, b
			}
			ips = append(ips, a.(netip.Addr))
		}
		return ips, nil
	}
	words := make([]string, 0, len(values))
	for _, v := range values {
		w, b := o.item(v)
		if b != nil {
			b.at = v.At
			return nil, b
		}
		words = append(words, w)
	}
	return words, nil
}

func splitValue(v syntax.Value) []syntax.Value {
	var list []syntax.Value
	for _, w := range strings.FieldsFunc(v.Text, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		list = append(list, syntax.Value{Text: w, At: v.At, Quoted: v.Quoted})
	}
	return list
}

// item checks one value of a List or Flags. A negated flag is stored as "no_" and
// the word.
func (o *Option) item(v syntax.Value) (string, *badValue) {
	if v.Words {
		return "", bad(`"," between values; several words are one string in double quotes`,
			"%s has several words", syntax.ShownWord(v.Text))
	}
	if o.Type == Flags {
		w, on, ok := findFlag(v.Text, o.Words)
		if !ok {
			return "", badFlag(v.Text, o.Words)
		}
		if !on {
			w = "no_" + w
		}
		return w, nil
	}
	if len(o.Words) > 0 {
		w, b := o.word(v.Text)
		if b != nil {
			return "", b
		}
		return w.(string), nil
	}
	return v.Text, nil
}

// badFlag says that text is no flag of names.
func badFlag(text string, names []string) *badValue {
	b := bad("", "%s is not one of the flags", syntax.ShownWord(text))
	if b.suggestion = flagMeant(text, names); b.suggestion == "" || len(names) < 8 {
		b.expected = "flags of " + strings.Join(names, ", ") + "; no_ before a flag clears it"
	}
	return b
}

// negations are what may stand before a flag to clear it (README 8.1.1).
var negations = [...]string{"not_", "dont_", "no_", "-", "!", "~"}

// findFlag finds a flag that may be negated among names; without names each will do.
func findFlag(text string, names []string) (name string, on, ok bool) {
	if name, ok = findWord(text, names); ok {
		return name, true, true
	}
	for _, n := range negations {
		if len(text) > len(n) && strings.EqualFold(text[:len(n)], n) {
			if name, ok = findWord(text[len(n):], names); ok || len(names) == 0 {
				return name, false, true
			}
		}
	}
	return text, true, len(names) == 0 && text != ""
}

func findWord(text string, names []string) (string, bool) {
	for _, n := range names {
		if strings.EqualFold(n, text) {
			return n, true
		}
	}
	return text, false
}

// HasFlag says whether word is set in the value of a Flags option: false if its
// negation stands there, otherwise if names neither. The last mention counts.
func HasFlag(flags []string, word string, otherwise bool) bool {
	for _, f := range flags {
		switch f {
		case word:
			otherwise = true
		case "no_" + word:
			otherwise = false
		}
	}
	return otherwise
}

// limits checks Min and Max.
func (o *Option) limits(v any) *badValue {
	n, ok := count(v)
	if !ok || o.Min == "" && o.Max == "" {
		return nil
	}
	low, hasLow := o.limit(o.Min)
	high, hasHigh := o.limit(o.Max)
	if hasLow && n < low {
		return bad(o.Expects(), "%s is less than %s", o.format(v), o.Min)
	}
	if hasHigh && n > high {
		return bad(o.Expects(), "%s is more than %s", o.format(v), o.Max)
	}
	return nil
}

// limit reads Min or Max.
func (o *Option) limit(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	v, b := o.scalar(syntax.Value{Text: s, Words: strings.Contains(s, " ")}, "")
	if b != nil {
		return 0, false
	}
	return count(v)
}

// count is the number behind a value that has an order.
func count(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case time.Duration:
		return int64(v), true
	}
	return 0, false
}

// Expects says in words what o takes.
func (o *Option) Expects() string {
	s := o.typeWords()
	switch {
	case o.Min != "" && o.Max != "":
		s += fmt.Sprintf(", %s to %s", o.Min, o.Max)
	case o.Min != "":
		s += ", at least " + o.Min
	case o.Max != "":
		s += ", at most " + o.Max
	}
	return s
}

func (o *Option) typeWords() string {
	unit := o.Unit
	switch {
	case o.isSize():
		return "a size such as 4096, 64KB or 10MB (a number alone counts " + cmp.Or(unit, "B") + ")"
	case o.Type == Time:
		return "a time such as 90s, 5m or 1h 5m 12s (a number alone counts " + cmp.Or(unit, "s") + ")"
	case o.Type == Int && unit != "":
		return "a number (" + unit + ")"
	}
	switch o.Type {
	case Int:
		return "a number"
	case Bool:
		return "on, true, 1, off, false or 0"
	case Enum:
		if len(o.Words) == 0 {
			return "a word"
		}
		return "one of " + strings.Join(o.Words, ", ")
	case Flags:
		if len(o.Words) == 0 {
			return "a list of flags"
		}
		return "flags of " + strings.Join(o.Words, ", ") + "; no_ before a flag clears it"
	case List:
		return "a list { value, value }"
	case IP:
		return "an IP address"
	case IPList:
		return "a list of IP addresses"
	case Address:
		return "a mail address such as postmaster@example.org"
	case MapName:
		return "the name of a declared map"
	case Expr:
		return "a boolean expression"
	case File:
		return "the name of a file"
	case Dir:
		return "the name of a directory"
	case Path:
		return "a path"
	}
	return "a string"
}
