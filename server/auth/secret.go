package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"golang.org/x/crypto/bcrypt"
)

// scramForm is a form of Secret by the hash of SCRAM.
type scramForm uint8

const (
	formSHA1 scramForm = iota
	formSHA256
	scramForms
)

// The prefixes of the forms of an entry, those of Dovecot.
const (
	prefixPlain       = "{PLAIN}"
	prefixSCRAMSHA1   = "{SCRAM-SHA-1}"
	prefixSCRAMSHA256 = "{SCRAM-SHA-256}"
	prefixArgon2id    = "{ARGON2ID}"
	prefixBcrypt      = "{BLF-CRYPT}"
	prefixExternal    = "{EXTERNAL}"
)

// Bounds of what an entry may ask for: whoever knows a name could make us do it.
const (
	iterationsMin = 4096 // RFC 5802 section 5.1
	iterationsMax = 1_000_000
	bcryptMax     = 15 // cost: two seconds
)

// Secret is what the entry of an account says of its password, in one or several forms.
type Secret struct {
	plain    string
	hasPlain bool
	scram    [scramForms]scram.StoredCredentials // without StoredKey: not this form
	bcrypt   []byte
	argon    *argon2id
	external bool // the account has a certificate alone
	// decoy: there is no such account. All takes as long as if there were, and fails.
	decoy bool
}

// ParseSecret reads the value of an entry: forms with white space between, {PLAIN} last,
// since a password may have blanks. The error holds nothing of the value.
func ParseSecret(value string) (*Secret, error) {
	s := &Secret{}
	for rest := strings.TrimLeft(value, " \t"); rest != ""; {
		if prefix, password, _ := strings.Cut(rest, "}"); strings.EqualFold(prefix+"}", prefixPlain) {
			if err := s.setPlain(password); err != nil {
				return nil, err
			}
			break
		}
		form := rest
		if i := strings.IndexAny(rest, " \t"); i >= 0 {
			form, rest = rest[:i], strings.TrimLeft(rest[i:], " \t")
		} else {
			rest = ""
		}
		if err := s.add(form); err != nil {
			return nil, err
		}
	}
	if s.forms() == 0 {
		return nil, errors.New("entry has no password")
	}
	return s, nil
}

// add reads one form.
func (s *Secret) add(form string) error {
	prefix, value := "", form
	if i := strings.IndexByte(form, '}'); i > 0 && form[0] == '{' {
		prefix, value = strings.ToUpper(form[:i+1]), form[i+1:]
	}
	switch {
	case prefix == prefixSCRAMSHA1:
		return s.setSCRAM(formSHA1, sha1.Size, value)
	case prefix == prefixSCRAMSHA256:
		return s.setSCRAM(formSHA256, sha256.Size, value)
	case prefix == prefixExternal && value == "":
		s.external = true
		return nil
	case (prefix == prefixArgon2id || prefix == "") && strings.HasPrefix(value, "$argon2id$"):
		var err error
		s.argon, err = parseArgon2id(value)
		return err
	case (prefix == prefixBcrypt || prefix == "{BCRYPT}" || prefix == "") && strings.HasPrefix(value, "$2"):
		cost, err := bcrypt.Cost([]byte(value))
		if err != nil {
			return errors.New("bcrypt form cannot be read")
		}
		if cost > bcryptMax {
			return fmt.Errorf("bcrypt form has cost %d, more than %d", cost, bcryptMax)
		}
		s.bcrypt = []byte(value)
		return nil
	}
	return fmt.Errorf("entry has a form that is none of %s, %s, %s, %s, %s, %s",
		prefixSCRAMSHA256, prefixSCRAMSHA1, prefixArgon2id, prefixBcrypt, prefixExternal, prefixPlain)
}

func (s *Secret) setPlain(password string) error {
	prepared, err := preparePassword(password)
	if err != nil {
		return err
	}
	s.plain, s.hasPlain = prepared, true
	return nil
}

