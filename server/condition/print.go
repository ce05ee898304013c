package condition

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"meta1/confparse/syntax"
)

// String gives the condition in a canonical form, which [Parse] reads as the same.
func (c *Condition) String() string { return c.root.String() }

// String writes an expression with as few parentheses as it needs, apart from those
// behind "!".
func (n *node) String() string {
	var b strings.Builder
	n.write(&b)
	return b.String()
}

func (n *node) write(b *strings.Builder) {
	o := &operators[n.op]
	switch {
	case n.op == opNumber:
		b.WriteString(strconv.FormatInt(n.num, 10))
	case n.op == opString:
		b.WriteString(syntax.Quoted(n.str))
	case n.op == opIdent:
		b.WriteString(n.ident.String())
	case n.op.isFunction():
		b.WriteString(o.text + "(")
		n.left.write(b)
		b.WriteString(", ")
		n.right.write(b)
		b.WriteByte(')')
	case n.op == opNot:
		b.WriteByte('!')
		n.left.writeIn(b, n.left.op != opNot && n.left.op != opMatch)
	case n.op == opNeg:
		b.WriteByte('-')
		n.left.writeIn(b, operators[n.left.op].level < levelUnary)
	default:
		n.left.writeIn(b, operators[n.left.op].level < o.level)
		b.WriteString(" " + o.text + " ")
		n.right.writeIn(b, operators[n.right.op].level <= o.level)
	}
}

// writeIn writes an operand, in parentheses if it takes them.
func (n *node) writeIn(b *strings.Builder, parentheses bool) {
	if parentheses {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	n.write(b)
}

const (
	// explainMax bounds an explanation, in bytes; the last part may go beyond it.
	explainMax = 400
	// valueMax bounds a value in it.
	valueMax = 80
	// partMax bounds the text of an expression in it.
	partMax = 120
)

// Explain says which values the parts of the condition have, in the order in which they
// are evaluated; those of && and || follow from them. What comes from a client is quoted, without characters that are not
// printable ASCII. A long explanation ends with "...".
func (c *Condition) Explain(f *Facts) string {
	var b strings.Builder
	full := false
	e := evaluation{facts: f, seen: func(n *node, v *value) {
		switch {
		case full || n.op == opNumber || n.op == opString || v != nil && (n.op == opAnd || n.op == opOr):
			return
		case b.Len() > explainMax:
			b.WriteString("; ...")
			full = true
			return
		case b.Len() > 0:
			b.WriteString("; ")
		}
		b.WriteString(cut(n.String(), partMax) + " " + n.says(v))
	}}
	if _, err := e.value(c.root); err != nil {
		return strings.TrimPrefix(b.String()+"; "+err.Error(), "; ")
	}
	return b.String()
}

// says puts a value in words.
func (n *node) says(v *value) string {
	switch t := n.typ(); {
	case v == nil:
		return "is not evaluated"
	case t == boolean:
		return fmt.Sprintf("is %t", v.isTrue)
	case t == text || n.asText:
		return "is " + strconv.QuoteToASCII(cut(v.str, valueMax))
	}
	return "is " + strconv.FormatInt(v.num, 10)
}

// cut shortens a text to about n bytes, and says so.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
