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

// endpoint is where a milter, a policy service or Dovecot listens.
type endpoint struct {
	path, address string
	port          int
}

// endpointOf reads inet:host:port, unix:path and local:path. why says what is wrong with another.
func (m *migrator) endpointOf(s *postfix.Service, spec string) (e endpoint, why string) {
	kind, rest, _ := strings.Cut(spec, ":")
	switch kind {
	case "unix", "local":
		e.path = rest
		if !filepath.IsAbs(rest) || s != nil && s.Chroot {
			e.path = filepath.Join(m.queueDir(), rest)
		}
		return e, ""
	case "inet", "inet6":
	default:
		return e, short(spec) + " is neither unix: nor inet:"
	}
	host, port, ok := strings.Cut(rest, "@")
	if ok { // inet:port@host
		host, port = port, host
	} else if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, port = rest[:i], rest[i+1:]
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		host = "127.0.0.1"
	}
	n, ok := portOf(port)
	ip, err := netip.ParseAddr(host)
	if !ok || err != nil {
		return e, "name its IP address and port, as in inet:192.0.2.1:8891, and translate again: " + short(spec)
	}
	e.address, e.port = ip.String(), n
	return e, ""
}

// socket writes where something listens.
func (e endpoint) socket(s *section) {
	t := s.sub("socket", "")
	if e.path != "" {
		t.set("type", "unix", "")
		t.set("path", text(e.path), "")
		return
	}
	t.set("type", "inet", "")
	t.set("address", text(e.address), "")
	t.set("port", strconv.Itoa(e.port), "")
}

