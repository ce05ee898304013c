package server

import (
	"meta1/confparse"
	"meta1/server/content"
)

// Options is the option table of a section smtps. Its rows point into c.
func (c *Config) Options() *confparse.Table {
	t := &confparse.Table{Check: c.check}
	for _, rows := range [][]confparse.Option{
		c.generalRows(), c.Relays.rows(), c.limitRows(), c.flagRows(), c.hostRows(), c.sectionRows(),
	} {
		t.Options = append(t.Options, rows...)
	}
	t.Reloads(confparse.AtOnce, "", "threads_max", "address_share", "stress_timeout", "stop_timeout")
	t.Reloads(confparse.Restart, "the content files get their group at the start", "CDB_gid")
	t.Reloads(confparse.AtOnce, "", "daemon_address")
	t.Reloads(confparse.AtOnce, "", "ARC_sealing")
	return t.Declare(confparse.NewSessions, "")
}

// check makes the cross-checks of the section.
func (c *Config) check(r *confparse.Report) {
	if _, err := parseGreeting(c.Greeting, "host.invalid", ""); err != nil {
		r.Errorf("greeting", "greeting %v", err)
	}
	c.Relays.check(r)
	by := c.Protected.AllowBy
	if c.ProtectedPresent && !confparse.HasFlag(by, "sender", false) && !confparse.HasFlag(by, "client_ip", false) {
		r.Errorf("protected_recipients", "protected_recipients needs allow_by with at least one of sender and client_ip")
	}
	if own := &c.TLS.Own; c.Flags.SMTPS && (!c.TLSPresent || own.Cert == "" && own.ECCert == "" && len(own.More) == 0) {
		r.Errorf("smtps", "flag smtps needs a section tls with cert_file and key_file")
	}
	c.checkConditions(r)
	c.checkLookups(r)
}

