package condition

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"meta1/confparse"
)

const (
	// MaxText bounds the text of a condition, in bytes.
	MaxText = 4 << 10
	// MaxDepth bounds how deep parentheses and operators of one operand are nested.
	MaxDepth = 64
)

// Error is a mistake in a condition. From and To are the bytes of the text that it is about.
type Error struct {
	From, To   int
	Message    string // in lower case
	Suggestion string // what was perhaps meant; "" for none
}

// Error gives the message and the suggestion.
func (e *Error) Error() string {
	if e.Suggestion == "" {
		return e.Message
	}
	return e.Message + "; " + e.Suggestion
}

func wrong(at span, format string, args ...any) *Error {
	return &Error{From: at.from, To: at.to, Message: fmt.Sprintf(format, args...)}
}

// Condition is a condition whose types were checked. It does not change, and may be used by
// several goroutines.
type Condition struct {
	root *node
	uses []Use
}

// Use is a place where a condition names an identifier.
type Use struct {
	Ident    Ident
	From, To int // bytes of the text
}

// Uses are the identifiers of the condition in the order of the text.
func (c *Condition) Uses() []Use { return c.uses }

// op is what a node does.
type op uint8

const (
	opNumber op = iota // a constant
	opString           // a constant
	opIdent
	opNeg // -left
	opNot // !left
	opOr
	opAnd
	opEqual
	opUnequal
	opMatches // left =~ right
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opAdd
	opSub
	opMul
	opDiv
	opStrcmp
	opStrcasecmp
	opMatch // match(left, right)
)

// operator is what the language says of an operator or function.
type operator struct {
	text     string
	level    int // of precedence: a higher one binds tighter
	operands typ
	result   typ
}

// The levels of precedence.
const (
	levelOr = iota + 1
	levelAnd
	levelEqual
	levelRelation
	levelSum
	levelProduct
	levelUnary
	levelPrimary
)

// operators is the table of operators and functions. It never changes.
var operators = [...]operator{
	opNumber:       {"", levelPrimary, number, number},
	opString:       {"", levelPrimary, text, text},
	opIdent:        {"", levelPrimary, text, text}, // its type is in idents
	opNeg:          {"-", levelUnary, number, number},
	opNot:          {"!", levelEqual, boolean, boolean},
	opOr:           {"||", levelOr, boolean, boolean},
	opAnd:          {"&&", levelAnd, boolean, boolean},
	opEqual:        {"==", levelEqual, number, boolean},
	opUnequal:      {"!=", levelEqual, number, boolean},
	opMatches:      {"=~", levelEqual, text, boolean},
	opLess:         {"<", levelRelation, number, boolean},
	opLessEqual:    {"<=", levelRelation, number, boolean},
	opGreater:      {">", levelRelation, number, boolean},
	opGreaterEqual: {">=", levelRelation, number, boolean},
	opAdd:          {"+", levelSum, number, number},
	opSub:          {"-", levelSum, number, number},
	opMul:          {"*", levelProduct, number, number},
	opDiv:          {"/", levelProduct, number, number},
	opStrcmp:       {"strcmp", levelPrimary, text, number},
	opStrcasecmp:   {"strcasecmp", levelPrimary, text, number},
	opMatch:        {"match", levelPrimary, text, boolean},
}

// isFunction reports the operators that are written as functions.
func (o op) isFunction() bool { return o >= opStrcmp }

// node is an expression.
type node struct {
	op          op
	at          span
	left, right *node // operands; right is nil for operators of one
	num         int64
	str         string
	ident       Ident
	pattern     *regexp.Regexp // the right operand of =~ and match
	asText      bool           // an identifier of either type stands where a string is wanted
}

// parser builds the tree. The first mistake ends it.
type parser struct {
	lex   lexer
	tok   token
	depth int
	uses  []Use
}

// Parse reads a condition for a stage. The error is an [*Error].
func Parse(s string, stage Stage) (*Condition, error) {
	if len(s) > MaxText {
		return nil, wrong(span{MaxText, len(s)}, "condition is longer than %d bytes", MaxText)
	}
	p := &parser{lex: lexer{text: s}}
	root, e := p.whole()
	if e == nil {
		e = (&checker{stage: stage}).check(root, boolean)
	}
	if e != nil {
		return nil, e
	}
	return &Condition{root: root, uses: p.uses}, nil
}

func (p *parser) whole() (*node, *Error) {
	if e := p.advance(); e != nil {
		return nil, e
	}
	n, e := p.binary(levelOr)
	if e == nil && p.tok.kind != tokEnd {
		e = p.unexpected("an operator")
	}
	return n, e
}

func (p *parser) advance() (e *Error) {
	p.tok, e = p.lex.next()
	return e
}

