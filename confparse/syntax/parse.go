package syntax

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxBytes bounds the text of one configuration, all included files together.
	MaxBytes = 4 << 20
	// MaxDepth bounds nested sections; the option tables need five.
	MaxDepth = 32
	// maxWords bounds the words of one value without quotes.
	maxWords = 32
	// MaxNodes bounds the entries and values of one configuration, for Format also the
	// comments.
	MaxNodes = 100_000
)

// errTooLarge says that the configuration is larger than MaxBytes.
var ErrTooLarge = fmt.Errorf("configuration is larger than %d bytes", MaxBytes)

// Value is one value as written: a word, joined strings, or the words of a time
// or size (1h 5m 12s) with one blank between.
type Value struct {
	Text   string
	At     Span
	Quoted bool
	Words  bool // several words
	notes  *notes
}

// notes are the comments that belong to an entry or a value.
type notes struct {
	lead  []Comment // before it
	trail []Comment // behind it, on its line
	open  []Comment // behind the { of a section, on its line
	tail  []Comment // before the } of a section or list
}

// Form is what an entry is.
type Form uint8

const (
	FormOption  Form = iota // name = value;
	FormList                // name = { values }
	FormExpr                // name == expression;
	FormSection             // name [label] { entries }
	FormInclude             // include "file";
	formBad                 // a mistake was found, and the rest of it passed
)

// Entry is one option, section or include directive.
type Entry struct {
	Name   string
	At     Span // the name
	Form   Form
	Values []Value // of an option or list; the one of an include
	Label  *Value  // of a section
	Body   []*Entry
	notes  *notes
	blank  bool // an empty line stands before it
}

// parser builds the tree of one file. It goes on after a mistake, so that all of
// them are found.
type parser struct {
	*Input
	lex    *lexer
	tok    token
	inList bool
	last   Span // of the token before tok
}

// Parse reads src; tail are the comments at its end.
func Parse(src *Source, in *Input) (body []*Entry, tail []Comment) {
	p := &parser{Input: in, lex: newLexer(src, in)}
	p.advance()
	for {
		body = append(body, p.entries(1)...)
		if p.tok.kind == tokEOF {
			return body, p.pending()
		}
		p.unexpectedClose()
	}
}

// ParseLine reads options and sections from one value of a map (README 3.8.1, 3.9.3,
// 3.10.1, 3.11.1): the language of a file in one line. There are no comments in it; the
// semicolon at the end and before a brace and the commas of a list may be left out, as
// in README's examples, so strings that follow each other are not joined. nodes bounds
// its entries and values. The error is about the first mistake.
func ParseLine(text string, nodes int) ([]*Entry, error) {
	in := &Input{Nodes: nodes, line: true}
	if len(text) > MaxBytes {
		return nil, ErrTooLarge
	}
	body, _ := Parse(&Source{Text: text}, in)
	if len(in.Errs) > 0 {
		return nil, errors.New(in.Errs[0].Brief())
	}
	return body, nil
}

func (p *parser) advance() {
	p.last = p.tok.at
	p.tok = p.lex.next()
}

func (p *parser) unexpectedClose() {
	p.Errorf(p.tok.at, "an option or a section", "",
		`"}" without a section that it could close`)
	p.Broken = true
	p.advance()
}

// pending takes all comments before the current token.
func (p *parser) pending() []Comment {
	c := p.lex.notes
	p.lex.notes = nil
	return c
}

// inner takes the comments before the last token: those within an entry.
func (p *parser) inner() []Comment {
	c := p.lex.notes
	n := 0
	for n < len(c) && c[n].off < p.last.off {
		n++
	}
	p.lex.notes = c[n:]
	return c[:n:n]
}

// trailing takes the comments before the current token that stand on the line of
// the token before.
func (p *parser) trailing() []Comment {
	c := p.lex.notes
	n := 0
	for n < len(c) && !c[n].own {
		n++
	}
	p.lex.notes = c[n:]
	return c[:n:n]
}

// entries reads entries up to the end of the section or file.
func (p *parser) entries(depth int) []*Entry {
	var list []*Entry
	for p.tok.kind != tokEOF && p.tok.kind != tokClose {
		if !p.spend(p.tok.at) || p.TooMany {
			p.giveUp()
			break
		}
		blank := p.lex.blank
		lead := p.pending()
		e := p.entry(depth)
		if e == nil {
			p.recover()
			continue
		}
		e.blank = blank
		lead = append(lead, p.inner()...)
		if trail := p.trailing(); len(lead)+len(trail) > 0 {
			n := e.note()
			n.lead, n.trail = lead, trail
		}
		if e.Form != formBad {
			list = append(list, e)
		}
	}
	return list
}

