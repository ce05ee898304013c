package migrate

import (
	"os"
	"slices"
	"strings"

	"meta1/mta/migrate/postfix"
)

// global translates what holds for everything.
func (m *migrator) global() {
	m.hostname = m.value(nil, "myhostname")
	if m.hostname == "" {
		m.hostname = m.opt.Hostname
		m.c.Defaults["myhostname"] = m.hostname
	}
	if m.c.Defaults["mydomain"] == "" {
		if _, domain, ok := strings.Cut(m.hostname, "."); ok && strings.Contains(domain, ".") {
			m.c.Defaults["mydomain"] = domain
		} else {
			m.c.Defaults["mydomain"] = m.hostname
		}
		if !strings.Contains(m.hostname, ".") {
			m.c.Defaults["mydomain"] = "localdomain"
		}
	}
	if m.hostname != "" {
		m.root.set("hostname", text(m.hostname), m.why(nil, "myhostname"))
	}
	m.done(nil, "myhostname", "hostname")
	m.mark(nil, "mydomain", NotNeeded, "", "It is used in other values.")
	m.mark(nil, "compatibility_level", NotNeeded, "", "It decides Postfix's defaults, which were taken as it has them.")
	m.origin = m.value(nil, "myorigin")
	if strings.HasPrefix(m.origin, "/") {
		if b, err := os.ReadFile(m.origin); err == nil && len(b) < 1000 {
			m.origin = strings.TrimSpace(string(b))
		} else {
			m.note(nil, "myorigin", NotCarried, "The file "+m.origin+" cannot be read; hostname was taken in its place.")
			m.origin = m.hostname
		}
	}
	m.origin = strings.ToLower(m.origin)
	if m.origin == strings.ToLower(m.hostname) {
		m.done(nil, "myorigin", "hostname")
	} else {
		m.mark(nil, "myorigin", Different, "aliases", "Addresses without a domain in aliases got "+m.origin+"; those that programs hand to meta1 sendmail get "+m.hostname+".")
	}
	m.defaults()
}

// defaults names what Postfix does otherwise without being told, and what matters.
func (m *migrator) defaults() {
	m.differs("meta1 refuses senders whose domain DNS does not know (553 5.1.8), and senders of our own domains that do not exist; Postfix takes them unless restrictions say otherwise.")
	m.differs("meta1 refuses clients that call themselves %s in EHLO (550 5.7.1).", m.hostname)
	if !m.isSet(nil, "smtp_tls_security_level") && !m.isSet(nil, "smtp_use_tls") {
		m.differs("meta1 uses STARTTLS wherever a host offers it; Postfix does not unless smtp_tls_security_level is set.")
	}
	m.differs("meta1 limits the connections of an address (connections_max, connection_rate_max of qmgr.smtps); Postfix has no limit on new ones in a minute.")
}

// domainList reads a list of domains: words, files and tables. Elements that cannot be listed are noted.
func (m *migrator) domainList(name string) []string {
	return m.expandList(name, m.list(nil, name), 0)
}

func (m *migrator) expandList(name string, elements []string, depth int) (domains []string) {
	for _, e := range elements {
		if strings.HasPrefix(e, "!") {
			m.note(nil, name, NotCarried, "The exception "+e+" has no counterpart: add entries by hand.")
			continue
		}
		if strings.HasPrefix(e, "/") && depth < 5 {
			words, err := readWords(e)
			if err != nil {
				m.note(nil, name, NotCarried, "The file "+e+" cannot be read: "+reason(err)+".")
				continue
			}
			domains = append(domains, m.expandList(name, words, depth+1)...)
			continue
		}
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			domains = append(domains, strings.ToLower(e))
			continue
		}
		for _, entry := range m.read(nil, name, t, false) {
			switch {
			case entry.Pattern || entry.Not:
				m.note(nil, name, NotCarried, "Patterns of domains have no counterpart: name the domains that "+t.String()+" means.")
			case entry.Key == "*":
				m.note(nil, name, NotCarried, "A table that has every domain has no counterpart.")
			default:
				domains = append(domains, entry.Key)
			}
		}
	}
	return slices.Compact(domains)
}

// readWords reads a file of a list: words with comments.
func readWords(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var words []string
	for l := range strings.Lines(string(b)) {
		l, _, _ = strings.Cut(l, "#")
		w, err := postfix.Split(l)
		if err != nil {
			return nil, err
		}
		words = append(words, w...)
	}
	return words, nil
}

// read reads a table of a parameter. What cannot be read is noted as not carried over.
func (m *migrator) read(s *postfix.Service, name string, t postfix.Table, alias bool) []postfix.Entry {
	entries, err := t.Read(m.c.Dir, alias)
	if err != nil {
		m.note(s, name, NotCarried, "The table "+t.Type+":"+tableName(t)+" was not carried over: "+reason(err)+".")
		if err == postfix.ErrType {
			m.note(s, name, NotCarried, "Write its entries to a text file, or have a program answer a map of type socket (docs/maps.md).")
		}
	}
	return entries
}

