package migrate

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"meta1/mta/migrate/postfix"
)

// server is an SMTP server of Postfix and the section that it becomes.
type server struct {
	s       *postfix.Service // with the options of smtpd(8)
	screen  *postfix.Service // postscreen(8) in front of it, if there is one
	conf    *section
	name    string
	auth    bool // AUTH is offered
	tls     bool
	access  bool // the access map is asked
	mustTLS bool
}

// smtpServers finds the servers of master.cf.
func (m *migrator) smtpServers() (servers []*server) {
	var behind *postfix.Service
	for i := range m.c.Services {
		if s := &m.c.Services[i]; s.Type == "pass" && s.Command == "smtpd" {
			behind = s
		}
	}
	for i := range m.c.Services {
		s := &m.c.Services[i]
		switch {
		case s.Type == "inet" && s.Command == "smtpd":
			servers = append(servers, &server{s: s})
		case s.Type == "inet" && s.Command == "postscreen" && behind != nil:
			servers = append(servers, &server{s: behind, screen: s})
		}
	}
	return servers
}

// servers makes a section smtps of each server.
func (m *migrator) servers() {
	taken := map[string]bool{}
	found := m.smtpServers()
	if len(found) == 0 { // Postfix's sendmail needs no server, and that of meta1 does
		c := m.root.add("smtps", "local")
		c.why = "There is no smtpd in master.cf: this is for meta1 sendmail and programs of this host."
		c.flag("8bitmime", "access")
		l := c.sub("listen_socket", "")
		l.set("type", "inet", "")
		l.set("address", "127.0.0.1", "")
		l.set("port", "25", "")
		m.access.add("cltaddr:127.", "quick:relay", "this host")
		m.mark(nil, "inet_interfaces", NotNeeded, "", "There is no smtpd in master.cf.")
	}
	for i, v := range found {
		where := v.s
		if v.screen != nil {
			where = v.screen
		}
		v.name = serverName(where.Name)
		for n := 2; taken[v.name]; n++ {
			v.name = serverName(where.Name) + strconv.Itoa(n)
		}
		taken[v.name] = true
		v.conf = m.root.add("smtps", v.name)
		v.conf.why = fmt.Sprintf("master.cf:%d %s", where.Line, where.ID())
		v.conf.set("id", strconv.Itoa(i), "")
		m.listen(v, where)
		m.serverOptions(v)
		m.serverTLS(v)
		m.serverAuth(v)
		m.restrictions(v)
		m.milters(v)
		m.postscreen(v)
		m.serverFlags(v)
	}
	m.accessMap()
}

// serverName makes the name of a section of that of a service.
func serverName(service string) string {
	if i := strings.LastIndexByte(service, ':'); i >= 0 {
		service = service[i+1:]
	}
	switch service {
	case "smtp", "25":
		return "mx"
	case "587":
		return "submission"
	case "smtps", "465":
		return "submissions"
	}
	if _, err := strconv.Atoi(service); err == nil {
		return "port" + service
	}
	var b strings.Builder
	for _, c := range []byte(service) {
		if isNameByte(c) {
			b.WriteByte(c)
		}
	}
	if b.Len() == 0 || b.String()[0] >= '0' && b.String()[0] <= '9' {
		return "server" + b.String()
	}
	return b.String()
}

// listen gives a section its sockets.
func (m *migrator) listen(v *server, where *postfix.Service) {
	host, port := "", where.Name
	if i := strings.LastIndexByte(where.Name, ':'); i >= 0 {
		host, port = strings.Trim(where.Name[:i], "[]"), where.Name[i+1:]
	}
	n, ok := portOf(port)
	if !ok {
		if p, err := net.LookupPort("tcp", port); err == nil {
			n, ok = p, true
		}
	}
	if !ok {
		n = 0
		m.todo("The port %s of %s in master.cf is not known: set it in section smtps %s.", port, where.ID(), v.name)
	}
	socket := func(kind, address string) {
		s := v.conf.add("listen_socket", "")
		s.set("type", kind, "")
		if address != "" {
			s.set("address", text(address), "")
		}
		s.set("port", strconv.Itoa(n), "")
	}
	protocols := m.list(v.s, "inet_protocols")
	has := func(p string) bool { return slices.Contains(protocols, "all") || slices.Contains(protocols, p) }
	for _, a := range m.interfaces(v.s, host) {
		ip, err := netip.ParseAddr(a)
		switch {
		case a == "all" || a == "any":
			if has("ipv4") {
				socket("inet", "")
			}
			if has("ipv6") {
				socket("inet6", "")
			}
		case err != nil:
			m.note(v.s, "inet_interfaces", NotCarried, "The address of "+a+" has to be written into section smtps "+v.name+" by hand.")
		case ip.Is4() && has("ipv4"):
			socket("inet", ip.String())
		case ip.Is6() && has("ipv6"):
			socket("inet6", ip.String())
		}
	}
	m.done(v.s, "inet_interfaces", "smtps listen_socket")
	m.done(v.s, "inet_protocols", "smtps listen_socket")
}

