package spf

import (
	"errors"
	"regexp"
	"strings"
)

// recordMax bounds a record in bytes; what DNS can carry in an answer by UDP is far below it.
const recordMax = 16 << 10

var errSyntax = errors.New("syntax error in the record")

// The grammar of RFC 7208 section 12, in pieces.
const (
	expand     = `%(?:\{[slodiphvSLODIPHV][0-9]*[rR]?[-.+,/_=]*\}|[%_-])`
	expandAny  = `%(?:\{[slodiphcrtvSLODIPHCRTV][0-9]*[rR]?[-.+,/_=]*\}|[%_-])`
	literal    = `[!-$&-~]`
	toplabel   = `(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])`
	domainSpec = `(?:` + expand + `|` + literal + `)*(?:\.` + toplabel + `\.?|` + expand + `)`
	cidr4      = `(?:/(?:0|[1-9][0-9]?))?`
	cidr6      = `(?:/(?:0|[1-9][0-9]{0,2}))?`
	dualCIDR   = `(?:/(?:0|[1-9][0-9]?))?(?://(?:0|[1-9][0-9]{0,2}))?`
	address4   = `[0-9]{1,3}(?:\.[0-9]{1,3}){3}`
	mechanism  = `(?i:all)|(?i:include):` + domainSpec +
		`|(?i:a|mx)(?::` + domainSpec + `)?` + dualCIDR + `|(?i:ptr)(?::` + domainSpec + `)?` +
		`|(?i:ip4):` + address4 + cidr4 + `|(?i:ip6):[0-9A-Fa-f:.]+` + cidr6 + `|(?i:exists):` + domainSpec
)

// The terms of a record. These never change.
var (
	directive = regexp.MustCompile(`^[-+?~]?(?:` + mechanism + `)$`)
	target    = regexp.MustCompile(`^` + domainSpec + `$`)
	modifier  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*=(?:` + expandAny + `|` + literal + `)*$`)
)

// check finds a syntax error anywhere in a record: that is a permanent error of the whole of it
// (RFC 7208 section 4.6), also behind a term that matches. What is no SPF record passes.
func check(record string) error {
	if len(record) < 6 || !strings.EqualFold(record[:6], "v=spf1") || len(record) > 6 && record[6] != ' ' {
		return nil
	}
	if len(record) > recordMax {
		return errSyntax
	}
	redirects, exps := 0, 0
	for term := range strings.SplitSeq(record[6:], " ") {
		name, value, isModifier := strings.Cut(term, "=")
		isModifier = isModifier && modifier.MatchString(term)
		switch {
		case term == "", directive.MatchString(term):
		case isModifier && strings.EqualFold(name, "redirect") && target.MatchString(value):
			redirects++
		case isModifier && strings.EqualFold(name, "exp") && target.MatchString(value):
			exps++
		case isModifier && !strings.EqualFold(name, "redirect") && !strings.EqualFold(name, "exp"):
		default:
			return errSyntax
		}
	}
	if redirects > 1 || exps > 1 {
		return errSyntax
	}
	return nil
}
