package submit

import (
	"errors"
	"strings"
)

var (
	errUnclosed = errors.New("a quote, comment or bracket is not closed")
	errAngle    = errors.New("no address in angle brackets, or something behind them")
	errControl  = errors.New("control character in address")
	errTooMany  = errors.New("too many addresses")
)

// addressesMax bounds the addresses of one list.
const addressesMax = 100_000

// ParseAddresses reads a list of addresses as header fields and command lines have it
// (RFC 5322 section 3.4): separated by commas, with or without names, comments and
// groups. It returns the addresses alone, as they are written; whether each is valid
// is for the caller to say. Unlike net/mail it takes a user without a domain.
func ParseAddresses(s string) ([]string, error) {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return nil, errControl
		}
	}
	var list []string
	p := parser{rest: s}
	for p.rest != "" {
		addr, err := p.next()
		if err != nil {
			return nil, err
		}
		if addr == "" {
			continue
		}
		if len(list) == addressesMax {
			return nil, errTooMany
		}
		list = append(list, addr)
	}
	return list, nil
}

// parser takes addresses off the start of rest.
type parser struct {
	rest string
}

// next reads up to the next separator: a comma, or the colon and the semicolon of a
// group. What stands before a colon is the group's name. An empty address is none.
func (p *parser) next() (string, error) {
	var plain strings.Builder // outside of comments and angle brackets
	angle, hasAngle, before := "", false, 0
	for p.rest != "" {
		c := p.rest[0]
		switch c {
		case ',', ';':
			p.rest = p.rest[1:]
			return finish(plain.String(), before, angle, hasAngle)
		case ':':
			p.rest = p.rest[1:]
			if hasAngle {
				return "", errAngle
			}
			plain.Reset()
		case '(':
			if err := p.comment(); err != nil {
				return "", err
			}
			plain.WriteByte(' ')
		case '"':
			q, err := p.quoted()
			if err != nil {
				return "", err
			}
			plain.WriteString(q)
		case '[': // a domain literal may hold colons
			end := strings.IndexByte(p.rest, ']')
			if end < 0 {
				return "", errUnclosed
			}
			plain.WriteString(p.rest[:end+1])
			p.rest = p.rest[end+1:]
		case '<':
			if hasAngle {
				return "", errAngle
			}
			var err error
			if angle, err = p.angle(); err != nil {
				return "", err
			}
			hasAngle, before = true, plain.Len()
		default:
			plain.WriteByte(c)
			p.rest = p.rest[1:]
		}
	}
	return finish(plain.String(), before, angle, hasAngle)
}

// finish chooses the address in angle brackets, before which a name may stand, or the
// whole.
func finish(plain string, before int, angle string, hasAngle bool) (string, error) {
	if hasAngle {
		if strings.TrimSpace(angle) == "" || strings.TrimSpace(plain[before:]) != "" {
			return "", errAngle
		}
		return strings.TrimSpace(angle), nil
	}
	return strings.Join(strings.Fields(plain), " "), nil
}

// comment drops a comment; they nest (RFC 5322 section 3.2.2).
func (p *parser) comment() error {
	depth := 0
	for i := 0; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				p.rest = p.rest[i+1:]
				return nil
			}
		}
	}
	return errUnclosed
}

// quoted takes a quoted string with its quotes.
func (p *parser) quoted() (string, error) {
	for i := 1; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case '"':
			q := p.rest[:i+1]
			p.rest = p.rest[i+1:]
			return q, nil
		}
	}
	return "", errUnclosed
}

// angle takes what stands in angle brackets, without them; quotes may hold a bracket.
// A source route before a colon is dropped (RFC 5322 section 4.4).
func (p *parser) angle() (string, error) {
	p.rest = p.rest[1:]
	var b strings.Builder
	for p.rest != "" {
		switch c := p.rest[0]; c {
		case '>':
			p.rest = p.rest[1:]
			return b.String(), nil
		case '"':
			q, err := p.quoted()
			if err != nil {
				return "", err
			}
			b.WriteString(q)
		default:
			if c == ':' && strings.HasPrefix(b.String(), "@") && !strings.Contains(b.String(), "[") {
				b.Reset()
			} else {
				b.WriteByte(c)
			}
			p.rest = p.rest[1:]
		}
	}
	return "", errUnclosed
}