// interfaces are the addresses to listen on; a host in master.cf goes first.
func (m *migrator) interfaces(s *postfix.Service, host string) []string {
	names := []string{host}
	if host == "" {
		names = m.list(s, "inet_interfaces")
	}
	var out []string
	for _, n := range names {
		switch n = strings.Trim(n, "[]"); n {
		case "loopback-only":
			out = append(out, "127.0.0.1", "::1")
		case "localhost":
			out = append(out, "127.0.0.1")
		default:
			out = append(out, n)
		}
	}
	return slices.Compact(out)
}

// serverFlags sets the flags that depend on several parameters.
func (m *migrator) serverFlags(v *server) {
	discard := strings.ToLower(m.value(v.s, "smtpd_discard_ehlo_keywords"))
	words := strings.FieldsFunc(discard, func(r rune) bool { return r == ' ' || r == ',' })
	if !slices.Contains(words, "8bitmime") {
		v.conf.flag("8bitmime")
	}
	if slices.Contains(words, "chunking") {
		v.conf.flag("-chunking")
	}
	if slices.Contains(words, "smtputf8") || !m.yes(v.s, "smtputf8_enable") {
		v.conf.flag("-smtputf8")
	}
	m.done(v.s, "smtputf8_enable", "smtps flag smtputf8")
	m.done(v.s, "smtpd_discard_ehlo_keywords", "smtps flags")
	for _, w := range words {
		if !slices.Contains([]string{"8bitmime", "chunking", "smtputf8", "etrn", "silent-discard", ""}, w) {
			m.note(v.s, "smtpd_discard_ehlo_keywords", NotCarried, strings.ToUpper(w)+" cannot be left out of what EHLO offers.")
		}
	}
	if v.access {
		v.conf.flag("access")
		if m.yes(v.s, "smtpd_delay_reject") {
			v.conf.flag("delay_checks")
		}
	}
	m.done(v.s, "smtpd_delay_reject", "smtps flag delay_checks")
	if m.yes(v.s, "smtpd_helo_required") {
		v.conf.flag("require_EHLO_before_MAIL")
	}
	m.done(v.s, "smtpd_helo_required", "smtps flag require_EHLO_before_MAIL")
	if m.yes(v.s, "allow_untrusted_routing") {
		v.conf.flag("allow_untrusted_routing")
	}
	m.done(v.s, "allow_untrusted_routing", "smtps flag allow_untrusted_routing")
	if !m.yes(v.s, "strict_rfc821_envelopes") {
		v.conf.flag("allow_space_after_colon_for_MAIL_and_RCPT")
	}
	m.mark(v.s, "strict_rfc821_envelopes", Carried, "smtps flag allow_space_after_colon_for_MAIL_and_RCPT", "")
	if m.value(v.s, "smtpd_authorized_verp_clients") != "" {
		v.conf.flag("xverp")
		m.mark(v.s, "smtpd_authorized_verp_clients", Different, "smtps flag xverp", "XVERP is offered to all clients of the server.")
	}
}

// serverTLS translates STARTTLS and TLS from the beginning.
func (m *migrator) serverTLS(v *server) {
	s := v.s
	level := m.value(s, "smtpd_tls_security_level")
	name := "smtpd_tls_security_level"
	switch {
	case level != "":
	case m.yes(s, "smtpd_enforce_tls"):
		level, name = "encrypt", "smtpd_enforce_tls"
	case m.yes(s, "smtpd_use_tls"):
		level, name = "may", "smtpd_use_tls"
	}
	for _, n := range []string{"smtpd_tls_security_level", "smtpd_use_tls", "smtpd_enforce_tls"} {
		m.done(s, n, "smtps tls")
	}
	wrapper := m.yes(s, "smtpd_tls_wrappermode")
	if level == "none" || level == "" && !wrapper {
		return
	}
	conf := &section{keyword: "tls"}
	if !m.certificates(s, conf) {
		if level != "" {
			m.note(s, name, Different, "There is no certificate (smtpd_tls_cert_file), so STARTTLS is not offered.")
		}
		return
	}
	v.tls = true
	v.conf.sections = append(v.conf.sections, conf)
	m.authorities(s, conf, "smtpd_tls_")
	if !m.yes(s, "smtpd_tls_ask_ccert") && !m.yes(s, "smtpd_tls_req_ccert") {
		conf.flag("-request_cert")
	}
	m.done(s, "smtpd_tls_ask_ccert", "smtps tls flag request_cert")
	if m.yes(s, "smtpd_tls_req_ccert") {
		m.note(s, "smtpd_tls_req_ccert", Different, "A certificate is asked for and not demanded: an entry smtps_session_conf: with tls_requirements { flags = { verified }; } does that.")
	}
	m.done(s, "smtpd_tls_req_ccert", "smtps tls flag request_cert")
	m.tlsOptions(s, conf, "smtpd_tls_")
	if wrapper {
		v.conf.flag("smtps")
	}
	m.done(s, "smtpd_tls_wrappermode", "smtps flag smtps")
	v.mustTLS = level == "encrypt" && !wrapper
	if v.mustTLS {
		m.demandTLS(v, name)
	}
}

