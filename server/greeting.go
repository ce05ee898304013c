package server

import (
	"errors"
	"strings"

	"meta1/mta/smtp"
)

var (
	errGreetingByte = errors.New("holds a character that is not printable ASCII")
	errGreetingLong = errors.New("has a line of more than 500 characters")
)

// greetingLineMax keeps a greeting line within RFC 5321 section 4.5.3.1.5.
const greetingLineMax = 500

// parseGreeting makes the greeting from the option of that name (README 3.10 item
// 5). What the README sends verbatim is read as lines too, so that the code and the
// hyphens of all but the last line are right whatever the option says.
func parseGreeting(option, host, version string) (smtp.Reply, error) {
	text, whole := option, false
	switch {
	case option == "":
		text = host + " ESMTP meta1-" + version
	case strings.HasPrefix(option, "220") && strings.HasSuffix(option, "\r\n"):
		whole = true
	default:
		text = host + " " + strings.TrimLeft(option, " ")
	}
	r := smtp.Reply{Code: 220}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n") {
		if i > 0 || whole {
			line = strings.TrimPrefix(line, "220")
			line = strings.TrimLeft(strings.TrimPrefix(line, "-"), " ")
		}
		for _, c := range []byte(line) {
			if c < ' ' || c > '~' {
				return r, errGreetingByte
			}
		}
		if len(line) > greetingLineMax {
			return r, errGreetingLong
		}
		r.Lines = append(r.Lines, line)
	}
	return r, nil
}
