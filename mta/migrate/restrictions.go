package migrate

import (
	"fmt"
	"slices"
	"strings"

	"meta1/mta/migrate/postfix"
)

// restrictionLists in the order in which Postfix evaluates them.
var restrictionLists = []string{
	"smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_relay_restrictions",
	"smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions",
}

// networksFirst reports whether permit_mynetworks stands in front of all checks by tables and lists of
// every server, so that later checks are not for these clients.
func (m *migrator) networksFirst() bool {
	for _, v := range m.smtpServers() {
		for _, name := range restrictionLists {
			for _, w := range m.restrictionWords(v.s, name) {
				if w == "permit_mynetworks" {
					break
				}
				if strings.HasPrefix(w, "check_") || strings.HasPrefix(w, "reject_rbl") {
					return false
				}
			}
		}
	}
	return true
}

// restrictionWords are the words of a list; those of Postfix that older versions had get their new names.
func (m *migrator) restrictionWords(s *postfix.Service, name string) []string {
	words := m.list(s, name)
	old := map[string]string{
		"check_relay_domains": "reject_unauth_destination", "reject_unknown_client": "reject_unknown_client_hostname", "reject_invalid_hostname": "reject_invalid_helo_hostname",
		"reject_non_fqdn_hostname": "reject_non_fqdn_helo_hostname", "reject_unknown_hostname": "reject_unknown_helo_hostname", "defer_unauth_destination": "reject_unauth_destination",
		"permit_tls_clientcerts_all": "permit_tls_all_clientcerts",
	}
	for i, w := range words {
		if n := old[w]; n != "" {
			words[i] = n
		}
	}
	return words
}

// restriction is one word of a list and what stands behind it.
type restriction struct {
	list, word string
	// relays: an OK at this place lets the client relay.
	relays bool
	// exempt: clients of mynetworks and those that authenticated have passed already.
	exempt bool
}

// restrictions translates the lists of a server.
func (m *migrator) restrictions(v *server) {
	relays := true // until reject_unauth_destination
	if m.value(v.s, "smtpd_relay_restrictions") != "" {
		relays = false
	}
	for _, name := range restrictionLists {
		r := restriction{list: name}
		words := m.restrictionWords(v.s, name)
		open := false // for others than clients that may relay
		for i := 0; i < len(words); i++ {
			r.word = words[i]
			r.relays = name == "smtpd_relay_restrictions" || name == "smtpd_recipient_restrictions" && relays
			switch {
			case r.word == "permit_auth_destination" || r.word == "permit" || strings.HasPrefix(r.word, "check_"):
				open = true
			case r.word == "reject_unauth_destination":
				relays = false
			case r.word == "reject" || r.word == "defer":
				if !open && !slices.Contains(v.conf.flags, "submission") {
					v.conf.flag("submission") // 530 for everybody else
					m.differs("The server %s takes mail of clients that may relay alone (flag submission), to which Date: and Message-ID: are added where they are missing.", v.name)
				}
			}
			arg := ""
			if i+1 < len(words) && takesArgument(r.word) {
				i++
				arg = words[i]
			}
			r.exempt = r.exempt || r.word == "permit_mynetworks"
			m.restrict(v, r, arg)
		}
		m.done(v.s, name, "")
	}
	m.done(v.s, "mynetworks", "")
}

func takesArgument(word string) bool {
	return strings.HasPrefix(word, "check_") || strings.HasPrefix(word, "reject_rbl_") || strings.HasPrefix(word, "reject_rhsbl_") || strings.HasPrefix(word, "permit_dnswl_") ||
		strings.HasPrefix(word, "permit_rhswl_") || word == "warn_if_reject" || word == "sleep"
}