// tableName is what may be printed of a table: not what stands inside of a value.
func tableName(t postfix.Table) string {
	if t.Type == "inline" {
		return "{ ... }"
	}
	return t.Name
}

// reason is an error without a final dot, in one line.
func reason(err error) string { return strings.TrimRight(oneLine(err.Error()), ".") }

// domains finds out which domains are of which class.
func (m *migrator) domains() {
	m.mydest = m.localDomains()
	m.aliasDomains = m.aliasDomainList()
	m.mailboxDomains = m.domainList("virtual_mailbox_domains")
	for _, d := range m.mydest {
		m.mailboxDomains = slices.DeleteFunc(m.mailboxDomains, func(v string) bool { return v == d })
	}
	m.relayDomains()
	if d := m.value(nil, "recipient_delimiter"); d != "" {
		m.root.sub("smar", "").set("address_delimiter", text(d), m.why(nil, "recipient_delimiter"))
		m.done(nil, "recipient_delimiter", "smar address_delimiter")
	} else {
		m.root.sub("smar", "").set("address_delimiter", `""`, m.why(nil, "recipient_delimiter"))
		m.done(nil, "recipient_delimiter", "smar address_delimiter")
	}
}

// localDomains are the domains of mydestination.
func (m *migrator) localDomains() (domains []string) {
	for _, d := range m.domainList("mydestination") {
		d = strings.Trim(d, ".")
		if d != "" && !slices.Contains(domains, d) {
			domains = append(domains, d)
		}
	}
	m.done(nil, "mydestination", "smar mailertable")
	return domains
}

// aliasDomainList are the virtual alias domains: those of the option, which by default are the keys
// of virtual_alias_maps that are domains.
func (m *migrator) aliasDomainList() (domains []string) {
	if m.isSet(nil, "virtual_alias_domains") {
		domains = m.domainList("virtual_alias_domains")
		m.done(nil, "virtual_alias_domains", "smar mailertable")
	} else {
		for _, e := range m.list(nil, "virtual_alias_maps") {
			if t, ok := postfix.ParseTable(e, ""); ok {
				entries, _ := t.Read(m.c.Dir, false) // aliases will note what is wrong
				for _, entry := range entries {
					domains = append(domains, entry.Key)
				}
			}
		}
	}
	domains = slices.DeleteFunc(domains, func(d string) bool { return strings.Contains(d, "@") || !strings.Contains(d, ".") })
	return slices.DeleteFunc(domains, func(d string) bool { return slices.Contains(m.mydest, d) })
}

// relayDomains lets everybody send to the domains that this host relays to.
func (m *migrator) relayDomains() {
	var domains []string
	for _, d := range m.domainList("relay_domains") {
		if d = strings.ToLower(d); !slices.Contains(m.mydest, d) && !slices.Contains(domains, d) {
			domains = append(domains, d)
		}
	}
	listed := m.value(nil, "relay_recipient_maps") != "" && m.relayRecipients(domains)
	parents := slices.Contains(m.list(nil, "parent_domain_matches_subdomains"), "relay_domains")
	for _, d := range domains {
		why := m.why(nil, "relay_domains")
		if rest, ok := strings.CutPrefix(d, "."); ok {
			m.access.add("to:@."+rest, "relay", why)
			continue
		}
		if !listed {
			m.access.add("to:@"+d, "relay", why)
			if parents {
				m.access.add("to:@."+d, "relay", why)
			}
		}
	}
	m.done(nil, "relay_domains", "smar access_map: to:")
	m.done(nil, "parent_domain_matches_subdomains", "keys with a leading dot")
}

// relayRecipients lists the addresses of relay domains that exist. It reports whether the domains
// need no entries of their own.
func (m *migrator) relayRecipients(domains []string) bool {
	const name = "relay_recipient_maps"
	complete := true
	m.mark(nil, name, Different, "smar access_map: to:", "An address that is not listed is refused by 550 5.7.1, not by 550 5.1.1.")
	for _, e := range m.list(nil, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, e+" is not a table.")
			continue
		}
		entries, err := t.Read(m.c.Dir, false)
		if err != nil {
			m.read(nil, name, t, false)
			m.note(nil, name, NotCarried, "Until then every address of relay_domains is taken.")
			complete = false
		}
		for _, entry := range entries {
			_, domain, ok := strings.Cut(entry.Key, "@")
			switch {
			case entry.Pattern:
				m.pattern(nil, name, "to:", entry, "relay", t)
			case entry.Key == "*":
				complete = false
			case ok && (slices.Contains(domains, domain) || under(domain, domains)):
				m.access.add("to:"+entry.Key, "relay", m.why(nil, name)+" ("+t.Type+":"+tableName(t)+")")
			case !ok:
				for _, d := range domains {
					m.access.add("to:"+entry.Key+"@"+strings.TrimPrefix(d, "."), "relay", m.why(nil, name))
				}
			}
		}
	}
	return complete
}

// under reports whether a domain is below one of others.
func under(domain string, parents []string) bool {
	return slices.ContainsFunc(parents, func(p string) bool { return strings.HasSuffix(domain, "."+strings.TrimPrefix(p, ".")) })
}