// demandTLS has a server refuse mail without TLS: an entry of the access map would hold for all
// servers.
func (m *migrator) demandTLS(v *server, name string) {
	c := v.conf.add("check", "mail")
	c.why = m.why(v.s, name) + " = encrypt: no mail without TLS"
	c.set("condition", "cipher_bits < 1", "")
	c.set("action", "permfail", "")
}

// certificates names certificate and key. It reports whether there is one.
func (m *migrator) certificates(s *postfix.Service, conf *section) bool {
	if chain := m.list(s, "smtpd_tls_chain_files"); len(chain) > 0 {
		key, cert := chain[0], chain[0]
		if len(chain) > 1 && len(chain)%2 == 0 {
			cert = chain[1]
		}
		conf.set("cert_file", text(cert), m.why(s, "smtpd_tls_chain_files"))
		conf.set("key_file", text(key), "")
		conf.flag("use_chain")
		m.done(s, "smtpd_tls_chain_files", "smtps tls cert_file, key_file")
		if len(chain) > 2 || len(chain) == 2 && filepath.Ext(key) != ".key" {
			m.note(s, "smtpd_tls_chain_files", Different, "The first file was taken for the key and the second for its certificate; name further ones in EC_cert_file and EC_key_file.")
		}
		return true
	}
	found := false
	for _, k := range []struct{ cert, key, option string }{{"cert_file", "key_file", ""}, {"eccert_file", "eckey_file", "EC_"}} {
		cert := m.value(s, "smtpd_tls_"+k.cert)
		if cert == "" || cert == "none" {
			continue
		}
		found = true
		conf.set(k.option+"cert_file", text(cert), m.why(s, "smtpd_tls_"+k.cert))
		conf.set(k.option+"key_file", text(m.value(s, "smtpd_tls_"+k.key)), m.why(s, "smtpd_tls_"+k.key))
		m.done(s, "smtpd_tls_"+k.cert, "smtps tls "+k.option+"cert_file")
		m.done(s, "smtpd_tls_"+k.key, "smtps tls "+k.option+"key_file")
	}
	if found {
		conf.flag("use_chain")
	}
	return found
}

// authorities names those that certificates are verified by.
func (m *migrator) authorities(s *postfix.Service, conf *section, prefix string) {
	if f := m.value(s, prefix+"CAfile"); f != "" {
		conf.set("CAcert_file", text(f), m.why(s, prefix+"CAfile"))
		m.done(s, prefix+"CAfile", "tls CAcert_file")
	}
	if d := m.value(s, prefix+"CApath"); d != "" {
		conf.set("CAcert_directory", text(d), m.why(s, prefix+"CApath"))
		m.done(s, prefix+"CApath", "tls CAcert_directory")
	}
}

