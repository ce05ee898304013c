package ciphers

import (
	"slices"
	"strings"
)

// List is what a cipher list says to Go.
type List struct {
	// Suites are the numbers of the suites that it leaves. Go prefers one of them by an
	// order of its own.
	Suites []uint16
	// Unknown are words that OpenSSL does not know, Unsupported those that it knows and
	// Go has nothing of, so that they add nothing.
	Unknown, Unsupported []string
}

// Parse reads a cipher list as ciphers(1) describes it, HIGH:!aNULL:!MD5 for example:
// words with colons, commas or blanks between. A word is the name of a suite or of a group of
// them, or several groups joined by + that must all apply. ! before it removes suites for
// good, - until they are added again, + moves them to the end, which changes nothing here,
// as does @STRENGTH: the order is Go's.
func Parse(text string) List {
	r := reader{all: suites(), has: supported(), on: map[uint16]bool{}, never: map[uint16]bool{}}
	for i, word := range strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(":, ;\t", c) }) {
		r.word(word, i == 0)
	}
	for _, s := range r.all {
		if r.on[s.id] && r.has[s.id] {
			r.list.Suites = append(r.list.Suites, s.id)
		}
	}
	return r.list
}

// reader is a cipher list while it is read.
type reader struct {
	all   []suite
	has   map[uint16]bool // Go has it
	on    map[uint16]bool // chosen
	never map[uint16]bool // removed for good
	list  List
}

func (r *reader) word(word string, first bool) {
	op, name := byte(0), word
	if strings.IndexByte("!-+", word[0]) >= 0 {
		op, name = word[0], word[1:]
	}
	if strings.HasPrefix(word, "@") {
		switch {
		case word == "@STRENGTH":
		case strings.HasPrefix(word, "@SECLEVEL="):
			r.list.Unsupported = append(r.list.Unsupported, word)
		default:
			r.list.Unknown = append(r.list.Unknown, word)
		}
		return
	}
	if name == "DEFAULT" && !first { // ciphers(1): it must be the first word
		r.list.Unknown = append(r.list.Unknown, word)
		return
	}
	match, known := r.find(name)
	if !known {
		r.list.Unknown = append(r.list.Unknown, word)
		return
	}
	if op == 0 && !slices.ContainsFunc(match, func(s suite) bool { return r.has[s.id] }) {
		r.list.Unsupported = append(r.list.Unsupported, word)
	}
	for _, s := range match {
		switch op {
		case 0:
			r.on[s.id] = r.on[s.id] || !r.never[s.id]
		case '-':
			r.on[s.id] = false
		case '!':
			r.on[s.id], r.never[s.id] = false, true
		}
	}
}

// find gives the suites that a word without its operator stands for. The standard names
// (TLS_RSA_WITH_AES_128_CBC_SHA) are those of Go's suites alone.
func (r *reader) find(name string) (match []suite, known bool) {
	for _, s := range r.all {
		if s.name == name || r.has[s.id] && standardName(s.id) == name {
			return []suite{s}, true
		}
	}
	var groups []func(suite) bool
	for part := range strings.SplitSeq(name, "+") {
		if names, ok := suiteB(part); ok {
			groups = append(groups, func(s suite) bool { return slices.Contains(names, s.name) })
			continue
		}
		group := groupOf(part)
		if group == nil {
			return nil, false
		}
		groups = append(groups, group)
	}
	for _, s := range r.all {
		if !slices.ContainsFunc(groups, func(in func(suite) bool) bool { return !in(s) }) {
			match = append(match, s)
		}
	}
	return match, true
}

// suiteB are the groups of RFC 6460.
func suiteB(word string) (names []string, ok bool) {
	const small, large = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
	switch word {
	case "SUITEB128":
		return []string{small, large}, true
	case "SUITEB128ONLY":
		return []string{small}, true
	case "SUITEB192":
		return []string{large}, true
	}
	return nil, false
}

// groupOf is a group of suites by its name in ciphers(1), or nil.
func groupOf(word string) func(suite) bool {
	for _, of := range []func(string) func(suite) bool{strengthGroup, exchangeGroup, encryptionGroup, macGroup} {
		if group := of(word); group != nil {
			return group
		}
	}
	return nil
}

func none(suite) bool { return false }

