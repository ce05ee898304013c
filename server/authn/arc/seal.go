package arc

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"meta1/server/dkim"
)

// Key is a key that seals, with the place of its public half in DNS.
type Key struct {
	Domain, Selector string
	Private          crypto.Signer
}

// Sealed says which set was made.
type Sealed struct {
	Instance  int
	CV        string // none, pass or fail
	Domain    string
	Selector  string
	Algorithm string
}

// String is the set in logs.
func (s *Sealed) String() string {
	return fmt.Sprintf("i=%d cv=%s %s %s", s.Instance, s.CV, dkim.RecordName(s.Selector, s.Domain), s.Algorithm)
}

// Why a message gets no set.
var (
	errFull       = fmt.Errorf("it has %d sets already", MaxSets)
	errHadFailed  = errors.New("its chain had failed before it came here, which its newest set says already")
	errNotJudged  = errors.New("it has ARC sets, but its Authentication-Results do not say what became of them")
	errTempError  = errors.New("its ARC sets could not be verified when it came in")
	errNoFrom     = errors.New("it has no From: header field")
	errLong       = errors.New("its Authentication-Results or the names of its header fields are too long")
	errWrongState = errors.New("its Authentication-Results have a result for ARC that is not known")
)

// signedNames are the fields that our message signature covers, as far as a message has them (RFC
// 6376 section 5.4.1, RFC 8617 section 4.1.2). Those of the way, which change on it, are not.
var signedNames = []string{
	"from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references",
	"mime-version", "content-type", "content-transfer-encoding", "content-id", "content-description",
	"list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post", "list-owner", "list-archive",
	"resent-date", "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-message-id", "dkim-signature",
}

// Seal reads a message as it is to be sent and makes the set that goes on top of it: ARC-Seal,
// ARC-Message-Signature and ARC-Authentication-Results (RFC 8617 section 5.1). Its results are those of
// the Authentication-Results: fields above the first Received: field, which are those of this host,
// because each message gets a Received: field here; host is the authserv-id if there are none. They also
// say whether the chain of the message was valid when it came in (arc=). An error says why there is no set.
//
// Of the content no more than the header is held, at most 1 MB.
func Seal(message io.Reader, key Key, host string, now time.Time) ([]byte, Sealed, error) {
	content := dkim.NewContent(func(dkim.Header) []dkim.Canon { return []dkim.Canon{dkim.Relaxed} })
	if _, err := io.Copy(content, message); err != nil {
		return nil, Sealed{}, err
	}
	h, err := content.Header()
	if err != nil {
		return nil, Sealed{}, err
	}
	if !slices.ContainsFunc(h, func(f dkim.Field) bool { return f.Name == "from" }) {
		return nil, Sealed{}, errNoFrom
	}
	results := ownResults(h, host)
	sets, highest, wrong := collect(h)
	made := Sealed{
		Instance: highest + 1, Domain: strings.ToLower(key.Domain), Selector: strings.ToLower(key.Selector),
		Algorithm: dkim.KindOf(key.Private) + "-sha256",
	}
	if made.CV, err = validation(results.chain, sets, highest, wrong); err != nil {
		return nil, Sealed{}, err
	}
	one := set{results: field(fmt.Appendf(nil, "ARC-Authentication-Results: i=%d;%s\r\n", made.Instance, results.payload))}
	if one.message, err = messageSignature(h, content.Sum(dkim.Relaxed), key, &made, now); err != nil {
		return nil, Sealed{}, err
	}
	if made.CV == "fail" {
		sets = nil // the seal is of its own set alone (section 5.1.2)
	}
	if one.seal, err = seal(append(sets, one), key, &made, now); err != nil {
		return nil, Sealed{}, err
	}
	head := slices.Concat(one.seal.Raw, one.message.Raw, one.results.Raw)
	if len(one.results.Raw) > dkim.MaxField {
		return nil, Sealed{}, errLong
	}
	return head, made, nil
}

// validation is cv= of the next seal (RFC 8617 section 5.1, 5.1.2). chain is the result for the chain
// of when the message came in, "" if there is none.
func validation(chain string, sets []set, highest int, wrong error) (string, error) {
	switch {
	case highest == 0 && wrong == nil:
		return "none", nil
	case highest == MaxSets:
		return "", errFull
	}
	if wrong == nil {
		if newest, err := readSeal(sets[len(sets)-1].seal); err == nil && newest.cv == "fail" {
			return "", errHadFailed
		}
	}
	switch chain {
	case "":
		return "", errNotJudged
	case "temperror":
		return "", errTempError
	case "fail", "permerror":
		return "fail", nil
	case "pass":
		if wrong == nil {
			return "pass", nil
		}
	}
	return "", errWrongState
}

// field is a field that was made.
func field(raw []byte) dkim.Field {
	name, _, _ := bytes.Cut(raw, []byte{':'})
	return dkim.Field{Name: strings.ToLower(string(name)), Raw: raw}
}

// messageSignature makes the ARC-Message-Signature: field.
func messageSignature(h dkim.Header, body []byte, key Key, made *Sealed, now time.Time) (dkim.Field, error) {
	list := []string{"from"} // once more than there is, so that nobody can add another
	for _, f := range h {
		if slices.Contains(signedNames, f.Name) {
			list = append(list, f.Name)
		}
	}
	if len(list) > dkim.MaxListed {
		return dkim.Field{}, errLong
	}
	b := fmt.Appendf(nil, "ARC-Message-Signature: i=%d; a=%s; c=relaxed/relaxed;\r\n\td=%s; s=%s;\r\n\tt=%d; h=",
		made.Instance, made.Algorithm, made.Domain, made.Selector, now.Unix())
	b = dkim.Fold(b, list)
	b = append(b, ";\r\n\tbh="+base64.StdEncoding.EncodeToString(body)+";\r\n\tb="...)
	return sign(b, dkim.CanonicalFields(dkim.Relaxed, h, list), key)
}

// seal makes the ARC-Seal: field of the last of the sets, which it covers.
func seal(sets []set, key Key, made *Sealed, now time.Time) (dkim.Field, error) {
	var text []byte
	for i := range sets {
		for _, f := range []dkim.Field{sets[i].results, sets[i].message, sets[i].seal} {
			if f.Raw != nil {
				text = dkim.AppendCanonical(text, dkim.Relaxed, f.Raw)
			}
		}
	}
	return sign(fmt.Appendf(nil, "ARC-Seal: i=%d; a=%s; cv=%s;\r\n\td=%s; s=%s;\r\n\tt=%d; b=",
		made.Instance, made.Algorithm, made.CV, made.Domain, made.Selector, now.Unix()), text, key)
}

// sign ends a field that ends in "b=": what it signs is before, and then the field itself.
func sign(b, before []byte, key Key) (dkim.Field, error) {
	sum := sha256.New()
	sum.Write(before)
	sum.Write(unsigned(dkim.Relaxed, dkim.Field{Raw: append(bytes.Clone(b), "\r\n"...)}))
	value, err := dkim.SignHash(key.Private, sum.Sum(nil))
	if err != nil {
		return dkim.Field{}, fmt.Errorf("key %q: %w", key.Selector, err)
	}
	return field(append(dkim.FoldValue(b, base64.StdEncoding.EncodeToString(value)), "\r\n"...)), nil
}
