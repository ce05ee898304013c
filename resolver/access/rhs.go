// Package access reads the right hand sides of the access map (README 3.9.3). It
// decides nothing. The structured ones of the configuration tags are msg.Conf.
package access

import (
	"fmt"
	"strconv"
	"strings"

	"meta1/mta/smtp"
)

// Word is the kind of a right hand side.
type Word uint8

// The kinds. None stands for "no entry".
const (
	None Word = iota
	Cont
	OK
	Relay
	Discard
	Error // error: and reject, with a reply
	Other // anything else; tags of configuration and protectedrcpt: have it
)

// String is the word of the map.
func (w Word) String() string {
	return [...]string{"", "cont", "ok", "relay", "discard", "error", "other"}[w]
}

// RHS is a right hand side.
type RHS struct {
	Word  Word
	Quick bool       // the modifier quick: stands before it
	Reply smtp.Reply // of Error
	Text  string     // of Other
}

// Parse reads a right hand side. Words may be in any case of letters. An error:
// entry whose reply cannot be read is an error.
func Parse(value string) (RHS, error) {
	rest, quick := smtp.CutKeyword(strings.Trim(value, " \t"), "quick:", false)
	rest = strings.Trim(rest, " \t")
	r := RHS{Quick: quick}
	for w := Cont; w <= Discard; w++ {
		if strings.EqualFold(rest, w.String()) {
			r.Word = w
			return r, nil
		}
	}
	if strings.EqualFold(rest, "reject") {
		r.Word, r.Reply = Error, smtp.NewReply(550, "5.7.0", "Rejected.")
		return r, nil
	}
	text, isError := smtp.CutKeyword(rest, "error:", false)
	if !isError {
		r.Word, r.Text = Other, rest
		return r, nil
	}
	var err error
	r.Word = Error
	r.Reply, err = parseReply(text)
	return r, err
}

// parseReply reads "XYZ A.B.C text". The enhanced code may be left out; its class
// must be that of the reply code (RFC 2034 section 4).
func parseReply(text string) (smtp.Reply, error) {
	digits, rest, _ := strings.Cut(strings.Trim(text, " \t"), " ")
	code, err := strconv.Atoi(digits)
	if err != nil || len(digits) != 3 || code < 400 || code > 599 {
		return smtp.Reply{}, fmt.Errorf("reply code %q is not from 400 to 599", digits)
	}
	enhanced, rest, ok := smtp.ParseEnhancedCode(strings.TrimLeft(rest, " \t"))
	if ok && int(enhanced[0]) != code/100 {
		return smtp.Reply{}, fmt.Errorf("enhanced code %s does not fit to reply code %d", enhanced, code)
	}
	return smtp.Reply{Code: code, Enhanced: enhanced, Lines: []string{strings.TrimLeft(rest, " \t")}}, nil
}
