package migrate

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meta1/mta/migrate/postfix"
)

// client translates what is about mail that goes out.
func (m *migrator) client() {
	c := m.root.sub("smtpc", "")
	m.clientTimes(c)
	m.clientTLS(c)
	m.clientAuth(c)
	m.policyMaps()
	m.bindAddresses()
	m.concurrency()
	words := strings.ToLower(m.value(nil, "smtp_discard_ehlo_keywords"))
	for _, w := range strings.FieldsFunc(words, func(r rune) bool { return r == ' ' || r == ',' }) {
		switch w {
		case "chunking":
			c.set("chunking", "never", m.why(nil, "smtp_discard_ehlo_keywords"))
		case "silent-discard":
		default:
			m.note(nil, "smtp_discard_ehlo_keywords", NotCarried, strings.ToUpper(w)+" is used where a host offers it; flags of session_features turn STARTTLS, CHUNKING and AUTH off for some hosts.")
		}
	}
	m.done(nil, "smtp_discard_ehlo_keywords", "smtpc chunking")
}

func (m *migrator) clientTimes(c *section) {
	m.convert(nil, "smtp_connect_timeout", c, "connect_timeout", func(v string) (string, string, error) {
		out, note, err := seconds(v)
		if err == nil && strings.HasPrefix(out, "0") {
			return "30s", "0 leaves the time to the system; 30 s were taken.", nil
		}
		return out, note, err
	})
	m.convert(nil, "smtp_connection_cache_time_limit", c, "idle_timeout", atLeastSecond)
	shortest := 0
	for _, n := range []string{"helo", "mail", "rcpt", "data_init", "data_xfer", "data_done"} {
		name := "smtp_" + n + "_timeout"
		if !m.isSet(nil, name) {
			continue
		}
		out, _, err := seconds(m.value(nil, name))
		if err != nil {
			m.note(nil, name, NotCarried, reason(err)+".")
			continue
		}
		m.mark(nil, name, Different, "smtpc IO_timeout", "One limit bounds every step; those of RFC 5321 hold if it is longer.")
		if d := asSeconds(out); n != "data_done" && d > 0 && (shortest == 0 || d > shortest) {
			shortest = d // the longest of them: no step gets less time than it had
		}
	}
	if shortest > 0 {
		c.set("IO_timeout", strconv.Itoa(min(max(shortest, 600), 3600))+"s", "the longest smtp_*_timeout, at least 10 minutes for the final dot")
	}
}

// asSeconds is a time that times has made, in seconds.
func asSeconds(t string) int {
	n, _ := strconv.Atoi(t[:len(t)-1])
	return n * map[byte]int{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[t[len(t)-1]]
}

// clientTLS translates STARTTLS with other hosts.
func (m *migrator) clientTLS(c *section) {
	conf := &section{keyword: "tls"}
	for _, k := range []struct{ cert, key, option string }{{"cert_file", "key_file", ""}, {"eccert_file", "eckey_file", "EC_"}} {
		if cert := m.value(nil, "smtp_tls_"+k.cert); cert != "" {
			conf.set(k.option+"cert_file", text(cert), m.why(nil, "smtp_tls_"+k.cert))
			conf.set(k.option+"key_file", text(m.value(nil, "smtp_tls_"+k.key)), m.why(nil, "smtp_tls_"+k.key))
			conf.flag("use_chain")
		}
		m.done(nil, "smtp_tls_"+k.cert, "smtpc tls "+k.option+"cert_file")
		m.done(nil, "smtp_tls_"+k.key, "smtpc tls "+k.option+"key_file")
	}
	m.authorities(nil, conf, "smtp_tls_")
	m.tlsOptions(nil, conf, "smtp_tls_")
	if len(conf.options)+len(conf.flags) > 0 {
		c.sections = append(c.sections, conf)
	}
	if m.yes(nil, "smtp_tls_wrappermode") {
		c.flag("smtps")
	}
	m.done(nil, "smtp_tls_wrappermode", "smtpc flag smtps")
	name, level := "smtp_tls_security_level", m.value(nil, "smtp_tls_security_level")
	switch {
	case level != "":
	case m.yes(nil, "smtp_enforce_tls"):
		name, level = "smtp_enforce_tls", "verify"
	case m.yes(nil, "smtp_use_tls"):
		name, level = "smtp_use_tls", "may"
	}
	m.tlsLevel(name, level)
	for _, n := range []string{"smtp_tls_security_level", "smtp_use_tls", "smtp_enforce_tls"} {
		m.done(nil, n, "smtpc")
	}
}

// tlsLevel translates the level that holds for all hosts.
func (m *migrator) tlsLevel(name, level string) {
	demand := ""
	switch level {
	case "", "may":
	case "none":
		m.note(nil, name, Different, "TLS is used wherever a host offers it; a class of session_features with the flag -starttls turns it off for some hosts.")
	case "encrypt":
		demand = "tls_requirements { flags = { encrypted }; }"
	case "verify", "secure":
		demand = "tls_requirements { flags = { verified }; }"
		m.note(nil, name, Different, "The certificate must be signed by a CA that we trust; name the hosts that it must be for in hostnames of tls_requirements.")
	case "dane", "dane-only", "half-dane":
		m.root.sub("smar", "").sub("DNS", "").flag("Use_DNSSEC")
		m.todo("DANE needs a name server that validates by DNSSEC on this machine, in /etc/resolv.conf or nameservers of section DNS (docs/dane.md).")
		if level != "dane" {
			m.note(nil, name, Different, "Hosts without TLSA records get mail, too, with TLS if they offer it.")
		}
	default:
		m.note(nil, name, NotCarried, "The level "+short(level)+" holds for single destinations alone: see smtp_tls_policy_maps.")
	}
	if demand != "" {
		m.qmgr.add("smtpc_session_conf:", demand, m.why(nil, name)+" = "+level)
		m.root.sub("qmgr", "").sub("smtpc", "").flag("lookup_session_conf")
	}
}

// policyMaps translates smtp_tls_policy_maps.
func (m *migrator) policyMaps() {
	const name = "smtp_tls_policy_maps"
	for _, e := range m.list(nil, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, e+" is not a table.")
			continue
		}
		for _, entry := range m.read(nil, name, t, false) {
			if entry.Pattern || entry.Key == "*" {
				m.note(nil, name, NotCarried, "Patterns of "+t.String()+" have no counterpart: write the domains that they stand for.")
				continue
			}
			m.policyEntry(name, entry, m.why(nil, name)+" ("+t.Type+":"+tableName(t)+")")
		}
	}
	m.done(nil, name, "smar access_map: smtpc_rcpt_conf:, QMGR's map: smtpc_session_conf:")
}