// tlsOptions translates what is about the handshake; prefix is smtpd_tls_ or smtp_tls_.
func (m *migrator) tlsOptions(s *postfix.Service, conf *section, prefix string) {
	for _, n := range []string{"mandatory_protocols", "protocols"} {
		if !m.isSet(s, prefix+n) {
			continue
		}
		off, err := protocolsOff(m.value(s, prefix+n))
		if err != nil {
			m.note(s, prefix+n, NotCarried, reason(err)+".")
			continue
		}
		if len(off) > 0 {
			conf.set("options", list(off...), m.why(s, prefix+n))
		}
		m.mark(s, prefix+n, Carried, "tls options", "")
	}
	if m.isSet(s, prefix+"mandatory_protocols") && m.isSet(s, prefix+"protocols") && m.value(s, prefix+"mandatory_protocols") != m.value(s, prefix+"protocols") {
		m.note(s, prefix+"mandatory_protocols", Different, "There is one list for mail that demands TLS and mail that does not: that of "+prefix+"protocols was taken.")
	}
	for _, n := range []string{"ciphers", "mandatory_ciphers", "exclude_ciphers", "mandatory_exclude_ciphers"} {
		m.mark(s, prefix+n, Different, "tls CipherList", "Go's own choice of ciphers holds: forward secrecy with AES-GCM, AES-CBC or ChaCha20, no aNULL, RC4, 3DES, MD5 and no key exchange by RSA.")
	}
	depth := prefix + map[string]string{"smtpd_tls_": "ccert_verifydepth", "smtp_tls_": "scert_verifydepth"}[prefix]
	if n, err := strconv.Atoi(m.value(s, depth)); err == nil && m.isSet(s, depth) {
		conf.set("verify_depth", strconv.Itoa(min(n, 100)), m.why(s, depth))
		m.done(s, depth, "tls verify_depth")
	}
	if d := m.value(s, prefix+"fingerprint_digest"); m.isSet(s, prefix+"fingerprint_digest") {
		if slices.Contains([]string{"sha1", "sha224", "sha256", "sha384", "sha512"}, d) {
			conf.set("Digest", d, m.why(s, prefix+"fingerprint_digest"))
			m.done(s, prefix+"fingerprint_digest", "tls Digest")
		} else {
			m.note(s, prefix+"fingerprint_digest", NotCarried, "meta1 has sha1 and the sha2 family.")
		}
	}
	if m.isSet(s, prefix+"session_cache_timeout") {
		m.convert(s, prefix+"session_cache_timeout", conf, "cache_timeout", seconds)
	}
}

// protocolsOff reads a list of TLS versions: >=TLSv1.2, !TLSv1, TLSv1.3.
func protocolsOff(value string) (options []string, err error) {
	versions := []string{"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}
	off := map[string]bool{}
	only := map[string]bool{}
	for _, w := range strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ',' || r == ':' }) {
		switch {
		case strings.HasPrefix(w, ">="):
			i := slices.Index(versions, w[2:])
			if i < 0 && !strings.HasPrefix(w, ">=SSL") {
				return nil, fmt.Errorf("%.30q is no version of TLS", w)
			}
			for _, v := range versions[:max(i, 0)] {
				off[v] = true
			}
		case strings.HasPrefix(w, "<="):
			i := slices.Index(versions, w[2:])
			if i < 0 {
				return nil, fmt.Errorf("%.30q is no version of TLS", w)
			}
			for _, v := range versions[i+1:] {
				off[v] = true
			}
		case strings.HasPrefix(w, "!"):
			off[w[1:]] = true
		default:
			only[w] = true
		}
	}
	names := []string{"no_TLSv1", "no_TLSv1_1", "no_TLSv1_2", "no_TLSv1_3"}
	for i, v := range versions {
		switch {
		case off[v] || len(only) > 0 && !only[v]:
			options = append(options, names[i])
		case only[v] && i < 2:
			options = append(options, "-"+names[i])
		}
	}
	return options, nil
}

// serverAuth translates AUTH.
func (m *migrator) serverAuth(v *server) {
	s := v.s
	if !m.yes(s, "smtpd_sasl_auth_enable") {
		m.done(s, "smtpd_sasl_auth_enable", "")
		return
	}
	a := &section{keyword: "auth"}
	path := m.value(s, "smtpd_sasl_path")
	switch m.value(s, "smtpd_sasl_type") {
	case "dovecot":
		if address, ok := strings.CutPrefix(path, "inet:"); ok {
			a.set("dovecot_address", text(address), m.why(s, "smtpd_sasl_path"))
			break
		}
		path = strings.TrimPrefix(path, "unix:")
		if !filepath.IsAbs(path) || s.Chroot {
			path = filepath.Join(m.queueDir(), path)
		}
		a.set("dovecot_socket", text(path), m.why(s, "smtpd_sasl_path"))
		m.todo("Dovecot's socket %s must let the account of meta1 in (docs/auth.md: unix_listener of service auth); if it lies in Postfix's queue directory give it another place, and name that in dovecot_socket.", path)
	default:
		a.set("saslauthd_socket", text("/run/saslauthd/mux"), m.why(s, "smtpd_sasl_type"))
		m.note(s, "smtpd_sasl_type", Different, "Cyrus SASL's own passwords (sasldb, auxprop) are not read: saslauthd is asked. With other sources name password_map or dovecot_socket.")
		m.note(s, "smtpd_sasl_path", Different, "Cyrus SASL's own configuration is not read.")
	}
	v.auth = true
	m.done(s, "smtpd_sasl_auth_enable", "smtps auth")
	m.done(s, "smtpd_sasl_type", "smtps auth")
	m.done(s, "smtpd_sasl_path", "smtps auth")
	mechanisms := []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "XOAUTH2", "OAUTHBEARER", "DIGEST-MD5", "GSSAPI", "EXTERNAL"}
	if f := m.list(s, "smtpd_sasl_mechanism_filter"); len(f) > 0 && m.value(s, "smtpd_sasl_mechanism_filter") != "!external, static:rest" {
		var only []string
		for _, w := range f {
			if strings.ContainsAny(w, "!:/") {
				m.note(s, "smtpd_sasl_mechanism_filter", NotCarried, "Only names of mechanisms have a counterpart.")
				only = nil
				break
			}
			only = append(only, strings.ToUpper(w))
		}
		if only != nil {
			a.set("mechanisms", list(only...), m.why(s, "smtpd_sasl_mechanism_filter"))
			m.done(s, "smtpd_sasl_mechanism_filter", "smtps auth mechanisms")
			mechanisms = only
		}
	}
	m.done(s, "smtpd_sasl_mechanism_filter", "smtps auth mechanisms")
	a.set("trusted_mechanisms", list(mechanisms...), "permit_sasl_authenticated")
	m.authFlags(s, a, v.tls)
	m.senderLogin(s, a)
	v.conf.sections = append(v.conf.sections, a)
}

