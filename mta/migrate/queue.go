package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"meta1/mta/migrate/postfix"
)

// queue translates what is about the queue, bounces and limits of all servers.
func (m *migrator) queue() {
	q := m.root.sub("qmgr", "")
	m.convert(nil, "minimal_backoff_time", q, "retry_delay_min", atLeastSecond)
	m.convert(nil, "maximal_backoff_time", q, "retry_delay_max", atLeastSecond)
	m.convert(nil, "maximal_queue_lifetime", q.sub("queue_return", ""), "default", lifetime)
	if len(q.sub("queue_return", "").options) == 0 {
		q.sections = slices.DeleteFunc(q.sections, func(s *section) bool { return s.keyword == "queue_return" })
	}
	m.mark(nil, "bounce_queue_lifetime", Different, "qmgr queue_return default", "Bounces wait as long as other mail.")
	if m.value(nil, "bounce_queue_lifetime") == m.value(nil, "maximal_queue_lifetime") {
		m.marksAs(nil, "bounce_queue_lifetime", Carried)
	}
	if w := m.value(nil, "delay_warning_time"); w != "" && !strings.HasPrefix(w, "0") {
		m.convert(nil, "delay_warning_time", q.sub("queue_delay", ""), "default", hours)
	}
	m.done(nil, "delay_warning_time", "qmgr queue_delay default")
	m.convert(nil, "qmgr_message_active_limit", q, "AQ_entries_max", bounded(16, 10000000))
	if m.isSet(nil, "qmgr_message_active_limit") {
		m.note(nil, "qmgr_message_active_limit", Different, "It counts recipients, not messages.")
	}
	m.minFree(q)
	m.bounces(q)
	in := &section{keyword: "smtps"}
	m.convert(nil, "smtpd_client_connection_count_limit", in, "connections_max", limit(1000000))
	m.convert(nil, "smtpd_client_connection_rate_limit", in, "connection_rate_max", limit(1000000))
	if !m.isSet(nil, "smtpd_client_connection_count_limit") {
		in.set("connections_max", m.value(nil, "smtpd_client_connection_count_limit"), m.why(nil, "smtpd_client_connection_count_limit"))
	}
	m.note(nil, "anvil_rate_time_unit", Different, "Rates are counted within 60 seconds.")
	q.sections = append(q.sections, in)
	m.mark(nil, "default_process_limit", Different, "smtps threads_max", "A session costs some KB here and not a process: meta1's limits were kept (threads_max 1000).")
	if len(m.qmgr.lines) > 0 {
		q.set("conf", text(m.qmgr.name), "")
	}
	m.logging()
}

// lifetime is a time in days of which 0 means a single try.
func lifetime(value string) (out, note string, err error) {
	if out, note, err = days(value); err == nil && strings.HasPrefix(out, "0") {
		return "1s", "0, a single try, became 1 s.", nil
	}
	return out, note, err
}

// marksAs sets the group of a parameter, and leaves its notes out.
func (m *migrator) marksAs(s *postfix.Service, name string, g Group) {
	if set, ok := m.c.Set(s, name); ok {
		if k := m.marks[placeOf(s, &set)]; k != nil {
			k.group, k.notes = g, nil
		}
	}
}

// minFree translates queue_minfree.
func (m *migrator) minFree(q *section) {
	if !m.isSet(nil, "queue_minfree") {
		return
	}
	n, err := strconv.ParseInt(m.value(nil, "queue_minfree"), 10, 62)
	switch {
	case err != nil:
		m.note(nil, "queue_minfree", NotCarried, "It is not a number.")
	case n == 0:
		m.note(nil, "queue_minfree", Carried, "0 leaves it to meta1: a sixteenth of the file system, 64 MB at most.")
	default:
		q.set("disk_space_min", fmt.Sprintf("%dB", n), m.why(nil, "queue_minfree"))
		q.set("disk_space_ok", fmt.Sprintf("%dB", n+n/2), "")
		m.done(nil, "queue_minfree", "qmgr disk_space_min, disk_space_ok")
	}
}

