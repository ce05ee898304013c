package verify

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"meta1/confparse"
)

// maxPEM bounds a file of certificates or keys; the CA bundles of systems have 0.5 MB.
const maxPEM = 16 << 20

// value is the value of a string option that a file sets, or "".
func value(s *confparse.Section, name string) string {
	if v := s.Setting(name); v != nil && v.IsSet {
		text, _ := v.Value.(string)
		return text
	}
	return ""
}

// certificates checks the files of a section tls (README 3.10 item 24, 11.2). Those
// that cannot be read were reported.
func (c *checker) certificates(s *confparse.Section) {
	for _, prefix := range []string{"", "EC_"} {
		c.pair(s, prefix+"cert_file", prefix+"key_file")
	}
	for _, name := range []string{"CAcert_file", "CAlist_file"} {
		c.pemOf(s, name, "CERTIFICATE", func(der []byte) error { _, err := x509.ParseCertificate(der); return err })
	}
	c.pemOf(s, "CRL_file", "X509 CRL", func(der []byte) error { _, err := x509.ParseRevocationList(der); return err })
}

// pair checks a certificate and its key.
func (c *checker) pair(s *confparse.Section, certName, keyName string) {
	certFile, keyFile := value(s, certName), value(s, keyName)
	switch {
	case certFile == "" && keyFile == "":
		return
	case keyFile == "":
		c.errorf(s, certName, "%s needs %s", certName, keyName)
		return
	case certFile == "":
		c.errorf(s, keyName, "%s needs %s", keyName, certName)
		return
	}
	cert, errCert := readPEM(certFile)
	key, errKey := readPEM(keyFile)
	if errCert != nil || errKey != nil {
		c.tooLarge(s, certName, errCert)
		c.tooLarge(s, keyName, errKey)
		return
	}
	c.secret(s, keyName, keyFile)
	chain, err := tls.X509KeyPair(cert, key)
	if err != nil {
		c.errorf(s, keyName, "%s %s does not fit %s %s: %v", keyName, keyFile, certName, certFile, err)
		return
	}
	leaf, err := x509.ParseCertificate(chain.Certificate[0])
	if err == nil && time.Now().After(leaf.NotAfter) {
		c.warnf(s, certName, "the certificate in %s expired at %s", certFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

// secret warns of a key that others than its owner and group may read.
func (c *checker) secret(s *confparse.Section, name, file string) {
	if info, err := os.Stat(file); err == nil && info.Mode()&0o007 != 0 {
		c.warnf(s, name, "everybody may read the private key %s (mode %04o)", file, info.Mode().Perm())
	}
}

// pemOf checks that a file has something of a kind, and nothing of it is broken.
func (c *checker) pemOf(s *confparse.Section, name, kind string, parse func(der []byte) error) {
	file := value(s, name)
	if file == "" {
		return
	}
	text, err := readPEM(file)
	if err != nil {
		c.tooLarge(s, name, err)
		return
	}
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			continue
		}
		n++
		if err := parse(block.Bytes); err != nil {
			c.errorf(s, name, "%s %s: number %d: %v", name, file, n, err)
			return
		}
	}
	if n == 0 {
		c.errorf(s, name, "%s %s has no PEM block %s", name, file, kind)
	}
}

// signingKey checks the key of a section sign (README 3.10, item 3).
func (c *checker) signingKey(s *confparse.Section) {
	file := value(s, "keyfile")
	if file == "" {
		return
	}
	text, err := readPEM(file)
	if err != nil {
		c.tooLarge(s, "keyfile", err)
		return
	}
	c.secret(s, "keyfile", file)
	block, _ := pem.Decode(text)
	if block == nil {
		c.errorf(s, "keyfile", "keyfile %s has no private key in PEM format", file)
		return
	}
	if err := parseKey(block); err != nil {
		c.errorf(s, "keyfile", "keyfile %s: %v", file, err)
	}
}

func parseKey(block *pem.Block) error {
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return nil
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		return fmt.Errorf("PEM block %q is no private key: %w", block.Type, err)
	}
	return nil
}

// errTooLarge says that a file is no key or certificate.
var errTooLarge = errors.New("file is too large")

// tooLarge reports the one failure of readPEM that was not reported yet.
func (c *checker) tooLarge(s *confparse.Section, name string, err error) {
	if errors.Is(err, errTooLarge) {
		c.errorf(s, name, "%s: %v", name, err)
	}
}

func readPEM(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(text) > maxPEM {
		err = fmt.Errorf("%s: %w", file, errTooLarge)
	}
	return text, err
}