// policyEntry translates the policy of a destination.
func (m *migrator) policyEntry(name string, entry postfix.Entry, why string) {
	words := strings.Fields(entry.Value)
	if len(words) == 0 {
		return
	}
	values := map[string]string{}
	for _, w := range words[1:] {
		n, v, _ := strings.Cut(w, "=")
		values[n] = v
	}
	host := strings.HasPrefix(entry.Key, "[")
	key := strings.Trim(entry.Key, "[]")
	if host || strings.Contains(key, "]:") {
		key, _, _ = strings.Cut(strings.TrimPrefix(entry.Key, "["), "]")
	} else {
		key, _, _ = strings.Cut(key, ":")
	}
	requirements := ""
	switch words[0] {
	case "none", "may":
		requirements = ""
		if m.qmgr.has("smtpc_session_conf") || words[0] == "none" {
			m.note(nil, name, Different, "Entry "+entry.Key+": TLS is used if the host offers it.")
		}
	case "encrypt":
		requirements = "flags = { encrypted };"
	case "verify", "secure":
		requirements = "flags = { verified }; hostnames = " + matchNames(values["match"], key, host, words[0]) + ";"
	case "fingerprint":
		fingerprints := strings.FieldsFunc(values["match"], func(r rune) bool { return r == '|' })
		if len(fingerprints) == 0 {
			m.note(nil, name, NotCarried, "Entry "+entry.Key+" has no fingerprint of a certificate in it.")
			return
		}
		requirements = "flags = { encrypted }; cert_fps = " + list(fingerprints...) + ";"
		m.note(nil, name, Different, "Entry "+entry.Key+": the fingerprint is that of the certificate, by Digest of section tls, and not of its key.")
	case "dane", "dane-only", "half-dane":
		m.root.sub("smar", "").sub("DNS", "").flag("Use_DNSSEC")
		m.note(nil, name, Different, "Entry "+entry.Key+": DANE counts for every host that has TLSA records.")
	default:
		m.note(nil, name, NotCarried, "Entry "+entry.Key+": there is no level "+short(words[0])+".")
		return
	}
	conf := "tls_requirements { " + requirements + " }"
	if requirements == "" {
		return
	}
	if host {
		m.qmgr.add("smtpc_session_conf:"+key, conf, why)
		m.root.sub("qmgr", "").sub("smtpc", "").flag("lookup_session_conf")
		return
	}
	m.root.sub("qmgr", "").sub("smtpc", "").flag("lookup_rcpt_conf")
	m.access.add("smtpc_rcpt_conf:@"+key, conf, why)
}

// matchNames are the names that a certificate must be for.
func matchNames(match, key string, host bool, level string) string {
	if match == "" {
		match = "nexthop"
		if level == "secure" && !host {
			match = "nexthop:dot-nexthop"
		}
	}
	var names []string
	for _, w := range strings.FieldsFunc(match, func(r rune) bool { return r == ':' || r == ',' }) {
		switch w {
		case "nexthop", "hostname":
			names = append(names, strings.TrimPrefix(key, "."))
		case "dot-nexthop":
			names = append(names, "."+strings.TrimPrefix(key, "."))
		default:
			names = append(names, w)
		}
	}
	return list(slices.Compact(names)...)
}

