// Package mailertable reads the right hand sides and keys of the mailertable
// (README 3.9.3): where mail for a domain or an address goes.
package mailertable

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Limits of one right hand side.
const (
	maxRule  = 4096 // bytes
	maxAddrs = 64   // addresses in a list
)

// Select is IPv_Select: which family of addresses is used or preferred, per host.
type Select uint8

// The values of IPv_Select. Unset leaves the choice to the default of the resolver.
const (
	Unset Select = iota
	IPv4Only
	IPv4Preferred
	IPv6Only
	IPv6Preferred
)

var selectWords = [...]string{"", "IPv4_Only", "IPv4_Preferred", "IPv6_Only", "IPv6_Preferred"}

// String is the word of the configuration, "" for Unset.
func (s Select) String() string { return selectWords[s] }

// ParseSelect reads a word of IPv_Select, in any case of letters.
func ParseSelect(word string) (Select, error) {
	for i, w := range selectWords[1:] {
		if strings.EqualFold(w, word) {
			return Select(i + 1), nil
		}
	}
	return Unset, fmt.Errorf("IPv_Select is %q, must be IPv4_Only, IPv4_Preferred, IPv6_Only or IPv6_Preferred", word)
}

// Rule is a right hand side.
type Rule struct {
	Protocol msg.Protocol
	// Host is a host or domain name, or "" if Addrs has the addresses. Both are empty
	// for the configured LMTP socket, and for SMTP when the domain of the recipient
	// itself is looked up (IPv_Select without host).
	Host  string
	Addrs []netip.Addr
	Port  uint16 // 0 for the default
	// NoMX: use the addresses of Host, not its MX records.
	NoMX   bool
	Select Select
}

// IsSocket reports the LMTP socket of smtpc's configuration (LMTP_socket).
func (r *Rule) IsSocket() bool {
	return r.Protocol == msg.ProtoLMTP && r.Host == "" && len(r.Addrs) == 0
}

// Parse reads a right hand side.
func Parse(text string) (Rule, error) {
	text = strings.Trim(text, " \t")
	switch {
	case text == "":
		return Rule{}, fmt.Errorf("right hand side is empty")
	case len(text) > maxRule:
		return Rule{}, fmt.Errorf("right hand side is longer than %d bytes", maxRule)
	case text[0] == '{':
		return parseStructured(text)
	}
	return parseOld(text)
}

// parseOld reads [[port^][esmtp:]] hosts | lmtp: | port^lmtp:hosts.
func parseOld(text string) (r Rule, err error) {
	rest := text
	if before, after, ok := strings.Cut(rest, "^"); ok {
		if r.Port, err = parsePort(before); err != nil {
			return Rule{}, err
		}
		rest = after
	}
	if after, ok := smtp.CutKeyword(rest, "lmtp:", false); ok {
		r.Protocol, rest = msg.ProtoLMTP, after
	} else if after, ok := smtp.CutKeyword(rest, "esmtp:", false); ok {
		rest = after
	}
	rest = strings.Trim(rest, " \t")
	switch {
	case rest == "":
	case rest[0] == '[':
		r.Addrs, err = parseAddrList(strings.Fields(rest))
	default:
		if _, notIP := netip.ParseAddr(rest); notIP != nil && strings.Contains(rest, ":") { // as in other MTAs
			return Rule{}, fmt.Errorf("%q is no host: neither esmtp: nor lmtp: stands before it, or a port behind it, which goes in front, as in 25^esmtp:host.example", rest)
		}
		r.Host, err = parseHost(rest)
	}
	if err != nil {
		return Rule{}, err
	}
	return r, r.check()
}

// check applies the rules that hold for both forms.
func (r *Rule) check() error {
	host := r.Host != "" || len(r.Addrs) > 0
	if r.Protocol == msg.ProtoLMTP {
		switch {
		case host && r.Port == 0:
			return fmt.Errorf("lmtp to a host needs a port, as in 24^lmtp:[127.0.0.1]")
		case !host && r.Port != 0:
			return fmt.Errorf("lmtp with a port needs a host")
		case r.Host != "":
			r.NoMX = true // RFC 2033 section 5: LMTP is not routed by MX
		}
		return nil
	}
	if !host && r.Select == Unset {
		return fmt.Errorf("host is missing")
	}
	return nil
}

func parsePort(text string) (uint16, error) {
	text = strings.Trim(text, " \t")
	n := 0
	for i := 0; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' || n > 65535 {
			return 0, fmt.Errorf("port %q is not a number from 1 to 65535", text)
		}
		n = n*10 + int(text[i]-'0')
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", text)
	}
	return uint16(n), nil
}

func parseAddrList(words []string) ([]netip.Addr, error) {
	if len(words) > maxAddrs {
		return nil, fmt.Errorf("list has more than %d addresses", maxAddrs)
	}
	addrs := make([]netip.Addr, 0, len(words))
	for _, w := range words {
		if len(w) < 2 || w[0] != '[' || w[len(w)-1] != ']' {
			return nil, fmt.Errorf("%q is not an IP address in brackets", w)
		}
		a, err := parseIP(w[1 : len(w)-1])
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// parseIP reads an address; IPv6 may carry the tag of RFC 5321 section 4.1.3.
func parseIP(text string) (netip.Addr, error) {
	bare, tagged := smtp.CutKeyword(text, "IPv6:", false)
	a, err := netip.ParseAddr(bare)
	if err != nil || a.Zone() != "" || tagged && !a.Is6() {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", text)
	}
	return a.Unmap(), nil
}

func parseHost(text string) (string, error) {
	host, err := smtp.ASCIIDomain(strings.TrimSuffix(text, "."))
	if err == nil {
		err = checkHost(host)
	}
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return "", fmt.Errorf("IP address %q must stand in brackets", text)
	}
	return host, nil
}

// checkHost demands a host name of letters, digits, hyphens and underscores
// (RFC 1123 section 2.1; the underscore is in use) with the lengths of RFC 1035.
// Letters outside of ASCII are for internationalised names (RFC 5890).
func checkHost(host string) error {
	if host == "" || len(host) > 253 {
		return fmt.Errorf("host name has %d characters, must have 1 to 253", len(host))
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("host name %q has the bad label %q", host, label)
		}
		for i := 0; i < len(label); i++ {
			if !hostByte(label[i]) {
				return fmt.Errorf("host name %q has the bad character %q", host, label[i])
			}
		}
	}
	return nil
}

func hostByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c >= 0x80
}

// CheckKey checks the left hand side: [ local "@" ] [ "." ] hostname | ".", or an
// address literal in brackets in the place of the host name. It must be in lower
// case already.
func CheckKey(key string) error {
	if len(key) > 512 {
		return fmt.Errorf("key is longer than 512 bytes")
	}
	host := key
	if i := strings.LastIndexByte(key, '@'); i >= 0 {
		if i == 0 {
			return fmt.Errorf("key %q: domains stand without @ in a mailertable", key)
		}
		host = key[i+1:]
	}
	if host == "." {
		return nil
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if _, err := parseIP(inner); !ok || err != nil {
			return fmt.Errorf("key %q is not an address literal", key)
		}
		return nil
	}
	if err := checkHost(strings.TrimPrefix(host, ".")); err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	return nil
}

// CheckEntry checks both sides of an entry.
func CheckEntry(key, value string) error {
	_, err := Parse(value)
	return errors.Join(CheckKey(strings.ToLower(key)), err)
}
