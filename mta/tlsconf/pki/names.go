package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
)

// Bounds of what is shown of names in certificates, in bytes. The standard has 64 for a
// common name (RFC 5280, appendix A.1); names in use are longer.
const (
	maxName       = 1024
	maxCommonName = 255
)

// What stands for a common name that cannot be shown (README 3.10, item 24o).
const (
	BadTooLong     = "BadCert:TooLong"
	BadContainsNUL = "BadCert:ContainsNUL"
	BadUnknown     = "BadCert:Unknown"
)

// IsBad reports that a name is one of the texts above and no name.
func IsBad(name string) bool { return strings.HasPrefix(name, "BadCert:") }

// OneLine writes a distinguished name as X509_NAME_oneline(3) of OpenSSL 3 does and README
// 3.10 item 24o shows it: /C=US/O=MTA/CN=a name, with a + for / within a set of several
// attributes. What is not printable ASCII is a backslash, an x and two hexadecimal digits for each
// byte; / and + in a value have a backslash before them, so that no value looks like further
// attributes. For the same reason a backslash is \x5C here, other than with OpenSSL. The result
// is printable ASCII of at most 1024 bytes; a name that is longer or broken is a BadCert:
// text, which matches no entry.
func OneLine(raw []byte) string {
	name, err := parseName(raw)
	if err != nil {
		return BadUnknown
	}
	var b strings.Builder
	for _, set := range name {
		for i, a := range set {
			b.WriteString([]string{"/", "+"}[min(i, 1)] + attribute(a.Type) + "=")
			for _, c := range []byte(text(a.Value)) {
				switch {
				case c < ' ' || c > '~' || c == '\\':
					fmt.Fprintf(&b, `\x%02X`, c)
				case c == '/' || c == '+':
					b.WriteString(`\` + string(c))
				default:
					b.WriteByte(c)
				}
			}
			if b.Len() > maxName {
				return BadTooLong
			}
		}
	}
	return b.String()
}

// CommonName is the common name (CN) of a distinguished name, "" if it has none. It is
// printable ASCII like OneLine's. One that is too long, has a NUL, or stands twice, so that
// programs differ about which one counts, is a BadCert: text.
func CommonName(raw []byte) string {
	name, err := parseName(raw)
	if err != nil {
		return BadUnknown
	}
	found := ""
	for _, set := range name {
		for _, a := range set {
			if attribute(a.Type) != "CN" {
				continue
			}
			cn := text(a.Value)
			switch {
			case found != "":
				return BadUnknown
			case len(cn) > maxCommonName:
				return BadTooLong
			case strings.IndexByte(cn, 0) >= 0:
				return BadContainsNUL
			}
			found = Printable(cn)
		}
	}
	return found
}

// Printable writes what is not printable ASCII as OneLine does.
func Printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' {
			fmt.Fprintf(&b, `\x%02X`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// EncodeName writes a distinguished name as the keys of certissuer: and certsubject: and
// the values of cert_issuer and cert_subject have it (README 3.10, item 24o): every
// character that is not printable, and each of < > ( ) " + and space, becomes + and its
// hexadecimal value.
func EncodeName(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`<>()"+`, c) >= 0 {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func parseName(raw []byte) (pkix.RDNSequence, error) {
	var name pkix.RDNSequence
	rest, err := asn1.Unmarshal(raw, &name)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes behind the name", len(rest))
	}
	return name, err
}

// text is the value of an attribute.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return fmt.Sprint(v)
}

// attribute is OpenSSL's short name of an attribute, or its number.
func attribute(id asn1.ObjectIdentifier) string {
	switch id.String() {
	case "2.5.4.3":
		return "CN"
	case "2.5.4.4":
		return "SN"
	case "2.5.4.5":
		return "serialNumber"
	case "2.5.4.6":
		return "C"
	case "2.5.4.7":
		return "L"
	case "2.5.4.8":
		return "ST"
	case "2.5.4.9":
		return "street"
	case "2.5.4.10":
		return "O"
	case "2.5.4.11":
		return "OU"
	case "2.5.4.12":
		return "title"
	case "2.5.4.13":
		return "description"
	case "2.5.4.15":
		return "businessCategory"
	case "2.5.4.17":
		return "postalCode"
	case "2.5.4.41":
		return "name"
	case "2.5.4.42":
		return "GN"
	case "2.5.4.43":
		return "initials"
	case "2.5.4.44":
		return "generationQualifier"
	case "2.5.4.46":
		return "dnQualifier"
	case "2.5.4.65":
		return "pseudonym"
	case "2.5.4.97":
		return "organizationIdentifier"
	case "1.2.840.113549.1.9.1":
		return "emailAddress"
	case "1.2.840.113549.1.9.2":
		return "unstructuredName"
	case "0.9.2342.19200300.100.1.1":
		return "UID"
	case "0.9.2342.19200300.100.1.25":
		return "DC"
	case "1.3.6.1.4.1.311.60.2.1.1":
		return "jurisdictionL"
	case "1.3.6.1.4.1.311.60.2.1.2":
		return "jurisdictionST"
	case "1.3.6.1.4.1.311.60.2.1.3":
		return "jurisdictionC"
	}
	return id.String()
}
