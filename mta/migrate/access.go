package migrate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meta1/mta/migrate/postfix"
)

// accessTable translates the entries of an access table.
func (m *migrator) accessTable(v *server, r restriction, arg string) {
	t, ok := postfix.ParseTable(arg, "hash")
	if !ok {
		m.note(v.s, r.list, NotCarried, r.word+" "+short(arg)+": that is not a table.")
		return
	}
	v.access = true
	tag := tagOf[r.word]
	why := m.why(v.s, r.list) + ": " + r.word + " " + t.Type + ":" + tableName(t)
	m.mark(v.s, r.list, Carried, "smar access_map: "+tag, "")
	for _, entry := range m.read(v.s, r.list, t, false) {
		rhs, err := m.action(r, entry.Value)
		if err != nil {
			m.note(v.s, r.list, NotCarried, fmt.Sprintf("%s %s: entry %s: %v.", r.word, t.Type+":"+tableName(t), short(entry.Key), err))
			continue
		}
		if tag == "to:" && rhs == "ok" {
			rhs = "quick:ok" // what stands behind it in the list does not matter
		}
		m.accessEntry(v, r, t, entry, tag, rhs, why)
	}
}

// accessEntry adds one entry of an access table.
func (m *migrator) accessEntry(v *server, r restriction, t postfix.Table, entry postfix.Entry, tag, rhs, why string) {
	key := entry.Key
	switch {
	case entry.Pattern && tag == "cltaddr:":
		m.clientPattern(v, r, t, entry, rhs)
		return
	case entry.Pattern:
		m.pattern(v.s, r.list, tag, entry, rhs, t)
		return
	case entry.Not:
		m.note(v.s, r.list, NotCarried, "Entry !"+key+" of "+t.String()+" has no counterpart.")
		return
	case key == "*":
		m.note(v.s, r.list, NotCarried, "A table that has every key has no counterpart.")
		return
	case entry.Net.IsValid():
		m.addNetwork(v.s, r.list, tag, entry.Net, rhs, why)
		return
	}
	switch tag {
	case "from:", "to:":
		m.addressEntry(v, r, key, tag, rhs, why)
		return
	case "ehlo:":
		m.hostEntry(v, r, key, tag, "", rhs, why)
		return
	}
	if p, ok := dotted(key); ok {
		m.addNetwork(v.s, r.list, tag, p, rhs, why)
		return
	}
	if tag == "mxbadip:" {
		m.note(v.s, r.list, NotCarried, r.word+": entry "+key+": only addresses have a counterpart (mxbadip:), not names of hosts.")
		return
	}
	m.hostEntry(v, r, key, "cltname:", ".", rhs, why)
}