func (c *Config) generalRows() []confparse.Option {
	return []confparse.Option{
		{
			Name: "greeting", Type: confparse.String, Readme: "3.10", Into: &c.Greeting,
			Doc: "Text of the 220 greeting: it follows the code and the host name, unless it starts with 220 and ends with CRLF, then it is the whole greeting. CRLF inside makes a greeting of several lines. The default is the host name, ESMTP and the version.",
		},
		{
			Name: "id", Type: confparse.Int, Default: "0", Min: "0", Max: "255", Readme: "3.10", Into: &c.ID,
			Doc: "Unique identifier of this SMTP server among all smtps sections; it is the last part of each session and transaction id.",
		},
		{
			Name: "IO_timeout", Type: confparse.Time, Unit: "s", Default: "5m", Min: "1", Max: "1h", Readme: "3.10", Into: &c.IOTimeout,
			Doc: "How long a client may take for one command line, one block of message data, or to read our replies; data_rate_min and data_grace bound the whole of a message. Default from RFC 5321, 4.5.3.2.7.",
		},
		{
			Name: "module_timeout", Type: confparse.Time, Unit: "s", Default: "1m", Min: "1", Max: "1h", Readme: "8.5", Into: &c.ModuleTimeout,
			Doc: "How long to wait for an answer of QMGR before the client gets 451. The default is ours: QMGR may hold answers back to throttle, and clients wait for five minutes.",
		},
		{
			Name: "wait_for_smar", Type: confparse.Time, Unit: "s", Default: "2m", Min: "1", Max: "1h", Readme: "8.5", Into: &c.WaitForSMAR,
			Doc: "How long to wait for an answer of SMAR before the client gets 451. The default is ours: longer than the DNS queries of one check, shorter than clients wait.",
		},
		{
			Name: "greet_pause", Type: confparse.Time, Unit: "s", Default: "0", Max: "1m", Readme: "own", Into: &c.GreetPause,
			Doc: "How long a client must be silent before it is greeted, unless allow_data_before_greeting is set. 0 refuses only what has arrived by the time of the greeting.",
		},
		{
			Name: "stop_timeout", Type: confparse.Time, Unit: "s", Default: "10", Min: "1", Max: "10m", Readme: "own", Into: &c.StopTimeout,
			Doc: "How long sessions that are in DATA may go on when the server stops.",
		},
		{
			Name: "data_rate_min", Type: confparse.Size, Unit: "B", Default: "1KB", Min: "0", Max: "1GB", Readme: "own", Into: &c.Slow.Rate,
			Doc: "Least rate in bytes a second at which the whole of a message must come in once data_grace has passed; 0 for no limit. Default is ours; Postfix's smtpd_min_data_rate is 500.",
		},
		{
			Name: "data_grace", Type: confparse.Time, Unit: "s", Default: "10m", Min: "1", Max: "1d", Readme: "own", Into: &c.Slow.Grace,
			Doc: "How long a message may take whatever its size is. The default leaves room for twice the longest pause that RFC 5321, 4.5.3.2, lets a client make.",
		},
		{
			Name: "stress_timeout", Type: confparse.Time, Unit: "s", Default: "10", Min: "1", Max: "1h", Readme: "own", Into: &c.StressTimeout,
			Doc: "What IO_timeout shrinks to for idle clients that have brought no mail when sessions grow scarce: step by step from the moment on when three quarters of threads_max are taken, to this time when all are. Default as Postfix's smtpd_timeout under stress. See docs/limits.md.",
		},
		{
			Name: "address_share", Type: confparse.Int, Unit: "%", Default: "25", Min: "1", Max: "100", Readme: "own", Into: &c.AddressShare,
			Doc: "How much of threads_max one address (of IPv6, one net of 64 bits) may hold while sessions are scarce; loopback addresses are exempt. More get 421, and idle sessions beyond it end.",
		},
		{
			Name: "message_size_max", Type: confparse.Int, Unit: "KB", Default: "10000", Min: "0", Readme: "3.10", Into: &c.MessageSizeMax,
			Doc: "Maximum message size; 0 for no limit. Default as Postfix's message_size_limit.",
		},
		{
			Name: "line_length_max", Type: confparse.Size, Unit: "B", Default: "64KB", Min: "0", Readme: "own", Into: &c.LineLengthMax,
			Doc: "Longest line of a message; 0 for no limit. RFC 5321 allows 998 octets, but mail with longer lines is common and harmless.",
		},
		{
			Name: "nul", Type: confparse.Enum, Words: []string{content.RejectNUL, content.StripNUL, content.AcceptNUL}, Default: content.RejectNUL, Readme: "own", Into: &c.NUL,
			Doc: "What becomes of a message with NUL characters, which RFC 5322 forbids and which hosts on the way may read otherwise than we do: reject refuses it, strip removes them, accept passes them on.",
		},
		{
			Name: "daemon_address", Type: confparse.List, Readme: "8.5", Into: &c.DaemonAddress,
			Doc: "Addresses host:port to listen on in place of listen_socket.",
		},
	}
}

// limitRow is the row of a limit where 0 means none.
func limitRow(name, value, readme, doc string, into *int) confparse.Option {
	return confparse.Option{
		Name: name, Type: confparse.Int, Unit: "entries", Default: value, Min: "0", Readme: readme,
		Into: into, Doc: doc + " 0 for no limit.",
	}
}

