package syntax

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// MaxDiagnostics bounds the list of mistakes of one Load; who has that many has
// given a file that is no configuration at all.
const MaxDiagnostics = 500

// maxLineShown bounds the part of a line, in characters, that a diagnostic shows.
const maxLineShown = 160

// Pos is a place in a configuration file. The zero Pos stands for "default": no
// file gave the value.
type Pos struct {
	File string `json:"file,omitempty"` // as the user named it; "" for a value of a map
	Line int    `json:"line,omitempty"` // from 1
	Col  int    `json:"col,omitempty"`  // from 1, in characters
}

// IsSet says whether p is a place in a file.
func (p Pos) IsSet() bool { return p.Line > 0 }

// String gives file:line:col, column col for a place in a value of a map, or "default"
// for the zero Pos.
func (p Pos) String() string {
	switch {
	case !p.IsSet():
		return "default"
	case p.File == "":
		return fmt.Sprintf("column %d", p.Col)
	}
	return fmt.Sprintf("%s:%d:%d", Clean(p.File), p.Line, p.Col)
}

// Severity tells a mistake from a remark.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Diagnostic is one mistake in a configuration, or one remark on it. File, Line
// and Col are empty for what has no place in a file.
type Diagnostic struct {
	Pos
	Severity Severity `json:"severity"`
	// Message says what is wrong, in lower case.
	Message string `json:"message"`
	// Expected says what could stand there; "" if Message says it.
	Expected string `json:"expected,omitempty"`
	// Suggestion is what was perhaps meant; "" for none.
	Suggestion string `json:"suggestion,omitempty"`
	// Text is the line, shortened around the place if it is long, without control
	// characters.
	Text string `json:"text,omitempty"`

	caret, width int // where in Text the offending part is, in characters
}

// String prints d as compilers do: place and message, the line, a caret below the
// offending text, what was expected, what was perhaps meant.
func (d Diagnostic) String() string {
	var b strings.Builder
	switch {
	case d.IsSet():
		b.WriteString(d.Pos.String() + ": ")
	case d.File != "":
		b.WriteString(Clean(d.File) + ": ")
	}
	fmt.Fprintf(&b, "%s: %s", d.Severity, d.Message)
	if d.Text != "" {
		fmt.Fprintf(&b, "\n    %s\n    %s^%s", d.Text,
			strings.Repeat(" ", d.caret), strings.Repeat("~", max(d.width-1, 0)))
	}
	if d.Expected != "" {
		b.WriteString("\n    expected " + d.Expected)
	}
	if d.Suggestion != "" {
		b.WriteString("\n    " + d.Suggestion)
	}
	return b.String()
}

// Brief gives d in one line without its place, for a text that is shown with it.
func (d Diagnostic) Brief() string {
	s := d.Message
	if d.Expected != "" {
		s += ", expected " + d.Expected
	}
	if d.Suggestion != "" {
		s += "; " + d.Suggestion
	}
	return s
}

// Errors is the error of [Load]: every mistake of the configuration, by file and
// line. It is never empty when returned as an error.
type Errors []Diagnostic

// Error prints all diagnostics, one below the other, and their number if there is
// more than one.
func (e Errors) Error() string {
	lines := make([]string, 0, len(e)+1)
	for _, d := range e {
		lines = append(lines, d.String())
	}
	if len(e) > 1 {
		lines = append(lines, fmt.Sprintf("%d errors", len(e)))
	}
	return strings.Join(lines, "\n")
}

// Source is the text of one file.
type Source struct {
	Name  string // as shown
	Path  string // as opened
	Text  string
	lines []int32 // offset of each line's start; made when first asked for
	last  struct{ start, off, col int32 }

	hidden map[int]bool // lines that no diagnostic shows
}

// Span is a piece of a source, in bytes. The zero span is no place.
type Span struct {
	Src      *Source
	off, end int32
}

// Span is the piece of the source from byte off up to end.
func (s *Source) Span(off, end int) Span { return Span{Src: s, off: int32(off), end: int32(end)} }

func (s *Source) lineStart(off int32) (line int, start int32) {
	if s.lines == nil {
		s.lines = append(s.lines, 0)
		for i := 0; i < len(s.Text); i++ {
			if s.Text[i] == '\n' {
				s.lines = append(s.lines, int32(i+1))
			}
		}
	}
	i := sort.Search(len(s.lines), func(i int) bool { return s.lines[i] > off })
	return i, s.lines[i-1]
}

func (s Span) Pos() Pos {
	if s.Src == nil {
		return Pos{}
	}
	line, start := s.Src.lineStart(s.off)
	return Pos{File: s.Src.Name, Line: line, Col: s.Src.column(start, s.off)}
}

// column counts characters from the last place asked for, so that the places of
// one very long line cost linear time together.
func (s *Source) column(start, off int32) int {
	l := &s.last
	if l.col == 0 || l.start != start {
		l.start, l.off, l.col = start, start, 1
	}
	if off >= l.off {
		l.col += int32(utf8.RuneCountInString(s.Text[l.off:off]))
	} else {
		l.col -= int32(utf8.RuneCountInString(s.Text[off:l.off]))
	}
	l.off = off
	return int(l.col)
}