// attributes divides { inet:host:port, name = value, ... } into the place and the values.
func attributes(element string) (spec string, values map[string]string) {
	values = map[string]string{}
	if !strings.HasPrefix(element, "{") {
		return element, values
	}
	for i, part := range strings.Split(strings.Trim(element, "{} "), ",") {
		part = strings.TrimSpace(part)
		name, value, ok := strings.Cut(part, "=")
		switch {
		case i == 0:
			spec = part
			if s, rest, more := strings.Cut(part, " "); more { // blanks alone divide, too
				spec = s
				for _, w := range strings.Fields(strings.NewReplacer(" = ", "=", "= ", "=", " =", "=").Replace(rest)) {
					if n, v, ok := strings.Cut(w, "="); ok {
						values[n] = v
					}
				}
			}
		case ok:
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return spec, values
}

// milters translates smtpd_milters.
func (m *migrator) milters(v *server) {
	const name = "smtpd_milters"
	for i, e := range m.list(v.s, name) {
		spec, values := attributes(e)
		where, why := m.endpointOf(v.s, spec)
		if why != "" {
			m.note(v.s, name, NotCarried, why)
			continue
		}
		c := v.conf.add("milter", "milter"+strconv.Itoa(i+1))
		c.why = m.why(v.s, name)
		where.socket(c)
		get := func(option, parameter string) string {
			if x, ok := values[option]; ok {
				return x
			}
			return m.value(v.s, parameter)
		}
		for _, o := range [][3]string{{"command_timeout", "milter_command_timeout", "timeout"}, {"connect_timeout", "milter_connect_timeout", "connect_timeout"}, {"content_timeout", "milter_content_timeout", "content_timeout"}} {
			if t, _, err := seconds(get(o[0], o[1])); err == nil {
				c.set(o[2], t, m.whyIfSet(v.s, o[1]))
			}
			m.done(v.s, o[1], "smtps milter "+o[2])
		}
		switch action := get("default_action", "milter_default_action"); action {
		case "tempfail", "reject", "quarantine":
			c.flag(action)
		case "accept":
		default:
			m.note(v.s, "milter_default_action", NotCarried, short(action)+" has no counterpart; mail goes on without the milter.")
		}
		m.done(v.s, "milter_default_action", "smtps milter flags")
		if n, err := strconv.Atoi(get("protocol", "milter_protocol")); err == nil && n >= 2 && n < 6 {
			c.set("protocol", strconv.Itoa(n), m.why(v.s, "milter_protocol"))
		}
		m.done(v.s, "milter_protocol", "smtps milter protocol")
	}
	if m.value(v.s, name) == "" {
		for _, n := range []string{"milter_default_action", "milter_protocol", "milter_command_timeout", "milter_connect_timeout", "milter_content_timeout"} {
			m.done(v.s, n, "")
		}
	}
	m.done(v.s, name, "smtps milter")
	if m.value(nil, "non_smtpd_milters") == m.value(v.s, name) {
		m.mark(nil, "non_smtpd_milters", Carried, "smtps milter", "meta1 sendmail hands mail over by SMTP, so that the milters of the server see it.")
	}
}

// whyIfSet is why for values that a file sets.
func (m *migrator) whyIfSet(s *postfix.Service, name string) string {
	if m.isSet(s, name) {
		return m.why(s, name)
	}
	return ""
}

// policyService translates check_policy_service.
func (m *migrator) policyService(v *server, r restriction, arg string) {
	spec, values := attributes(arg)
	where, why := m.endpointOf(v.s, spec)
	if why != "" {
		m.note(v.s, r.list, NotCarried, r.word+": "+why)
		return
	}
	n := 0
	for _, s := range v.conf.sections {
		if s.keyword == "policy_service" {
			n++
		}
	}
	if p := m.spawned(where.path); p != nil {
		m.note(v.s, r.list, NotCarried, fmt.Sprintf("%s %s: the program is started by spawn(8) of Postfix (master.cf:%d): start it as a service of its own, by a section of services with start_action = accept, or by socat (docs/policy-services.md).", r.word, spec, p.Line))
	}
	c := v.conf.add("policy_service", "policy"+strconv.Itoa(n+1))
	c.why = m.why(v.s, r.list) + ": " + r.word + " " + spec
	where.socket(c)
	timeout := values["timeout"]
	if timeout == "" {
		timeout = m.value(v.s, "smtpd_policy_service_timeout")
	}
	if t, _, err := seconds(timeout); err == nil {
		c.set("timeout", t, "")
	}
	action := values["default_action"]
	if action == "" {
		action = m.value(v.s, "smtpd_policy_service_default_action")
	}
	if word, _, _ := strings.Cut(strings.ToUpper(action), " "); slices.Contains([]string{"DUNNO", "OK", "PERMIT"}, word) {
		c.set("on_failure", "accept", "")
	}
	context := values["policy_context"]
	if context == "" {
		context = m.value(v.s, "smtpd_policy_service_policy_context")
	}
	if context != "" {
		c.set("context", text(context), "")
	}
	if !r.exempt {
		c.set("relaying_clients", "true", "nothing lets clients pass in front of it")
	}
	for _, p := range []string{"timeout", "default_action", "policy_context"} {
		m.done(v.s, "smtpd_policy_service_"+p, "smtps policy_service")
	}
	to := "smtps policy_service"
	m.mark(v.s, r.list, Carried, to, "")
	if r.list != "smtpd_recipient_restrictions" && r.list != "smtpd_relay_restrictions" {
		m.mark(v.s, r.list, Different, to, "A policy service is asked about each recipient, with protocol_state=RCPT.")
	}
}

// spawned is the service of master.cf that starts a program at a socket of Postfix's.
func (m *migrator) spawned(path string) *postfix.Service {
	for i := range m.c.Services {
		if s := &m.c.Services[i]; s.Command == "spawn" && s.Type == "unix" && filepath.Join(m.queueDir(), "private", s.Name) == path {
			return s
		}
	}
	return nil
}

// blocklist translates reject_rbl_client.
func (m *migrator) blocklist(v *server, r restriction, arg string) {
	domain, filter, filtered := strings.Cut(arg, "=")
	if strings.ContainsAny(domain, "/:") || !strings.Contains(domain, ".") {
		m.note(v.s, r.list, NotCarried, r.word+" "+short(arg)+": that is not the domain of a list.")
		return
	}
	v.access = true
	m.dnsbl(v.s, r.list, domain, filter, filtered)
	m.mark(v.s, r.list, Carried, "smar dnsbl", "")
}

// dnsbl adds a list and what its answers mean.
func (m *migrator) dnsbl(s *postfix.Service, name, domain, filter string, filtered bool) {
	tag := strings.Map(func(r rune) rune {
		if isNameByte(byte(r)) && r < 128 {
			return r
		}
		return '_'
	}, strings.ToLower(domain))
	smar := m.root.sub("smar", "")
	found := false
	for _, t := range smar.sections {
		if t.keyword == "dnsbl" && len(t.options) > 1 && t.options[0].value == text(domain) {
			found = true
		}
	}
	if !found {
		d := smar.add("dnsbl", "")
		d.why = m.why(s, name)
		d.set("domain", text(domain), "")
		d.set("tag", text(tag), "")
	}
	reply := "error:554 5.7.1 Service unavailable; client is listed in " + domain
	if !filtered {
		m.access.add(tag+":127.", reply, m.why(s, name)+" "+domain)
		return
	}
	keys, err := answers(filter)
	if err != nil {
		m.note(s, name, NotCarried, fmt.Sprintf("The filter %s of %s: %v.", short(filter), domain, err))
		return
	}
	for _, k := range keys {
		m.access.add(tag+":"+k, reply, m.why(s, name)+" "+domain)
	}
}

// answers writes a filter such as 127.0.0.[2..11;14] as addresses.
func answers(filter string) ([]string, error) {
	out := []string{""}
	for i, part := range splitOctets(filter) {
		var next []string
		var values []int
		inner := strings.Trim(part, "[]")
		for _, w := range strings.Split(inner, ";") {
			from, upTo, ranged := strings.Cut(w, "..")
			a, err := strconv.Atoi(from)
			b := a
			if ranged && err == nil {
				b, err = strconv.Atoi(upTo)
			}
			if err != nil || a < 0 || b > 255 || a > b {
				return nil, fmt.Errorf("%.20q is no octet of an address", part)
			}
			for ; a <= b; a++ {
				values = append(values, a)
			}
		}
		for _, o := range out {
			for _, n := range values {
				next = append(next, strings.TrimPrefix(o+"."+strconv.Itoa(n), "."))
			}
		}
		if out = next; len(out) > maxSplit || i > 3 {
			return nil, fmt.Errorf("it would be more than %d entries", maxSplit)
		}
	}
	if strings.Count(out[0], ".") != 3 {
		return nil, fmt.Errorf("it is no address")
	}
	return out, nil
}

// splitOctets divides at dots outside of brackets.
func splitOctets(s string) (parts []string) {
	level, start := 0, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '[':
			level++
		case s[i] == ']':
			level--
		case s[i] == '.' && level == 0:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// postscreen translates what there is of postscreen(8).
func (m *migrator) postscreen(v *server) {
	if v.screen == nil {
		return
	}
	s := v.screen
	switch m.value(s, "postscreen_greet_action") {
	case "enforce", "drop":
		if t, _, err := seconds(m.value(s, "postscreen_greet_wait")); err == nil {
			v.conf.set("greet_pause", t, m.why(s, "postscreen_greet_action"))
		}
		m.mark(s, "postscreen_greet_action", Different, "smtps greet_pause", "Every session is tested, and a client that talks too soon is refused.")
		m.done(s, "postscreen_greet_wait", "smtps greet_pause")
	case "ignore":
		m.note(s, "postscreen_greet_action", NotNeeded, "It does nothing.")
		m.note(s, "postscreen_greet_wait", NotNeeded, "postscreen_greet_action does nothing.")
	}
	m.screenLists(v, s)
	m.screenAccess(v, s)
}

func (m *migrator) screenLists(v *server, s *postfix.Service) {
	const name = "postscreen_dnsbl_sites"
	if a := m.value(s, "postscreen_dnsbl_action"); a != "enforce" && a != "drop" {
		for _, n := range []string{name, "postscreen_dnsbl_action", "postscreen_dnsbl_threshold"} {
			m.note(s, n, NotNeeded, "postscreen_dnsbl_action refuses nobody.")
		}
		return
	}
	threshold, _ := strconv.Atoi(m.value(s, "postscreen_dnsbl_threshold"))
	for _, e := range m.list(s, name) {
		site, weight, weighted := strings.Cut(e, "*")
		w, err := strconv.Atoi(weight)
		if !weighted {
			w, err = 1, nil
		}
		if err != nil || w < threshold {
			m.note(s, name, NotCarried, short(e)+" does not refuse alone (postscreen_dnsbl_threshold), and weights are not added up; a milter such as rspamd does that.")
			continue
		}
		domain, filter, filtered := strings.Cut(site, "=")
		v.access = true
		m.dnsbl(s, name, domain, filter, filtered)
	}
	m.mark(s, name, Carried, "smar dnsbl", "")
	m.mark(s, "postscreen_dnsbl_action", Carried, "smar dnsbl", "")
	m.mark(s, "postscreen_dnsbl_threshold", Carried, "smar dnsbl", "")
}

func (m *migrator) screenAccess(v *server, s *postfix.Service) {
	const name = "postscreen_access_list"
	for _, e := range m.list(s, name) {
		t, ok := postfix.ParseTable(e, "")
		switch {
		case e == "permit_mynetworks":
		case ok && t.Type == "cidr":
			v.access = true
			for _, entry := range m.read(s, name, t, false) {
				rhs := map[string]string{"permit": "ok", "reject": "error:554 5.7.1 Access denied", "dunno": "cont"}[strings.ToLower(entry.Value)]
				if rhs == "" || entry.Not {
					m.note(s, name, NotCarried, "Entry "+entry.Key+" of "+t.String()+" has no counterpart.")
					continue
				}
				m.addNetwork(s, name, "cltaddr:", entry.Net, rhs, m.why(s, name)+" ("+t.String()+")")
			}
		default:
			m.note(s, name, NotCarried, short(e)+" has no counterpart.")
		}
	}
	m.done(s, name, "smar access_map: cltaddr:")
}
