// Package alias expands aliases (README 3.9.3, 3.12.3, 3.14): it reads right hand
// sides, replaces macros, and follows nested aliases. Where they are looked up is up
// to its user.
package alias

import (
	"fmt"
	"strings"

	"meta1/maps"
	"meta1/mta/smtp"
)

// LocalWord is the right hand side that marks a valid local address (README 4.3.2).
const LocalWord = "local:"

// parse reads a right hand side: addresses in angle brackets with spaces between
// them, or a single address without brackets. The addresses may hold macros and are
// not checked yet.
func parse(value string) ([]string, error) {
	value = strings.Trim(value, " \t")
	if !strings.HasPrefix(value, "<") {
		if value == "" || strings.ContainsAny(value, " \t<>") && value[0] != '"' {
			return nil, fmt.Errorf("%.100q is not one address, and a list needs angle brackets", value)
		}
		return []string{value}, nil
	}
	var list []string
	for rest := value; rest != ""; {
		end := closing(rest)
		if rest[0] != '<' || end < 0 {
			return nil, fmt.Errorf("%.100q is not an address in angle brackets", rest)
		}
		if end > 1 {
			list = append(list, rest[1:end])
		}
		after := strings.TrimLeft(rest[end+1:], " \t")
		if after != "" && len(after) == len(rest)-end-1 {
			return nil, fmt.Errorf("%.100q must have a space before it", after)
		}
		rest = after
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("list has no address")
	}
	return list, nil
}

// closing finds the bracket that ends an address, outside of quotes.
func closing(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
}

// replaceMacros replaces ${user}, ${detail}, ${domain}, ${tag}, ${delimiter},
// ${subdomain} and ${extension} in an address (README 3.12.3). It works on one part
// of one address at a time and quotes the result, so that no address that a peer
// made up can become two.
func replaceMacros(member string, a maps.Address, sub string) string {
	if !strings.Contains(member, "${") {
		return member
	}
	r := strings.NewReplacer(
		"${user}", a.User, "${detail}", a.Detail, "${domain}", a.Domain, "${tag}", "",
		"${delimiter}", a.Delimiter, "${subdomain}", sub, "${extension}", a.Delimiter+a.Detail)
	local, domain := cutDomain(member)
	if domain != "" {
		domain = "@" + r.Replace(domain)
	}
	if local[0] == '"' {
		return local + domain // no macros inside of quotes
	}
	return quote(r.Replace(local)) + domain
}

// cutDomain divides an address at its last @ outside of quotes.
func cutDomain(s string) (local, domain string) {
	if i := strings.LastIndexByte(s, '@'); i > 0 && !strings.HasSuffix(s, `"`) {
		return s[:i], s[i+1:]
	}
	return s, ""
}

// quote puts a local part in quotes if it needs them (RFC 5321 section 4.1.2).
func quote(local string) string {
	if _, err := smtp.ParseMailbox(local+"@a.example", smtp.UTF8); err == nil && local != "" {
		return local
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
}

// mailbox makes a checked address of a member; home is the domain of one that has
// none.
func mailbox(member, home string) (smtp.Path, error) {
	local, domain := cutDomain(member)
	if domain == "" {
		domain = home
	}
	p, err := smtp.ParseMailbox(local+"@"+domain, smtp.UTF8)
	if err != nil {
		return smtp.Path{}, fmt.Errorf("%.200q is not an address: %w", member, err)
	}
	return p, nil
}

// CheckEntry finds out whether an entry of an aliases map can be used. A colon at the
// end of its key does not count.
func CheckEntry(key, value string) error {
	key = strings.TrimSuffix(key, ":")
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("this cannot be the key of an alias")
	}
	if value == LocalWord {
		return nil
	}
	list, err := parse(value)
	if err != nil {
		return err
	}
	macros := strings.NewReplacer("${user}", "x", "${detail}", "x", "${domain}", "x", "${tag}", "",
		"${delimiter}", "x", "${subdomain}", "", "${extension}", "x")
	bare := strings.TrimPrefix(value, `"`)
	if !strings.Contains(value, "@") && (strings.HasPrefix(bare, "|") || strings.HasPrefix(bare, "/")) {
		return fmt.Errorf("%.100q: programs and files take no mail here: let a delivery agent behind lmtp: do that", value)
	}
	for _, member := range list {
		if _, err := mailbox(macros.Replace(member), "a.example"); err != nil {
			return err
		}
	}
	return nil
}
