// Package authn has what the methods of authenticating mail have in common: their results,
// and the header field Authentication-Results (RFC 8601) that reports them.
//
// The methods are packages of their own: server/dkim, server/authn/spf, server/authn/dmarc and
// server/authn/arc. server/authn/verify joins them.
package authn

import "strings"

// Method is a method as the registry of RFC 8601 section 2.7 names it.
type Method string

// The methods.
const (
	Auth  Method = "auth"
	IPRev Method = "iprev"
	SPF   Method = "spf"
	DKIM  Method = "dkim"
	DMARC Method = "dmarc"
	ARC   Method = "arc"
)

// The result words that methods share. Others have words of their own, such as softfail.
const (
	None      = "none"
	Pass      = "pass"
	Fail      = "fail"
	SoftFail  = "softfail"
	Neutral   = "neutral"
	Policy    = "policy"
	TempError = "temperror"
	PermError = "permerror"
)

// Prop is what was evaluated: ptype.property=value. Value may come from a stranger: Append
// quotes it.
type Prop struct {
	Type  string // smtp, header, body or policy, or another word that is registered
	Name  string
	Value string
}

// Result is what one method found.
type Result struct {
	Method  Method
	Version int    // of the method; 0 for the usual one
	Value   string // the result word
	Reason  string // why, in words; "" for none
	Comment string // for readers, "" for none
	Props   []Prop
}

// Prop is the value of the property ptype.name, "" if there is none.
func (r *Result) Prop(ptype, name string) string {
	for _, p := range r.Props {
		if p.Type == ptype && p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Of are the results of one method, in their order.
func Of(results []Result, m Method) []Result {
	var own []Result
	for i := range results {
		if results[i].Method == m {
			own = append(own, results[i])
		}
	}
	return own
}

// Word is the result word of a method for the whole of a message: that of the best of its
// results, "" if it has none. A message with one good signature is good, whatever the others are.
func Word(results []Result, m Method) string {
	best, rank := "", len(ranking)
	for i := range results {
		if r := &results[i]; r.Method == m {
			if n := rankOf(r.Value); n < rank {
				best, rank = r.Value, n
			}
		}
	}
	return best
}

// ranking are the words from the best to the worst.
var ranking = [...]string{Pass, TempError, Policy, Neutral, SoftFail, Fail, PermError, None}

func rankOf(word string) int {
	for i, w := range ranking {
		if w == word {
			return i
		}
	}
	return len(ranking) - 1
}

// Summary is one line for logs: dkim=pass spf=fail, the methods in the order of their first
// results.
func Summary(results []Result) string {
	var b strings.Builder
	seen := map[Method]bool{}
	for i := range results {
		m := results[i].Method
		if seen[m] {
			continue
		}
		seen[m] = true
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(m) + "=" + Word(results, m))
	}
	return b.String()
}
