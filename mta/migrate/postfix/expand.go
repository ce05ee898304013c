package postfix

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of expansion.
const (
	maxDepth    = 30      // names in names; Postfix takes more for a loop, too
	maxExpanded = 4 << 20 // bytes of a value
)

// Expand replaces $name, ${name}, $(name), ${name?text}, ${name:text}, ${name?{text}:{text}} and
// ${{text} == {text} ? {text} : {text}} in a value, and $$ by $, as mac_expand(3) of Postfix does. The
// error of a loop, of a value that grows too large and of wrong syntax says what is wrong.
func (c *Config) Expand(s *Service, value string) (string, error) {
	e := expander{c: c, service: s}
	var out strings.Builder
	err := e.expand(&out, value, 0)
	return out.String(), err
}

type expander struct {
	c       *Config
	service *Service
	written int // bytes of all levels, which bounds the time
}

func (e *expander) write(out *strings.Builder, s string) error {
	if e.written += len(s); e.written > maxExpanded {
		return fmt.Errorf("the value grows over %d bytes", maxExpanded)
	}
	out.WriteString(s)
	return nil
}

func (e *expander) expand(out *strings.Builder, text string, depth int) error {
	if depth > maxDepth {
		return errors.New("the value refers to itself")
	}
	for text != "" {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			return e.write(out, text)
		}
		if err := e.write(out, text[:i]); err != nil {
			return err
		}
		rest := text[i+1:]
		var err error
		switch {
		case rest == "":
			return e.write(out, "$")
		case rest[0] == '$':
			text = rest[1:]
			err = e.write(out, "$")
		case rest[0] == '{' || rest[0] == '(':
			var inner string
			if inner, text, err = enclosed(rest); err == nil {
				err = e.inBraces(out, inner, depth)
			}
		default:
			n := nameLength(rest)
			if n == 0 {
				return errors.New("a $ that no name follows; $$ stands for itself")
			}
			text = rest[n:]
			err = e.name(out, rest[:n], depth)
		}
		if err == nil {
			e.written++ // a step that writes nothing counts, too
		} else {
			return err
		}
	}
	return nil
}

// name writes the value of a parameter.
func (e *expander) name(out *strings.Builder, name string, depth int) error {
	v, _ := e.c.raw(e.service, name)
	if err := e.write(out, ""); err != nil {
		return err
	}
	return e.expand(out, v, depth+1)
}

// inBraces writes what ${...} stands for.
func (e *expander) inBraces(out *strings.Builder, inner string, depth int) error {
	inner = strings.TrimSpace(inner)
	if strings.HasPrefix(inner, "{") {
		return e.comparison(out, inner, depth)
	}
	n := nameLength(inner)
	rest := strings.TrimLeft(inner[n:], " \t\r\n")
	switch {
	case n == 0:
		return fmt.Errorf("${%.40s} has no name", inner)
	case rest == "":
		return e.name(out, inner[:n], depth)
	case rest[0] != '?' && rest[0] != ':':
		return fmt.Errorf("${%.40s}: ?, : or } must follow the name", inner)
	}
	v, err := e.value(inner[:n], depth)
	if err != nil {
		return err
	}
	return e.choose(out, rest, v != "", depth)
}

func (e *expander) value(name string, depth int) (string, error) {
	var v strings.Builder
	err := e.name(&v, name, depth)
	return v.String(), err
}

// choose writes the text behind ? or : that fits the condition.
func (e *expander) choose(out *strings.Builder, rest string, condition bool, depth int) error {
	yes, no := "", ""
	operator := rest[0]
	rest = strings.TrimLeft(rest[1:], " \t\r\n")
	first := rest
	if strings.HasPrefix(rest, "{") {
		inner, after, err := enclosed(rest)
		if err != nil {
			return err
		}
		first = strings.TrimSpace(inner)
		after = strings.TrimSpace(after)
		switch {
		case after == "":
		case operator == '?' && after[0] == ':':
			no = strings.TrimSpace(unbrace(strings.TrimSpace(after[1:])))
		default:
			return fmt.Errorf("%.40q does not belong behind a text in braces", after)
		}
	}
	if operator == '?' {
		yes = first
	} else {
		no = first
	}
	if condition {
		return e.expand(out, yes, depth+1)
	}
	return e.expand(out, no, depth+1)
}

// comparison writes ${{a} == {b} ? {c} : {d}}; without texts it is true or false, as "bool:true" in
// Postfix, of which nothing but emptiness can be seen.
func (e *expander) comparison(out *strings.Builder, inner string, depth int) error {
	left, rest, err := enclosed(inner)
	if err != nil {
		return err
	}
	rest = strings.TrimSpace(rest)
	i := strings.IndexByte(rest, '{')
	if i < 0 {
		return fmt.Errorf("${{%.40s} has no second text to compare with", left)
	}
	operator := strings.TrimSpace(rest[:i])
	right, rest, err := enclosed(rest[i:])
	if err != nil {
		return err
	}
	var a, b strings.Builder
	if err := e.expand(&a, strings.TrimSpace(left), depth+1); err != nil {
		return err
	}
	if err := e.expand(&b, strings.TrimSpace(right), depth+1); err != nil {
		return err
	}
	holds, err := compare(a.String(), operator, b.String())
	if err != nil {
		return err
	}
	if rest = strings.TrimSpace(rest); rest == "" {
		if holds {
			return e.write(out, "bool:true")
		}
		return nil
	}
	if rest[0] != '?' && rest[0] != ':' {
		return fmt.Errorf("%.40q does not belong behind a comparison", rest)
	}
	return e.choose(out, rest, holds, depth)
}

// compare compares numbers as numbers, and else as text.
func compare(a, operator, b string) (bool, error) {
	order := strings.Compare(a, b)
	if base, ok := strings.CutSuffix(operator, "level"); ok { // of compatibility_level: 3.10 is more than 3.9
		operator, order = base, compareLevels(a, b)
	}
	x, err1 := strconv.ParseInt(a, 10, 64)
	y, err2 := strconv.ParseInt(b, 10, 64)
	if err1 == nil && err2 == nil {
		switch {
		case x < y:
			order = -1
		case x > y:
			order = 1
		default:
			order = 0
		}
	}
	switch operator {
	case "==":
		return order == 0, nil
	case "!=":
		return order != 0, nil
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	case ">=":
		return order >= 0, nil
	}
	return false, fmt.Errorf("%.20q is not an operator of a comparison", operator)
}

// compareLevels compares versions such as 2 and 3.6 part by part.
func compareLevels(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		m, n := 0, 0
		if i < len(x) {
			m, _ = strconv.Atoi(x[i])
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m - n
		}
	}
	return 0
}

// enclosed divides text that begins with a brace or parenthesis behind the one that ends it.
func enclosed(text string) (inner, rest string, err error) {
	begin := text[0]
	end := byte('}')
	if begin == '(' {
		end = ')'
	}
	level := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case begin:
			level++
		case end:
			if level--; level == 0 {
				return text[1:i], text[i+1:], nil
			}
		}
	}
	return "", "", fmt.Errorf("%.40q has no closing %q", text, end)
}

func nameLength(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n] >= '0' && s[n] <= '9' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z') {
		n++
	}
	return n
}