func (c *Config) limitRows() []confparse.Option {
	l := &c.Limits
	return []confparse.Option{
		limitRow("threads_max", "1000", "3.10", "Maximum number of sessions at a time. A further client takes the place of one that is idle and has brought no mail, or gets 421. The default is ours: a session costs some 13 KB while its client is idle, with TLS 38 KB.", &c.ThreadsMax),
		limitRow("bad_commands_per_session_max", "25", "3.10", "Maximum number of bad commands (unknown, misplaced, wrong syntax) per session; the next one ends it with 421. Default as sendmail 8.", &l.BadCommandsSession),
		limitRow("bad_commands_per_transaction_max", "10", "3.10", "Maximum number of bad commands per transaction; the next one ends the session with 421. The default is ours.", &l.BadCommandsTransaction),
		limitRow("nop_commands_between_transactions_max", "100", "3.10", "Maximum number of commands without effect (NOOP, RSET, EHLO, VRFY, HELP and the like, and refused transactions) between two successful transactions; the next one ends the session with 421. Default as Postfix's smtpd_junk_command_limit.", &l.NopsBetween),
		limitRow("nop_commands_in_transaction_max", "20", "3.10", "Maximum number of NOOP and related commands in a transaction; the next one ends the session with 421. Default as sendmail 8.", &l.NopsInTransaction),
		limitRow("invalid_addresses_per_session_max", "200", "3.10", "Maximum number of RCPT addresses refused with 5xy per session; the next one ends it with 421. The default is ours.", &l.InvalidSession),
		limitRow("invalid_addresses_per_transaction_max", "100", "3.10", "Maximum number of RCPT addresses refused with 5xy per transaction; the next one ends the session with 421. The default is ours.", &l.InvalidTransaction),
		limitRow("recipients_per_session_max", "0", "3.10", "Maximum number of accepted recipients per session; more get 452. The default is ours: kept connections are good.", &l.RecipientsSession),
		{
			Name: "recipients_per_transaction_max", Type: confparse.Int, Unit: "entries", Default: "1000", Min: "1", Max: "1000000",
			Readme: "3.10", Into: &l.RecipientsTransaction,
			Doc: "Maximum number of accepted recipients per transaction; more get 452, and as many again end the session with 421. Default as Postfix's smtpd_recipient_limit.",
		},
		limitRow("transactions_max", "0", "3.10", "Maximum number of transactions per session; the next MAIL ends it with 421. The default is ours: kept connections are good.", &l.Transactions),
		limitRow("hops_max", "50", "3.10", "Maximum number of Received: headers of a message; more are taken for a mail loop. Default as Postfix's hopcount_limit.", &l.Hops),
	}
}

// flagRow is the row of a word of the flags option.
func flagRow(name, readme, doc string, into *bool) confparse.Option {
	return confparse.Option{
		Name: name, Kind: confparse.KindFlag, Type: confparse.Bool, Default: "false", Readme: readme, Into: into, Doc: doc,
	}
}

// onFlagRow is the row of a flag that is set unless it is negated.
func onFlagRow(name, readme, doc string, into *bool) confparse.Option {
	o := flagRow(name, readme, doc, into)
	o.Default = "true"
	return o
}

