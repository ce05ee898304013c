package server

import (
	"meta1/confparse"
	"meta1/mta/tlsconf"
	"meta1/server/condition"
)

// sectionRows are the subsections of smtps.
func (c *Config) sectionRows() []confparse.Option {
	return []confparse.Option{
		{
			Name: "auth", Kind: confparse.KindSection, Readme: "3.10", Sub: c.Auth.Table(), Present: &c.AuthPresent,
			Doc: "SMTP AUTH (RFC 4954; docs/auth.md).",
		},
		{
			Name: "authentication", Kind: confparse.KindSection, Readme: "own", Sub: c.Authentication.Table(), Present: &c.AuthenticationPresent,
			Doc: "Checks who sends incoming mail, by SPF and DKIM and what stands on them, and reports the results in Authentication-Results: (RFC 8601). Without it nothing is checked. docs/authentication.md explains it.",
		},
		{
			Name: "ARC_sealing", Kind: confparse.KindSection, Readme: "own", Sub: c.ARC.Table(), Present: &c.ARCPresent,
			Doc: "Seals by ARC (RFC 8617) the mail that an alias forwards to a domain that is not ours. It may stand in one server section, and counts for the mail of all. Section authentication must find out what the seal then says. docs/arc.md explains it.",
		},
		{
			Name: "DKIM_signing", Kind: confparse.KindSection, Readme: "3.10", Sub: c.DKIM.Table(), Present: &c.DKIMPresent,
			Doc: "DKIM signatures (RFC 6376) on accepted mail. docs/dkim.md explains it.",
		},
		{
			Name: "milter", Kind: confparse.KindSection, Readme: "own", New: c.newMilter, Named: true, Reload: confparse.NewSessions,
			Doc: "A mail filter that speaks Sendmail's milter protocol, such as OpenDKIM, rspamd or mailfromd. It may stand several times, with different names: the filters are asked in that order, and each sees a message as those before it have left it. See docs/milters.md.",
		},
		{
			Name: "policy_milter", Kind: confparse.KindSection, Readme: "3.10", Sub: c.PolicyMilter.table(), Present: &c.MilterPresent,
			Doc: "The policy milter that is asked at each stage, before the milters. If it fails it is ignored, unless a flag says otherwise. With it PRDR is offered. docs/pmilter.md explains it.",
		},
		{
			Name: "policy_service", Kind: confparse.KindSection, Readme: "own", New: c.newPolicyService, Named: true, Reload: confparse.NewSessions,
			Doc: "A service that speaks Postfix's policy delegation protocol, such as postgrey or policyd-spf. It is asked about each recipient behind all checks of our own. It may stand several times, with different names; they are asked in that order. See docs/policy-services.md.",
		},
		{
			Name: "proxy", Kind: confparse.KindSection, Readme: "3.10", Sub: c.Proxy.table(), Present: &c.ProxyPresent,
			Doc: "The proxy that hands connections on to this server with a PROXY header, version 1 or 2, before everything else. The client is then the one that the header names. See docs/behind-a-proxy.md.",
		},
		{
			Name: "protected_recipients", Kind: confparse.KindSection, Readme: "3.10", Sub: c.Protected.table(), Present: &c.ProtectedPresent,
			Doc: "Restrict who may send to the recipients that the access map lists with the tag protectedrcpt.",
		},
		{
			Name: "tls", Kind: confparse.KindSection, Readme: "3.10", Sub: c.tlsTable(), Present: &c.TLSPresent,
			Doc: "STARTTLS (RFC 3207), and with the flag smtps TLS from the beginning (RFC 8314). docs/tls.md explains it.",
		},
		{
			Name: "session_features", Kind: confparse.KindSection, Readme: "3.10", New: c.newSessionFeatures, Named: true,
			Doc: "A class of sessions. Entries smtps_session_conf: and smtps_se_conf: of the access map name it for clients (session_feature=NAME;), if the flag lookup_session_conf is set.",
		},
		{
			Name: "check", Kind: confparse.KindSection, Readme: "8.5.1", New: c.newCheck, Named: true,
			Words: condition.StageNames(),
			Doc:   "Refuses clients and mail by a condition, at the stage that is its name: connect, mail, rcpt, data or eom. Of several sections of a stage the first whose condition holds decides. Neither quick: in the access map nor delay_checks has an effect on it.",
		},
	}
}

// tlsTable is the table of section tls.
func (c *Config) tlsTable() *confparse.Table {
	t := c.TLS.Options(tlsconf.Server)
	t.Options = append(t.Options, c.Handshakes.rows()...)
	return t
}

func (m *PolicyMilter) table() *confparse.Table {
	socket := m.Socket.table("The policy milter.", false)
	for i := range socket.Options {
		if o := &socket.Options[i]; o.Name == "type" {
			o.Required = true
			o.Doc = "inet: address and port say where the policy milter listens. unix: path does."
		}
	}
	socket.Check = func(r *confparse.Report) { m.Socket.check(r) }
	return &confparse.Table{
		Check: func(r *confparse.Report) {
			if m.Abort && m.AcceptButReconnect {
				r.Warnf("", "policy_milter: of the flags abort and accept_but_reconnect the first counts")
			}
		},
		Options: []confparse.Option{
			{
				Name: "socket", Kind: confparse.KindSection, Required: true, Readme: "3.10", Sub: socket,
				Doc: "Where the policy milter listens.",
			},
			{
				Name: "timeout", Type: confparse.Time, Unit: "s", Default: "1m", Min: "1", Readme: "3.10", Into: &m.Timeout,
				Doc: "How long to wait for a reply of the policy milter. Default is ours.",
			},
			flagRow("abort", "3.10", "Abort the session with 421 if the policy milter fails.", &m.Abort),
			flagRow("accept_but_reconnect", "3.10", "Go on without the policy milter if it fails, and connect anew for the next session. Without any flag that is so, too, but a policy milter to which no connection can be made is left alone for ten seconds.", &m.AcceptButReconnect),
		},
	}
}

// table is a generic socket specification (README 3.7 item 2). proxy adds what only
// a proxy has.
func (s *Socket) table(what string, proxy bool) *confparse.Table {
	words := []string{"inet", "unix"}
	if proxy {
		words = []string{"inet", "inet6", "unix"}
	}
	t := &confparse.Table{Options: []confparse.Option{
		{Name: "type", Type: confparse.Enum, Words: words, Readme: "3.10", Into: &s.Type, Doc: what + " Type of its socket."},
		{Name: "port", Type: confparse.Int, Min: "0", Max: "65535", Readme: "3.10", Into: &s.Port, Doc: what + " Its port."},
		{Name: "address", Type: confparse.IP, Readme: "3.10", Into: &s.Address, Doc: what + " Its address."},
		{Name: "path", Type: confparse.Path, Readme: "3.10", Into: &s.Path, Doc: what + " Path of its socket."},
	}}
	if proxy {
		t.Options = append(t.Options, confparse.Option{
			Name: "client_key", Type: confparse.String, Readme: "3.10", Into: &s.ClientKey, Secret: true,
			Doc: what + " The key that it shares with us.",
		})
	}
	return t
}

func (p *Protected) table() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "allow_by", Type: confparse.Flags, Words: []string{"sender", "client_ip"}, Readme: "3.10", Into: &p.AllowBy,
			Doc: "By what a sender may be allowed; at least one is needed.",
		},
		{
			Name: "match_type", Type: confparse.Enum, Words: []string{"exact", "generic_lookup", "implicitly_match_detail"}, Default: "exact",
			Readme: "3.10", Into: &p.MatchType, Doc: "How the items are matched.",
		},
	}}
}
