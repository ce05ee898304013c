package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
)

// The limits of an entry, in bytes.
const (
	accountMax = 255 // RFC 4616 section 2
	secretMax  = 8 << 10
)

// NoAccount is the entry of a host to which we authenticate only for senders with an entry of
// their own.
const NoAccount = "-"

// tokenPrefix begins the secret of an entry that names a file with a token.
const tokenPrefix = "{TOKEN_FILE}"

// Secret is a password or a token. Whatever prints it prints a placeholder.
type Secret string

// Format is that of fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(secret)")) }

// LogValue is that of slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// MarshalText is that of encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// Login is an account at a host. The zero Login is none. It is comparable: equal logins may
// share connections.
type Login struct {
	Account  string
	Password Secret // "" if a token takes its place
	// TokenFile names the file with the token; "" with a password. Configured says that the
	// configuration names it and not the map, so that root may read it for us.
	TokenFile  string
	Configured bool
	// BySender: the entry is the sender's and not the host's, so that a failure says nothing
	// of the mail of others.
	BySender bool
}

// IsZero reports that there is no account.
func (l Login) IsZero() bool { return l == Login{} }

// The mistakes of an entry. They hold nothing of it.
var (
	errNoColon  = errors.New("no colon between account and password, and section auth has no token_file")
	errAccount  = fmt.Errorf("the account is empty, is longer than %d bytes or has a control character", accountMax)
	errPassword = fmt.Errorf("the password is empty, is longer than %d bytes or has a control character", secretMax)
	errRelative = errors.New("the path of the token file is not absolute")
)

// ParseEntry reads the value of an entry (docs/auth.md): "account:password",
// "account:{TOKEN_FILE}/path", "account" where the section has a token_file, or NoAccount,
// which is the zero Login. The account ends at the first colon, as in Postfix's
// smtp_sasl_password_maps. No error has anything of the value.
func ParseEntry(value, tokenFile string) (Login, error) {
	if value == NoAccount {
		return Login{}, nil
	}
	account, secret, colon := strings.Cut(value, ":")
	if !isText(account, accountMax) {
		return Login{}, errAccount
	}
	l := Login{Account: account}
	path, isPath := strings.CutPrefix(secret, tokenPrefix)
	switch {
	case !colon && tokenFile == "":
		return Login{}, errNoColon
	case !colon:
		l.TokenFile, l.Configured = tokenFile, true
	case isPath && !filepath.IsAbs(path):
		return Login{}, errRelative
	case isPath:
		l.TokenFile = filepath.Clean(path)
	case !isText(secret, secretMax):
		return Login{}, errPassword
	default:
		l.Password = Secret(secret)
	}
	return l, nil
}

// isText reports that s is neither empty nor too long, and has no control characters.
func isText(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// scrubbed takes the place of a text that repeats a secret.
const scrubbed = "(a text that repeats what was sent to authenticate)"

// window is how much of a secret in a text is too much, in bytes. A password that is shorter
// than that is looked for whole.
const window = 8

// Scrub returns a text of the host, or another one in its place if it has a part of what was
// sent.
func Scrub(text string, sent []string) string {
	for _, s := range sent {
		for i := 0; i < len(s); i++ {
			if strings.Contains(text, s[i:min(i+window, len(s))]) {
				return scrubbed
			}
			if i+window >= len(s) {
				break
			}
		}
	}
	return text
}
