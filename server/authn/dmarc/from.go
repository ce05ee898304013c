package dmarc

import (
	"strings"

	"meta1/mta/smtp"
)

const (
	// AuthorsMax bounds the domains of From: that are evaluated.
	AuthorsMax = 5
	fromMax    = 64 << 10 // bytes of all From: fields that are read
)

// Authors are the domains of the addresses in From:.
type Authors struct {
	// Domains are the different ones, at most AuthorsMax, in A-labels and small letters.
	Domains []string
	// Unusable: an address has something as its domain that cannot be one.
	Unusable bool
	// More: there are more domains than AuthorsMax, or more text than is read.
	More bool
}

// ParseFrom finds the domains in the values of the From: fields of a message (RFC 9989 section
// 5.3.1). It is more liberal than RFC 5322, as those are who show mail to people: what they would
// take for an address must not be missing here.
func ParseFrom(values []string) (a Authors) {
	room := fromMax
	for _, value := range values {
		if len(value) > room {
			value, a.More = value[:room], true
		}
		room -= len(value)
		for _, addr := range addresses(value) {
			a.add(addr)
		}
	}
	return a
}

// add takes the domain of one address in.
func (a *Authors) add(addr string) {
	i := strings.LastIndexByte(addr, '@')
	if i < 0 {
		return
	}
	domain, err := smtp.ASCIIDomain(strings.TrimSuffix(addr[i+1:], "."))
	if domain = strings.ToLower(domain); err != nil || !isDomain(domain) {
		a.Unusable = true
		return
	}
	for _, d := range a.Domains {
		if d == domain {
			return
		}
	}
	if len(a.Domains) == AuthorsMax {
		a.More = true
		return
	}
	a.Domains = append(a.Domains, domain)
}

// addresses cuts a list of addresses into those without names and comments. What stands in angle
// brackets is the address; without them all that is neither comment nor white space is.
func addresses(s string) (list []string) {
	var plain, angle strings.Builder
	inAngle, hasAngle := false, false
	end := func() {
		if one := angle.String(); hasAngle {
			list = append(list, one)
		} else if one := plain.String(); one != "" {
			list = append(list, one)
		}
		plain.Reset()
		angle.Reset()
		inAngle, hasAngle = false, false
	}
	for i := 0; i < len(s); {
		out := &plain
		if inAngle {
			out = &angle
		}
		switch c := s[i]; {
		case c == '(':
			i = skipComment(s, i)
			continue
		case c == '"':
			next := skipQuoted(s, i)
			if next < 0 { // no string begins here
				out.WriteByte(c)
				break
			}
			out.WriteString("quoted") // whatever it is, it is no domain
			i = next
			continue
		case c == '<':
			if hasAngle { // two addresses without a comma
				end()
			}
			inAngle, hasAngle = true, true
		case c == '>':
			inAngle = false
		case (c == ',' || c == ':') && inAngle && strings.HasPrefix(angle.String(), "@"): // a route
			angle.Reset()
		case c == ':' && !inAngle && !open(plain.String()): // what came before is the name of a group
			plain.Reset()
		case c == ',' || c == ';':
			end()
		case c <= ' ' || c == 0x7f:
		default:
			out.WriteByte(c)
		}
		i++
	}
	end()
	return list
}

// open reports that an address literal has begun and not ended.
func open(s string) bool { return strings.LastIndexByte(s, '[') > strings.LastIndexByte(s, ']') }

// skipComment is where the comment at i ends (RFC 5322 section 3.2.2). One that is not closed is
// just a bracket: what follows it counts.
func skipComment(s string, i int) int {
	depth := 0
	for j := i; j < len(s); j++ {
		switch s[j] {
		case '\\':
			j++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return j + 1
			}
		}
	}
	return i + 1
}

// skipQuoted is where the quoted string at i ends, -1 if it does not.
func skipQuoted(s string, i int) int {
	for j := i + 1; j < len(s); j++ {
		switch s[j] {
		case '\\':
			j++
		case '"':
			return j + 1
		}
	}
	return -1
}

// isDomain reports a domain name in A-labels and small letters that has no dot at its end.
func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
