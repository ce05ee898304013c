package confparse

import (
	"strings"
)

const (
	// maxDepth bounds nested sections; the option tables need five.
	maxDepth = 32
	// maxWords bounds the words of one value without quotes.
	maxWords = 32
	// maxNodes bounds the entries and values of one configuration, for Format also the
	// comments.
	maxNodes = 100_000
)

// value is one value as written: a word, joined strings, or the words of a time
// or size (1h 5m 12s) with one blank between.
type value struct {
	text   string
	at     span
	quoted bool
	words  bool // several words
	notes  *notes
}

// notes are the comments that belong to an entry or a value.
type notes struct {
	lead  []comment // before it
	trail []comment // behind it, on its line
	open  []comment // behind the { of a section, on its line
	tail  []comment // before the } of a section or list
}

// form is what an entry is.
type form uint8

const (
	formOption  form = iota // name = value;
	formList                // name = { values }
	formExpr                // name == expression;
	formSection             // name [label] { entries }
	formInclude             // include "file";
	formBad                 // a mistake was found, and the rest of it passed
)

// entry is one option, section or include directive.
type entry struct {
	name   string
	at     span // the name
	form   form
	values []value // of an option or list; the one of an include
	label  *value  // of a section
	body   []*entry
	notes  *notes
	blank  bool // an empty line stands before it
}

// parser builds the tree of one file. It goes on after a mistake, so that all of
// them are found.
type parser struct {
	*input
	lex  *lexer
	tok  token
	last span // of the token before tok
}

// parse reads src; tail are the comments at its end.
func parse(src *source, in *input) (body []*entry, tail []comment) {
	p := &parser{input: in, lex: newLexer(src, in)}
	p.advance()
	for {
		body = append(body, p.entries(1)...)
		if p.tok.kind == tokEOF {
			return body, p.pending()
		}
		p.unexpectedClose()
	}
}

func (p *parser) advance() {
	p.last = p.tok.at
	p.tok = p.lex.next()
}

func (p *parser) unexpectedClose() {
	p.errorf(p.tok.at, "an option or a section", "",
		`"}" without a section that it could close`)
	p.broken = true
	p.advance()
}

// pending takes all comments before the current token.
func (p *parser) pending() []comment {
	c := p.lex.notes
	p.lex.notes = nil
	return c
}

// inner takes the comments before the last token: those within an entry.
func (p *parser) inner() []comment {
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
func (p *parser) trailing() []comment {
	c := p.lex.notes
	n := 0
	for n < len(c) && !c[n].own {
		n++
	}
	p.lex.notes = c[n:]
	return c[:n:n]
}

// entries reads entries up to the end of the section or file.
func (p *parser) entries(depth int) []*entry {
	var list []*entry
	for p.tok.kind != tokEOF && p.tok.kind != tokClose {
		if !p.spend(p.tok.at) || p.tooMany {
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
		if e.form != formBad {
			list = append(list, e)
		}
	}
	return list
}

// note is the entry's notes, made when first asked for.
func (e *entry) note() *notes {
	if e.notes == nil {
		e.notes = &notes{}
	}
	return e.notes
}

// giveUp drops the rest of the file.
func (p *parser) giveUp() {
	p.lex.off = len(p.lex.src.text)
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
		p.errorf(p.tok.at, expected, suggestion, "unexpected end of file")
	default:
		p.errorf(p.tok.at, expected, suggestion, "unexpected %s", p.what())
	}
}

func (p *parser) what() string {
	if p.tok.kind == tokString {
		return "string"
	}
	return shown(p.tok.text)
}

// entry reads one entry; nil if it found a mistake that is still to be passed.
func (p *parser) entry(depth int) *entry {
	if p.tok.kind != tokWord {
		p.unexpected("the name of an option or a section", "")
		return nil
	}
	e := &entry{name: p.tok.text, at: p.tok.at}
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
		p.errorf(e.at, `"=" or "{" behind it`, "", "%s is neither an option nor a section", shown(e.name))
		return nil
	}
	p.unexpected(`"=" or "{" behind `+shown(e.name), "")
	return nil
}

