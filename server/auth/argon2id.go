package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Bounds of an argon2id form.
const (
	argonMemoryMax  = 256 << 10 // KiB
	argonTimeMax    = 16
	argonThreadsMax = 16
)

// argon2id is a hash by argon2id (RFC 9106) in the form of its reference program:
// $argon2id$v=19$m=65536,t=3,p=4$SALT$HASH.
type argon2id struct {
	memory, time uint32 // memory in KiB
	threads      uint8
	salt, hash   []byte
}

func parseArgon2id(value string) (*argon2id, error) {
	a := &argon2id{}
	part := strings.Split(value, "$")
	bad := errors.New("argon2id form cannot be read")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v=19" {
		return nil, bad
	}
	var memory, time, threads uint32
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil || n != 3 ||
		part[3] != fmt.Sprintf("m=%d,t=%d,p=%d", memory, time, threads) {
		return nil, bad
	}
	if memory < 8 || memory > argonMemoryMax || time < 1 || time > argonTimeMax || threads < 1 || threads > argonThreadsMax {
		return nil, fmt.Errorf("argon2id form asks for too much, or for nothing: at most m=%d,t=%d,p=%d", argonMemoryMax, argonTimeMax, argonThreadsMax)
	}
	var errSalt, errHash error
	a.memory, a.time, a.threads = memory, time, uint8(threads)
	a.salt, errSalt = base64.RawStdEncoding.DecodeString(part[4])
	a.hash, errHash = base64.RawStdEncoding.DecodeString(part[5])
	if errSalt != nil || errHash != nil || len(a.salt) < 8 || len(a.salt) > 64 || len(a.hash) < 16 || len(a.hash) > 64 {
		return nil, bad
	}
	return a, nil
}

func (a *argon2id) verify(password string) bool {
	sum := argon2.IDKey([]byte(password), a.salt, a.time, a.memory, a.threads, uint32(len(a.hash)))
	return subtle.ConstantTimeCompare(sum, a.hash) == 1
}

func (a *argon2id) String() string {
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", a.memory, a.time, a.threads, enc.EncodeToString(a.salt), enc.EncodeToString(a.hash))
}
