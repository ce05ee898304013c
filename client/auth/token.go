package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// TokenMax bounds a file with a token, in bytes.
const TokenMax = 64 << 10

// ParseToken reads the content of a file with a token: the token alone, with white space around
// it, or JSON with a member access_token, as the OAuth 2.0 tools write it (RFC 6749 section 5.1).
// No error has anything of the content.
func ParseToken(content []byte) (Secret, error) {
	if len(content) > TokenMax {
		return "", fmt.Errorf("it has more than %d bytes", TokenMax)
	}
	token := strings.TrimSpace(string(content))
	if strings.HasPrefix(token, "{") {
		var answer struct {
			Token string `json:"access_token"`
		}
		if json.Unmarshal([]byte(token), &answer) != nil {
			return "", errors.New("it begins as JSON and is none")
		}
		token = answer.Token
	}
	if token == "" {
		return "", errors.New("there is no token in it")
	}
	for i := 0; i < len(token); i++ {
		if token[i] <= ' ' || token[i] >= 0x7f { // RFC 6750 section 2.1
			return "", errors.New("the token has white space or other characters that no token has")
		}
	}
	return Secret(token), nil
}