// clientAuth translates our accounts at other hosts. No value of these tables is ever printed.
func (m *migrator) clientAuth(c *section) {
	const name = "smtp_sasl_password_maps"
	if !m.yes(nil, "smtp_sasl_auth_enable") {
		m.done(nil, "smtp_sasl_auth_enable", "")
		for _, n := range []string{name, "smtp_sasl_security_options", "smtp_sasl_tls_security_options", "smtp_sasl_tls_verified_security_options", "smtp_sasl_mechanism_filter", "smtp_sender_dependent_authentication", "smtp_sasl_auth_soft_bounce", "smtp_sasl_auth_cache_time"} {
			m.note(nil, n, NotNeeded, "smtp_sasl_auth_enable is off.")
		}
		return
	}
	a := c.sub("auth", "")
	for _, e := range m.list(nil, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, "An element is not a table.")
			continue
		}
		for _, entry := range m.read(nil, name, t, false) {
			m.account(name, entry, m.why(nil, name)+" ("+t.Type+":"+tableName(t)+")")
		}
	}
	u := m.root.sub("smar", "").sub("map", "accounts")
	u.set("type", "text", "")
	u.set("file", text(m.accounts.name), "")
	a.set("password_map", "accounts", m.why(nil, name))
	m.mark(nil, name, Different, "smtpc auth password_map", "Mail waits for a host that does not offer AUTH though it has an entry; the flag optional of section auth sends it.")
	m.todo("accounts has passwords: chown root:meta1 accounts and chmod 640 accounts, so that meta1 can read it and nobody else.")
	if m.yes(nil, "smtp_sender_dependent_authentication") {
		a.flag("sender_dependent")
		m.note(nil, "smtp_sender_dependent_authentication", Different, "The account of a sender is used only at hosts that have an entry, too: add host - for a host with accounts of senders alone.")
	}
	m.done(nil, "smtp_sender_dependent_authentication", "smtpc auth flag sender_dependent")
	m.done(nil, "smtp_sasl_auth_enable", "smtpc auth")
	m.authProtection(a)
	m.convert(nil, "smtp_sasl_auth_cache_time", a, "failure_time", func(v string) (string, string, error) {
		out, _, err := times(v, 's')
		if err == nil && asSeconds(out) > 86400 {
			return "1d", "More than a day became a day.", nil
		}
		return out, "", err
	})
	if m.isSet(nil, "smtp_sasl_auth_soft_bounce") {
		value := map[bool]string{true: "defer", false: "bounce"}[m.yes(nil, "smtp_sasl_auth_soft_bounce")]
		a.set("on_failure", value, m.why(nil, "smtp_sasl_auth_soft_bounce"))
		m.done(nil, "smtp_sasl_auth_soft_bounce", "smtpc auth on_failure")
	}
}

// account writes an entry of the password table: [host]:port becomes host:port.
func (m *migrator) account(name string, entry postfix.Entry, why string) {
	key := entry.Key
	if rest, ok := strings.CutPrefix(key, "["); ok {
		host, port, _ := strings.Cut(rest, "]")
		if _, err := netip.ParseAddr(strings.TrimPrefix(host, "ipv6:")); err == nil {
			key = "[" + strings.TrimPrefix(host, "ipv6:") + "]" + port
		} else {
			key = host + port
		}
	}
	if h, port, ok := strings.Cut(key, ":"); ok && !strings.HasPrefix(key, "[") {
		if n, ok := portOf(port); ok {
			key = h + ":" + strconv.Itoa(n)
		}
	}
	if entry.Pattern || key == "*" || strings.ContainsAny(key, " \t\"#") || entry.Value == "" {
		m.note(nil, name, NotCarried, "An entry is a pattern, or has no password: write it into accounts.")
		return
	}
	m.accounts.add(key, entry.Value, why)
}

