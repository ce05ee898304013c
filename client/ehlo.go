package client

import (
	"bytes"
	"strconv"
	"strings"
)

// extensions is what a peer offers in its reply to EHLO or LHLO.
type extensions struct {
	pipelining bool   // RFC 2920
	eightBit   bool   // 8BITMIME, RFC 6152
	dsn        bool   // RFC 3461
	utf8       bool   // SMTPUTF8, RFC 6531
	size       bool   // SIZE, RFC 1870
	sizeMax    int64  // its limit in bytes, 0 for none
	starttls   bool   // RFC 3207
	chunking   bool   // RFC 3030
	binary     bool   // BINARYMIME, RFC 3030
	requireTLS bool   // REQUIRETLS, RFC 8689
	prdr       bool   // README 3.10 item 17
	auth       string // mechanisms of AUTH in upper case, with blanks between, RFC 4954
	limits     peerLimits
}

// parseExtensions reads the lines of a reply to EHLO, each ended by '\n', the first
// of which is the greeting (RFC 5321 section 4.1.1.1). What it does not know, and what
// is malformed, is as if it were not there.
func parseExtensions(text []byte) extensions {
	var e extensions
	_, text, _ = bytes.Cut(text, []byte{'\n'})
	for line := range bytes.Lines(text) {
		word, arg, _ := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
		switch {
		case is(word, "PIPELINING"):
			e.pipelining = true
		case is(word, "8BITMIME"):
			e.eightBit = true
		case is(word, "DSN"):
			e.dsn = true
		case is(word, "STARTTLS"):
			e.starttls = true
		case is(word, "SMTPUTF8"):
			e.utf8 = true
		case is(word, "CHUNKING"):
			e.chunking = true
		case is(word, "BINARYMIME"):
			e.binary = true
		case is(word, "REQUIRETLS"):
			e.requireTLS = true
		case is(word, "PRDR"):
			e.prdr = true
		case is(word, "AUTH"):
			e.auth = strings.TrimSpace(e.auth + " " + strings.ToUpper(string(bytes.TrimSpace(arg))))
		case len(word) > 5 && is(word[:5], "AUTH="): // as before RFC 2554, and some hosts still have it
			e.auth = strings.TrimSpace(e.auth + " " + strings.ToUpper(string(bytes.TrimSpace(line))[5:]))
		case is(word, "LIMITS"):
			e.limits = parseLimits(string(arg))
		case is(word, "SIZE"):
			e.size = true
			if n, err := strconv.ParseInt(string(bytes.TrimSpace(arg)), 10, 64); err == nil && n > 0 {
				e.sizeMax = n
			}
		}
	}
	return e
}

func is(word []byte, name string) bool { return bytes.EqualFold(word, []byte(name)) }