// clientPattern adds a pattern for the names of clients, whose keys end with a dot, and if it is one of
// digits and dots alone, for their addresses.
func (m *migrator) clientPattern(v *server, r restriction, t postfix.Table, entry postfix.Entry, rhs string) {
	if !strings.ContainsFunc(entry.Key, func(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }) {
		m.pattern(v.s, r.list, "cltaddr:", entry, rhs, t)
		return
	}
	if rest, ok := strings.CutSuffix(entry.Key, "$"); ok && !strings.HasSuffix(rest, `\`) {
		if topLevelBar(rest) {
			m.note(v.s, r.list, NotCarried, fmt.Sprintf("The pattern in line %d of %s has alternatives and an end: put the alternatives in parentheses.", entry.Line, t.String()))
			return
		}
		entry.Key = rest + `\.$`
	}
	m.pattern(v.s, r.list, "cltname:", entry, rhs, t)
}

// dotted reads an address, or the beginning of one: 192.0.2.
func dotted(key string) (netip.Prefix, bool) {
	if p, err := postfix.ParseNet(key); err == nil {
		return p, true
	}
	parts := strings.Split(strings.TrimSuffix(key, "."), ".")
	var a [4]byte
	if len(parts) > 3 {
		return netip.Prefix{}, false
	}
	for i, s := range parts {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil {
			return netip.Prefix{}, false
		}
		a[i] = byte(n)
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), 8*len(parts)), true
}

// addressEntry adds an entry for an address, a domain with those below it, or a local part.
func (m *migrator) addressEntry(v *server, r restriction, key, tag, rhs, why string) {
	keys := []string{tag + key}
	switch at := strings.IndexByte(key, '@'); {
	case key == "<>":
		m.note(v.s, r.list, NotCarried, "The sender <> cannot be in the access map: see section check.")
		return
	case at == len(key)-1: // user@
		keys = []string{tag + key[:at]}
	case at >= 0:
	case strings.HasPrefix(key, "."):
		keys = []string{tag + "@" + key}
	default:
		keys = []string{tag + "@" + key}
		if slices.Contains(m.list(v.s, "parent_domain_matches_subdomains"), "smtpd_access_maps") {
			keys = append(keys, tag+"@."+key)
		}
	}
	for _, k := range keys {
		m.addAccess(v, r, k, rhs, why)
	}
}

// hostEntry adds an entry for a host with those below it.
func (m *migrator) hostEntry(v *server, r restriction, key, tag, end, rhs, why string) {
	if strings.ContainsAny(key, " \t\"") {
		m.note(v.s, r.list, NotCarried, "Entry "+short(key)+" is no name of a host.")
		return
	}
	m.addAccess(v, r, tag+key+end, rhs, why)
	if !strings.HasPrefix(key, ".") && slices.Contains(m.list(v.s, "parent_domain_matches_subdomains"), "smtpd_access_maps") {
		m.addAccess(v, r, tag+"."+key+end, rhs, why)
	}
}

// addAccess adds an entry. What lets everybody send to a domain gives way to a check of an address of it.
func (m *migrator) addAccess(v *server, r restriction, key, rhs, why string) {
	if strings.HasPrefix(key, "to:") && m.access.has(key) {
		if strings.HasPrefix(rhs, "error:") || rhs == "discard" {
			m.access.replace(key, rhs)
		}
		if rhs == "quick:ok" {
			m.access.replace(key, "quick:relay")
		}
		return
	}
	// A recipient that may be sent to because of its domain stays so.
	if address, ok := strings.CutPrefix(key, "to:"); ok && rhs == "quick:ok" {
		if _, domain, ok := strings.Cut(address, "@"); ok && m.access.has("to:@"+domain) && domain != "" && !strings.HasPrefix(address, "@") {
			rhs = "quick:relay"
		}
	}
	if !m.access.add(key, rhs, why) {
		m.note(v.s, r.list, Different, "The first entry for "+key+" holds, and later ones were left out.")
	}
}

// action translates the right hand side of an access table.
func (m *migrator) action(r restriction, value string) (string, error) {
	word, rest, _ := strings.Cut(value, " ")
	rest = strings.TrimSpace(rest)
	if rest == "" {
		rest = "Access denied"
	}
	if err := checkText(rest); err != nil {
		return "", err
	}
	switch upper := strings.ToUpper(word); upper {
	case "OK":
		if r.relays && r.word == "check_client_access" {
			return "quick:relay", nil
		}
		return "ok", nil
	case "REJECT":
		return "error:" + coded("554", "5.7.1", rest), nil
	case "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT":
		return "error:" + coded("450", "4.7.1", rest), nil
	case "DISCARD":
		return "discard", nil
	case "DUNNO":
		return "cont", nil
	case "HOLD", "FILTER", "REDIRECT", "BCC", "PREPEND", "WARN", "INFO":
		return "", errors.New(upper + " has no counterpart in the access map; a milter or a policy service can do it")
	}
	if n, err := strconv.Atoi(word); err == nil {
		switch {
		case len(word) == 3 && n >= 400 && n < 600:
			return "error:" + coded(word, word[:1]+".7.1", rest), nil
		default: // a number stands for OK
			return m.action(r, "OK")
		}
	}
	return "", fmt.Errorf("%s is a restriction or an action without a counterpart", short(word))
}

// coded puts an enhanced code in front of a text that has none.
func coded(code, enhanced, textOf string) string {
	first, rest, _ := strings.Cut(textOf, " ")
	if strings.Count(first, ".") == 2 && first[0] == code[0] {
		return code + " " + first + " " + strings.TrimSpace(rest)
	}
	return code + " " + enhanced + " " + textOf
}

func checkText(s string) error {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return errors.New("its text has characters that cannot stand in a reply")
		}
	}
	return nil
}
