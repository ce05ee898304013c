package auth

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Schemes are the forms that MakeSecret makes, the first by default.
func Schemes() []string {
	return []string{"scram-sha-256", "scram-sha-1", "argon2id", "bcrypt", "plain", "external"}
}

// What MakeSecret uses: of argon2id the second choice of RFC 9106 section 4 with one lane,
// which a busy server can spare.
const (
	makeIterations  = 10_000
	makeArgonMemory = 64 << 10
	makeArgonTime   = 3
	makeBcryptCost  = 12
	saltSize        = 16
)

// MakeSecret makes the value of an entry for a password, in the forms of schemes; random
// gives the salts. The error holds nothing of the password.
func MakeSecret(random io.Reader, password string, schemes ...string) (string, error) {
	var forms []string
	plain := ""
	for _, scheme := range schemes {
		if scheme == "external" {
			forms = append(forms, prefixExternal)
			continue
		}
		prepared, err := preparePassword(password)
		if err != nil {
			return "", err
		}
		if scheme == "plain" {
			if strings.Trim(prepared, " \t") != prepared {
				return "", errors.New("a password with a blank at its begin or end cannot stand in a map as it is")
			}
			plain = prefixPlain + prepared // with blanks it must be the last
			continue
		}
		form, err := makeForm(random, prepared, scheme)
		if err != nil {
			return "", err
		}
		forms = append(forms, form)
	}
	if plain != "" {
		forms = append(forms, plain)
	}
	value := strings.Join(forms, " ")
	if _, err := ParseSecret(value); err != nil {
		return "", err
	}
	return value, nil
}

func makeForm(random io.Reader, password, scheme string) (string, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	switch scheme {
	case "scram-sha-256":
		return makeSCRAM(prefixSCRAMSHA256, sha256.New, password, salt)
	case "scram-sha-1":
		return makeSCRAM(prefixSCRAMSHA1, sha1.New, password, salt)
	case "argon2id":
		a := argon2id{memory: makeArgonMemory, time: makeArgonTime, threads: 1, salt: salt}
		a.hash = argon2.IDKey([]byte(password), a.salt, a.time, a.memory, a.threads, 32)
		return prefixArgon2id + a.String(), nil
	case "bcrypt":
		sum, err := bcrypt.GenerateFromPassword([]byte(password), makeBcryptCost)
		if err != nil {
			return "", errors.New("bcrypt takes passwords of at most 72 bytes")
		}
		return prefixBcrypt + string(sum), nil
	}
	return "", fmt.Errorf("unknown scheme %q: there are %s", scheme, strings.Join(Schemes(), ", "))
}

func makeSCRAM(prefix string, h func() hash.Hash, password string, salt []byte) (string, error) {
	stored, server, err := scramKeys(h, password, salt, makeIterations)
	if err != nil {
		return "", err
	}
	enc := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d,%s,%s,%s", prefix, makeIterations, enc(salt), enc(stored), enc(server)), nil
}