// unexpected is the mistake of a token that cannot stand where it does.
func (p *parser) unexpected(expected string) *Error {
	if p.tok.kind == tokEnd {
		return wrong(p.tok.at, "condition ends where %s is expected", expected)
	}
	e := wrong(p.tok.at, "unexpected %s, expected %s", p.tok.shown(), expected)
	if words := map[string]string{"and": "&&", "or": "||", "eq": "=="}; p.tok.kind == tokName && words[p.tok.text] != "" {
		e.Suggestion = "did you mean " + words[p.tok.text] + "?"
	}
	return e
}

func (t *token) shown() string {
	if t.kind == tokString {
		return "string"
	}
	return fmt.Sprintf("%.40q", t.text)
}

// isMark reports whether the token is that mark.
func (p *parser) isMark(m string) bool { return p.tok.kind == tokMark && p.tok.text == m }

// binary reads operands and the operators of two operands between them whose level is at
// least that given.
func (p *parser) binary(level int) (*node, *Error) {
	left, e := p.unary()
	for e == nil {
		o := p.operator()
		if o == opNumber || operators[o].level < level {
			return left, nil
		}
		if e = p.advance(); e != nil {
			break
		}
		var right *node
		if right, e = p.binary(operators[o].level + 1); e == nil {
			left = &node{op: o, left: left, right: right, at: span{left.at.from, right.at.to}}
		}
	}
	return nil, e
}

// operator is the operator of two operands that the token is; opNumber stands for none.
func (p *parser) operator() op {
	if p.tok.kind == tokMark {
		for o := opOr; o <= opDiv; o++ {
			if operators[o].text == p.tok.text {
				return o
			}
		}
	}
	return opNumber
}

// unary reads an operand with the operators of one operand before it.
func (p *parser) unary() (*node, *Error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, wrong(p.tok.at, "condition is nested more than %d deep", MaxDepth)
	}
	defer func() { p.depth-- }()
	from := p.tok.at.from
	o, operand := opNumber, p.unary
	switch {
	case p.isMark("-"):
		o = opNeg
	case p.isMark("!"):
		o, operand = opNot, func() (*node, *Error) { return p.binary(levelEqual) }
	default:
		return p.primary()
	}
	if e := p.advance(); e != nil {
		return nil, e
	}
	n, e := operand()
	if e != nil {
		return nil, e
	}
	return &node{op: o, left: n, at: span{from, n.at.to}}, nil
}

// primary reads a constant, an identifier, a call, or an expression in parentheses.
func (p *parser) primary() (*node, *Error) {
	t := p.tok
	n := &node{at: t.at, num: t.num}
	switch {
	case t.kind == tokNumber:
		n.op = opNumber
	case t.kind == tokString:
		n.op, n.str = opString, t.text
	case t.kind == tokName:
		return p.name()
	case p.isMark("("):
		return p.parentheses()
	default:
		return nil, p.unexpected("an operand")
	}
	return n, p.advance()
}

// parentheses reads ( expression ). What they enclose has their place.
func (p *parser) parentheses() (*node, *Error) {
	from := p.tok.at.from
	if e := p.advance(); e != nil {
		return nil, e
	}
	n, e := p.binary(levelOr)
	if e != nil {
		return nil, e
	}
	to := p.tok.at.to
	if e := p.expect(")"); e != nil {
		return nil, e
	}
	n.at = span{from, to}
	return n, nil
}

func (p *parser) expect(mark string) *Error {
	if !p.isMark(mark) {
		return p.unexpected(fmt.Sprintf("%q", mark))
	}
	return p.advance()
}

// name reads an identifier, or the call of a function.
func (p *parser) name() (*node, *Error) {
	t := p.tok
	if e := p.advance(); e != nil {
		return nil, e
	}
	if !p.isMark("(") {
		i := slices.IndexFunc(idents[:], func(id ident) bool { return id.name == t.text })
		if i < 0 {
			e := wrong(t.at, "unknown identifier %.40q", t.text)
			e.Suggestion = confparse.DidYouMean(strings.ToLower(t.text), identNames())
			return nil, e
		}
		p.uses = append(p.uses, Use{Ident(i), t.at.from, t.at.to})
		return &node{op: opIdent, ident: Ident(i), at: t.at}, nil
	}
	for o := opStrcmp; o <= opMatch; o++ {
		if operators[o].text == t.text {
			return p.call(o, t.at.from)
		}
	}
	e := wrong(t.at, "unknown function %.40q", t.text)
	if e.Suggestion = confparse.DidYouMean(t.text, []string{"strcmp", "strcasecmp", "match"}); e.Suggestion == "" {
		e.Suggestion = "the functions are strcmp, strcasecmp and match"
	}
	return nil, e
}

// call reads ( a, b ).
func (p *parser) call(o op, from int) (*node, *Error) {
	n := &node{op: o}
	for i, operand := range []**node{&n.left, &n.right} {
		if e := p.expect([]string{"(", ","}[i]); e != nil {
			return nil, e
		}
		a, e := p.binary(levelOr)
		if e != nil {
			return nil, e
		}
		*operand = a
	}
	n.at = span{from, p.tok.at.to}
	return n, p.expect(")")
}
