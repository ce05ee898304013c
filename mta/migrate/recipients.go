package migrate

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strings"

	"meta1/mta/migrate/postfix"
)

// recipients translates aliases, and says which addresses exist.
func (m *migrator) recipients() {
	m.virtualAliases()
	m.systemAliases()
	m.localUsers()
	for _, n := range []string{"virtual_mailbox_base", "virtual_uid_maps", "virtual_gid_maps", "virtual_minimum_uid"} {
		if len(m.mailboxDomains) == 0 || m.value(nil, "virtual_transport") != "virtual" {
			m.note(nil, n, NotNeeded, "It is about virtual(8), which delivers nothing in this configuration.")
		}
	}
	smar := m.root.sub("smar", "")
	if len(m.aliases.lines) > 0 {
		a := smar.sub("aliases", "")
		a.set("file", text(m.aliases.name), "")
		a.flag("all_domains", "replace_macros")
		if m.value(nil, "recipient_delimiter") != "" {
			a.flag("implicitly_match_detail")
		}
	}
}

// virtualAliases: these hold for addresses of all domains.
func (m *migrator) virtualAliases() {
	const name = "virtual_alias_maps"
	homes := slices.Compact(slices.Concat([]string{m.origin}, m.mydest))
	for _, e := range m.list(nil, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, e+" is not a table.")
			continue
		}
		for _, entry := range m.read(nil, name, t, false) {
			why := m.why(nil, name) + " (" + t.Type + ":" + tableName(t) + ")"
			value, ok := m.members(name, entry, entry.Value)
			switch {
			case entry.Pattern:
				m.note(nil, name, NotCarried, "Patterns of aliases have no counterpart: "+t.String()+" has some; write the addresses that they stand for.")
			case !ok:
			case strings.HasPrefix(entry.Key, "@"):
				m.alias(name, entry.Key, catchAll(value), why)
			case strings.Contains(entry.Key, "@"):
				m.alias(name, entry.Key, value, why)
			case strings.Contains(entry.Key, "."): // names a virtual alias domain
			default:
				for _, d := range homes {
					m.alias(name, entry.Key+"@"+d, value, why)
				}
			}
		}
	}
	m.done(nil, name, "smar aliases")
}

// catchAll makes @domain mean the same user at another domain.
func catchAll(value string) string { return strings.ReplaceAll(value, "<@", "<${user}${extension}@") }

// alias adds an alias, or notes that an earlier one holds.
func (m *migrator) alias(name, key, value, why string) {
	if !m.aliases.add(key, value, why) && name == "alias_maps" {
		m.note(nil, name, Carried, "An entry of virtual_alias_maps goes first for some addresses, as in Postfix.")
	}
}

// systemAliases: those of alias_maps are for the domains of mydestination alone.
func (m *migrator) systemAliases() {
	const name = "alias_maps"
	if len(m.mydest) == 0 {
		m.note(nil, name, NotNeeded, "mydestination is empty, so that they are never looked up.")
		return
	}
	for _, e := range m.list(nil, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, e+" is not a table.")
			continue
		}
		if !m.isSet(nil, name) && t.Type != "hash" {
			continue // Postfix's default has NIS, which nobody means
		}
		for _, entry := range m.read(nil, name, t, true) {
			if value, ok := m.members(name, entry, entry.Value); ok && !entry.Pattern {
				for _, d := range m.mydest {
					m.alias(name, entry.Key+"@"+d, value, m.why(nil, name)+" ("+t.Type+":"+tableName(t)+")")
				}
			}
		}
	}
	m.done(nil, name, "smar aliases")
}

// members makes the right hand side of an alias. ok is false if nothing of it was carried over.
func (m *migrator) members(name string, entry postfix.Entry, value string) (string, bool) {
	var out []string
	for _, w := range aliasWords(value) {
		switch plain := strings.Trim(w, `"`); {
		case plain == "":
		case strings.HasPrefix(plain, "|"):
			m.note(nil, name, NotCarried, "The alias "+entry.Key+" is a command: meta1 executes none; use Sieve, or an LMTP server of its own.")
		case strings.HasPrefix(plain, "/"):
			m.note(nil, name, NotCarried, "The alias "+entry.Key+" is a file, to which meta1 does not deliver.")
		case strings.HasPrefix(plain, ":include:"):
			out = append(out, m.included(name, entry, strings.TrimPrefix(plain, ":include:"))...)
		default:
			out = append(out, m.address(strings.TrimPrefix(w, `\`)))
		}
	}
	for _, a := range out {
		if strings.ContainsAny(a, "<> ,\t") && !strings.Contains(a, `"`) || !strings.Contains(a, "@") {
			m.note(nil, name, NotCarried, "The alias "+entry.Key+" has "+short(a)+", which is no address.")
			return "", false
		}
	}
	if len(out) == 0 {
		return "", false
	}
	return "<" + strings.Join(out, "> <") + ">", true
}

// included reads the members of an :include: list as they are now.
func (m *migrator) included(name string, entry postfix.Entry, path string) (out []string) {
	f, err := os.Open(path)
	if err != nil {
		m.note(nil, name, NotCarried, "The list "+path+" of the alias "+entry.Key+" cannot be read.")
		return nil
	}
	defer f.Close()
	m.note(nil, name, Different, "The members of "+path+" were copied: changes belong into aliases from now on.")
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(out) < 100000 {
		if l := strings.TrimSpace(lines.Text()); l != "" && l[0] != '#' {
			for _, w := range aliasWords(l) {
				if w != "" && !strings.ContainsAny(w[:1], `|/":`) {
					out = append(out, m.address(w))
				} else if w != "" {
					m.note(nil, name, NotCarried, "The list "+path+" has "+short(w)+", which is no address.")
				}
			}
		}
	}
	return out
}

// address gives an address without a domain that of myorigin.
func (m *migrator) address(a string) string {
	a = strings.Trim(a, "<>")
	if strings.Contains(a, "@") {
		return a
	}
	return a + "@" + m.origin
}

// aliasWords divides a list of addresses at commas, and at blanks outside of quotes.
func aliasWords(value string) (words []string) {
	quoted, start := false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ' ' || c == '\t'):
			words = append(words, value[start:i])
			start = i + 1
		}
	}
	return append(words, value[start:])
}

