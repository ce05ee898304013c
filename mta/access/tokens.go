package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
)

// The bounds of a file with tokens, and of one of them, in bytes.
const (
	tokensMax = 100
	tokenMin  = 20
	tokenMax  = 1000
)

// Tokens are the digests of some tokens: what may be compared, and never shown.
type Tokens [][sha256.Size]byte

// ParseTokens reads a file with tokens: one a line, without spaces, at least 20 bytes long; an
// empty line and one that begins with # is passed over. No error has a part of a token.
func ParseTokens(content []byte) (Tokens, error) {
	var all Tokens
	n := 0
	for line := range bytes.Lines(content) {
		n++
		token := bytes.TrimSpace(line)
		switch {
		case len(token) == 0 || token[0] == '#':
			continue
		case len(token) < tokenMin:
			return nil, fmt.Errorf("line %d: a token has at least %d bytes; make one by: openssl rand -hex 24", n, tokenMin)
		case len(token) > tokenMax:
			return nil, fmt.Errorf("line %d: a token has at most %d bytes", n, tokenMax)
		case bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
			return nil, fmt.Errorf("line %d: a token has printable ASCII characters and no space", n)
		case len(all) == tokensMax:
			return nil, fmt.Errorf("line %d: there are more than %d tokens", n, tokensMax)
		}
		all = append(all, sha256.Sum256(token))
	}
	if len(all) == 0 {
		return nil, errors.New("there is no token in it")
	}
	return all, nil
}

// find gives the number of a token, beginning with 1, or 0. The time does not depend on how much of
// it is right, nor on which one it is.
func (t Tokens) find(token string) int {
	digest := sha256.Sum256([]byte(token))
	found := 0
	for i := range t {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(t[i][:], digest[:]), i+1, found)
	}
	return found
}
