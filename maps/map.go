package maps

import (
	"context"
	"strings"
)

// Result is how a lookup ended (README 10.2).
type Result uint8

// The results. For Temp, Timeout and Perm the value may be an explanation.
const (
	OK       Result = iota // found
	NotFound               // not found: go on with the next key or map
	NoMore                 // not found, and no derived key or further map is to be tried
	Temp                   // temporary failure
	Timeout                // the server of the map timed out
	Perm                   // permanent failure
)

// String is the status word of the socket map protocol (README 10.2).
func (r Result) String() string {
	return [...]string{"OK", "NOTFOUND", "NOMORE", "TEMP", "TIMEOUT", "PERM"}[r]
}

// Failed reports that the lookup could not be done: whether there is an entry is
// unknown.
func (r Result) Failed() bool { return r >= Temp }

// Map is a table of keys and values.
type Map interface {
	// Lookup gives the value of key. The map converts the key to lower case first
	// unless it is case sensitive (README 6.5, item 2). It may block until ctx ends
	// if Blocking reports true.
	Lookup(ctx context.Context, key string) (value string, r Result)
	// Blocking reports whether Lookup may wait for something outside of this process.
	Blocking() bool
}

// Lower is s in lower case. It returns s itself if it has no ASCII upper-case
// letter; other letters stay as they are, as DNS and SMTP compare them.
func Lower(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return lowerFrom(s, i)
		}
	}
	return s
}

func lowerFrom(s string, from int) string {
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:from])
	for i := from; i < len(s); i++ {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// lowerBytes is Lower in place.
func lowerBytes(b []byte) []byte {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}
