package migrate

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"meta1/mta/migrate/postfix"
)

// routes says where mail goes: the mailertable.
func (m *migrator) routes() {
	m.transports()
	for _, d := range m.aliasDomains {
		m.localRoute(d, "lmtp:", m.why(nil, "virtual_alias_maps"))
	}
	if len(m.aliasDomains) > 0 && m.lmtpSocket == "" {
		m.differs("Domains of virtual aliases are local for meta1, so that addresses that no alias has are refused; nothing is delivered for them.")
	}
	m.mailboxRoute()
	m.localDelivery()
	m.relayhost()
	m.mailertable()
}

// localRoute adds an entry for a domain that is local, unless transport_maps has one.
func (m *migrator) localRoute(domain, rhs, why string) {
	m.mt.add(domain, rhs, why)
	m.local = true
}

// route is what a transport of Postfix becomes.
type route struct {
	rhs   string // of the mailertable
	reply string // of the access map in its place: error:... or discard
	note  string // what differs
	why   string // why there is none
}

// transport translates transport:nexthop. domain is the one that the mail is for, or empty for any.
func (m *migrator) transport(spec, domain string) route {
	name, hop, _ := strings.Cut(spec, ":")
	command := m.command(name)
	switch {
	case name == "" && hop != "", command == "smtp" && hop != "":
		return smtpRoute(hop, m.value(nil, "smtp_tcp_port"))
	case command == "smtp", name == "":
		return route{rhs: "{ IPv_Select = " + m.family() + "; }"}
	case command == "lmtp":
		return m.lmtpRoute(hop)
	case name == "error" || name == "retry":
		return errorRoute(name, hop)
	case name == "discard":
		return route{reply: "discard"}
	case name == "local" || name == "virtual":
		return m.ldaRoute(name)
	case command == "pipe":
		return route{why: "The transport " + name + " executes a program, which meta1 does not: have it speak LMTP, and name its address."}
	}
	return route{why: "The transport " + name + " has no counterpart."}
}

// command is the program of a transport.
func (m *migrator) command(name string) string {
	for i := range m.c.Services {
		if s := &m.c.Services[i]; s.Name == name && s.Type == "unix" {
			return s.Command
		}
	}
	if name == "smtp" || name == "relay" {
		return "smtp"
	}
	if name == "lmtp" {
		return "lmtp"
	}
	return ""
}

// smtpRoute reads a next hop of SMTP: host, [host], [address], each perhaps with a port.
func smtpRoute(hop, defaultPort string) route {
	if strings.ContainsAny(hop, ", \t") {
		return route{why: "Several next hops have no counterpart but addresses: write { ip = { a, b }; }."}
	}
	direct := strings.HasPrefix(hop, "[")
	host, port := hop, ""
	if direct {
		end := strings.IndexByte(hop, ']')
		if end < 0 {
			return route{why: hop + " has no closing bracket."}
		}
		host, port = hop[1:end], strings.TrimPrefix(hop[end+1:], ":")
	} else if h, p, ok := strings.Cut(hop, ":"); ok {
		host, port = h, p
	}
	host = strings.TrimPrefix(strings.TrimPrefix(host, "ipv6:"), "IPv6:")
	if port == "" && defaultPort != "smtp" && defaultPort != "25" {
		port = defaultPort
	}
	rhs := "{ host = " + text(host) + ";"
	switch ip, err := netip.ParseAddr(host); {
	case host == "" || strings.ContainsAny(host, `"{}/`):
		return route{why: short(hop) + " is no host."}
	case err == nil:
		rhs = "{ ip = { " + text(ip.String()) + " };"
	case direct:
		rhs += " flags = no_MX_lookup;"
	}
	if port != "" {
		n, ok := portOf(port)
		if !ok {
			return route{why: short(port) + " is no port."}
		}
		rhs += " port = " + strconv.Itoa(n) + ";"
	}
	return route{rhs: rhs + " }"}
}