// note is the entry's notes, made when first asked for.
func (e *Entry) note() *notes {
	if e.notes == nil {
		e.notes = &notes{}
	}
	return e.notes
}

// giveUp drops the rest of the file.
func (p *parser) giveUp() {
	p.lex.off = len(p.lex.src.Text)
	p.advance()
}

// recover passes the rest of an entry in which a mistake was found: up to its
// semicolon, its closing brace, or the brace that closes the section around it.
func (p *parser) recover() {
	for p.tok.kind != tokEOF && p.tok.kind != tokClose {
		switch p.tok.kind {
		case tokSemi:
			p.advance()
			return
		case tokOpen:
			p.skipBlock()
			return
		}
		p.advance()
	}
}

// skipBlock passes { ... } with all that is nested in it, and a semicolon.
func (p *parser) skipBlock() {
	depth := 0
	for p.tok.kind != tokEOF {
		switch p.tok.kind {
		case tokOpen:
			depth++
		case tokClose:
			depth--
		}
		p.advance()
		if depth == 0 {
			break
		}
	}
	p.optional(tokSemi)
}

func (p *parser) optional(k kind) {
	if p.tok.kind == k {
		p.advance()
	}
}

// unexpected reports the current token.
func (p *parser) unexpected(expected, suggestion string) {
	switch p.tok.kind {
	case tokBad: // the lexer did
	case tokEOF:
		p.Errorf(p.tok.at, expected, suggestion, "unexpected end of file")
	default:
		p.Errorf(p.tok.at, expected, suggestion, "unexpected %s", p.what())
	}
}

func (p *parser) what() string {
	if p.tok.kind == tokString {
		return "string"
	}
	return ShownWord(p.tok.text)
}

// entry reads one entry; nil if it found a mistake that is still to be passed.
func (p *parser) entry(depth int) *Entry {
	if p.tok.kind != tokWord {
		p.unexpected("the name of an option or a section", "")
		return nil
	}
	e := &Entry{Name: p.tok.text, At: p.tok.at}
	p.advance()
	switch p.tok.kind {
	case tokAssign:
		return p.option(e)
	case tokEqual:
		return p.expression(e)
	case tokOpen:
		return p.section(e, depth)
	case tokWord, tokString:
		return p.labelled(e, depth)
	}
	if p.lex.newline || p.tok.kind == tokClose || p.tok.kind == tokEOF {
		p.Errorf(e.At, `"=" or "{" behind it`, "", "%s is neither an option nor a section", ShownWord(e.Name))
		return nil
	}
	p.unexpected(`"=" or "{" behind `+ShownWord(e.Name), "")
	return nil
}

// labelled reads what begins with two words: a named section or an include.
func (p *parser) labelled(e *Entry, depth int) *Entry {
	label, ok := p.value()
	if !ok {
		return nil
	}
	if strings.EqualFold(e.Name, "include") && p.tok.kind != tokOpen && !label.Words {
		e.Form, e.Values = FormInclude, []Value{label}
		p.semicolon()
		return e
	}
	if p.tok.kind == tokOpen && !label.Words {
		e.Label = &label
		return p.section(e, depth)
	}
	p.Errorf(label.At, `"=" or "{" behind `+ShownWord(e.Name), "", "unexpected %s", ShownWord(label.Text))
	return nil
}

// option reads = value; or = { values }.
func (p *parser) option(e *Entry) *Entry {
	p.advance()
	if p.tok.kind == tokOpen {
		return p.list(e)
	}
	v, ok := p.value()
	if !ok {
		return nil
	}
	if v.Words && (p.tok.kind == tokAssign || p.tok.kind == tokEqual) {
		p.Errorf(p.last, "", "", `";" is missing before %s`, ShownWord(p.lex.src.Text[p.last.off:p.last.end]))
		return nil
	}
	e.Form, e.Values = FormOption, []Value{v}
	p.semicolon()
	return e
}

