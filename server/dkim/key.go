package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The kinds of keys (k= of RFC 6376 section 3.6.1, RFC 8463).
const (
	KindRSA     = "rsa"
	KindEd25519 = "ed25519"
)

// Bounds of RSA keys in bits: below the first no signature counts (RFC 8301 section 3.2), the
// second is what it recommends, beyond the third a verification takes too long.
const (
	rsaMin = 1024
	RSAFit = 2048
	rsaMax = 8192
)

// ParsePrivate reads a private key in PEM format: PKCS #8 of RSA or Ed25519, or PKCS #1.
func ParsePrivate(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("the key is encrypted")
			}
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the RSA key cannot be read")
			}
			return key, checkRSA(&key.PublicKey)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the key cannot be read")
			}
			switch key := key.(type) {
			case *rsa.PrivateKey:
				return key, checkRSA(&key.PublicKey)
			case ed25519.PrivateKey:
				return key, nil
			}
			return nil, errors.New("the key is neither RSA nor Ed25519")
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the key is encrypted")
		}
	}
	return nil, errors.New("there is no private key in PEM format")
}

func checkRSA(key *rsa.PublicKey) error {
	if n := key.N.BitLen(); n < rsaMin || n > rsaMax {
		return fmt.Errorf("the RSA key has %d bits: RFC 8301 wants at least %d, and more than %d are not verified", n, rsaMin, rsaMax)
	}
	return nil
}

// MakePrivate makes a key; bits counts for RSA. The text is PKCS #8 in PEM format.
func MakePrivate(kind string, bits int) (key crypto.Signer, text []byte, err error) {
	switch kind {
	case KindEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case KindRSA:
		if bits < RSAFit || bits > rsaMax {
			return nil, nil, fmt.Errorf("an RSA key has from %d to %d bits", RSAFit, rsaMax)
		}
		key, err = rsa.GenerateKey(rand.Reader, bits)
	default:
		return nil, nil, fmt.Errorf("a key is of kind %s or %s", KindRSA, KindEd25519)
	}
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// KindOf is the kind of a key.
func KindOf(key crypto.Signer) string {
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return KindEd25519
	}
	return KindRSA
}

// SignHash signs a hash of SHA-256.
func SignHash(key crypto.Signer, hashed []byte) ([]byte, error) {
	if KindOf(key) == KindEd25519 {
		return key.Sign(rand.Reader, hashed, crypto.Hash(0)) // RFC 8463 section 3: of the hash as a message
	}
	return key.Sign(rand.Reader, hashed, crypto.SHA256)
}

// Record is the text of the DNS record for a key (RFC 6376 section 3.6.1, RFC 8463).
func Record(public crypto.PublicKey) (string, error) {
	var raw []byte
	kind := KindRSA
	switch key := public.(type) {
	case ed25519.PublicKey:
		raw, kind = key, KindEd25519
	case *rsa.PublicKey:
		var err error
		if raw, err = x509.MarshalPKIXPublicKey(key); err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("a key of type %T is of no use for DKIM", public)
	}
	return "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(raw), nil
}

// RecordName is the name under which a key stands in DNS.
func RecordName(selector, domain string) string { return selector + "._domainkey." + domain }

// ZoneLine is the record as a zone file has it: strings of at most 255 bytes.
func ZoneLine(name, record string) string {
	const most = 200
	var b strings.Builder
	fmt.Fprintf(&b, "%s. IN TXT (", name)
	for len(record) > 0 {
		n := min(most, len(record))
		fmt.Fprintf(&b, "\n\t%q", record[:n])
		record = record[n:]
	}
	return b.String() + " )"
}

// PublicKey is a key as DNS has it.
type PublicKey struct {
	Kind string
	Test bool // t=y: the domain only tries DKIM
	// Strict: t=s: the domain of i= must be that of d=.
	Strict  bool
	key     crypto.PublicKey
	hashes  []string // h=; nil: any
	service bool     // s= allows mail
}

// maxRecord bounds a key record in bytes.
const maxRecord = 8 << 10

// What is wrong with a key.
var (
	errKeySyntax  = errors.New("the key record cannot be read")
	errKeyRevoked = errors.New("the key is revoked")
	errKeyKind    = errors.New("the key is of a kind that is not known")
	errKeyShort   = errors.New("the RSA key has too few bits")
	errKeyLong    = errors.New("the RSA key has too many bits")
)

// ParseRecord reads a key record.
func ParseRecord(text string) (*PublicKey, error) {
	if len(text) > maxRecord {
		return nil, errKeySyntax
	}
	t, err := ParseTags(text)
	if err != nil {
		return nil, errKeySyntax
	}
	p, given := t["p"]
	switch v, ok := t["v"]; {
	case ok && v != "DKIM1", !given:
		return nil, errKeySyntax
	case pack(p) == "":
		return nil, errKeyRevoked
	}
	raw, err := base64.StdEncoding.DecodeString(pack(p))
	if err != nil {
		return nil, errKeySyntax
	}
	k := &PublicKey{Kind: KindRSA, hashes: t.list("h"), service: true}
	if v, ok := t["k"]; ok {
		k.Kind = v
	}
	if s := t.list("s"); s != nil {
		k.service = slices.Contains(s, "*") || slices.Contains(s, "email")
	}
	k.Test, k.Strict = slices.Contains(t.list("t"), "y"), slices.Contains(t.list("t"), "s")
	return k, k.setKey(raw)
}

func (k *PublicKey) setKey(raw []byte) error {
	switch k.Kind {
	case KindEd25519:
		if len(raw) != ed25519.PublicKeySize {
			return errKeySyntax
		}
		k.key = ed25519.PublicKey(raw)
	case KindRSA:
		key, err := parseRSA(raw)
		switch {
		case err != nil:
			return errKeySyntax
		case key.N.BitLen() < rsaMin:
			return errKeyShort
		case key.N.BitLen() > rsaMax:
			return errKeyLong
		}
		k.key = key
	default:
		return errKeyKind
	}
	return nil
}

// parseRSA reads a SubjectPublicKeyInfo, or an RSAPublicKey as RFC 6376 section 3.6.1 also has
// it (erratum 3017).
func parseRSA(raw []byte) (*rsa.PublicKey, error) {
	if key, err := x509.ParsePKIXPublicKey(raw); err == nil {
		if key, ok := key.(*rsa.PublicKey); ok {
			return key, nil
		}
		return nil, errKeySyntax
	}
	return x509.ParsePKCS1PublicKey(raw)
}

// Serves reports whether the record lets the key sign mail by SHA-256.
func (k *PublicKey) Serves() bool {
	return k.service && (k.hashes == nil || slices.Contains(k.hashes, "sha256"))
}

// Equal reports whether the record has the public half of key.
func (k *PublicKey) Equal(key crypto.PublicKey) bool {
	e, ok := k.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(key)
}

// Verifies reports whether sig is that of a SHA-256 hash.
func (k *PublicKey) Verifies(hashed, sig []byte) bool {
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, hashed, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, hashed, sig) == nil
	}
	return false
}

// bitsOf is the size of an RSA key.
func bitsOf(key crypto.Signer) int {
	if k, ok := key.Public().(*rsa.PublicKey); ok {
		return k.N.BitLen()
	}
	return 0
}

func itoa(n int) string { return strconv.Itoa(n) }