func (c *Config) flagRows() []confparse.Option {
	f := &c.Flags
	return []confparse.Option{
		flagRow("8bitmime", "3.10", "Offer 8BITMIME. Content is passed on as it is, without conversion.", &f.EightBitMIME),
		flagRow("access", "3.10", "Use SMAR's access map: ask it about the client's address and name when it connects.", &f.Access),
		flagRow("allow_data_before_greeting", "3.10", "Allow a client to send data before the 220 greeting.", &f.AllowDataBeforeGreeting),
		flagRow("allow_space_after_colon_for_MAIL_and_RCPT", "3.10", "Allow spaces behind MAIL FROM: and RCPT TO:.", &f.AllowSpaceAfterColon),
		flagRow("delay_checks", "3.10", "Send rejections of the client, EHLO and MAIL stages as reply to RCPT, unless they are marked quick:.", &f.DelayChecks),
		flagRow("delay_greylisting_error_until_DATA", "3.10", "Send greylisting's rejections as reply to DATA.", &f.DelayGreylistingError),
		flagRow("greylisting", "3.10", "Use simple greylisting.", &f.Greylisting),
		flagRow("fullgreylisting", "3.10", "Use full greylisting.", &f.FullGreylisting),
		flagRow("rcpt_conf", "3.10", "Look recipients up in the access map with the tag smtps_rcpt_conf.", &f.RcptConf),
		flagRow("lmtp_does_not_imply_relaying", "3.10", "Do not take domains that mailertable delivers by LMTP for local ones.", &f.LMTPDoesNotImplyRelaying),
		flagRow("lookup_session_conf", "3.10", "Look the session's configuration up in the access map: smtps_session_conf: with the client's address, and if there is no such entry smtps_se_conf: with its name.", &f.LookupSessionConf),
		flagRow("require_EHLO_before_MAIL", "3.10", "Require EHLO or HELO before MAIL.", &f.RequireEHLO),
		onFlagRow("chunking", "own", "Offer CHUNKING (RFC 3030): a message may come in by BDAT, in chunks of a given size. What is in it must be good for DATA, too: lines end in CR LF alone.", &f.Chunking),
		flagRow("binarymime", "own", "Offer BINARYMIME (RFC 3030) where CHUNKING is offered: a message whose body is any octets, not lines, which comes in by BDAT alone. A host that does not offer it, too, gets such mail with its parts encoded, which breaks DKIM signatures, or not at all (without_8bitmime of smtpc); so it is off unless set.", &f.Binary),
		onFlagRow("requiretls", "own", "Offer REQUIRETLS (RFC 8689) under TLS: mail that is sent so goes on by TLS alone, to hosts that keep to it, too, or comes back.", &f.RequireTLS),
		onFlagRow("smtputf8", "own", "Offer SMTPUTF8 (RFC 6531), addresses and headers in UTF-8, where 8BITMIME is offered. Such mail goes on only to hosts that offer it, too.", &f.UTF8),
		flagRow("soft_bounce", "3.10", "Change all permanent replies (5xy) into temporary ones (4xy), for tests.", &f.SoftBounce),
		flagRow("strict_EHLO_checks", "3.10", "Demand a domain name or an address literal as argument of EHLO and HELO.", &f.StrictEHLO),
		flagRow("smtps", "3.10", "Begin each session with a TLS handshake (RFC 8314), as clients expect on port 465. It needs section tls with a certificate.", &f.SMTPS),
		flagRow("xverp", "3.10", "Offer XVERP, which lets a client turn VERP on for a transaction.", &f.XVERP),
		flagRow("allow_untrusted_routing", "own", "Let clients that may not relay give recipients such as user%host@domain and host!user@domain, and \"user@host.example\"@domain where mail goes on by SMTP, with which the server of the domain may send mail anywhere. An entry of the access map for the whole address, or a local user of that name, does so for one address.", &f.UntrustedRouting),
		flagRow("submission", "own", "This is a server for mail submission (RFC 6409): MAIL takes AUTH, or a client that may relay for another reason, and is answered 530 otherwise; there is no exception for postmaster. Mail without Date: or Message-ID: gets them, unless it has a Received: field, which says that it was relayed.", &f.Submission),
		flagRow("prdr", "3.10", "Offer PRDR, which gives a reply per recipient at the end of the message. A section policy_milter offers it, too.", &f.PRDR),
	}
}

// host marks a row that belongs to MeTA1's many-process form.
func host(o confparse.Option) confparse.Option {
	o.Effect = confparse.Host
	return o
}

func (c *Config) hostRows() []confparse.Option {
	h := &c.Host
	return []confparse.Option{
		{
			Name: "CDB_gid", Type: confparse.Int, Min: "0", Readme: "3.10", Into: &h.CDBGid,
			Doc: "Numeric id of the group that content files belong to, which may read them. The account that runs meta1 must be a member of it. All sections smtps must name the same. Without it, or 0, files have the group of the account.",
		},
		host(confparse.Option{Name: "processes", Type: confparse.Int, Default: "1", Min: "1", Readme: "3.10", Into: &h.Processes, Doc: "Number of processes to start."}),
		host(confparse.Option{Name: "listen_queue", Type: confparse.Int, Min: "0", Readme: "8.5", Into: &h.ListenQueue, Doc: "Length of the queue of listen(2)."}),
		host(confparse.Option{Name: "wait_threads_max", Type: confparse.Int, Unit: "entries", Min: "0", Readme: "8.5", Into: &h.WaitThreadsMax, Doc: "Maximum number of waiting threads."}),
		host(confparse.Option{Name: "wait_threads_min", Type: confparse.Int, Unit: "entries", Min: "0", Readme: "8.5", Into: &h.WaitThreadsMin, Doc: "Minimum number of waiting threads."}),
		host(flagRow("background", "8.5", "Fork after start.", &h.Background)),
		host(flagRow("serialize_accept", "8.5", "Serialize calls of accept(2).", &h.SerializeAccept)),
	}
}
