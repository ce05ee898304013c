// Package srs rewrites the senders of mail that is forwarded (Sender Rewriting Scheme), so that they are
// of a domain of ours and SPF does not refuse the mail, and finds the original ones again when a bounce
// comes back. The form is that of libsrs2, Mail::SRS and postsrsd:
//
//	SRS0=HASH=TT=example.org=user@ours          for user@example.org
//	SRS1=HASH=other.example==HASH=TT=…@ours     for SRS0=HASH=TT=…@other.example, and for SRS1 of it
//
// HASH is the first four characters in base64 of HMAC-SHA1 over what follows it, in lower case and without
// the separators between its parts; TT are the days since 1970 modulo 1024 in base32. Without a secret nobody
// can make such an address, so a host that reverses them is no open relay; and none is good for ever.
//
// It is pure but for [Rewriter], which has the secrets and the clock.
package srs

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"meta1/mta/smtp"
)

const (
	hashLength = 4
	day        = 24 * time.Hour
	days       = 1024 // of two characters in base32
	alphabet   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	// pathMax is the length of a path with its brackets that every host can take (RFC 5321 section
	// 4.5.3.1.3).
	pathMax = 256
)

// Why an address is not reversed. The texts are for replies and traces.
var (
	ErrForm    = errors.New("the address has not the form of SRS")
	ErrHash    = errors.New("the hash of the SRS address does not fit: it is forged, or its secret is no longer in use")
	ErrExpired = errors.New("the SRS address has expired")
)

// Scheme is what addresses are made by. It is not changed.
type Scheme struct {
	Domain    string   // of the addresses that are made, in lower case
	Separator byte     // behind SRS0 and SRS1: one of = + -
	Secrets   []string // at least one; the first makes hashes, all are good for reversing
	MaxAge    int      // days for which an address can be reversed
}

// Forward is the sender for a message that is forwarded. ok is false, and the sender must stay, if there is
// none: it is the null sender or has no domain, or the address would have more than the 256 octets that
// every host can take. It may have more than the 64 octets of a local part (RFC 5321 section 4.5.3.1.1), as
// with other programs: hosts that insist on these are rare, and cutting the address would lose the bounce.
func (s *Scheme) Forward(from smtp.Path, now time.Time) (smtp.Path, bool) {
	if from.Local == "" || from.Domain == "" {
		return smtp.Path{}, false
	}
	user, sep := smtp.UnquoteLocal(from.Local), string(s.Separator)
	var local string
	switch {
	case smtp.IsSRS(from.Local) && user[3] == '1':
		// As for the first SRS1, which need not be a way back: it names the host of SRS0.
		_, rest, _ := strings.Cut(user[5:], "=")
		host, srsUser, found := strings.Cut(rest, "=")
		if !found || host == "" || srsUser == "" {
			local = s.first(sep, user, from.Domain, now)
			break
		}
		local = "SRS1" + sep + s.hash(s.Secrets[0], host, srsUser) + "=" + host + "=" + srsUser
	case smtp.IsSRS(from.Local):
		local = "SRS1" + sep + s.hash(s.Secrets[0], from.Domain, user[4:]) + "=" + from.Domain + "=" + user[4:]
	default:
		local = s.first(sep, user, from.Domain, now)
	}
	quoted, ok := smtp.QuoteLocal(local)
	if !ok || len(quoted)+len(s.Domain)+len("<@>") > pathMax {
		return smtp.Path{}, false
	}
	return smtp.Path{Local: quoted, Domain: s.Domain}, true
}

// first is the local part of SRS0.
func (s *Scheme) first(sep, user, domain string, now time.Time) string {
	stamp := stampOf(now)
	return "SRS0" + sep + s.hash(s.Secrets[0], stamp, domain, user) + "=" + stamp + "=" + domain + "=" + user
}

// Reverse is the address to which mail for a local part goes, for which smtp.IsSRS is true. The error is ErrForm, ErrHash or
// ErrExpired.
func (s *Scheme) Reverse(local string, now time.Time) (smtp.Path, error) {
	if !smtp.IsSRS(local) {
		return smtp.Path{}, ErrForm
	}
	user := smtp.UnquoteLocal(local)
	if user[3] == '1' {
		return s.reverseChain(user[5:])
	}
	parts := strings.SplitN(user[5:], "=", 4)
	if len(parts) < 4 || parts[2] == "" || parts[3] == "" {
		return smtp.Path{}, ErrForm
	}
	stamp := parts[1]
	switch {
	case !s.fits(parts[0], stamp, parts[2], parts[3]):
		return smtp.Path{}, ErrHash
	case !s.fresh(stamp, now):
		return smtp.Path{}, ErrExpired
	}
	return path(parts[3], parts[2])
}

// reverseChain reverses SRS1, which has no time: that of the SRS0 in it counts at its host.
func (s *Scheme) reverseChain(rest string) (smtp.Path, error) {
	parts := strings.SplitN(rest, "=", 3)
	if len(parts) < 3 || parts[1] == "" || len(parts[2]) < 2 || strings.IndexByte("=+-", parts[2][0]) < 0 {
		return smtp.Path{}, ErrForm
	}
	if !s.fits(parts[0], parts[1], parts[2]) {
		return smtp.Path{}, ErrHash
	}
	return path("SRS0"+parts[2], parts[1])
}

// path is an address of parts that were hashed by us.
func path(user, domain string) (smtp.Path, error) {
	local, ok := smtp.QuoteLocal(user)
	if !ok || len(local)+len(domain)+len("<@>") > pathMax {
		return smtp.Path{}, ErrForm
	}
	p, err := smtp.ParseMailbox(local+"@"+domain, smtp.UTF8)
	if err != nil || p.Domain == "" {
		return smtp.Path{}, ErrForm
	}
	return p, nil
}

// fits reports whether one of the secrets makes the hash. Case does not count: hosts on the way may have
// changed it.
func (s *Scheme) fits(hash string, parts ...string) bool {
	good := 0
	for _, secret := range s.Secrets {
		want := strings.ToLower(s.hash(secret, parts...))
		good |= subtle.ConstantTimeCompare([]byte(strings.ToLower(hash)), []byte(want))
	}
	return good == 1
}

// hash is the hash of parts.
func (s *Scheme) hash(secret string, parts ...string) string {
	h := hmac.New(sha1.New, []byte(secret))
	for _, p := range parts {
		h.Write([]byte(lower(p)))
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil))[:hashLength]
}

// lower is ASCII in lower case.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// stampOf is a day in two characters.
func stampOf(now time.Time) string {
	d := now.Unix() / int64(day/time.Second) % days
	return string([]byte{alphabet[d>>5], alphabet[d&31]})
}

// fresh reports whether a stamp is of today or one of the days before that count.
func (s *Scheme) fresh(stamp string, now time.Time) bool {
	for age := range s.MaxAge + 1 {
		if strings.EqualFold(stamp, stampOf(now.Add(-time.Duration(age)*day))) {
			return true
		}
	}
	return false
}