// excerpt gives the line of s, shortened to what a terminal shows, and where in it
// s begins and how wide it is there.
func (s Span) excerpt() (text string, caret, width int) {
	if s.Src == nil {
		return "", 0, 0
	}
	number, start := s.Src.lineStart(s.off)
	if s.Src.hidden[number] {
		return "", 0, 0
	}
	line, _, _ := strings.Cut(clip(s.Src.Text[start:], int(s.off-start)+4*maxLineShown), "\n")
	line = strings.TrimRight(line, "\r")
	at := min(int(s.off-start), len(line))
	end := min(int(s.end-start), len(line))
	before := []rune(Clean(clipLeft(line[:at], 4*maxLineShown)))
	rest := []rune(Clean(line[at:]))
	if len(before) > maxLineShown/2 {
		before = before[len(before)-maxLineShown/2:]
	}
	if room := maxLineShown - len(before); len(rest) > room {
		rest = rest[:room]
	}
	width = min(utf8.RuneCountInString(line[at:max(at, end)]), len(rest))
	text = string(before) + string(rest)
	indent := len(text) - len(strings.TrimLeft(text, " "))
	indent = min(indent, len(before))
	return strings.TrimRight(text[indent:], " "), len(before) - indent, width
}

// NewDiagnostic makes a diagnostic about the text at s.
func NewDiagnostic(sev Severity, at Span, message string) Diagnostic {
	d := Diagnostic{Pos: at.Pos(), Severity: sev, Message: message}
	d.Text, d.caret, d.width = at.excerpt()
	return d
}

// Diags collects what is found during one Load.
type Diags struct {
	Errs     Errors
	Warnings []Diagnostic
	TooMany  bool // errors: going on is of no use
}

// Hide keeps the lines of s, which hold a secret, out of all diagnostics.
func (l *Diags) Hide(s Span) {
	if s.Src == nil {
		return
	}
	if s.Src.hidden == nil {
		s.Src.hidden = map[int]bool{}
	}
	from, _ := s.Src.lineStart(s.off)
	to, _ := s.Src.lineStart(max(s.off, s.end-1))
	for line := from; line <= to; line++ {
		s.Src.hidden[line] = true
	}
	for _, list := range [][]Diagnostic{l.Errs, l.Warnings} {
		for i := range list {
			if d := &list[i]; d.File == s.Src.Name && s.Src.hidden[d.Line] {
				d.Text, d.caret, d.width = "", 0, 0
			}
		}
	}
}

// Report adds a diagnostic. Beyond MaxDiagnostics errors it only notes that there
// are more; that many warnings are enough, too.
func (l *Diags) Report(d Diagnostic) {
	switch {
	case d.Severity == SeverityWarning && len(l.Warnings) < MaxDiagnostics:
		l.Warnings = append(l.Warnings, d)
	case d.Severity == SeverityError && len(l.Errs) < MaxDiagnostics:
		l.Errs = append(l.Errs, d)
	case d.Severity == SeverityError:
		l.TooMany = true
	}
}

// Errorf adds an error about the text at s; expected and suggestion may be empty.
func (l *Diags) Errorf(at Span, expected, suggestion, format string, args ...any) {
	if len(l.Errs) >= MaxDiagnostics {
		l.TooMany = true
		return
	}
	d := NewDiagnostic(SeverityError, at, fmt.Sprintf(format, args...))
	d.Expected, d.Suggestion = expected, suggestion
	l.Report(d)
}

// Err gives the errors by place, or nil.
func (l *Diags) Err(order map[string]int) error {
	if len(l.Errs) == 0 {
		return nil
	}
	SortDiagnostics(l.Errs, order)
	l.Errs = slices.Compact(l.Errs) // what stands behind a string is read twice
	if l.TooMany {
		l.Errs = append(l.Errs, Diagnostic{Severity: SeverityError, Message: "too many errors"})
	}
	return l.Errs
}

func SortDiagnostics(list []Diagnostic, order map[string]int) {
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i].Pos, list[j].Pos
		if a.File != b.File {
			return order[a.File] < order[b.File]
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
}

// Clean replaces every character that could disturb a terminal or a log by a blank
// or a question mark, one for one, so that columns stay.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r < ' ' || r == 0x7f || r == utf8.RuneError || (r >= 0x80 && r < 0xa0),
			r == 0x2028 || r == 0x2029, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '?'
		}
		return r
	}, s)
}

// clip cuts s to at most n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}

// clipLeft keeps at most the last n bytes of s.
func clipLeft(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[len(s)-n:]
}

// ShownWord makes a user's word fit for a message: clean, quoted, not too long.
func ShownWord(s string) string {
	if len(s) > 60 {
		s = clip(s, 57) + "..."
	}
	return fmt.Sprintf("%q", s)
}
