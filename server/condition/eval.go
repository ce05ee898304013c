package condition

import (
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// What can go wrong when a condition is evaluated. Nothing else can.
var (
	errDivision = errors.New("division by zero")
	errOverflow = errors.New("number is out of range")
)

// Holds reports whether the condition holds for the facts. An error says that a number
// was divided by zero or became larger than 64 bits allow; whether the condition holds is
// then unknown.
func (c *Condition) Holds(f *Facts) (bool, error) {
	v, err := (&evaluation{facts: f}).value(c.root)
	return v.isTrue, err
}

// value is the value of an expression; its type says which field has it.
type value struct {
	isTrue bool
	num    int64
	str    string
}

// evaluation evaluates expressions over facts. seen, if not nil, is told each value; a nil
// value stands for an operand of && or || that was left out.
type evaluation struct {
	facts *Facts
	seen  func(n *node, v *value)
}

// value evaluates an expression.
func (e *evaluation) value(n *node) (value, error) {
	v, err := e.compute(n)
	if err == nil && e.seen != nil {
		e.seen(n, &v)
	}
	return v, err
}

func (e *evaluation) compute(n *node) (v value, err error) {
	switch n.op {
	case opNumber:
		return value{num: n.num}, nil
	case opString:
		return value{str: n.str}, nil
	case opIdent:
		return e.ident(n), nil
	}
	left, err := e.value(n.left)
	if err != nil {
		return v, err
	}
	switch n.op {
	case opNeg:
		v.num, err = subtract(0, left.num)
		return v, err
	case opNot:
		return value{isTrue: !left.isTrue}, nil
	case opAnd, opOr:
		if left.isTrue == (n.op == opOr) { // the left operand decides
			if e.seen != nil {
				e.seen(n.right, nil)
			}
			return left, nil
		}
		return e.value(n.right)
	}
	right, err := e.value(n.right)
	if err != nil {
		return v, err
	}
	switch n.op {
	case opEqual:
		v.isTrue = left.num == right.num
	case opUnequal:
		v.isTrue = left.num != right.num
	case opLess:
		v.isTrue = left.num < right.num
	case opLessEqual:
		v.isTrue = left.num <= right.num
	case opGreater:
		v.isTrue = left.num > right.num
	case opGreaterEqual:
		v.isTrue = left.num >= right.num
	case opMatches, opMatch:
		v.isTrue = n.right.pattern.MatchString(left.str)
	case opStrcmp:
		v.num = int64(strings.Compare(left.str, right.str))
	case opStrcasecmp:
		v.num = int64(strings.Compare(lower(left.str), lower(right.str)))
	case opAdd:
		v.num, err = add(left.num, right.num)
	case opSub:
		v.num, err = subtract(left.num, right.num)
	case opMul:
		v.num, err = multiply(left.num, right.num)
	case opDiv:
		v.num, err = divide(left.num, right.num)
	}
	return v, err
}

func (e *evaluation) ident(n *node) value {
	v := value{num: e.facts.Number[n.ident], str: e.facts.Text[n.ident]}
	if n.asText {
		v.str = strconv.FormatInt(v.num, 10)
	}
	return v
}

// lower makes ASCII letters small, as strcasecmp(3) does in the C locale.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func add(a, b int64) (int64, error) {
	sum := a + b
	if (sum > a) != (b > 0) && b != 0 {
		return 0, errOverflow
	}
	return sum, nil
}

func subtract(a, b int64) (int64, error) {
	diff := a - b
	if (diff < a) != (b > 0) && b != 0 {
		return 0, errOverflow
	}
	return diff, nil
}

func multiply(a, b int64) (int64, error) {
	high, low := bits.Mul64(magnitude(a), magnitude(b))
	negative := (a < 0) != (b < 0)
	switch {
	case high != 0 || low > 1<<63 || low == 1<<63 && !negative:
		return 0, errOverflow
	case negative:
		return -int64(low), nil // also for 1<<63, which is the least int64
	}
	return int64(low), nil
}

// magnitude is the absolute value.
func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}

// divide rounds toward zero, as C does.
func divide(a, b int64) (int64, error) {
	switch {
	case b == 0:
		return 0, errDivision
	case a == math.MinInt64 && b == -1:
		return 0, errOverflow
	}
	return a / b, nil
}