// value reads one value. Words on one line belong together: 1h 5m 12s.
func (p *parser) value() (Value, bool) {
	v := Value{Text: p.tok.text, At: p.tok.at, Quoted: p.tok.kind == tokString}
	if p.tok.kind != tokWord && p.tok.kind != tokString {
		p.unexpected("a value", `a value with special characters needs double quotes`)
		return v, false
	}
	p.advance()
	single := v.Quoted || p.line && p.inList
	for n := 1; !single && p.tok.kind == tokWord && !p.lex.newline; n++ {
		if n == maxWords {
			p.Errorf(v.At, "", "", "value has more than %d words", maxWords)
			return v, false
		}
		v.Text, v.Words = v.Text+" "+p.tok.text, true
		v.At.end = p.tok.at.end
		p.advance()
	}
	return v, true
}

// semicolon expects the end of an option. A missing one is reported where it
// belongs, and reading goes on as if it stood there.
func (p *parser) semicolon() {
	if p.tok.kind == tokSemi {
		p.advance()
		return
	}
	if p.line && (p.tok.kind == tokClose || p.tok.kind == tokEOF) {
		return
	}
	if p.lex.newline || p.tok.kind == tokClose || p.tok.kind == tokEOF {
		at := p.last
		at.off = at.end
		p.Errorf(at, `";"`, "", `";" is missing`)
		return
	}
	p.unexpected(`";"`, "a value with special characters needs double quotes")
	p.recover()
}

// list reads { value, ... } with an optional comma at the end.
func (p *parser) list(e *Entry) *Entry {
	e.Form = FormList
	p.inList = true
	defer func() { p.inList = false }()
	p.advance()
	for p.tok.kind != tokClose {
		if !p.spend(p.tok.at) {
			p.giveUp()
			return nil
		}
		lead := p.pending()
		v, ok := p.value()
		if !ok {
			p.skipList()
			e.Form = formBad
			return e
		}
		comma := p.tok.kind == tokComma
		p.optional(tokComma)
		if trail := p.trailing(); len(lead)+len(trail) > 0 {
			v.notes = &notes{lead: lead, trail: trail}
		}
		e.Values = append(e.Values, v)
		if !comma && p.tok.kind != tokClose && !p.line {
			p.unexpected(`"," or "}"`, "")
			p.skipList()
			e.Form = formBad
			return e
		}
	}
	if tail := p.pending(); len(tail) > 0 {
		e.note().tail = tail
	}
	p.advance()
	p.optional(tokSemi)
	return e
}

// skipList passes the rest of a list in which a mistake was found: up to its brace,
// or to a semicolon that ends a line.
func (p *parser) skipList() {
	for p.tok.kind != tokEOF && p.tok.kind != tokClose {
		semi := p.tok.kind == tokSemi
		p.advance()
		if semi && p.lex.newline {
			return
		}
	}
	p.optional(tokClose)
	p.optional(tokSemi)
}

// expression reads == and the text behind it, up to the semicolon.
func (p *parser) expression(e *Entry) *Entry {
	p.tok = p.lex.raw() // p.tok was "==": nothing behind it is read yet
	if p.tok.kind == tokBad {
		return nil
	}
	e.Form, e.Values = FormExpr, []Value{{Text: p.tok.text, At: p.tok.at}}
	p.advance()
	if p.tok.kind != tokSemi {
		p.unexpected(`";" at the end of the expression`, "")
		return nil
	}
	p.advance()
	return e
}

// section reads { entries } and an optional semicolon.
func (p *parser) section(e *Entry, depth int) *Entry {
	e.Form = FormSection
	if depth > MaxDepth {
		p.Errorf(e.At, "", "", "sections are nested more than %d deep", MaxDepth)
		p.skipBlock()
		e.Form = formBad
		return e
	}
	p.advance()
	if open := p.trailing(); len(open) > 0 {
		e.note().open = open
	}
	e.Body = p.entries(depth + 1)
	if tail := p.pending(); len(tail) > 0 {
		e.note().tail = tail
	}
	if p.tok.kind != tokClose {
		p.unclosed(e)
		return e
	}
	p.advance()
	p.optional(tokSemi)
	return e
}

// unclosed reports a section that the file ends in, and guesses from the layout
// where its brace is missing.
func (p *parser) unclosed(e *Entry) {
	hint, own := "", e.At.Pos()
	for _, in := range e.Body {
		if at := in.At.Pos(); in.Form == FormSection && at.Line > own.Line && at.Col <= own.Col {
			hint = "perhaps it ends before " + ShownWord(in.Name) + " at " + at.String()
			break
		}
	}
	p.Errorf(e.At, "", hint, `section %s is not closed with "}"`, ShownWord(e.Name))
	p.Broken = true
}
