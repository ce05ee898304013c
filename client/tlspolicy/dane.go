package tlspolicy

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"meta1/mta/msg"
)

// The parameters of TLSA records that mean something for SMTP (RFC 6698 section 7, RFC 7672
// section 3.1). PKIX-TA(0) and PKIX-EE(1) are unusable: nobody says which CAs a mail server
// must be known to.
const (
	usageTA = 2 // the certificate of a CA that has signed the server's chain
	usageEE = 3 // the server's own certificate

	selectCert = 0 // the whole certificate
	selectKey  = 1 // its public key

	matchFull   = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// recordsMax bounds the records of one host that are looked at.
const recordsMax = 64

// Set is what the certificate of a host must match: usable TLSA records and the names that a
// certificate may have that a CA of DANE-TA(2) has signed.
type Set struct {
	Records []msg.TLSA
	Names   []string // without dots at their ends
}

// Usable picks the records that can be used (RFC 7672 section 3.1). Of the digests of one
// usage and selector only the strongest count, so that a weak one, kept for others, does no
// harm (RFC 7671 section 9).
func Usable(records []msg.TLSA, names []string) Set {
	s := Set{}
	ta := false
	for _, r := range records[:min(len(records), recordsMax)] {
		if !usable(&r) || r.Matching == matchSHA256 && stronger(records, &r) {
			continue
		}
		s.Records = append(s.Records, r)
		ta = ta || r.Usage == usageTA
	}
	slices.SortFunc(s.Records, func(a, b msg.TLSA) int { return strings.Compare(recordKey(&a), recordKey(&b)) })
	s.Records = slices.Compact(s.Records)
	if ta { // DANE-EE(3) does not look at names (RFC 7671 section 5.1)
		s.Names = names
	}
	return s
}

func usable(r *msg.TLSA) bool {
	if r.Usage != usageTA && r.Usage != usageEE || r.Selector > selectKey {
		return false
	}
	switch r.Matching {
	case matchSHA256:
		return len(r.Data) == sha256.Size
	case matchSHA512:
		return len(r.Data) == sha512.Size
	case matchFull:
		if r.Selector == selectKey {
			_, err := x509.ParsePKIXPublicKey([]byte(r.Data))
			return err == nil
		}
		_, err := x509.ParseCertificate([]byte(r.Data))
		return err == nil
	}
	return false
}

// stronger reports whether there is a usable SHA-512 record beside a SHA-256 one.
func stronger(records []msg.TLSA, r *msg.TLSA) bool {
	return slices.ContainsFunc(records[:min(len(records), recordsMax)], func(o msg.TLSA) bool {
		return o.Usage == r.Usage && o.Selector == r.Selector && o.Matching == matchSHA512 && usable(&o)
	})
}

// Key tells sets apart: two with the same key want the same of a certificate.
func (s *Set) Key() string {
	var b strings.Builder
	for i := range s.Records {
		b.WriteString(recordKey(&s.Records[i]))
	}
	b.WriteString(strings.Join(s.Names, " "))
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:16])
}

func recordKey(r *msg.TLSA) string {
	return fmt.Sprintf("%d %d %d %x\n", r.Usage, r.Selector, r.Matching, r.Data)
}

// Match reports whether a chain, as the server has sent it, its own certificate first, matches
// a record, and which one: its parameters as in 3 1 1. now counts for DANE-TA(2) only, as the
// names do.
func (s *Set) Match(chain []*x509.Certificate, now time.Time) (record string, ok bool) {
	if len(chain) == 0 {
		return "", false
	}
	for i := range s.Records {
		r := &s.Records[i]
		matched := false
		if r.Usage == usageEE {
			matched = matches(r, chain[0])
		} else {
			matched = s.signed(r, chain, now)
		}
		if matched {
			return fmt.Sprintf("%d %d %d", r.Usage, r.Selector, r.Matching), true
		}
	}
	return "", false
}

// matches reports whether a record names a certificate.
func matches(r *msg.TLSA, c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == selectKey {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case matchSHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case matchSHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, []byte(r.Data))
}

// signed reports whether the CA that a DANE-TA(2) record names has signed a chain whose
// certificate is for one of the names and valid now (RFC 7672 section 3.1.2). The CA's
// certificate must be in the chain, or in the record: servers must send it (RFC 7671 section
// 5.2.2).
func (s *Set) signed(r *msg.TLSA, chain []*x509.Certificate, now time.Time) bool {
	anchors, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain {
		if matches(r, c) {
			anchors.AddCert(c)
			found = true
		} else {
			between.AddCert(c)
		}
	}
	if r.Matching == matchFull && r.Selector == selectCert {
		if c, err := x509.ParseCertificate([]byte(r.Data)); err == nil {
			anchors.AddCert(c)
			found = true
		}
	}
	if !found || !slices.ContainsFunc(s.Names, func(name string) bool { return isFor(chain[0], name) }) {
		return false
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: anchors, Intermediates: between, CurrentTime: now})
	return err == nil
}

// isFor reports whether a certificate is for a host name. The common name counts only in one
// without a DNS name (RFC 7672 section 3.2.3).
func isFor(c *x509.Certificate, name string) bool {
	if len(c.DNSNames) > 0 {
		return c.VerifyHostname(name) == nil
	}
	cn, wild := strings.CutPrefix(strings.TrimSuffix(c.Subject.CommonName, "."), "*.")
	if wild {
		_, name, wild = strings.Cut(name, ".")
		return wild && strings.EqualFold(cn, name)
	}
	return strings.EqualFold(cn, name)
}