// portOf gives the number of a port.
func portOf(s string) (int, bool) {
	switch s {
	case "smtp":
		return 25, true
	case "submission":
		return 587, true
	case "smtps", "submissions", "urd":
		return 465, true
	case "lmtp":
		return 24, true
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0 && n < 65536
}

// lmtpRoute reads a next hop of LMTP: unix:path, inet:host:port or host:port.
func (m *migrator) lmtpRoute(hop string) route {
	if path, ok := strings.CutPrefix(hop, "unix:"); ok {
		if !filepath.IsAbs(path) {
			path = filepath.Join(m.queueDir(), path)
		}
		if m.lmtpSocket == "" {
			m.lmtpSocket = path
		}
		if m.lmtpSocket != path {
			return route{why: "meta1 has one Unix socket for LMTP (LMTP_socket), and this is a second one: let the program listen at a TCP port."}
		}
		if strings.HasPrefix(path, m.queueDir()) {
			m.todo("The socket %s lies in Postfix's queue directory. Have its owner (Dovecot: unix_listener of service lmtp) listen where the account of meta1 may go, such as /run/dovecot/lmtp, and say so in LMTP_socket.", path)
		}
		return route{rhs: "lmtp:"}
	}
	hop = strings.TrimPrefix(hop, "inet:")
	r := smtpRoute(hop, m.value(nil, "lmtp_tcp_port"))
	if r.rhs == "" {
		return r
	}
	if !strings.Contains(r.rhs, "port =") {
		r.rhs = strings.TrimSuffix(r.rhs, "}") + "port = 24; }"
	}
	r.rhs = strings.Replace(strings.Replace(r.rhs, "{ ", "{ protocol = lmtp; ", 1), " flags = no_MX_lookup;", "", 1)
	return r
}

func (m *migrator) queueDir() string {
	if d := m.value(nil, "queue_directory"); d != "" {
		return d
	}
	return "/var/spool/postfix"
}

// errorRoute makes a reply of error:text, which may begin with codes.
func errorRoute(kind, textOf string) route {
	code, enhanced := "550", "5.1.1"
	if kind == "retry" {
		code, enhanced = "450", "4.3.0"
	}
	words := strings.Fields(textOf)
	if len(words) > 0 && len(words[0]) == 3 && (words[0][0] == '4' || words[0][0] == '5') {
		code, words = words[0], words[1:]
		enhanced = code[:1] + ".0.0"
	}
	if len(words) > 0 && strings.Count(words[0], ".") == 2 && words[0][0] == code[0] {
		enhanced, words = words[0], words[1:]
	}
	t := strings.Join(words, " ")
	if t == "" {
		t = "mail is not delivered"
	}
	return route{reply: "error:" + code + " " + enhanced + " " + t}
}

// ldaRoute delivers to mailboxes of this host: to the LMTP server that there is, or to meta1's own.
func (m *migrator) ldaRoute(name string) route {
	if m.lmtpSocket != "" && !m.hasLDA {
		return route{rhs: "lmtp:", note: "Mail that " + name + "(8) put into mailboxes goes to the LMTP server at " + m.lmtpSocket + "."}
	}
	if !m.hasLDA {
		m.hasLDA = true
		m.lmtpSocket = "lmtpsock"
		l := m.root.sub("lda", "")
		l.why = "meta1's own delivery agent takes the place of " + name + "(8): a Maildir for each user below the main queue directory."
		l.set("start_action", "nostartaccept", "")
		sock := l.sub("listen_socket", "")
		sock.set("type", "unix", "")
		sock.set("path", "lmtpsock", "")
		l.set("path", `"meta1"`, "")
		l.set("arguments", `"meta1 lda --create --maildir mail"`, "")
	}
	return route{rhs: "lmtp:", note: "Mailboxes are Maildirs mail/USER in the main queue directory, kept by meta1's delivery agent: no .forward, no commands, no mbox. Dovecot's LMTP server can take its place (LMTP_socket)."}
}

// family is IPv_Select for inet_protocols.
func (m *migrator) family() string {
	switch p := m.list(nil, "inet_protocols"); {
	case slices.Equal(p, []string{"ipv4"}):
		return "IPv4_Only"
	case slices.Equal(p, []string{"ipv6"}):
		return "IPv6_Only"
	}
	return "IPv4_Preferred"
}

// mailboxRoute delivers virtual mailbox domains by virtual_transport.
func (m *migrator) mailboxRoute() {
	const name = "virtual_transport"
	if len(m.mailboxDomains) == 0 {
		m.note(nil, name, NotNeeded, "There are no virtual_mailbox_domains.")
		m.note(nil, "virtual_mailbox_domains", NotNeeded, "It has no domains, or those of mydestination, which go first.")
		return
	}
	r := m.transport(m.value(nil, name), "")
	for _, d := range m.mailboxDomains {
		m.applyRoute(name, d, r, m.why(nil, "virtual_mailbox_domains"))
	}
	m.done(nil, name, "smar mailertable")
	m.done(nil, "virtual_mailbox_domains", "smar mailertable")
	if r.note != "" {
		m.note(nil, "virtual_mailbox_domains", Different, r.note)
	}
	if r.rhs != "" && !strings.Contains(r.rhs, "lmtp") {
		for _, d := range m.mailboxDomains {
			m.relayTo(d, "virtual_mailbox_maps")
		}
	}
}

// relayTo lets everybody send to the addresses of a domain that goes on by SMTP.
func (m *migrator) relayTo(domain, name string) {
	all := true
	for _, l := range m.users.lines {
		if strings.HasSuffix(l.key, "@"+domain) && l.key != "@"+domain {
			all = false
			m.access.add("to:"+l.key, "relay", m.why(nil, name))
		}
	}
	if all || m.users.has("@"+domain) {
		m.access.add("to:@"+domain, "relay", m.why(nil, name))
	}
}

// localDelivery delivers the domains of mydestination.
func (m *migrator) localDelivery() {
	name := "mailbox_transport"
	if !m.isSet(nil, name) || m.value(nil, name) == "" {
		name = "local_transport"
	} else {
		m.note(nil, "local_transport", NotNeeded, "mailbox_transport delivers.")
	}
	if len(m.mydest) == 0 {
		m.note(nil, name, NotNeeded, "mydestination is empty.")
		m.note(nil, "home_mailbox", NotNeeded, "mydestination is empty.")
		return
	}
	spec := m.value(nil, name)
	if !m.isSet(nil, name) {
		spec = "local:"
	}
	r := m.transport(spec, "")
	for _, d := range m.mydest {
		m.applyRoute(name, d, r, m.why(nil, "mydestination"))
	}
	m.done(nil, name, "smar mailertable")
	if r.note != "" {
		m.note(nil, "mydestination", Different, r.note)
	}
	if r.why != "" {
		m.note(nil, "mydestination", NotCarried, r.why)
	}
	if m.isSet(nil, "home_mailbox") && m.value(nil, "home_mailbox") != "" {
		m.mark(nil, "home_mailbox", Different, "lda", "meta1's delivery agent keeps Maildirs in a directory of its own.")
	}
}

// applyRoute writes what a transport became for a domain.
func (m *migrator) applyRoute(name, domain string, r route, why string) {
	switch {
	case r.rhs != "":
		m.mt.add(domain, r.rhs, why)
		m.local = m.local || strings.Contains(r.rhs, "lmtp")
	case r.reply != "":
		m.access.add("to:@"+domain, r.reply, why)
	default:
		m.note(nil, name, NotCarried, r.why)
	}
	if r.note != "" {
		m.note(nil, name, Different, r.note)
	}
}

// transports reads transport_maps.
func (m *migrator) transports() {
	const name = "transport_maps"
	for _, e := range m.list(nil, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, e+" is not a table.")
			continue
		}
		for _, entry := range m.read(nil, name, t, false) {
			m.transportEntry(name, entry, t)
		}
	}
	m.done(nil, name, "smar mailertable")
}