// bounces translates what is about bounces; Postfix's have the form of RFC 3464.
func (m *migrator) bounces(q *section) {
	d := q.sub("DSN_handling", "")
	d.flag("RFC_Format")
	if m.isSet(nil, "bounce_size_limit") {
		n, _ := strconv.Atoi(m.value(nil, "bounce_size_limit"))
		if n < 10000 {
			d.flag("header_only")
		}
		m.mark(nil, "bounce_size_limit", Different, "qmgr DSN_handling flag header_only", "Bounces have the whole message, or with the flag header_only its header.")
	}
	name := "2bounce_notice_recipient"
	if !m.isSet(nil, name) {
		name = "double_bounce_sender"
	}
	if v := m.value(nil, name); m.isSet(nil, name) && v != "" {
		q.set("double_bounce_address", text("<"+m.address(v)+">"), m.why(nil, name))
	}
	m.mark(nil, "2bounce_notice_recipient", Different, "qmgr double_bounce_address", "Bounces that cannot be delivered go there in any case, not only if notify_classes has 2bounce.")
	m.mark(nil, "double_bounce_sender", Different, "qmgr double_bounce_address", "A bounce that cannot be delivered goes to double_bounce_address; it has no sender.")
	if v := m.value(nil, "default_verp_delimiters"); m.isSet(nil, "default_verp_delimiters") && len(v) == 2 {
		s := q.sub("VERP", "")
		s.set("delimiter1", text(v[:1]), m.why(nil, "default_verp_delimiters"))
		s.set("delimiter2", text(v[1:]), "")
		m.done(nil, "default_verp_delimiters", "qmgr VERP")
	}
}

// logging translates where the log goes.
func (m *migrator) logging() {
	if f := m.value(nil, "maillog_file"); m.isSet(nil, "maillog_file") && f != "" && f != "/dev/stdout" {
		m.mark(nil, "maillog_file", Different, "log_file", "The log goes to standard error, so to the journal under systemd; log_file names a file, which meta1 opens with the rights of its account.")
	} else {
		m.done(nil, "maillog_file", "")
	}
	if f := m.value(nil, "syslog_facility"); m.isSet(nil, "syslog_facility") {
		m.root.sub("log", "").set("facility", text(strings.ToLower(f)), m.why(nil, "syslog_facility"))
		m.done(nil, "syslog_facility", "log facility")
	}
	m.sni()
	// Options that hold only together with others.
	m.mark(nil, "smtpd_sender_login_maps", NotNeeded, "", "")
}

// sni makes a certificate section of each certificate of tls_server_sni_maps.
func (m *migrator) sni() {
	const name = "tls_server_sni_maps"
	seen := map[string]bool{}
	for _, e := range m.list(nil, name) {
		t, ok := postfix.ParseTable(e, "")
		if !ok {
			m.note(nil, name, NotCarried, e+" is not a table.")
			continue
		}
		for _, entry := range m.read(nil, name, t, false) {
			files := strings.Fields(strings.ReplaceAll(entry.Value, ",", " "))
			if len(files) == 0 || entry.Pattern {
				continue
			}
			key, cert := files[0], files[len(files)-1]
			if seen[cert] {
				continue
			}
			seen[cert] = true
			for _, s := range m.root.sections {
				for _, c := range s.sections {
					if s.keyword == "smtps" && c.keyword == "tls" {
						x := c.add("certificate", "")
						x.set("cert_file", text(cert), m.why(nil, name)+" "+entry.Key)
						x.set("key_file", text(key), "")
					}
				}
			}
		}
	}
	if m.value(nil, name) != "" {
		m.mark(nil, name, Different, "smtps tls certificate", "The names in a certificate decide who gets it, not those of the map.")
	}
}

// standard are the services of Postfix's own master.cf, and what they do here.
var standard = map[string]bool{
	"pickup": true, "cleanup": true, "qmgr": true, "oqmgr": true, "tlsmgr": true, "trivial-rewrite": true, "bounce": true, "verify": true, "flush": true, "proxymap": true,
	"showq": true, "error": true, "discard": true, "local": true, "virtual": true, "anvil": true, "scache": true, "postlogd": true, "tlsproxy": true, "dnsblog": true,
}