// restrict translates one restriction.
func (m *migrator) restrict(v *server, r restriction, arg string) {
	lost := func(format string, args ...any) {
		m.note(v.s, r.list, NotCarried, strings.TrimSpace(r.word+" "+shortArg(arg))+": "+fmt.Sprintf(format, args...))
	}
	mark := func(to string) { m.mark(v.s, r.list, Carried, to, "") }
	different := func(note string) { m.mark(v.s, r.list, Different, "", r.word+": "+note) }
	switch r.word {
	case "permit_mynetworks":
		v.access = true
		mark("cltaddr: with relay")
	case "permit_sasl_authenticated":
		mark("auth trusted_mechanisms")
	case "reject_unauth_destination", "reject", "permit", "defer", "permit_auth_destination", "reject_unlisted_recipient":
		mark("")
	case "reject_unauth_pipelining", "reject_unknown_sender_domain", "reject_multi_recipient_bounce":
		if r.word == "reject_multi_recipient_bounce" {
			c := v.conf.add("check", "data")
			c.why = m.why(v.s, r.list) + ": " + r.word
			c.set("condition", `strcmp(mail, "") == 0 && transaction_rcpts_ok > 1`, "")
			c.set("action", "permfail", "")
		}
		mark("")
	case "reject_unknown_recipient_domain":
		different("a domain that does not exist is refused for clients that may not relay; for others the mail bounces.")
	case "reject_invalid_helo_hostname", "reject_non_fqdn_helo_hostname":
		v.conf.flag("strict_EHLO_checks")
		if r.word == "reject_non_fqdn_helo_hostname" {
			different("a name without a dot passes; it must be a domain name or an address literal.")
		}
		mark("flag strict_EHLO_checks")
	case "reject_non_fqdn_sender", "reject_non_fqdn_recipient":
		different("addresses without a domain are refused; a domain without a dot counts as what DNS says of it.")
	case "reject_unknown_client_hostname":
		v.access = true
		m.access.add("cltresolve:no", "error:550 5.7.25 Client host rejected: cannot find your hostname", m.why(v.s, r.list))
		m.access.add("cltresolve:tempptr", "error:450 4.7.25 Client host rejected: cannot find your hostname", m.why(v.s, r.list))
		m.access.add("cltresolve:tempa", "error:450 4.7.25 Client host rejected: cannot find your hostname", m.why(v.s, r.list))
		mark("cltresolve:")
	case "reject_unknown_reverse_client_hostname":
		lost("cltresolve:no of the access map also refuses clients whose name does not lead back to their address, as reject_unknown_client_hostname does; set it if you want that.")
	case "reject_sender_login_mismatch", "reject_authenticated_sender_login_mismatch", "reject_unauthenticated_sender_login_mismatch":
		if !v.auth {
			mark("")
			return
		}
		if r.word != "reject_sender_login_mismatch" {
			different("both halves of reject_sender_login_mismatch hold: an account may use only senders of its own, and others none that belongs to an account.")
		}
		different("an account may use no sender that is not in the map; the sender <> is free for all.")
		mark("auth sender_login")
	case "reject_rbl_client":
		m.blocklist(v, r, arg)
	case "check_client_access", "check_helo_access", "check_sender_access", "check_recipient_access":
		m.accessTable(v, r, arg)
	case "check_policy_service":
		m.policyService(v, r, arg)
	case "check_sender_mx_access":
		m.accessTable(v, r, arg)
	case "permit_tls_all_clientcerts":
		for _, t := range v.conf.sections {
			if t.keyword == "tls" {
				t.flag("allow_relaying_if_verified")
				t.flags = slices.DeleteFunc(t.flags, func(f string) bool { return f == "-request_cert" })
				mark("tls flag allow_relaying_if_verified")
				return
			}
		}
		mark("")
	case "permit_tls_clientcerts":
		lost("certificates are allowed by name and not by fingerprint: certsubject: and certissuer: in the access map, flag check_access_map_for_relaying of section tls.")
	case "reject_unverified_recipient", "reject_unverified_sender":
		lost("addresses are not verified by asking the next host: list the recipients that exist (to: of the access map, local_user_map).")
	case "reject_unlisted_sender":
		mark("")
	case "reject_plaintext_session":
		c := v.conf.add("check", "mail")
		c.why = m.why(v.s, r.list) + ": " + r.word
		c.set("condition", "cipher_bits < 1", "")
		c.set("action", "permfail", "")
		mark("section check")
	case "warn_if_reject":
		different("the restriction behind it, " + shortArg(arg) + ", would only have been logged and was left out.")
	case "sleep":
		lost("the server does not sleep within a list; greet_pause lets clients wait for the greeting.")
	default:
		if slices.Contains(m.list(v.s, "smtpd_restriction_classes"), r.word) {
			lost("lists of restrictions that entries choose have no counterpart.")
			return
		}
		if t, ok := postfix.ParseTable(r.word, ""); ok { // a table alone, as in the name of the list
			word := map[string]string{
				"smtpd_client_restrictions": "check_client_access", "smtpd_helo_restrictions": "check_helo_access", "smtpd_sender_restrictions": "check_sender_access", "smtpd_recipient_restrictions": "check_recipient_access",
			}[r.list]
			if word != "" {
				r.word = word
				m.accessTable(v, r, t.String())
				return
			}
		}
		lost("there is no such check. A section check, a milter or a policy service may do it.")
	}
}

// shortArg is an argument without what a table has inside.
func shortArg(arg string) string {
	if t, ok := postfix.ParseTable(arg, ""); ok {
		return t.Type + ":" + tableName(t)
	}
	return short(arg)
}

// tagOf is the tag of the access map for a check.
var tagOf = map[string]string{
	"check_client_access": "cltaddr:", "check_helo_access": "ehlo:", "check_sender_access": "from:", "check_recipient_access": "to:", "check_sender_mx_access": "mxbadip:",
}