func (m *migrator) transportEntry(name string, entry postfix.Entry, t postfix.Table) {
	why := m.why(nil, name) + " (" + t.Type + ":" + tableName(t) + ")"
	key := entry.Key
	if entry.Pattern {
		m.note(nil, name, NotCarried, "Patterns of "+t.String()+" have no counterpart: write the domains that they stand for.")
		return
	}
	if key == "*" {
		key = "."
	}
	r := m.transport(entry.Value, key)
	toKey := "to:@" + strings.TrimPrefix(key, "@")
	if i := strings.IndexByte(key, '@'); i > 0 {
		m.root.sub("smar", "").sub("mailertable", "").flag("full_address")
		toKey = "to:" + key
	}
	switch {
	case r.rhs != "":
		m.mt.add(key, r.rhs, why)
	case key == "." && r.reply != "":
		m.note(nil, name, NotCarried, "The entry * that refuses or drops all other mail has no counterpart.")
	case r.reply != "":
		m.access.replace(toKey, r.reply)
		m.access.add(toKey, r.reply, why)
	default:
		m.note(nil, name, NotCarried, "Entry "+entry.Key+": "+r.why)
	}
	if r.note != "" {
		m.note(nil, name, Different, "Entry "+entry.Key+": "+r.note)
	}
}