// localUsers says which addresses of local domains exist, besides aliases.
func (m *migrator) localUsers() {
	if len(m.mydest)+len(m.aliasDomains)+len(m.mailboxDomains) == 0 {
		m.note(nil, "virtual_mailbox_maps", NotNeeded, "There are no virtual_mailbox_domains.")
		return
	}
	m.local = true
	smar := m.root.sub("smar", "")
	passwd := m.localRecipients()
	m.mailboxes()
	switch {
	case passwd && len(m.aliasDomains)+len(m.mailboxDomains) == 0:
		u := smar.sub("map", "logins")
		u.set("type", "passwd", "")
		if m.opt.Passwd != "/etc/passwd" {
			u.set("file", text(m.opt.Passwd), "")
		}
		m.userMap("logins")
		return
	case passwd:
		// A login name must not be an address of every domain.
		for _, login := range m.logins() {
			for _, d := range m.mydest {
				m.users.add(login+"@"+d, "ok", "the accounts of "+m.opt.Passwd)
			}
		}
		m.mark(nil, "mydestination", Different, "local_users", "The login names of "+m.opt.Passwd+" were copied to local_users, since there are virtual domains, too: add new accounts there.")
	}
	u := smar.sub("map", "local_users")
	u.set("type", "text", "")
	u.set("file", text(m.users.name), "")
	m.userMap("local_users")
}

func (m *migrator) userMap(name string) {
	l := m.root.sub("smar", "").sub("local_user_map", "")
	l.set("name", name, "")
	if m.value(nil, "recipient_delimiter") != "" {
		l.flag("implicitly_match_detail")
	}
}

// localRecipients reads local_recipient_maps. It reports whether login names are in them.
func (m *migrator) localRecipients() (passwd bool) {
	const name = "local_recipient_maps"
	if len(m.mydest) == 0 {
		m.note(nil, name, NotNeeded, "mydestination is empty.")
		return false
	}
	elements := m.list(nil, name)
	if len(elements) == 0 {
		for _, d := range m.mydest {
			m.users.add("@"+d, "ok", m.why(nil, name)+" is empty: every address is taken")
		}
	}
	aliases := m.list(nil, "alias_maps")
	for _, e := range elements {
		t, ok := postfix.ParseTable(e, "")
		switch {
		case slices.Contains(aliases, e):
		case ok && t.Type == "unix" && strings.HasPrefix(t.Name, "passwd"):
			passwd = true
		case ok:
			for _, entry := range m.read(nil, name, t, false) {
				m.localRecipient(entry, t)
			}
		}
	}
	m.done(nil, name, "smar local_user_map")
	return passwd
}

func (m *migrator) localRecipient(entry postfix.Entry, t postfix.Table) {
	const name = "local_recipient_maps"
	switch {
	case entry.Pattern:
		m.note(nil, name, NotCarried, "Patterns of "+t.String()+" have no counterpart: write the addresses that they stand for.")
	case entry.Key == "*":
		for _, d := range m.mydest {
			m.users.add("@"+d, "ok", m.why(nil, name))
		}
	case strings.Contains(entry.Key, "@"):
		m.users.add(entry.Key, "ok", m.why(nil, name))
	default:
		for _, d := range m.mydest {
			m.users.add(entry.Key+"@"+d, "ok", m.why(nil, name))
		}
	}
}

// mailboxes lists the addresses of virtual mailbox domains.
func (m *migrator) mailboxes() {
	const name = "virtual_mailbox_maps"
	elements := m.list(nil, name)
	all := len(elements) == 0
	for _, e := range elements {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, e+" is not a table.")
			continue
		}
		entries, err := t.Read(m.c.Dir, false)
		if err != nil {
			m.read(nil, name, t, false)
			m.note(nil, name, NotCarried, "Until then every address of these domains is taken, and the delivery agent refuses those that do not exist.")
			all = true
		}
		for _, entry := range entries {
			switch {
			case entry.Pattern:
				m.note(nil, name, NotCarried, "Patterns of "+t.String()+" have no counterpart: every address of virtual_mailbox_domains is taken.")
				all = true
			case entry.Key == "*":
				all = true
			case strings.Contains(entry.Key, "@"):
				m.users.add(entry.Key, "ok", m.why(nil, name)+" ("+t.Type+":"+tableName(t)+")")
			}
		}
	}
	for _, d := range m.mailboxDomains {
		if all {
			m.users.add("@"+d, "ok", "every address of virtual_mailbox_domains is taken")
		}
	}
	m.mark(nil, name, Different, "smar local_user_map", "The addresses alone were taken: where a mailbox is the delivery agent knows.")
	m.done(nil, "virtual_mailbox_domains", "smar mailertable")
}

var loginName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// logins are the login names of the system.
func (m *migrator) logins() (names []string) {
	f, err := os.Open(m.opt.Passwd)
	if err != nil {
		m.note(nil, "mydestination", NotCarried, "The login names cannot be read: "+reason(err)+".")
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(names) < 100000 {
		if name, _, ok := strings.Cut(lines.Text(), ":"); ok && loginName.MatchString(name) {
			names = append(names, strings.ToLower(name))
		}
	}
	return names
}
