package mailutils

import (
	"meta1/confparse/syntax"
)

// Value is a word or a string.
type Value struct {
	Text   string
	At     syntax.Span
	Quoted bool // it was a string
}

// Arg is what stands behind a keyword: a value, or a list of them.
type Arg struct {
	List   bool
	Values []Value // exactly one if List is false
	At     syntax.Span
}

// Stmt is one statement.
type Stmt struct {
	Keyword string
	At      syntax.Span // of the keyword
	Args    []Arg       // values; of a block its tag, if there is one
	Block   bool
	Body    []*Stmt // of a block
}

// Tag is the tag of a block, "" for none.
func (s *Stmt) Tag() string {
	if len(s.Args) == 0 || len(s.Args[0].Values) == 0 {
		return ""
	}
	return s.Args[0].Values[0].Text
}

// Parse reads the statements of one text. Mistakes are reported to diags; what could be read
// is returned all the same. nodes is how many statements and values there may be more, and is
// counted down.
func Parse(src *syntax.Source, diags *syntax.Diags, nodes *int) []*Stmt {
	p := &parser{lexer: lexer{src: src, diags: diags}, nodes: nodes}
	p.advance()
	list := p.statements(0)
	if p.tok.kind != end && *nodes > 0 && !diags.TooMany {
		diags.Errorf(p.tok.at, "", "", "this } closes nothing")
		p.advance()
		list = append(list, p.rest()...)
	}
	return list
}

type parser struct {
	lexer
	tok   token
	nodes *int
}

// rest reads what stands behind a } too many, so that its mistakes are found, too.
func (p *parser) rest() (list []*Stmt) {
	for p.tok.kind != end && *p.nodes > 0 && !p.diags.TooMany {
		list = append(list, p.statements(0)...)
		if p.tok.kind != end {
			p.advance()
		}
	}
	return list
}

func (p *parser) advance() {
	p.tok = p.next()
	for p.tok.kind == bad { // it was told
		p.tok = p.next()
	}
}

func (p *parser) is(m string) bool { return p.tok.kind == mark && p.tok.text == m }

// spend counts a statement or value, and reports false if there are too many.
func (p *parser) spend() bool {
	if *p.nodes--; *p.nodes == 0 {
		p.diags.Errorf(p.tok.at, "", "", "there are more than %d statements and values", syntax.MaxNodes)
	}
	return *p.nodes > 0
}

// statements reads up to the } of a block or the end, which is left.
func (p *parser) statements(depth int) (list []*Stmt) {
	for p.tok.kind != end && !p.is("}") && p.spend() {
		switch {
		case p.is(";"): // behind a block, or nothing
			p.advance()
		case p.tok.kind != word || !isKeyword(p.tok.text):
			p.diags.Errorf(p.tok.at, "a keyword", "", "%s is not a keyword", p.shown())
			p.pass()
		default:
			if s := p.statement(depth); s != nil {
				list = append(list, s)
			}
		}
	}
	return list
}

// isKeyword: letters, digits, underscores and dashes, a letter first.
func isKeyword(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || s[i] != '_' && s[i] != '-' && (s[i] < '0' || s[i] > '9')) {
			return false
		}
	}
	return s != ""
}

func (p *parser) shown() string {
	if p.tok.kind == end {
		return "the end of the file"
	}
	return syntax.ShownWord(p.tok.text)
}

// pass goes behind the next semicolon, or to the } of this block, or behind the block that
// begins before.
func (p *parser) pass() {
	for depth := 0; p.tok.kind != end; p.advance() {
		switch {
		case p.is("{"):
			depth++
		case p.is("}") && depth == 0:
			return
		case p.is("}"):
			if depth--; depth == 0 {
				p.advance()
				return
			}
		case p.is(";") && depth == 0:
			p.advance()
			return
		}
	}
}

// statement reads one statement; nil if it is wrong.
func (p *parser) statement(depth int) *Stmt {
	s := &Stmt{Keyword: p.tok.text, At: p.tok.at}
	for p.advance(); ; {
		switch {
		case p.tok.kind == word || p.tok.kind == quoted:
			v := Value{Text: p.tok.text, At: p.tok.at, Quoted: p.tok.kind == quoted}
			s.Args = append(s.Args, Arg{Values: []Value{v}, At: v.At})
			if p.advance(); !p.spend() {
				return nil
			}
		case p.is("("):
			a, ok := p.list()
			if !ok {
				p.pass()
				return nil
			}
			s.Args = append(s.Args, a)
		case p.is(";"):
			p.advance()
			return s
		case p.is("{"):
			return p.block(s, depth)
		default:
			p.diags.Errorf(p.tok.at, "a value or a semicolon", "", "the statement %s ends in %s", s.Keyword, p.shown())
			if p.is(")") || p.is(",") {
				p.pass()
			}
			return nil
		}
	}
}

// block reads the statements of a block.
func (p *parser) block(s *Stmt, depth int) *Stmt {
	open := p.tok.at
	if len(s.Args) > 1 || len(s.Args) == 1 && s.Args[0].List {
		p.diags.Errorf(s.At, "", "", "the block %s has more than one tag", s.Keyword)
	}
	if depth++; depth > syntax.MaxDepth {
		p.diags.Errorf(open, "", "", "blocks are nested more than %d deep", syntax.MaxDepth)
		p.pass()
		return nil
	}
	p.advance()
	s.Block = true
	if s.Body = p.statements(depth); !p.is("}") {
		if *p.nodes > 0 {
			p.diags.Errorf(open, "}", "", "the block %s has no end", s.Keyword)
		}
		return s
	}
	p.advance()
	return s
}

// list reads a list in parentheses.
func (p *parser) list() (a Arg, ok bool) {
	a = Arg{List: true, At: p.tok.at}
	p.advance()
	for !p.is(")") {
		if p.tok.kind != word && p.tok.kind != quoted {
			p.diags.Errorf(p.tok.at, "a value or )", "", "%s stands in a list", p.shown())
			return a, false
		}
		a.Values = append(a.Values, Value{Text: p.tok.text, At: p.tok.at, Quoted: p.tok.kind == quoted})
		if p.advance(); !p.spend() {
			return a, false
		}
		if !p.is(",") && !p.is(")") {
			p.diags.Errorf(p.tok.at, ", or )", "", "%s stands in a list", p.shown())
			return a, false
		}
		if p.is(",") {
			p.advance()
		}
	}
	p.advance()
	return a, true
}
