package arc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"meta1/server/dkim"
)

// MaxSets is how many sets a message may have (RFC 8617 section 4.2.1).
const MaxSets = 50

// The names of the fields of a set, in lower case.
const (
	nameResults = "arc-authentication-results"
	nameMessage = "arc-message-signature"
	nameSeal    = "arc-seal"
)

// set is what a message has of one instance. A field that is missing has no Raw.
type set struct {
	results, message, seal dkim.Field
}

// field is the place for a field of a name.
func (s *set) field(name string) *dkim.Field {
	switch name {
	case nameResults:
		return &s.results
	case nameMessage:
		return &s.message
	}
	return &s.seal
}

// collect finds the sets of a header in the order of their instances. highest is the highest
// instance that any of its fields has, also of sets that are not whole. The error says what is
// wrong with their structure (RFC 8617 section 5.2, step 3).
func collect(h dkim.Header) (sets []set, highest int, err error) {
	found := map[int]*set{}
	for _, f := range h {
		if f.Name != nameResults && f.Name != nameMessage && f.Name != nameSeal {
			continue
		}
		i, wrong := instance(f)
		if wrong != nil {
			if err == nil {
				err = wrong
			}
			continue
		}
		highest = max(highest, i)
		if found[i] == nil {
			found[i] = &set{}
		}
		place := found[i].field(f.Name)
		if place.Raw != nil && err == nil {
			err = fmt.Errorf("set %d has two fields %s", i, f.Name)
		}
		*place = f
	}
	for i := 1; i <= highest && err == nil; i++ {
		s := found[i]
		if s == nil {
			return nil, highest, fmt.Errorf("set %d is missing", i)
		}
		for _, name := range []string{nameResults, nameMessage, nameSeal} {
			if s.field(name).Raw == nil {
				return nil, highest, fmt.Errorf("set %d has no field %s", i, name)
			}
		}
		sets = append(sets, *s)
	}
	if err != nil {
		return nil, highest, err
	}
	return sets, highest, nil
}

// instance is the value of i= of a field.
func instance(f dkim.Field) (int, error) {
	value := f.Value()
	switch {
	case len(f.Raw) > dkim.MaxField:
		return 0, fmt.Errorf("a field %s is too long", f.Name)
	case f.Name == nameResults: // i= stands first (RFC 8617 section 4.1.1)
		value, _, _ = strings.Cut(value, ";")
	}
	t, err := dkim.ParseTags(value)
	if err != nil {
		return 0, fmt.Errorf("a field %s cannot be read: %w", f.Name, err)
	}
	i, err := strconv.Atoi(t["i"])
	if digits := t["i"]; err != nil || i < 1 || strings.Trim(digits, "0123456789") != "" || len(digits) > 2 || i > MaxSets {
		return 0, fmt.Errorf("i= of a field %s is not from 1 to %d", f.Name, MaxSets)
	}
	return i, nil
}

// sealTags are what an ARC-Seal: field says (RFC 8617 section 4.1.3).
type sealTags struct {
	signer
	cv string
}

// signer is what both signatures of a set have.
type signer struct {
	algorithm, domain, selector string
	value                       []byte // b=
}

// messageTags are what an ARC-Message-Signature: field says (RFC 8617 section 4.1.2).
type messageTags struct {
	signer
	header, body dkim.Canon
	names        []string // h= in lower case
	bodyHash     []byte
	expires      string
}

// readSigner reads the tags that both signatures have.
func readSigner(t dkim.Tags) (s signer, err error) {
	for _, tag := range []string{"a", "b", "d", "s"} {
		if t[tag] == "" {
			return s, fmt.Errorf("the tag %s= is missing", tag)
		}
	}
	s.algorithm, s.domain, s.selector = t.Packed("a"), dkim.DomainName(t.Packed("d")), dkim.DomainName(t.Packed("s"))
	s.value, err = base64.StdEncoding.DecodeString(t.Packed("b"))
	_, errTime := t.Time("t")
	switch {
	case s.algorithm != "rsa-sha256" && s.algorithm != "ed25519-sha256":
		return s, errors.New("the algorithm is not known")
	case s.domain == "" || s.selector == "":
		return s, errors.New("d= or s= is no domain name")
	case err != nil || len(s.value) == 0:
		return s, errors.New("b= is not base64")
	case errTime != nil:
		return s, errTime
	}
	return s, nil
}

// readSeal reads an ARC-Seal: field.
func readSeal(f dkim.Field) (s sealTags, err error) {
	t, err := dkim.ParseTags(f.Value())
	if err != nil {
		return s, err
	}
	for _, tag := range []string{"h", "bh"} {
		if _, given := t[tag]; given {
			return s, fmt.Errorf("a seal has no tag %s=", tag) // section 4.1.3
		}
	}
	s.cv = t["cv"]
	s.signer, err = readSigner(t)
	return s, err
}

// readMessage reads an ARC-Message-Signature: field.
func readMessage(f dkim.Field) (m messageTags, err error) {
	t, err := dkim.ParseTags(f.Value())
	if err != nil {
		return m, err
	}
	if m.signer, err = readSigner(t); err != nil {
		return m, err
	}
	m.header, m.body = dkim.Simple, dkim.Simple
	if c := t.Packed("c"); c != "" {
		header, body, found := strings.Cut(c, "/")
		if m.header = dkim.Canon(header); found {
			m.body = dkim.Canon(body)
		}
	}
	m.names = strings.Split(strings.ToLower(t.Packed("h")), ":")
	m.bodyHash, err = base64.StdEncoding.DecodeString(t.Packed("bh"))
	_, part := t["l"]
	_, errX := t.Time("x")
	m.expires = t["x"]
	switch {
	case err != nil || len(m.bodyHash) == 0:
		return m, errors.New("bh= is not base64")
	case !m.header.Known() || !m.body.Known():
		return m, errors.New("the canonicalization is not known")
	case len(m.names) > dkim.MaxListed:
		return m, errors.New("h= has too many names")
	case slices.Contains(m.names, nameSeal):
		return m, errors.New("h= has ARC-Seal") // section 4.1.2
	case !slices.Contains(m.names, "from"):
		return m, errors.New("the field From is not signed")
	case part:
		return m, errors.New("l= leaves a part of the body unsigned")
	case errX != nil:
		return m, errX
	}
	return m, nil
}