// services gives the entries of master.cf their groups.
func (m *migrator) services() (items []Item) {
	for i := range m.c.Services {
		s := &m.c.Services[i]
		it := Item{Parameter: s.ID(), File: "master.cf", Line: s.Line, Value: s.Command, Group: Carried}
		switch {
		case standard[s.Command]:
			it.Group, it.Notes = NotNeeded, []string{"It is a part of Postfix that meta1 has in itself, or does not need."}
		case s.Type == "inet" && s.Command == "smtpd", s.Type == "pass" && s.Command == "smtpd":
			it.To = "smtps"
		case s.Type == "inet" && s.Command == "postscreen":
			it.Group, it.To, it.Notes = Different, "smtps", []string{"The server itself listens; greet_pause, dnsbl and limits take the place of the screen."}
		case s.Command == "smtp" || s.Command == "lmtp":
			it.To = "smtpc"
			if m.anyMark(s) {
				it.Group, it.Notes = Different, []string{"There is one client: what the transport sets by -o is told at each of its options."}
			}
		case s.Command == "qmqpd":
			it.Group, it.Notes = NotCarried, []string{"QMQP is not spoken: have the client send by SMTP."}
		case s.Command == "pipe":
			if m.pipeUsed(s.Name) {
				it.Group, it.Notes = NotCarried, []string{"meta1 executes no program for a recipient: have it speak LMTP, or let Dovecot with Sieve take its place."}
			} else {
				it.Group, it.Notes = NotNeeded, []string{"Nothing in main.cf sends mail to it."}
			}
		case s.Command == "spawn":
			it.Group, it.Notes = NotCarried, []string{"Start the program as a service of its own: a section of services with start_action = accept, or a unit of systemd."}
		default:
			it.Group, it.Notes = NotCarried, []string{"There is no such program in meta1."}
		}
		items = append(items, it)
	}
	return items
}

// anyMark reports whether something that a service overrides was not carried over as it is.
func (m *migrator) anyMark(s *postfix.Service) bool {
	return slices.ContainsFunc(s.Overrides, func(o postfix.Setting) bool {
		k := m.marks[placeOf(s, &o)]
		return k != nil && k.group.rank() > Carried.rank()
	})
}

// pipeUsed reports whether some value of main.cf or of an override names a transport.
func (m *migrator) pipeUsed(name string) bool {
	found := false
	m.each(func(_ *postfix.Service, set *postfix.Setting) {
		for _, w := range strings.FieldsFunc(set.Value, func(r rune) bool { return strings.ContainsRune(" ,:{}=\t\n", r) }) {
			found = found || w == name
		}
		if set.Name == "transport_maps" {
			for _, e := range m.list(nil, set.Name) {
				if t, ok := postfix.ParseTable(e, ""); ok {
					entries, _ := t.Read(m.c.Dir, false)
					for _, entry := range entries {
						found = found || strings.HasPrefix(entry.Value, name+":") || entry.Value == name
					}
				}
			}
		}
	})
	return found
}

// files are the files of the new configuration. Maps that are not named are left out.
func (m *migrator) files() []File {
	var b strings.Builder
	b.WriteString("# Made of Postfix's configuration by meta1 migrate postfix. Comments name the lines it comes from.\n\n")
	order := map[string]int{"log": 1, "qmgr": 2, "smar": 3, "smtps": 4, "smtpc": 5, "lda": 6}
	m.root.sub("qmgr", "")
	m.root.sub("smtpc", "")
	slices.SortStableFunc(m.root.sections, func(a, c *section) int { return order[a.keyword] - order[c.keyword] })
	m.root.print(&b, "")
	files := []File{{Name: "meta1.conf", Text: b.String()}}
	conf := b.String()
	for _, f := range []*mapFile{m.mt, m.access, m.accessRE, m.aliases, m.users, m.senders, m.qmgr, m.accounts} {
		if strings.Contains(conf, " = "+text(f.name)+";") {
			files = append(files, File{Name: f.name, Text: f.text(), Secret: f.secret})
		}
	}
	return files
}
