package ciphers

import (
	"crypto/tls"
	"strings"
)

// Curves is what a list of elliptic curves says to Go.
type Curves struct {
	IDs                  []tls.CurveID // Go prefers one of them by an order of its own; nil for all it has
	Unknown, Unsupported []string      // as in List
}

// ParseCurves reads names of curves, and of key exchanges of TLS 1.3, as ecparam(1) and
// SSL_CTX_set1_groups_list(3) have them. A word may be a list with colons.
func ParseCurves(words []string) Curves {
	c := Curves{}
	for _, word := range words {
		for name := range strings.SplitSeq(word, ":") {
			if name == "" {
				continue
			}
			switch id, known := curve(strings.ToLower(name)); {
			case id != 0:
				c.IDs = append(c.IDs, id)
			case known:
				c.Unsupported = append(c.Unsupported, name)
			default:
				c.Unknown = append(c.Unknown, name)
			}
		}
	}
	return c
}

// curve gives 0 for a curve that OpenSSL knows and Go has not.
func curve(name string) (id tls.CurveID, known bool) {
	switch name {
	case "prime256v1", "secp256r1", "p-256":
		return tls.CurveP256, true
	case "secp384r1", "p-384":
		return tls.CurveP384, true
	case "secp521r1", "p-521":
		return tls.CurveP521, true
	case "x25519":
		return tls.X25519, true
	case "x25519mlkem768":
		return tls.X25519MLKEM768, true
	case "secp256r1mlkem768":
		return tls.SecP256r1MLKEM768, true
	case "secp384r1mlkem1024":
		return tls.SecP384r1MLKEM1024, true
	case "x448", "prime192v1", "secp192r1", "p-192", "secp224r1", "p-224", "secp256k1",
		"brainpoolp256r1", "brainpoolp384r1", "brainpoolp512r1",
		"ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192", "mlkem512", "mlkem768", "mlkem1024":
		return 0, true
	}
	return 0, false
}