// labelled reads what begins with two words: a named section or an include.
func (p *parser) labelled(e *entry, depth int) *entry {
	label, ok := p.value()
	if !ok {
		return nil
	}
	if strings.EqualFold(e.name, "include") && p.tok.kind != tokOpen && !label.words {
		e.form, e.values = formInclude, []value{label}
		p.semicolon()
		return e
	}
	if p.tok.kind == tokOpen && !label.words {
		e.label = &label
		return p.section(e, depth)
	}
	p.errorf(label.at, `"=" or "{" behind `+shown(e.name), "", "unexpected %s", shown(label.text))
	return nil
}

// option reads = value; or = { values }.
func (p *parser) option(e *entry) *entry {
	p.advance()
	if p.tok.kind == tokOpen {
		return p.list(e)
	}
	v, ok := p.value()
	if !ok {
		return nil
	}
	if v.words && (p.tok.kind == tokAssign || p.tok.kind == tokEqual) {
		p.errorf(p.last, "", "", `";" is missing before %s`, shown(p.lex.src.text[p.last.off:p.last.end]))
		return nil
	}
	e.form, e.values = formOption, []value{v}
	p.semicolon()
	return e
}

// value reads one value. Words on one line belong together: 1h 5m 12s.
func (p *parser) value() (value, bool) {
	v := value{text: p.tok.text, at: p.tok.at, quoted: p.tok.kind == tokString}
	if p.tok.kind != tokWord && p.tok.kind != tokString {
		p.unexpected("a value", `a value with special characters needs double quotes`)
		return v, false
	}
	p.advance()
	for n := 1; !v.quoted && p.tok.kind == tokWord && !p.lex.newline; n++ {
		if n == maxWords {
			p.errorf(v.at, "", "", "value has more than %d words", maxWords)
			return v, false
		}
		v.text, v.words = v.text+" "+p.tok.text, true
		v.at.end = p.tok.at.end
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
	if p.lex.newline || p.tok.kind == tokClose || p.tok.kind == tokEOF {
		at := p.last
		at.off = at.end
		p.errorf(at, `";"`, "", `";" is missing`)
		return
	}
	p.unexpected(`";"`, "a value with special characters needs double quotes")
	p.recover()
}

// list reads { value, ... } with an optional comma at the end.
func (p *parser) list(e *entry) *entry {
	e.form = formList
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
			e.form = formBad
			return e
		}
		comma := p.tok.kind == tokComma
		p.optional(tokComma)
		if trail := p.trailing(); len(lead)+len(trail) > 0 {
			v.notes = &notes{lead: lead, trail: trail}
		}
		e.values = append(e.values, v)
		if !comma && p.tok.kind != tokClose {
			p.unexpected(`"," or "}"`, "")
			p.skipList()
			e.form = formBad
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
func (p *parser) expression(e *entry) *entry {
	p.tok = p.lex.raw() // p.tok was "==": nothing behind it is read yet
	if p.tok.kind == tokBad {
		return nil
	}
	e.form, e.values = formExpr, []value{{text: p.tok.text, at: p.tok.at}}
	p.advance()
	if p.tok.kind != tokSemi {
		p.unexpected(`";" at the end of the expression`, "")
		return nil
	}
	p.advance()
	return e
}

// section reads { entries } and an optional semicolon.
func (p *parser) section(e *entry, depth int) *entry {
	e.form = formSection
	if depth > maxDepth {
		p.errorf(e.at, "", "", "sections are nested more than %d deep", maxDepth)
		p.skipBlock()
		e.form = formBad
		return e
	}
	p.advance()
	if open := p.trailing(); len(open) > 0 {
		e.note().open = open
	}
	e.body = p.entries(depth + 1)
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
func (p *parser) unclosed(e *entry) {
	hint, own := "", e.at.pos()
	for _, in := range e.body {
		if at := in.at.pos(); in.form == formSection && at.Line > own.Line && at.Col <= own.Col {
			hint = "perhaps it ends before " + shown(in.name) + " at " + at.String()
			break
		}
	}
	p.errorf(e.at, "", hint, `section %s is not closed with "}"`, shown(e.name))
	p.broken = true
}
