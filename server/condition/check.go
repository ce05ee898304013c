package condition

import (
	"regexp"
	"strings"
)

// checker checks types and stages, and compiles the patterns.
type checker struct{ stage Stage }

// check finds the first mistake of an expression that must have the type want.
func (c *checker) check(n *node, want typ) *Error {
	if n.op == opIdent {
		id := &idents[n.ident]
		if id.from > c.stage {
			return wrong(n.at, "%s is not known at the stage %s, only from %s on", id.name, c.stage, id.from)
		}
		n.asText = id.typ == either && want == text
	}
	o := &operators[n.op]
	if n.left != nil {
		if e := c.check(n.left, o.operands); e != nil {
			return explained(e, n, n.left)
		}
	}
	if n.right != nil {
		if e := c.check(n.right, o.operands); e != nil {
			return explained(e, n, n.right)
		}
	}
	switch n.op {
	case opMatches, opMatch:
		if e := n.compile(); e != nil {
			return e
		}
	}
	if got := n.typ(); got != want && (got != either || want == boolean) {
		return wrong(n.at, "%s is %s, expected %s", n.brief(), got, want)
	}
	return n.constant()
}

// typ is the type of the expression as it is written.
func (n *node) typ() typ {
	if n.op == opIdent {
		return idents[n.ident].typ
	}
	return operators[n.op].result
}

// brief is the text of an expression for a message.
func (n *node) brief() string {
	s := n.String()
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:37], "") + "..."
	}
	return s
}

// explained adds to the mistake of an operand's type what another operator would do.
func explained(e *Error, n, operand *node) *Error {
	if e.Suggestion != "" || e.From != operand.at.from || e.To != operand.at.to {
		return e
	}
	switch got := operand.typ(); {
	case got == text && (n.op == opEqual || n.op == opUnequal):
		e.Suggestion = "strings are compared by strcmp(a, b) " + operators[n.op].text + " 0, and matched by =~"
	case got == boolean && operators[n.op].operands == number && operators[n.op].result == boolean:
		e.Suggestion = "conditions are joined by && and ||"
	case got == number && n.op == opNot:
		e.Suggestion = "write " + operand.brief() + " == 0"
	}
	return e
}

// compile compiles the pattern of =~ and match.
func (n *node) compile() *Error {
	if n.right.op != opString {
		e := wrong(n.right.at, "the pattern of %s must be written as a string", operators[n.op].text)
		e.Suggestion = "what a client sends is no pattern; strcmp(a, b) == 0 compares two strings"
		return e
	}
	re, err := regexp.Compile(n.right.str)
	if err != nil {
		return wrong(n.right.at, "%v", err)
	}
	n.right.pattern = re
	return nil
}

// constant finds arithmetic on numbers that fails always.
func (n *node) constant() *Error {
	if n.op < opAdd && n.op != opNeg || n.op > opDiv || !n.left.isConstant() || n.right != nil && !n.right.isConstant() {
		return nil
	}
	if _, err := (&evaluation{}).value(n); err != nil {
		return wrong(n.at, "%v", err)
	}
	return nil
}

// isConstant reports a number that depends on nothing.
func (n *node) isConstant() bool {
	switch {
	case n.op == opNumber:
		return true
	case n.op == opNeg:
		return n.left.isConstant()
	case n.op >= opAdd && n.op <= opDiv:
		return n.left.isConstant() && n.right.isConstant()
	}
	return false
}