// strengthGroup are the groups by strength, and those of all.
func strengthGroup(word string) func(suite) bool {
	null := func(s suite) bool { return s.enc == "None" }
	medium := func(s suite) bool { return slices.Contains([]string{"3DES", "RC4", "SEED", "IDEA"}, s.enc) }
	odd := func(s suite) bool {
		return s.au == "None" || medium(s) || strings.HasPrefix(s.enc, "AESCCM") || strings.HasPrefix(s.enc, "ARIA") || strings.HasPrefix(s.enc, "Camellia")
	}
	switch word {
	case "ALL":
		return func(s suite) bool { return !null(s) }
	case "COMPLEMENTOFALL", "eNULL", "NULL":
		return null
	case "DEFAULT":
		return func(s suite) bool { return !null(s) && !odd(s) }
	case "COMPLEMENTOFDEFAULT":
		return func(s suite) bool { return !null(s) && odd(s) }
	case "HIGH":
		return func(s suite) bool { return !null(s) && !medium(s) }
	case "MEDIUM":
		return medium
	case "LOW", "EXP", "EXPORT", "EXPORT40", "EXPORT56": // OpenSSL has none of these any more
		return none
	}
	return nil
}

// exchangeGroup are the groups by key exchange and authentication.
func exchangeGroup(word string) func(suite) bool {
	kx := func(names ...string) func(suite) bool {
		return func(s suite) bool { return slices.Contains(names, s.kx) }
	}
	au := func(name string) func(suite) bool { return func(s suite) bool { return s.au == name } }
	both := func(kx, au func(suite) bool) func(suite) bool {
		return func(s suite) bool { return kx(s) && au(s) }
	}
	named := func(s suite) bool { return s.au != "None" }
	switch word {
	case "aNULL":
		return au("None")
	case "kRSA":
		return kx("RSA")
	case "RSA":
		return both(kx("RSA"), au("RSA"))
	case "aRSA":
		return au("RSA")
	case "kDHE", "kEDH", "DH":
		return kx("DH")
	case "DHE", "EDH":
		return both(kx("DH"), named)
	case "ADH":
		return both(kx("DH"), au("None"))
	case "kECDHE", "kEECDH", "ECDH":
		return kx("ECDH")
	case "ECDHE", "EECDH":
		return both(kx("ECDH"), named)
	case "AECDH":
		return both(kx("ECDH"), au("None"))
	case "aECDSA", "ECDSA":
		return au("ECDSA")
	case "aDSS", "DSS":
		return au("DSS")
	case "kPSK":
		return kx("PSK")
	case "kRSAPSK":
		return kx("RSAPSK")
	case "kDHEPSK":
		return kx("DHEPSK")
	case "kECDHEPSK":
		return kx("ECDHEPSK")
	case "PSK":
		return kx("PSK", "RSAPSK", "DHEPSK", "ECDHEPSK")
	case "aPSK":
		return au("PSK")
	case "kSRP", "SRP":
		return kx("SRP")
	case "aSRP":
		return au("SRP")
	case "kGOST", "aGOST", "aGOST01", "GOST":
		return none
	}
	return nil
}

// encryptionGroup are the groups by encryption.
func encryptionGroup(word string) func(suite) bool {
	enc := func(bits int, names ...string) func(suite) bool {
		return func(s suite) bool { return slices.Contains(names, s.enc) && (bits == 0 || bits == s.bits) }
	}
	aes := []string{"AES", "AESGCM", "AESCCM", "AESCCM8"}
	switch word {
	case "AES":
		return enc(0, aes...)
	case "AES128":
		return enc(128, aes...)
	case "AES256":
		return enc(256, aes...)
	case "AESGCM":
		return enc(0, "AESGCM")
	case "AESCCM":
		return enc(0, "AESCCM", "AESCCM8")
	case "AESCCM8":
		return enc(0, "AESCCM8")
	case "CBC":
		return enc(0, "AES", "Camellia", "3DES", "SEED", "IDEA")
	case "CHACHA20":
		return enc(0, "CHACHA20/POLY1305")
	case "CAMELLIA":
		return enc(0, "Camellia")
	case "CAMELLIA128":
		return enc(128, "Camellia")
	case "CAMELLIA256":
		return enc(256, "Camellia")
	case "ARIA", "ARIAGCM":
		return enc(0, "ARIAGCM")
	case "ARIA128":
		return enc(128, "ARIAGCM")
	case "ARIA256":
		return enc(256, "ARIAGCM")
	case "3DES", "RC4", "SEED", "IDEA":
		return enc(0, word)
	case "DES", "RC2", "GOST89", "GOST94":
		return none
	}
	return nil
}

// macGroup are the groups by message digest and by protocol version.
func macGroup(word string) func(suite) bool {
	switch word {
	case "MD5", "SHA1", "SHA256", "SHA384":
		return func(s suite) bool { return s.mac == word }
	case "SHA":
		return func(s suite) bool { return s.mac == "SHA1" }
	case "SSLv3", "TLSv1.2":
		return func(s suite) bool { return s.version == word }
	case "TLSv1", "TLSv1.0":
		return func(s suite) bool { return s.version == "TLSv1" }
	}
	return nil
}
