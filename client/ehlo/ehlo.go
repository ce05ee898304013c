// Package ehlo reads what a mail host offers in its reply to EHLO or LHLO. It is pure: text in,
// [Extensions] out.
package ehlo

import (
	"bytes"
	"strconv"
	"strings"
)

// Extensions are what a host offers. The zero value is a host that offers none, such as one
// that knows HELO alone. Two values can be compared.
type Extensions struct {
	Pipelining bool   // RFC 2920
	EightBit   bool   // 8BITMIME, RFC 6152
	DSN        bool   // RFC 3461
	UTF8       bool   // SMTPUTF8, RFC 6531
	Size       bool   // SIZE, RFC 1870
	SizeMax    int64  // its limit in bytes, 0 for none
	StartTLS   bool   // RFC 3207
	Chunking   bool   // RFC 3030
	Binary     bool   // BINARYMIME, RFC 3030
	RequireTLS bool   // REQUIRETLS, RFC 8689
	PRDR       bool   // README 3.10 item 17
	Auth       string // mechanisms of AUTH in upper case, with blanks between, RFC 4954
	Limits     Limits
}

// Limits are those that a host announces (LIMITS, RFC 9422); 0 is none.
type Limits struct {
	Mails   int // transactions of a session
	Rcpts   int // recipients of a transaction
	Domains int // different domains of the recipients of a transaction
}

// Parse reads the lines of a positive reply to EHLO without their codes, each ended by '\n', the
// first of which is the greeting (RFC 5321 section 4.1.1.1). What it does not know, and what is
// malformed, is as if it were not there. Who calls it bounds the text.
func Parse(text []byte) Extensions {
	var e Extensions
	_, text, _ = bytes.Cut(text, []byte{'\n'})
	for line := range bytes.Lines(text) {
		word, arg, _ := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
		switch {
		case is(word, "PIPELINING"):
			e.Pipelining = true
		case is(word, "8BITMIME"):
			e.EightBit = true
		case is(word, "DSN"):
			e.DSN = true
		case is(word, "STARTTLS"):
			e.StartTLS = true
		case is(word, "SMTPUTF8"):
			e.UTF8 = true
		case is(word, "CHUNKING"):
			e.Chunking = true
		case is(word, "BINARYMIME"):
			e.Binary = true
		case is(word, "REQUIRETLS"):
			e.RequireTLS = true
		case is(word, "PRDR"):
			e.PRDR = true
		case is(word, "AUTH"):
			e.Auth = strings.TrimSpace(e.Auth + " " + strings.ToUpper(string(bytes.TrimSpace(arg))))
		case len(word) > 5 && is(word[:5], "AUTH="): // as before RFC 2554, and some hosts still have it
			e.Auth = strings.TrimSpace(e.Auth + " " + strings.ToUpper(string(bytes.TrimSpace(line))[5:]))
		case is(word, "LIMITS"):
			e.Limits = parseLimits(string(arg))
		case is(word, "SIZE"):
			e.Size = true
			if n, err := strconv.ParseInt(string(bytes.TrimSpace(arg)), 10, 64); err == nil && n > 0 {
				e.SizeMax = n
			}
		}
	}
	return e
}

func is(word []byte, name string) bool { return bytes.EqualFold(word, []byte(name)) }

// parseLimits reads the arguments of the keyword LIMITS. A limit that is unknown, malformed
// or 0 is ignored (RFC 9422 section 3.2).
func parseLimits(args string) (l Limits) {
	for word := range strings.FieldsSeq(args) {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			continue
		}
		switch strings.ToUpper(name) {
		case "MAILMAX":
			l.Mails = int(n)
		case "RCPTMAX":
			l.Rcpts = int(n)
		case "RCPTDOMAINMAX":
			l.Domains = int(n)
		}
	}
	return l
}
