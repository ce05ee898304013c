package dkim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"meta1/confparse"
	"meta1/mta/smtp"
)

// Config holds section DKIM_signing of smtps (README 3.10 item 3, 8.5).
type Config struct {
	SignatureMethod string
	BodyCanon       string
	HeaderCanon     string
	IgnoreErrors    bool // accept mail that could not be signed
	SignHeader      []string
	SkipHeader      []string
	OverSignHeaders []string
	TotalHeaderLen  int64 // bytes
	HeaderValLenMax int64 // bytes
	SignFor         string
	OwnMail         bool // sign what meta1 itself writes, too
	Sign            []Section
}

// Section is one section sign: a key, and the mail that it signs.
type Section struct {
	KeyFile   string
	Domain    string
	Selector  string
	From      string
	NotBefore string
}

// The words of sign_for.
const (
	ForRelaying = "relaying"
	ForAll      = "all"
)

// rsaSHA1 is the method of which RFC 8301 section 3.1 says that nobody may sign by it.
const rsaSHA1 = "rsa-sha1"

// Table is the option table of the section.
func (c *Config) Table() *confparse.Table {
	canon := []string{string(Simple), string(Relaxed)}
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		{
			Name: "signature_method", Type: confparse.Enum, Words: []string{"rsa-sha256", rsaSHA1}, Default: "rsa-sha256",
			Readme: "3.10", Reload: confparse.AtOnce, Into: &c.SignatureMethod,
			Doc: "How RSA keys sign. RFC 8301 forbids rsa-sha1, which no host verifies any more: with a warning, rsa-sha256 is used in its place. An Ed25519 key signs by ed25519-sha256 (RFC 8463).",
		},
		{
			Name: "body_canonicalization", Type: confparse.Enum, Words: canon, Default: "simple",
			Readme: "3.10", Reload: confparse.AtOnce, Into: &c.BodyCanon, Doc: "Canonicalization of the body.",
		},
		{
			Name: "header_canonicalization", Type: confparse.Enum, Words: canon, Default: "simple",
			Readme: "3.10", Reload: confparse.AtOnce, Into: &c.HeaderCanon, Doc: "Canonicalization of the header. Hosts on the way often fold headers anew, which relaxed outlives.",
		},
		{
			Name: "ignore_errors", Type: confparse.Bool, Default: "false", Readme: "3.10", Reload: confparse.AtOnce, Into: &c.IgnoreErrors,
			Doc: "Accept a message that cannot be signed, without a signature. Otherwise the client gets a refusal. A message without From: is none of these: it is not to be signed.",
		},
		{
			Name: "sign_header", Type: confparse.List, Readme: "3.10", Reload: confparse.AtOnce, Into: &c.SignHeader,
			Doc: "Names of headers to sign; none for all. From must be one of them (RFC 6376 section 5.4).",
		},
		{
			Name: "skip_header", Type: confparse.List, Readme: "3.10", Reload: confparse.AtOnce, Into: &c.SkipHeader,
			Doc: "Headers not to sign: beginnings of their names with a colon behind, so that X- is for all whose names begin with it and Received: for that one. It counts before sign_header.",
		},
		{
			Name: "over_sign_headers", Type: confparse.List, Readme: "3.10", Reload: confparse.AtOnce, Into: &c.OverSignHeaders,
			Doc: "Names of headers to list once more than the message has them, so that nobody can add another.",
		},
		{
			Name: "total_header_len", Type: confparse.Size, Unit: "B", Default: "1MB", Min: "257", Max: "1GB",
			Readme: "8.5", Reload: confparse.AtOnce, Into: &c.TotalHeaderLen, Doc: "Longest header that is signed. It is held in memory until the end of the message.",
		},
		{
			Name: "header_val_len_max", Type: confparse.Size, Unit: "B", Default: "64KB", Min: "257", Max: "1MB",
			Readme: "8.5", Reload: confparse.AtOnce, Into: &c.HeaderValLenMax, Doc: "Longest value of one header in a message that is signed.",
		},
		{
			Name: "sign_for", Type: confparse.Enum, Words: []string{ForRelaying, ForAll}, Default: ForRelaying, Readme: "own", Reload: confparse.AtOnce, Into: &c.SignFor,
			Doc: "Whose mail is signed: relaying is that of clients that may relay, by AUTH, a certificate or the access map; all is everybody's. A server that takes mail from the Internet must not sign for all: anybody could have it sign a forged From:.",
		},
		{
			Name: "sign_own_mail", Type: confparse.Bool, Default: "true", Readme: "own", Reload: confparse.AtOnce, Into: &c.OwnMail,
			Doc: "Sign what meta1 itself sends, such as notifications and reports about TLS, too. The first section DKIM_signing in the file that has this set and a key for the From: address signs it.",
		},
		{
			Name: "sign", Kind: confparse.KindSection, Readme: "3.10", Reload: confparse.AtOnce, New: c.newSection,
			Doc: "A key and the mail that it signs. Several with one value of from all sign: so a message gets one signature by an RSA key, and another by an Ed25519 key. See docs/dkim.md.",
		},
	}}
}

