package explain

import (
	"strconv"
	"strings"
)

// Reply is one reply that the program itself makes, and what is behind it. Entries of maps make
// others, and the same with other words.
type Reply struct {
	Code     int
	Enhanced string
	Text     string // "" at its end stands for more that depends on the case
	Stage    string // when it is given, in words
	Why      string
	// Options are those that it depends on; smtps/ stands for the section smtps.
	Options []string
}

// String is the reply as it is sent.
func (r *Reply) String() string {
	return strings.Join(strings.Fields(strconv.Itoa(r.Code)+" "+r.Enhanced+" "+r.Text), " ")
}

// Replies are the replies of the SMTP server, of QMGR and of SMAR that refuse something.
func Replies() []Reply {
	limit := func(code int, enhanced, text, stage, why string, options ...string) Reply {
		return Reply{code, enhanced, text, stage, why, options}
	}
	return []Reply{
		// What SMAR decides.
		limit(550, "5.7.1", "Relaying denied", "RCPT", "the recipient is not local by the mailertable, no entry to: lets mail to it pass, and the client may not relay: by an entry cltaddr:, cltname: or cltresolve: with relay, by AUTH or by a certificate",
			"smar/mailertable/file", "smar/access_map/file", "smtps/access", "smtps/auth/trusted_mechanisms", "smtps/tls/allow_relaying_if_verified", "smtps/tls/check_access_map_for_relaying", "smtps/lmtp_does_not_imply_relaying"),
		limit(550, "5.7.1", "Routing by the address is not allowed", "RCPT", "the local part names another destination, as user%host does, and the client may not relay", "smtps/allow_untrusted_routing"),
		limit(550, "5.1.1", "User unknown", "RCPT", "the domain is local, and neither aliases nor local_user_map has the address", "smar/aliases/file", "smar/local_user_map/name"),
		limit(550, "5.7.1", "You may not send mail to this recipient", "RCPT", "an entry protectedrcpt: allows other senders or clients alone", "smtps/protected_recipients/allow_by", "smtps/protected_recipients/match_type", "smar/access_map/file"),
		limit(451, "4.7.1", "You may not send mail to this recipient now", "RCPT", "an entry protectedrcpt: with temp: allows other senders or clients alone", "smtps/protected_recipients/allow_by", "smar/access_map/file"),
		limit(421, "4.7.1", "Greylisted, please try again later", "RCPT, or DATA with delay_greylisting_error_until_DATA", "the client is not known to greylisting yet",
			"smtps/greylisting", "smtps/fullgreylisting", "smtps/rcpt_conf", "smar/greylisting/grey_wait", "smtps/delay_greylisting_error_until_DATA"),
		limit(550, "5.7.0", "Rejected.", "any", "an entry of the access map is reject without a text", "smar/access_map/file"),
		limit(550, "5.7.23", "SPF: the domain does not permit your host to send for it", "MAIL", "the SPF record of the domain of the sender, or of HELO, says fail for the client", "smtps/authentication/spf/fail", "smtps/authentication/spf/helo_fail"),
		limit(550, "5.7.24", "SPF: the record of the domain cannot be evaluated", "MAIL", "the SPF record of the sender's domain is wrong", "smtps/authentication/spf/permerror", "smtps/authentication/spf/lookups_max"),
		limit(451, "4.7.24", "SPF: the record of the domain cannot be looked up now", "MAIL", "name servers do not answer for the SPF record of the sender's domain", "smtps/authentication/spf/temperror", "smtps/authentication/time", "smar/DNS/nameservers"),
		limit(451, "4.3.0", "Message cannot be verified at present", "end of message", "its content cannot be read, or its header needs more memory than there is", "qmgr/content_memory_max"),
		limit(553, "5.1.8", "Sender address does not exist", "MAIL", "a bounce to the sender would find no way: DNS has no mail host for the domain"),
		limit(550, "5.1.8", "Sender address does not exist", "MAIL", "the sender is in a local domain, and neither aliases nor local_user_map has it", "smar/aliases/file", "smar/local_user_map/name"),
		limit(451, "4.1.8", "Sender address cannot be resolved now", "MAIL", "name servers do not answer for the sender's domain", "smar/DNS/nameservers"),
		limit(553, "5.7.1", "Sender address needs authentication", "MAIL", "sender_login gives the sender to an account, and the client has none", "smtps/auth/sender_login"),
		limit(553, "5.7.1", "Sender address is not yours", "MAIL", "sender_login gives the sender to other accounts", "smtps/auth/sender_login"),
		limit(451, "4.3.0", "sender_login map lookup failed", "MAIL", "the map could not be asked", "smtps/auth/sender_login"),
		limit(451, "4.3.0", "access map lookup failed", "any", "the access map could not be asked: see the log of smar", "smar/access_map/file", "smar/access_map/name"),
		limit(451, "4.3.5", "access map entry cannot be read", "any", "an entry of the access map is wrong: meta1 config check names it", "smar/access_map/file"),
		limit(451, "4.3.5", "map lookup failed", "any", "a map could not be asked: see the log of smar"),
		limit(451, "4.3.5", "mailertable lookup failed", "RCPT, or later", "the mailertable could not be asked", "smar/mailertable/file", "smar/mailertable/name"),
		limit(451, "4.3.0", "resolver: ", "any", "smar does not run, or too many questions wait for name servers: see meta1 ctl status"),
		// Names in DNS.
		limit(550, "5.1.2", "domain does not exist", "route", "DNS has no such domain"),
		limit(550, "5.1.2", "domain name is not valid", "route", "the domain cannot be one in DNS"),
		limit(550, "5.1.2", "host does not exist", "route", "the host of the mailertable does not exist", "smar/mailertable/file"),
		limit(451, "4.4.3", "name server failure, try again", "route", "no name server has answered", "smar/DNS/nameservers", "smar/DNS/timeout"),
		limit(556, "5.1.10", "domain does not accept mail", "route", "the domain has a null MX record (RFC 7505)"),
		limit(550, "5.4.4", "mail hosts have no address", "route", "no MX host of the domain has an address that may be used", "smar/IPv_Select"),
		limit(550, "5.4.4", "MX record points to an IP address", "route", "the MX record is wrong: it must name a host"),
		limit(554, "5.4.6", "mail loops back to myself", "route", "the best MX host of the domain is this host, and the mailertable has no entry for the domain", "hostname", "smar/mailertable/file"),
		limit(451, "4.7.0", "no MX host of the domain is one that its MTA-STS policy names", "route", "the policy of the domain (MTA-STS) names none of its MX hosts: its owner has to mend that"),
		limit(451, "4.7.5", "lookup of TLSA records failed: ", "delivery", "DANE: whether the host has TLSA records could not be found out, so mail must wait", "smar/DANE"),
		limit(550, "5.4.6", "aliases are nested more than 5 levels deep", "route", "an alias leads to itself, or through too many others", "smar/aliases/file"),
		// QMGR.
		limit(421, "4.7.0", "too many connections within a minute from your address", "connect", "more connections within a minute than the limit for the client's address", "qmgr/smtps/connection_rate_max", "qmgr/conf"),
		limit(421, "4.7.0", "too many open connections from your address", "connect", "more open connections than the limit for the client's address", "qmgr/smtps/connections_max", "qmgr/conf"),
		limit(452, "4.3.2", "too much mail in the queue, try again later", "MAIL", "the active queue is full", "qmgr/AQ_entries_max"),
		limit(452, "4.3.1", "insufficient system storage", "MAIL", "the disk has less room than it must keep", "qmgr/disk_space_min", "qmgr/disk_space_ok"),
		limit(452, "4.3.1", "Insufficient system storage", "DATA", "the message could not be written to disk, or what filters, signatures or checks want of its header needs more memory than there is", "qmgr/disk_space_min", "qmgr/content_memory_max"),
		limit(451, "4.3.0", "cannot store the message", "final dot", "the store of the queue has failed: see the log of qmgr"),
		// Limits of the server.
		limit(452, "4.5.3", "Too many recipients", "RCPT", "the message, or the session, has as many recipients as it may", "smtps/recipients_per_transaction_max", "smtps/recipients_per_session_max"),
		limit(421, "4.5.3", "Too many recipients, closing connection", "RCPT", "the client went on long after it was told that there are too many", "smtps/recipients_per_transaction_max", "smtps/recipients_per_session_max"),
		limit(421, "4.5.3", "Too many transactions, closing connection", "MAIL", "the session has had as many transactions as it may", "smtps/transactions_max"),
		limit(421, "4.7.0", "Too many bad commands, closing connection", "any", "unknown, misplaced or misspelt commands", "smtps/bad_commands_per_session_max", "smtps/bad_commands_per_transaction_max"),
		limit(421, "4.7.0", "Too many commands without effect, closing connection", "any", "commands that bring no message nearer", "smtps/nop_commands_between_transactions_max", "smtps/nop_commands_in_transaction_max"),
		limit(421, "4.7.0", "Too many invalid addresses, closing connection", "RCPT", "recipients that were refused", "smtps/invalid_addresses_per_session_max", "smtps/invalid_addresses_per_transaction_max"),
		limit(552, "5.3.4", "Message is too big", "MAIL or final dot", "the message is larger than it may be", "smtps/message_size_max"),
		limit(554, "5.6.0", "Message contains a line that is too long", "final dot", "a line is longer than it may be", "smtps/line_length_max"),
		limit(554, "5.6.0", "Message contains a bare CR or LF", "final dot", "a CR or LF stands alone: only both together end a line, or a message could mean two things"),
		limit(550, "5.6.0", "Message contains NUL characters", "final dot", "RFC 5322 forbids NUL", "smtps/nul"),
		limit(554, "5.4.6", "Too many hops, mail loop assumed", "final dot", "the message has more Received: fields than it may", "smtps/hops_max"),
		limit(421, "4.4.2", "Timeout, closing connection", "any", "the client was silent for too long, or the message came too slowly", "smtps/IO_timeout", "smtps/data_grace", "smtps/data_rate_min"),
		limit(421, "4.3.2", "Too many sessions, closing this idle one", "any", "sessions are scarce, and this one was idle", "smtps/threads_max", "smtps/stress_timeout"),
		limit(421, "4.7.0", "Too busy for idle connections, try again in some minutes", "connect", "sessions are scarce, and the address had to make room a moment ago", "smtps/threads_max", "smtps/stress_timeout"),
		limit(421, "4.7.0", "Too many sessions of your address, try again later", "connect", "sessions are scarce, and the address has more than its share", "smtps/threads_max", "smtps/address_share"),
		// Rules of the dialogue.
		limit(554, "5.5.0", "Data sent before the greeting", "connect", "the client did not wait for the greeting", "smtps/greet_pause", "smtps/allow_data_before_greeting"),
		limit(554, "5.5.0", "Illegal pipelining", "any", "the client did not wait for a reply where it must"),
		limit(501, "5.5.4", "Invalid domain name", "EHLO", "the argument is no host name", "smtps/strict_EHLO_checks"),
		limit(550, "5.7.1", "Identity theft: that is my name", "EHLO", "the client calls itself by our own name", "hostname"),
		limit(503, "5.5.1", "Send EHLO or HELO first", "MAIL", "", "smtps/require_EHLO_before_MAIL"),
		limit(554, "5.5.1", "No valid recipients", "DATA", "every recipient was refused"),
		limit(550, "5.7.0", "Rejected", "any", "a section check demands it, or SMAR refused without a text", "smtps/check"),
		limit(554, "5.7.0", "Rejected", "connect or DATA", "a section check demands it", "smtps/check"),
		limit(451, "4.7.0", "Rejected for now, try again later", "any", "a section check demands it", "smtps/check"),
		limit(421, "4.7.0", "Rejected, closing connection", "any", "a section check demands it", "smtps/check"),
		limit(553, "5.6.7", "Bad address: ", "MAIL or RCPT", "an address beyond ASCII without SMTPUTF8", "smtps/smtputf8"),
		limit(553, "5.1.7", "Bad address: ", "MAIL", "the sender cannot be read"),
		limit(553, "5.1.3", "Bad address: ", "RCPT", "the recipient cannot be read"),
		limit(451, "4.3.0", "Temporary local problem, try again later", "any", "a module did not answer: see meta1 ctl status", "smtps/wait_for_smar", "smtps/module_timeout"),
		limit(421, "4.3.0", "Service not available, try again later", "connect", "a module did not answer: see meta1 ctl status", "smtps/wait_for_smar", "smtps/module_timeout"),
		// TLS and AUTH.
		limit(530, "5.7.0", "Must issue a STARTTLS command first", "MAIL", "an entry smtps_session_conf: demands TLS of this client", "smar/access_map/file", "smtps/lookup_session_conf"),
		limit(550, "5.7.0", "TLS requirements are not met: ", "MAIL", "an entry smtps_session_conf: demands more of TLS than the client gave", "smtps/tls/violation", "smar/access_map/file", "smtps/lookup_session_conf"),
		limit(450, "4.7.0", "TLS requirements are not met: ", "MAIL", "as with 550, and violation is tempfail", "smtps/tls/violation", "smar/access_map/file"),
		limit(421, "4.7.0", "TLS requirements are not met: ", "MAIL", "as with 550, and violation is abort", "smtps/tls/violation", "smar/access_map/file"),
		limit(502, "5.5.1", "STARTTLS is not offered", "STARTTLS", "section smtps has no section tls with a certificate, or the class of the session turns it off", "smtps/tls/cert_file"),
		limit(454, "4.7.0", "TLS not available now, too many handshakes", "STARTTLS", "", "smtps/tls/handshakes_max", "smtps/tls/handshake_timeout"),
		limit(421, "4.7.0", "TLS must begin with the connection on this port", "connect", "the section has the flag smtps, and the client began in plain text", "smtps/smtps"),
		limit(530, "5.7.0", "Authentication required", "MAIL", "the server is one for submission, and the client has not authenticated", "smtps/submission", "smtps/auth/trusted_mechanisms"),
		limit(535, "5.7.8", "Authentication credentials invalid", "AUTH", "no such account, or a wrong password", "smtps/auth/password_map", "smtps/auth/dovecot_socket", "smtps/auth/saslauthd_socket"),
		limit(538, "5.7.11", "Encryption required for requested authentication mechanism", "AUTH", "the mechanism needs TLS", "smtps/auth/noplaintext", "smtps/auth/nodictionary", "smtps/auth/forward_secrecy"),
		limit(534, "5.7.9", "Authentication mechanism is too weak", "AUTH", "a flag of section auth forbids the mechanism", "smtps/auth/noactive", "smtps/auth/nodictionary", "smtps/auth/mutual_auth", "smtps/auth/pass_credentials", "smtps/auth/forward_secrecy"),
		limit(504, "5.5.4", "Unrecognized authentication type", "AUTH", "the mechanism is not offered", "smtps/auth/mechanisms"),
		limit(454, "4.7.0", "Too many failed authentications, try again later", "AUTH", "the address or the account has failed too often", "smtps/auth/client_failures_max", "smtps/auth/account_failures_max", "smtps/auth/failure_expire"),
		limit(454, "4.7.0", "Temporary authentication failure", "AUTH", "the source of passwords did not answer", "smtps/auth/timeout", "smtps/auth/dovecot_socket", "smtps/auth/saslauthd_socket"),
		limit(550, "5.7.1", "Rejected per DMARC policy ", "the final dot", "the domain of From: wants mail rejected for which neither SPF nor DKIM speaks, see docs/dmarc.md", "smtps/authentication/dmarc/reject", "smtps/authentication/dmarc/mailing_lists", "smtps/authentication/dmarc/trusted_forwarders"),
		limit(451, "4.7.1", "DMARC: the policy cannot be looked up now", "the final dot", "DNS did not answer", "smtps/authentication/dmarc/temperror"),
		// Who may connect.
		limit(554, "5.7.1", "Only a proxy may connect here", "connect", "", "smtps/proxy/networks", "smtps/proxy/others"),
		limit(421, "4.7.0", "The PROXY header is missing or wrong", "connect", "", "smtps/proxy/networks", "smtps/proxy/header_timeout"),
		limit(550, "5.7.0", "You may not use this command", "XCLIENT or XFORWARD", "the host is not listed", "smtps/authorized_xclient_hosts", "smtps/authorized_xforward_hosts"),
	}
}

// Matches reports whether a reply, or a piece of one, is this one. A client that logs replies
// may leave the code out, or what is behind it.
func (r *Reply) Matches(reply string) bool {
	reply = normal(reply)
	own := normal(r.String())
	text := normal(r.Text)
	switch {
	case reply == "":
		return false
	case strings.HasSuffix(r.Text, ": "): // more follows
		return strings.HasPrefix(reply, own) || strings.HasPrefix(reply, text) || strings.HasPrefix(own, reply)
	}
	return own == reply || text == reply || len(reply) >= 3 && strings.Contains(own, reply)
}

// normal is a reply in which case, space and hyphens of lines do not matter.
func normal(s string) string {
	if len(s) > 3 && s[3] == '-' {
		s = s[:3] + " " + s[4:]
	}
	return strings.ToLower(strings.Join(strings.Fields(s), " "))
}

// FindReplies are those replies that are this one, exact ones first.
func FindReplies(reply string) (found []Reply) {
	var part []Reply
	for _, r := range Replies() {
		switch {
		case normal(r.String()) == normal(reply):
			found = append(found, r)
		case r.Matches(reply):
			part = append(part, r)
		}
	}
	if len(found) > 0 {
		return found
	}
	return part
}
