// Package ciphers knows what OpenSSL calls the things of TLS (cipher suites, groups of
// them, options, elliptic curves), and what of them Go's crypto/tls has. A configuration
// names them as OpenSSL's manual pages do: ciphers(1), SSL_CTX_set_options(3). It is
// pure: no files, no state.
package ciphers

import (
	"crypto/tls"
	_ "embed" // the table of suites
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// suite is one cipher suite of TLS 1.2 or before.
type suite struct {
	id      uint16
	name    string // OpenSSL's
	version string // the first protocol version that has it: SSLv3, TLSv1 or TLSv1.2
	kx      string // key exchange: RSA, DH, ECDH, PSK, …
	au      string // authentication: RSA, ECDSA, None, …
	enc     string // encryption: AESGCM, AES (that is CBC), None, …
	bits    int    // of the key of the encryption
	mac     string // SHA1, SHA256, AEAD, …
}

//go:embed suites.txt
var suitesText string

// suites reads the table of all suites. It is done once for each configuration.
func suites() []suite {
	var all []suite
	for line := range strings.Lines(suitesText) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(f) != 8 {
			continue
		}
		id, _ := strconv.ParseUint(f[0], 16, 16) // a test reads every line
		bits, _ := strconv.Atoi(f[6])
		all = append(all, suite{uint16(id), f[1], f[2], f[3], f[4], f[5], bits, f[7]})
	}
	return all
}

// supported are the suites before TLS 1.3 that Go has, those that it does not use
// unless they are asked for included.
func supported() map[uint16]bool {
	all := map[uint16]bool{}
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range list {
			if s.ID>>8 != 0x13 { // TLS 1.3's cannot be chosen
				all[s.ID] = true
			}
		}
	}
	return all
}

// Suite is a cipher suite that a handshake chose.
type Suite struct {
	Name string // OpenSSL's
	Bits int    // the effective length of the symmetric key
}

// Names are the suites that a handshake of Go's can choose, by their numbers. OpenSSL
// counts 112 bits for Triple DES, since it has no more strength.
func Names() map[uint16]Suite {
	all := map[uint16]Suite{
		tls.TLS_AES_128_GCM_SHA256:       {"TLS_AES_128_GCM_SHA256", 128},
		tls.TLS_AES_256_GCM_SHA384:       {"TLS_AES_256_GCM_SHA384", 256},
		tls.TLS_CHACHA20_POLY1305_SHA256: {"TLS_CHACHA20_POLY1305_SHA256", 256},
	}
	has := supported()
	for _, s := range suites() {
		if !has[s.id] {
			continue
		}
		bits := s.bits
		if s.enc == "3DES" {
			bits = 112
		}
		all[s.id] = Suite{s.name, bits}
	}
	return all
}

// Uses reports whether one of the suites works with a certificate of a key on an elliptic
// curve, or with one of an RSA key.
func Uses(ids []uint16, ec bool) bool {
	for _, s := range suites() {
		if (s.au == "ECDSA") == ec && slices.Contains(ids, s.id) {
			return true
		}
	}
	return false
}

// standardName is the name in IANA's registry, which Go uses.
func standardName(id uint16) string { return tls.CipherSuiteName(id) }

// Version is OpenSSL's name of a protocol version, as README 10.5 shows it: TLSv1.2.
func Version(id uint16) string {
	switch id {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return fmt.Sprintf("0x%04X", id)
}
