package auth

import (
	"errors"
	"strings"

	"golang.org/x/text/secure/precis"
)

// Bounds of names and passwords, in bytes.
const (
	nameMax     = 255
	passwordMax = 1024
)

var (
	errName     = errors.New("name cannot be that of an account")
	errPassword = errors.New("password has characters that no password may have, is empty or too long")
)

// PrepareName gives a name the form in which it is looked up (RFC 8265 section 3.4,
// UsernameCasePreserved), so that one that is typed otherwise is the same. SASLprep, which
// RFC 4616 and RFC 5802 name, is its forerunner.
func PrepareName(name string) (string, error) {
	if name == "" || len(name) > nameMax {
		return "", errName
	}
	prepared, err := precis.UsernameCasePreserved.String(name)
	if err != nil || prepared == "" || len(prepared) > nameMax {
		return "", errName
	}
	return prepared, nil
}

// preparePassword is the same for a password (RFC 8265 section 4.2, OpaqueString).
func preparePassword(password string) (string, error) {
	if password == "" || len(password) > passwordMax {
		return "", errPassword
	}
	prepared, err := precis.OpaqueString.String(password)
	if err != nil || prepared == "" {
		return "", errPassword
	}
	return prepared, nil
}

// account is the account of a prepared name: with the realm if it names none.
func (c *Config) account(name string) string {
	if c.UserRealm == "" || strings.Contains(name, "@") {
		return name
	}
	return name + "@" + c.UserRealm
}