// setSCRAM reads "iterations,salt,StoredKey,ServerKey", all but the first in base64.
func (s *Secret) setSCRAM(form scramForm, size int, value string) error {
	part := strings.Split(value, ",")
	bad := errors.New("SCRAM form is not iterations, salt and two keys, with commas between")
	if len(part) != 4 {
		return bad
	}
	n, err := strconv.Atoi(part[0])
	salt, errSalt := base64.StdEncoding.DecodeString(part[1])
	stored, errStored := base64.StdEncoding.DecodeString(part[2])
	server, errServer := base64.StdEncoding.DecodeString(part[3])
	if errors.Join(err, errSalt, errStored, errServer) != nil || len(salt) == 0 || len(salt) > 256 || len(stored) != size || len(server) != size {
		return bad
	}
	if n < iterationsMin || n > iterationsMax {
		return fmt.Errorf("SCRAM form has %d iterations, %d to %d are possible", n, iterationsMin, iterationsMax)
	}
	s.scram[form] = scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: n}, StoredKey: stored, ServerKey: server}
	return nil
}

// forms is the number of forms.
func (s *Secret) forms() int {
	n := 0
	for _, has := range []bool{s.hasPlain, s.hasSCRAM(formSHA1), s.hasSCRAM(formSHA256), s.bcrypt != nil, s.argon != nil, s.external} {
		if has {
			n++
		}
	}
	return n
}

func (s *Secret) hasSCRAM(form scramForm) bool { return len(s.scram[form].StoredKey) > 0 }

// Serves reports whether an account with this secret can use a mechanism.
func (s *Secret) Serves(mechanism string) bool {
	switch mechanism {
	case SCRAMSHA1, SCRAMSHA1Plus:
		return s.hasSCRAM(formSHA1) || s.hasPlain
	case SCRAMSHA256, SCRAMSHA256Plus:
		return s.hasSCRAM(formSHA256) || s.hasPlain
	case CRAMMD5:
		return s.hasPlain
	case Plain, Login:
		return s.HasPassword()
	}
	return true
}

// HasPlain reports that the password itself is in the entry.
func (s *Secret) HasPlain() bool { return s.hasPlain }

// HasPassword reports that the account has a password, and not a certificate alone.
func (s *Secret) HasPassword() bool {
	return s.hasPlain || s.hasSCRAM(formSHA1) || s.hasSCRAM(formSHA256) || s.bcrypt != nil || s.argon != nil
}

// Verify reports whether password, as a client sent it, is the account's. It takes the
// strongest of the forms, and may take seconds and much memory.
func (s *Secret) Verify(password string) bool {
	prepared, err := preparePassword(password)
	if err != nil {
		return false
	}
	switch {
	case s.argon != nil:
		return s.argon.verify(prepared)
	case s.bcrypt != nil:
		return bcrypt.CompareHashAndPassword(s.bcrypt, []byte(prepared)) == nil
	case s.hasSCRAM(formSHA256):
		return verifySCRAM(sha256.New, &s.scram[formSHA256], prepared)
	case s.hasSCRAM(formSHA1):
		return verifySCRAM(sha1.New, &s.scram[formSHA1], prepared)
	case s.hasPlain:
		return subtle.ConstantTimeCompare([]byte(s.plain), []byte(prepared)) == 1
	}
	return false
}

func verifySCRAM(h func() hash.Hash, c *scram.StoredCredentials, password string) bool {
	stored, _, err := scramKeys(h, password, []byte(c.Salt), c.Iters)
	return err == nil && hmac.Equal(stored, c.StoredKey)
}

// scramKeys derives the two keys of RFC 5802 section 3 that a server keeps.
func scramKeys(h func() hash.Hash, password string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		return nil, nil, err
	}
	mac := func(text string) []byte {
		m := hmac.New(h, salted)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	sum := h()
	sum.Write(mac("Client Key"))
	return sum.Sum(nil), mac("Server Key"), nil
}

// fill derives the SCRAM form of a secret that has the password itself, if it lacks it, so
// that such accounts can use SCRAM, too.
func (s *Secret) fill(form scramForm, salt []byte) {
	if !s.hasPlain || s.hasSCRAM(form) {
		return
	}
	h := [scramForms]func() hash.Hash{formSHA1: sha1.New, formSHA256: sha256.New}[form]
	stored, server, err := scramKeys(h, s.plain, salt, iterationsMin)
	if err != nil {
		return
	}
	s.scram[form] = scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(bytes.Clone(salt)), Iters: iterationsMin}, StoredKey: stored, ServerKey: server,
	}
}