func (c *Config) newSection(string) *confparse.Table {
	s := &Section{}
	return &confparse.Table{
		Check: s.check,
		Done:  func() { c.Sign = append(c.Sign, *s) },
		Options: []confparse.Option{
			{
				Name: "keyfile", Type: confparse.File, Required: true, Readme: "3.10", Reload: confparse.AtOnce, Into: &s.KeyFile,
				Doc: "File with the private key in PEM format, RSA or Ed25519, as meta1 dkim genkey writes it. Only root need be able to read it, as with the keys of TLS.",
			},
			{Name: "domain", Type: confparse.String, Required: true, Readme: "3.10", Reload: confparse.AtOnce, Into: &s.Domain, Doc: "Domain of the signing entity (d=), below which DNS has the public key."},
			{Name: "selector", Type: confparse.String, Required: true, Readme: "3.10", Reload: confparse.AtOnce, Into: &s.Selector, Doc: "Selector (s=): DNS has the public key at SELECTOR._domainkey.DOMAIN."},
			{
				Name: "from", Type: confparse.String, Readme: "3.10", Reload: confparse.AtOnce, Into: &s.From,
				Doc: "What of the From: address selects this key: the address, its domain, or .domain for all below it, tried in this order. The section without it is the default.",
			},
			{
				Name: "not_before", Type: confparse.String, Readme: "own", Reload: confparse.AtOnce, Into: &s.NotBefore,
				Doc: "When the key comes into use: 2027-01-31, which is midnight UTC, or 2027-01-31T09:00:00Z. Of sections with the same from, domain and kind of key the one signs whose time was the last to come, so that keys change without a restart.",
			},
		},
	}
}

// check makes the cross-checks of DKIM_signing.
func (c *Config) check(r *confparse.Report) {
	if len(c.Sign) == 0 {
		r.Errorf("", "DKIM_signing needs at least one section sign")
	}
	if c.SignatureMethod == rsaSHA1 {
		r.Warnf("signature_method", "signature_method: RFC 8301 forbids rsa-sha1, and no host verifies it any more: rsa-sha256 is used")
	}
	names := c.names()
	switch {
	case names.skipped("from"):
		r.Errorf("skip_header", "skip_header leaves out From:, which must be signed (RFC 6376 section 5.4)")
	case len(c.SignHeader) > 0 && !names.sign["from"]:
		r.Errorf("sign_header", "sign_header lacks From, which must be signed (RFC 6376 section 5.4)")
	}
	for option, list := range map[string][]string{"sign_header": c.SignHeader, "over_sign_headers": c.OverSignHeaders} {
		if i := slices.IndexFunc(list, func(s string) bool { _, ok := fieldName([]byte(s + ":")); return !ok || strings.Contains(s, ":") }); i >= 0 {
			r.Errorf(option, "%s: %q is not the name of a header", option, list[i])
		}
	}
	for i := range c.Sign {
		for j := range c.Sign[:i] {
			a, b := &c.Sign[i], &c.Sign[j]
			if strings.EqualFold(a.From, b.From) && strings.EqualFold(a.Domain, b.Domain) && strings.EqualFold(a.Selector, b.Selector) {
				r.Errorf(fmt.Sprintf("sign#%d", i+1), "two sections sign have the same from, domain and selector")
			}
		}
	}
}

func (s *Section) check(r *confparse.Report) {
	for option, v := range map[string]string{"domain": s.Domain, "selector": s.Selector} {
		if err := smtp.CheckDomain(v); v != "" && err != nil {
			r.Errorf(option, "%s: %q is not a domain name in ASCII: %v", option, v, err)
		}
	}
	if _, err := s.InUseFrom(); err != nil {
		r.Errorf("not_before", "not_before: %v", err)
	}
	if from := strings.TrimPrefix(s.From, "."); s.From != "" {
		local, domain, found := strings.Cut(from, "@")
		if !found {
			domain = local
		}
		if domain = strings.TrimPrefix(domain, "."); domain == "" || strings.ContainsAny(domain, "@<> ") || found && local == "" {
			r.Errorf("from", "from: %q is none of user@domain, domain and .domain", s.From)
		}
	}
}

var errNotTime = errors.New("it is no time such as 2027-01-31 or 2027-01-31T09:00:00Z")

// InUseFrom is when the key comes into use; zero for always.
func (s *Section) InUseFrom() (time.Time, error) {
	if s.NotBefore == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s.NotBefore); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errNotTime
}

// names say which headers are signed.
type names struct {
	sign map[string]bool // none: all
	skip []string        // beginnings of names with a colon
	over []string
}

func (c *Config) names() names {
	n := names{sign: map[string]bool{}}
	for _, s := range c.SignHeader {
		n.sign[strings.ToLower(s)] = true
	}
	for _, s := range c.SkipHeader {
		n.skip = append(n.skip, strings.ToLower(s))
	}
	for _, s := range c.OverSignHeaders {
		if s = strings.ToLower(s); !slices.Contains(n.over, s) {
			n.over = append(n.over, s)
		}
	}
	return n
}

func (n *names) skipped(name string) bool {
	return slices.ContainsFunc(n.skip, func(s string) bool { return strings.HasPrefix(name+":", s) })
}

// signed is the decision of README 3.10 item 3 g. Each step is final.
func (n *names) signed(name string) bool {
	switch {
	case n.skipped(name):
		return false
	case len(n.sign) == 0:
		return true
	}
	return n.sign[name]
}

// list is h=: the fields that are signed, in the order of the header, and those that are
// over-signed once more at the end. One that is over-signed is signed.
func (n *names) list(h Header) []string {
	var list []string
	for _, f := range h {
		if n.signed(f.Name) || slices.Contains(n.over, f.Name) && !n.skipped(f.Name) {
			list = append(list, f.Name)
		}
	}
	for _, o := range n.over {
		if !n.skipped(o) {
			list = append(list, o)
		}
	}
	return list
}