func (m *migrator) authFlags(s *postfix.Service, a *section, tls bool) {
	plain := m.list(s, "smtpd_sasl_security_options")
	for _, o := range plain {
		switch o {
		case "noplaintext", "noactive", "nodictionary", "forward_secrecy", "mutual_auth":
			if o != "noplaintext" {
				a.flag(o)
			}
		case "noanonymous":
		default:
			m.note(s, "smtpd_sasl_security_options", NotCarried, "There is no option "+short(o)+".")
		}
	}
	for _, o := range m.list(s, "smtpd_sasl_tls_security_options") {
		if o == "noplaintext" {
			m.note(s, "smtpd_sasl_tls_security_options", Different, "Mechanisms that send a password are offered over TLS; mechanisms of section auth can leave them out.")
		}
	}
	m.done(s, "smtpd_sasl_security_options", "smtps auth flags")
	m.done(s, "smtpd_sasl_tls_security_options", "smtps auth flags")
	if !m.yes(s, "smtpd_tls_auth_only") && !slices.Contains(plain, "noplaintext") {
		if tls {
			m.mark(s, "smtpd_tls_auth_only", Different, "smtps auth flag noplaintext", "Without TLS no mechanism is offered that sends a password as it is; -noplaintext allows it.")
			m.differs("smtpd_tls_auth_only is not set: Postfix takes passwords without TLS. meta1 does not, unless section auth has the flag -noplaintext.")
		} else {
			a.flag("-noplaintext")
		}
	}
	m.mark(s, "smtpd_tls_auth_only", Carried, "smtps auth flag noplaintext", "")
	if r := m.value(s, "smtpd_sasl_local_domain"); r != "" {
		a.set("user_realm", text(r), m.why(s, "smtpd_sasl_local_domain"))
	}
	m.done(s, "smtpd_sasl_local_domain", "smtps auth user_realm")
}

// senderLogin says who may use which sender, if a restriction asks for it.
func (m *migrator) senderLogin(s *postfix.Service, a *section) {
	const name = "smtpd_sender_login_maps"
	asked := false
	for _, l := range restrictionLists {
		for _, w := range m.list(s, l) {
			asked = asked || strings.Contains(w, "sender_login_mismatch")
		}
	}
	if m.value(s, name) == "" || !asked {
		m.note(s, name, NotNeeded, "No restriction asks for it (reject_sender_login_mismatch).")
		return
	}
	for _, e := range m.list(s, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(s, name, NotCarried, e+" is not a table.")
			continue
		}
		for _, entry := range m.read(s, name, t, false) {
			if entry.Pattern || entry.Key == "*" {
				m.note(s, name, NotCarried, "Patterns of "+t.String()+" have no counterpart: write the addresses.")
				continue
			}
			m.senders.add(entry.Key, strings.Join(strings.FieldsFunc(entry.Value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }), " "), m.why(s, name)+" ("+t.Type+":"+tableName(t)+")")
		}
	}
	u := m.root.sub("smar", "").sub("map", "senders")
	u.set("type", "text", "")
	u.set("file", text(m.senders.name), "")
	a.set("sender_login", "senders", m.why(s, name))
	m.done(s, name, "smtps auth sender_login")
}