// relayhost sends everything else to one host.
func (m *migrator) relayhost() {
	for _, n := range []string{"default_transport", "relay_transport"} {
		spec := m.value(nil, n)
		kind, hop, _ := strings.Cut(spec, ":")
		switch {
		case !m.isSet(nil, n):
		case m.command(kind) == "smtp" && hop == "":
			m.done(nil, n, "smar mailertable")
		case n == "default_transport":
			if r := m.transport(spec, ""); r.rhs != "" && m.mt.add(".", r.rhs, m.why(nil, n)) {
				m.done(nil, n, "smar mailertable: .")
			} else if r.reply != "" {
				m.note(nil, n, NotCarried, "That all other mail is refused or dropped has no counterpart: leave out what lets clients relay.")
			} else {
				m.note(nil, n, NotCarried, r.why)
			}
		default:
			m.relayTransport(n, spec)
		}
	}
	host := m.value(nil, "relayhost")
	if host == "" {
		m.done(nil, "relayhost", "")
		return
	}
	r := smtpRoute(host, m.value(nil, "smtp_tcp_port"))
	switch {
	case r.rhs == "":
		m.note(nil, "relayhost", NotCarried, r.why)
	case !m.mt.add(".", r.rhs, m.why(nil, "relayhost")):
		m.note(nil, "relayhost", Carried, "An entry * of transport_maps goes first, as in Postfix.")
	default:
		m.done(nil, "relayhost", "smar mailertable: .")
	}
}

// relayTransport sends the domains of relay_domains another way.
func (m *migrator) relayTransport(name, spec string) {
	r := m.transport(spec, "")
	for _, d := range m.domainList("relay_domains") {
		m.applyRoute(name, d, r, m.why(nil, name))
	}
	m.done(nil, name, "smar mailertable")
	if strings.HasPrefix(r.rhs, "lmtp") || strings.Contains(r.rhs, "protocol = lmtp") {
		for _, l := range m.access.lines { // local for meta1 now: only what exists is taken
			if a, ok := strings.CutPrefix(l.key, "to:"); ok && l.value == "relay" && !strings.HasPrefix(a, "@.") {
				m.users.add(a, "ok", l.why)
			}
		}
		if len(m.users.lines) > 0 && !m.local {
			u := m.root.sub("smar", "").sub("map", "local_users")
			u.set("type", "text", "")
			u.set("file", text(m.users.name), "")
			m.userMap("local_users")
		}
		m.local = true
	}
}

// mailertable declares what the routes need.
func (m *migrator) mailertable() {
	smar := m.root.sub("smar", "")
	smar.sub("mailertable", "").set("file", text(m.mt.name), "")
	if m.lmtpSocket != "" {
		m.root.sub("smtpc", "").set("LMTP_socket", text(m.lmtpSocket), "")
		if !m.hasLDA {
			m.todo("The account of meta1 must be able to connect to %s.", m.lmtpSocket)
		}
	}
	smar.set("IPv_Select", m.family(), m.why(nil, "inet_protocols"))
	m.done(nil, "inet_protocols", "smar IPv_Select, smtps listen_socket")
	if m.value(nil, "smtp_tcp_port") != "smtp" {
		if n, ok := portOf(m.value(nil, "smtp_tcp_port")); ok {
			m.root.sub("smtpc", "").set("remote_port", fmt.Sprint(n), m.why(nil, "smtp_tcp_port"))
			m.done(nil, "smtp_tcp_port", "smtpc remote_port")
		}
	}
	m.done(nil, "lmtp_tcp_port", "smar mailertable")
}
