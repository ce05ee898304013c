package msg

import (
	"fmt"
	"regexp"

	"meta1/mta/smtp"
)

// patternsMax and patternMax bound the patterns of replies, and the length of each in bytes.
const (
	patternsMax = 100
	patternMax  = 1000
)

// ReplyPatterns are regular expressions for replies of hosts, such as "^421 4[.]7[.]". They are
// shared and never changed. Nil matches nothing.
type ReplyPatterns struct{ any []*regexp.Regexp }

// ParseReplyPatterns reads patterns in Go's syntax (https://golang.org/s/re2syntax), which cannot
// take long however they are written. An error names the pattern.
func ParseReplyPatterns(texts []string) (*ReplyPatterns, error) {
	if len(texts) > patternsMax {
		return nil, fmt.Errorf("there are more than %d patterns", patternsMax)
	}
	p := &ReplyPatterns{}
	for _, text := range texts {
		if len(text) > patternMax || text == "" {
			return nil, fmt.Errorf("a pattern has from 1 to %d bytes", patternMax)
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", text, err)
		}
		p.any = append(p.any, re)
	}
	return p, nil
}

// Match reports whether a reply matches one of the patterns: its code, its enhanced code if it has
// one, and its text with lines joined, as logs have it.
func (p *ReplyPatterns) Match(r smtp.Reply) bool {
	if p == nil || len(p.any) == 0 {
		return false
	}
	text := r.String()
	for _, re := range p.any {
		if re.MatchString(text) {
			return true
		}
	}
	return false
}
