package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a verification. They keep the time for a message from strangers linear in its size.
const (
	// MaxHeader is the largest header, in bytes, whose signatures are verified.
	MaxHeader = 1 << 20
	// MaxSignatures is how many signatures of a message are verified, from the top.
	MaxSignatures = 10
	// MaxListed is how many names h= may have.
	MaxListed = 1000
	// MaxField is how long a field with a signature may be, in bytes.
	MaxField = 64 << 10
)

// Verdict is the result for one signature, in the words of RFC 8601 section 2.7.1.
type Verdict string

// The verdicts. Without any signature the result for a message is none.
const (
	None      Verdict = "none"
	Pass      Verdict = "pass"
	Fail      Verdict = "fail"
	Policy    Verdict = "policy" // it is good, but not for us: part of the body is not signed (l=)
	Neutral   Verdict = "neutral"
	TempError Verdict = "temperror"
	PermError Verdict = "permerror"
)

// Result is what became of one signature. What it says of the signature may be forged unless
// Verdict is Pass; Domain and Selector are domain names in lower case, or "".
type Result struct {
	Verdict    Verdict
	Reason     string // why it is not Pass
	Domain     string // d=
	Identifier string // i=, or @ and d=
	Selector   string // s=
	Algorithm  string // a=, one of those that are known
	Test       bool   // the domain only tries DKIM (t=y): the signature must not count for or against the mail
	Signature  string // the first characters of b= (RFC 6008)
}

// LookupTXT gives the TXT records of a name, each joined. None is no error; an error is a
// temporary failure.
type LookupTXT func(ctx context.Context, name string) ([]string, error)

// Verification takes the content of a message, with the header on top as it came from the client.
// It is not safe for concurrent use.
type Verification struct {
	Content
	most int // signatures that are verified
	sigs []signature
}

// NewVerification begins a message. others, which may be nil, say of a header in which forms
// they need a hash of the body as well (Content.Sum): so ARC shares the one pass over the message.
func NewVerification(others ...func(Header) []Canon) *Verification {
	v := &Verification{most: MaxSignatures}
	v.wanted = append([]func(Header) []Canon{v.signatures}, others...)
	return v
}

// Limit has at most n signatures verified, those on top, and not more than MaxSignatures. It is
// called before the first Write.
func (v *Verification) Limit(n int) { v.most = min(max(n, 0), MaxSignatures) }

// signatures finds the signatures of a header.
func (v *Verification) signatures(fields Header) (bodies []Canon) {
	for _, f := range fields {
		if f.Name != "dkim-signature" || len(v.sigs) >= v.most {
			continue
		}
		s := parseSignature(f)
		v.sigs = append(v.sigs, s)
		if s.result.Verdict == "" {
			bodies = append(bodies, s.body)
		}
	}
	return bodies
}

// Results ends the message, and verifies its signatures, all at the same time. now is the time
// for expirations.
func (v *Verification) Results(ctx context.Context, lookup LookupTXT, now time.Time) []Result {
	if _, err := v.Header(); v.tooLong {
		return []Result{{Verdict: PermError, Reason: err.Error()}}
	}
	v.end()
	results := make([]Result, len(v.sigs))
	var wg sync.WaitGroup
	for i := range v.sigs {
		wg.Go(func() { results[i] = v.verify(ctx, &v.sigs[i], lookup, now) })
	}
	wg.Wait()
	return results
}

// signature is one DKIM-Signature: field.
type signature struct {
	result       Result // Verdict is "" as long as nothing is wrong
	raw          []byte
	header, body Canon
	names        []string // h= in lower case
	bodyHash     []byte
	value        []byte // b=
	expires      time.Time
}

// judged ends what is known of a signature.
func (s *signature) judged(v Verdict, reason string) signature {
	s.result.Verdict, s.result.Reason = v, reason
	return *s
}