// authProtection says how far TLS must protect a password.
func (m *migrator) authProtection(a *section) {
	options := m.list(nil, "smtp_sasl_security_options")
	level := m.value(nil, "smtp_tls_security_level")
	protection := "encrypted"
	if level == "verify" || level == "secure" || level == "dane-only" {
		protection = "verified"
	}
	a.set("tls", protection, "smtp_tls_security_level = "+level)
	if protection == "encrypted" && level != "encrypt" {
		note := "A password is sent over TLS alone; Postfix would also send it without, if smtp_sasl_security_options lets it."
		m.mark(nil, "smtp_sasl_auth_enable", Different, "smtpc auth tls", note)
	}
	m.todo("Section auth of smtpc takes any certificate for TLS (tls = %s), as Postfix did; tls = verified, meta1's default, is what keeps a password from whoever stands between.", protection)
	if m.isSet(nil, "smtp_sasl_tls_security_options") {
		options = m.list(nil, "smtp_sasl_tls_security_options")
	}
	var mechanisms []string
	for _, f := range m.list(nil, "smtp_sasl_mechanism_filter") {
		if strings.ContainsAny(f, ":/") {
			m.note(nil, "smtp_sasl_mechanism_filter", NotCarried, "Only names of mechanisms have a counterpart.")
			continue
		}
		mechanisms = append(mechanisms, strings.ToUpper(f))
	}
	if slices.Contains(options, "noplaintext") && m.isSet(nil, "smtp_sasl_tls_security_options") && len(mechanisms) == 0 {
		mechanisms = []string{"!PLAIN", "!LOGIN"}
	}
	if len(mechanisms) > 0 {
		a.set("mechanisms", "{ "+strings.Join(quoteAll(mechanisms), ", ")+" }", m.why(nil, "smtp_sasl_mechanism_filter"))
	}
	for _, n := range []string{"smtp_sasl_security_options", "smtp_sasl_tls_security_options", "smtp_sasl_tls_verified_security_options", "smtp_sasl_mechanism_filter"} {
		m.done(nil, n, "smtpc auth mechanisms")
	}
	for _, o := range options {
		if o == "noactive" || o == "nodictionary" || o == "mutual_auth" || o == "forward_secrecy" {
			m.note(nil, "smtp_sasl_security_options", Different, o+": name the mechanisms that may be used in mechanisms of section auth.")
		}
	}
}

func quoteAll(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = text(w)
	}
	return out
}

// bindAddresses says from which addresses mail goes out.
func (m *migrator) bindAddresses() {
	var ips []string
	for _, n := range []string{"smtp_bind_address", "smtp_bind_address6"} {
		v := m.value(nil, n)
		if v == "" {
			m.done(nil, n, "")
			continue
		}
		ip, err := netip.ParseAddr(v)
		if err != nil {
			m.note(nil, n, NotCarried, short(v)+" is no address.")
			continue
		}
		ips = append(ips, ip.String())
		m.done(nil, n, "qmgr smtpc source")
	}
	if len(ips) == 0 {
		return
	}
	m.root.sub("qmgr", "").sub("smtpc", "").sub("source", "bind").set("ips", list(ips...), m.why(nil, "smtp_bind_address"))
	m.qmgr.add("smtpc_conf_cltaddr:", "source = bind;", "smtp_bind_address")
}

// concurrency translates limits of connections.
func (m *migrator) concurrency() {
	c := m.root.sub("qmgr", "").sub("smtpc", "")
	for _, o := range []simple{
		{name: "default_destination_concurrency_limit", option: "connections_max", conv: limit(1000)},
		{name: "smtp_destination_concurrency_limit", option: "connections_max", conv: transport(limit(1000))},
		{name: "initial_destination_concurrency", option: "initial_connections", conv: bounded(1, 1000000)},
		{name: "smtp_initial_destination_concurrency", option: "initial_connections", conv: transport(bounded(1, 1000000))},
		{name: "default_destination_recipient_limit", option: "smtp_rcpts_per_transaction_max", conv: limit(1000)},
		{name: "smtp_destination_recipient_limit", option: "smtp_rcpts_per_transaction_max", conv: transport(limit(1000))},
		{name: "lmtp_destination_recipient_limit", option: "lmtp_rcpts_per_transaction_max", conv: transport(limit(1000))},
		{name: "smtp_connection_reuse_count_limit", option: "transactions_per_session_max", conv: limit(100000)},
		{name: "smtp_mx_address_limit", option: "hosts_per_attempt_max", conv: limit(100)},
	} {
		m.convert(nil, o.name, c, o.option, o.conv)
	}
	for _, n := range []string{"default_destination_concurrency_limit", "smtp_destination_concurrency_limit"} {
		m.mark(nil, n, Different, "connections_max", "It holds for each host, not for each destination domain.")
	}
	m.mark(nil, "relay_destination_concurrency_limit", NotCarried, "", "There is one limit for all hosts; give those of relay_domains one of their own by smtpc_conf_rcpt_domain: and a section connection_limits (docs/maps.md).")
	if m.isSet(nil, "smtp_mx_session_limit") {
		m.mark(nil, "smtp_mx_session_limit", Different, "hosts_per_attempt_max", "Sessions after a 4xx reply are one more at most.")
	}
}

// transport is for limits of a transport, which may name the general one: $default_...
func transport(c conversion) conversion {
	return func(value string) (string, string, error) {
		if value == "" {
			return "", "It is the general limit.", nil
		}
		return c(value)
	}
}
