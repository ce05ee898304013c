package confparse

import (
	"strings"
)

const (
	// maxDepth bounds nested sections; the option tables need five.
	maxDepth = 32
	// maxNodes bounds the entries and values of one configuration.
	maxNodes = 200_000
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
)

// entry is one option, section or include directive.
type entry struct {
	name   string
	at     span // the name
	form   form
	values []value // of an option or list; the one of an include
	label  *value  // of a section
	body   []*entry
	end    span // the closing brace of a section or list
	notes  *notes
	blank  bool // an empty line stands before it
}

// parser builds the tree of one file. It goes on after a mistake, so that all of
// them are found.
type parser struct {
	lex    *lexer
	tok    token
	last   span // of the token before tok
	diags  *diags
	nodes  *int // what is left of maxNodes
	broken *bool
}

// parse reads src. broken is set when braces do not match, so that names may be
// in another section than they seem to be.
func parse(src *source, d *diags, nodes *int, broken *bool) (body []*entry, tail []comment) {
	p := &parser{lex: newLexer(src, d), diags: d, nodes: nodes, broken: broken}
	p.advance()
	for {
		body = append(body, p.entries(1)...)
		if p.tok.kind == tokEOF {
			return body, p.comments()
		}
		p.unexpectedClose()
	}
}

func (p *parser) advance() {
	p.last = p.tok.at
	p.tok = p.lex.next()
}

func (p *parser) unexpectedClose() {
	p.diags.errorf(p.tok.at, "an option or a section", "",
		`"}" without a section that it could close`)
	*p.broken = true
	p.advance()
}

// comments takes all comments before the current token.
func (p *parser) comments() []comment {
	c := p.lex.comments
	p.lex.comments = nil
	return c
}

// trailing takes the comments before the current token that stand on the line of
// the token before.
func (p *parser) trailing() []comment {
	c := p.lex.comments
	n := 0
	for n < len(c) && !c[n].own {
		n++
	}
	p.lex.comments = c[n:]
	return c[:n]
}

// spend takes one node from the budget.
func (p *parser) spend() bool {
	*p.nodes--
	if *p.nodes == -1 {
		p.diags.errorf(p.tok.at, "", "", "configuration has more than %d entries and values", maxNodes)
	}
	return *p.nodes >= 0
}

// entries reads entries up to the end of the section or file.
func (p *parser) entries(depth int) []*entry {
	var list []*entry
	for p.tok.kind != tokEOF && p.tok.kind != tokClose {
		if !p.spend() || p.diags.full() {
			p.giveUp()
			break
		}
		blank := p.lex.blank
		lead := p.comments()
		if len(lead) > 0 {
			blank = lead[0].blank
		}
		e := p.entry(depth)
		if e == nil {
			p.recover()
			continue
		}
		e.blank = blank
		inner := p.trailing()
		if len(lead)+len(inner) > 0 {
			e.addNotes(lead, inner)
		}
		list = append(list, e)
	}
	return list
}

func (e *entry) addNotes(lead, trail []comment) {
	if e.notes == nil {
		e.notes = &notes{}
	}
	e.notes.lead = append(lead, e.notes.lead...)
	e.notes.trail = append(e.notes.trail, trail...)
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
		p.diags.errorf(p.tok.at, expected, suggestion, "unexpected end of file")
	default:
		p.diags.errorf(p.tok.at, expected, suggestion, "unexpected %s", p.what())
	}
}

func (p *parser) what() string {
	if p.tok.kind == tokString {
		return "string"
	}
	return shown(p.tok.text)
}

// entry reads one entry; nil if it found a mistake that leaves nothing to use.
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
	p.diags.errorf(label.at, `"=" or "{" behind `+shown(e.name), "", "unexpected %s", shown(label.text))
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
	for !v.quoted && p.tok.kind == tokWord && !p.lex.newline {
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
		p.diags.errorf(at, `";"`, "", `";" is missing`)
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
		if !p.spend() {
			p.giveUp()
			return nil
		}
		lead := p.comments()
		v, ok := p.value()
		if !ok {
			p.skipList()
			return nil
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
			return nil
		}
	}
	if tail := p.comments(); len(tail) > 0 {
		e.notes = &notes{tail: tail}
	}
	e.end = p.tok.at
	p.advance()
	p.optional(tokSemi)
	return e
}

// skipList passes the rest of a list in which a mistake was found.
func (p *parser) skipList() {
	for p.tok.kind != tokEOF && p.tok.kind != tokClose && p.tok.kind != tokSemi {
		p.advance()
	}
	p.optional(tokClose)
	p.optional(tokSemi)
}

// expression reads == and the text behind it, up to the semicolon.
func (p *parser) expression(e *entry) *entry {
	p.tok = p.lex.raw() // p.tok was "==": nothing behind it is read yet
	if p.tok.kind == tokBad {
		p.advance()
		return nil
	}
	e.form, e.values = formExpr, []value{{text: p.tok.text, at: p.tok.at}}
	p.advance()
	if p.tok.kind != tokSemi {
		p.unexpected(`";" at the end of the expression`, "")
		p.recover()
		return nil
	}
	p.advance()
	return e
}

// section reads { entries } and an optional semicolon.
func (p *parser) section(e *entry, depth int) *entry {
	e.form = formSection
	if depth > maxDepth {
		p.diags.errorf(e.at, "", "", "sections are nested more than %d deep", maxDepth)
		p.skipBlock()
		return nil
	}
	p.advance()
	if open := p.trailing(); len(open) > 0 {
		e.notes = &notes{open: open}
	}
	e.body = p.entries(depth + 1)
	if tail := p.comments(); len(tail) > 0 {
		e.addNotes(nil, nil)
		e.notes.tail = tail
	}
	e.end = p.tok.at
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
	p.diags.errorf(e.at, "", hint, `section %s is not closed with "}"`, shown(e.name))
	*p.broken = true
}