// parseSignature reads a signature (RFC 6376 section 3.5, 6.1.1).
func parseSignature(f Field) signature {
	s := signature{raw: f.Raw, header: Simple, body: Simple}
	if len(f.Raw) > MaxField {
		return s.judged(PermError, "the signature is too long")
	}
	t, err := ParseTags(f.Value())
	if err != nil {
		return s.judged(PermError, err.Error())
	}
	s.result.Domain, s.result.Selector = DomainName(t.Packed("d")), DomainName(t.Packed("s"))
	if b := t.Packed("b"); IsBase64(b) {
		s.result.Signature = b[:min(len(b), 8)]
	}
	for _, tag := range []string{"v", "a", "b", "bh", "d", "h", "s"} {
		if t[tag] == "" {
			return s.judged(PermError, "the tag "+tag+"= is missing")
		}
	}
	switch a := t.Packed("a"); a {
	case "rsa-sha256", "ed25519-sha256":
		s.result.Algorithm = a
	case "rsa-sha1":
		return s.judged(PermError, "rsa-sha1 does not count (RFC 8301)")
	default:
		return s.judged(PermError, "the algorithm is not known")
	}
	if c := t.Packed("c"); c != "" {
		header, body, found := strings.Cut(c, "/")
		if s.header = Canon(header); found {
			s.body = Canon(body)
		}
	}
	s.names = strings.Split(strings.ToLower(t.Packed("h")), ":")
	var errB, errBH, errX error
	s.value, errB = base64.StdEncoding.DecodeString(t.Packed("b"))
	s.bodyHash, errBH = base64.StdEncoding.DecodeString(t.Packed("bh"))
	s.expires, errX = t.Time("x")
	_, errT := t.Time("t")
	s.result.Identifier = "@" + s.result.Domain
	if i := t.Packed("i"); i != "" {
		s.result.Identifier = identity(i, s.result.Domain)
	}
	switch _, part := t["l"]; {
	case t["v"] != "1":
		return s.judged(PermError, "the version is not known")
	case s.result.Domain == "" || s.result.Selector == "":
		return s.judged(PermError, "d= or s= is no domain name")
	case !s.header.Known() || !s.body.Known():
		return s.judged(PermError, "the canonicalization is not known")
	case len(s.names) > MaxListed:
		return s.judged(PermError, "h= has too many names")
	case !slices.Contains(s.names, "from"):
		return s.judged(PermError, "From: is not signed")
	case errB != nil || errBH != nil || len(s.value) == 0:
		return s.judged(PermError, "b= or bh= is not base64")
	case errX != nil || errT != nil:
		return s.judged(PermError, "t= or x= is no time")
	case s.result.Identifier == "":
		return s.judged(PermError, "i= is not of the domain d=")
	case t["q"] != "" && !slices.Contains(t.list("q"), "dns/txt"):
		return s.judged(PermError, "the key is not in DNS")
	case part:
		return s.judged(Policy, "l= leaves a part of the body unsigned")
	}
	return s
}

// DomainName is a domain name in lower case, "" if it is none.
func DomainName(s string) string {
	s = strings.ToLower(s)
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return ""
		}
	}
	if len(s) > 253 {
		return ""
	}
	return s
}

// identity is i= with its domain in lower case, "" if that is neither d= nor below it.
func identity(i, domain string) string {
	at := strings.LastIndexByte(i, '@')
	if at < 0 {
		return ""
	}
	d := strings.ToLower(i[at+1:])
	if d != domain && !strings.HasSuffix(d, "."+domain) {
		return ""
	}
	return i[:at+1] + d
}

// IsBase64 reports whether s has nothing but characters of base64.
func IsBase64(s string) bool {
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == ""
}

var errNoRecord = errors.New("DNS has no key")

// verify judges one signature.
func (v *Verification) verify(ctx context.Context, s *signature, lookup LookupTXT, now time.Time) Result {
	switch {
	case s.result.Verdict != "":
		return s.result
	case v.odd != nil:
		return s.judged(PermError, v.odd.Error()).result
	case !s.expires.IsZero() && now.After(s.expires):
		return s.judged(PermError, "the signature has expired").result
	}
	records, err := lookup(ctx, RecordName(s.result.Selector, s.result.Domain))
	if err != nil {
		return s.judged(TempError, "DNS does not answer").result
	}
	key, err := ChooseRecord(records)
	kind, _, _ := strings.Cut(s.result.Algorithm, "-")
	switch {
	case err != nil:
		return s.judged(PermError, err.Error()).result
	case key.Kind != kind:
		return s.judged(PermError, "the key is of another kind").result
	case !key.Serves():
		return s.judged(PermError, "the key is not for this use").result
	case key.Strict && !strings.HasSuffix(s.result.Identifier, "@"+s.result.Domain):
		return s.judged(PermError, "the key is only for d= itself").result
	}
	s.result.Test = key.Test
	if subtle.ConstantTimeCompare(v.sums[s.body], s.bodyHash) != 1 {
		return s.judged(Fail, "the body was changed").result
	}
	sum := sha256.New()
	sum.Write(CanonicalFields(s.header, v.fields, s.names))
	sum.Write(bytes.TrimSuffix(AppendCanonical(nil, s.header, WithoutValue(s.raw)), []byte("\r\n")))
	if !key.Verifies(sum.Sum(nil), s.value) {
		return s.judged(Fail, "the signature does not fit the header").result
	}
	return s.judged(Pass, "").result
}

// ChooseRecord reads the only key record.
func ChooseRecord(records []string) (*PublicKey, error) {
	switch len(records) {
	case 0:
		return nil, errNoRecord
	case 1:
		return ParseRecord(records[0])
	}
	return nil, errors.New("DNS has several keys")
}

// WithoutValue is a field without the value of its tag b= (RFC 6376 section 3.7).
func WithoutValue(raw []byte) []byte {
	name, value, _ := bytes.Cut(bytes.TrimSuffix(raw, []byte("\r\n")), []byte{':'})
	b := append(bytes.Clone(name), ':')
	for i, part := range bytes.Split(value, []byte{';'}) {
		if i > 0 {
			b = append(b, ';')
		}
		if tag, _, found := bytes.Cut(part, []byte{'='}); found && string(bytes.Trim(tag, " \t\r\n")) == "b" {
			part = part[:len(tag)+1]
		}
		b = append(b, part...)
	}
	return append(b, "\r\n"...)
}
