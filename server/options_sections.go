package server

import (
	"strings"

	"meta1/confparse"
)

// sectionRows are the subsections of smtps.
func (c *Config) sectionRows() []confparse.Option {
	return []confparse.Option{
		{
			Name: "auth", Kind: confparse.KindSection, Readme: "3.10", Sub: c.Auth.table(), Present: &c.AuthPresent,
			Doc: "SMTP AUTH (RFC 4954)." + later,
		},
		{
			Name: "DKIM_signing", Kind: confparse.KindSection, Readme: "3.10", Sub: c.DKIM.table(), Present: &c.DKIMPresent,
			Doc: "DKIM signatures (RFC 6376) on accepted mail." + later,
		},
		{
			Name: "policy_milter", Kind: confparse.KindSection, Readme: "3.10", Sub: c.PolicyMilter.table(), Present: &c.MilterPresent,
			Doc: "The policy milter that is asked at each stage." + later,
		},
		{
			Name: "proxy", Kind: confparse.KindSection, Readme: "3.10", Sub: c.Proxy.table("The proxy that may connect to this server.", true), Present: &c.ProxyPresent,
			Doc: "Which proxy is allowed to connect to this server." + later,
		},
		{
			Name: "protected_recipients", Kind: confparse.KindSection, Readme: "3.10", Sub: c.Protected.table(), Present: &c.ProtectedPresent,
			Doc: "Restrict who may send to the recipients that the access map lists with the tag protectedrcpt." + later,
		},
		{
			Name: "tls", Kind: confparse.KindSection, Readme: "3.10", Sub: c.TLS.table(), Present: &c.TLSPresent,
			Doc: "STARTTLS (RFC 3207)." + later,
		},
		{
			Name: "session_features", Kind: confparse.KindSection, Readme: "3.10", New: c.newSessionFeatures, Named: true,
			Doc: "A class of session features that the access map refers to by its name." + later,
		},
		{
			Name: "check", Kind: confparse.KindSection, Readme: "8.5.1", New: c.newCheck, Named: true,
			Words: []string{"connect", "mail", "rcpt", "data", "eom"},
			Doc:   "A condition checked at the stage that is its name: connect, mail, rcpt, data or eom." + later,
		},
	}
}

func (a *Auth) table() *confparse.Table {
	doc := func(s string) string { return "Cyrus SASL's flag: " + s + later }
	return &confparse.Table{Options: []confparse.Option{
		flagRow("noplaintext", "3.10", doc("no mechanism that sends a password in clear text."), &a.NoPlaintext),
		flagRow("noactive", "3.10", doc("no mechanism open to active attacks."), &a.NoActive),
		flagRow("nodictionary", "3.10", doc("no mechanism open to passive dictionary attacks."), &a.NoDictionary),
		flagRow("forward_secrecy", "3.10", doc("only mechanisms with forward secrecy between sessions."), &a.ForwardSecrecy),
		flagRow("noanonymous", "3.10", doc("no anonymous login."), &a.NoAnonymous),
		flagRow("pass_credentials", "3.10", doc("only mechanisms that pass client credentials."), &a.PassCredentials),
		flagRow("mutual_auth", "3.10", doc("only mechanisms with mutual authentication."), &a.MutualAuth),
		{
			Name: "trusted_mechanisms", Type: confparse.List, Readme: "3.10", Into: &a.TrustedMechanisms,
			Doc: "Mechanisms by which a client that authenticated may relay." + later,
		},
		{
			Name: "user_realm", Type: confparse.String, Readme: "3.10", Into: &a.UserRealm,
			Doc: "Realm of user names that have none." + later,
		},
	}}
}

func (d *DKIM) table() *confparse.Table {
	canon := []string{"simple", "relaxed"}
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "signature_method", Type: confparse.Enum, Words: []string{"rsa-sha256", "rsa-sha1"}, Default: "rsa-sha256",
			Readme: "3.10", Into: &d.SignatureMethod, Doc: "Signature method." + later,
		},
		{
			Name: "body_canonicalization", Type: confparse.Enum, Words: canon, Default: "simple",
			Readme: "3.10", Into: &d.BodyCanonicalization, Doc: "Canonicalization of the body." + later,
		},
		{
			Name: "header_canonicalization", Type: confparse.Enum, Words: canon, Default: "simple",
			Readme: "3.10", Into: &d.HeaderCanonicalization, Doc: "Canonicalization of the header." + later,
		},
		{
			Name: "ignore_errors", Type: confparse.Bool, Default: "false", Readme: "3.10", Into: &d.IgnoreErrors,
			Doc: "Accept a message that could not be signed." + later,
		},
		{Name: "sign_header", Type: confparse.List, Readme: "3.10", Into: &d.SignHeader, Doc: "Names of headers to sign; none for all." + later},
		{Name: "skip_header", Type: confparse.List, Readme: "3.10", Into: &d.SkipHeader, Doc: "Beginnings of headers not to sign." + later},
		{Name: "over_sign_headers", Type: confparse.List, Readme: "3.10", Into: &d.OverSignHeaders, Doc: "Names of headers to list once more than the message has them." + later},
		{
			Name: "total_header_len", Type: confparse.Size, Unit: "B", Default: "1MB", Min: "257", Max: "1GB",
			Readme: "8.5", Into: &d.TotalHeaderLen, Doc: "Longest header that is signed." + later,
		},
		{
			Name: "header_val_len_max", Type: confparse.Size, Unit: "B", Default: "64KB", Min: "257", Max: "1MB",
			Readme: "8.5", Into: &d.HeaderValLenMax, Doc: "Longest value of one header that is signed." + later,
		},
		{
			Name: "sign", Kind: confparse.KindSection, Readme: "3.10", New: d.newSign,
			Doc: "A key and the mail that it signs." + later,
		},
	}}
}

func (d *DKIM) newSign(string) *confparse.Table {
	s := &DKIMSign{}
	return &confparse.Table{
		Done: func() { d.Sign = append(d.Sign, *s) },
		Options: []confparse.Option{
			{Name: "keyfile", Type: confparse.File, Required: true, Readme: "3.10", Into: &s.KeyFile, Doc: "File with the private key." + later},
			{Name: "domain", Type: confparse.String, Required: true, Readme: "3.10", Into: &s.Domain, Doc: "Domain of the signing entity (d=)." + later},
			{Name: "selector", Type: confparse.String, Required: true, Readme: "3.10", Into: &s.Selector, Doc: "Selector (s=)." + later},
			{Name: "from", Type: confparse.String, Readme: "3.10", Into: &s.From, Doc: "What of a From: address selects this key; the section without it is the default." + later},
		},
	}
}

func (m *PolicyMilter) table() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "socket", Kind: confparse.KindSection, Readme: "3.10", Sub: m.Socket.table("The policy milter.", false),
			Doc: "Where the policy milter listens." + later,
		},
		{
			Name: "timeout", Type: confparse.Time, Unit: "s", Default: "1m", Min: "1", Readme: "3.10", Into: &m.Timeout,
			Doc: "How long to wait for a reply of the policy milter. Default is ours." + later,
		},
		flagRow("abort", "3.10", "Abort the session with 421 if the policy milter fails."+later, &m.Abort),
		flagRow("accept_but_reconnect", "3.10", "Go on without the policy milter if it fails, and connect anew for the next session."+later, &m.AcceptButReconnect),
	}}
}

// table is a generic socket specification (README 3.7 item 2). proxy adds what only
// a proxy has.
func (s *Socket) table(what string, proxy bool) *confparse.Table {
	words := []string{"inet", "unix"}
	if proxy {
		words = []string{"inet", "inet6", "unix"}
	}
	t := &confparse.Table{Options: []confparse.Option{
		{Name: "type", Type: confparse.Enum, Words: words, Readme: "3.10", Into: &s.Type, Doc: what + " Type of its socket." + later},
		{Name: "port", Type: confparse.Int, Min: "0", Max: "65535", Readme: "3.10", Into: &s.Port, Doc: what + " Its port." + later},
		{Name: "address", Type: confparse.IP, Readme: "3.10", Into: &s.Address, Doc: what + " Its address." + later},
		{Name: "path", Type: confparse.Path, Readme: "3.10", Into: &s.Path, Doc: what + " Path of its socket." + later},
	}}
	if proxy {
		t.Options = append(t.Options, confparse.Option{
			Name: "client_key", Type: confparse.String, Readme: "3.10", Into: &s.ClientKey,
			Doc: what + " The key that it shares with us." + later,
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

func (c *Config) newSessionFeatures(name string) *confparse.Table {
	f := &SessionFeatures{Name: name}
	return &confparse.Table{
		Done: func() { c.SessionFeatures = append(c.SessionFeatures, *f) },
		Options: []confparse.Option{{
			Name: "flags", Type: confparse.Flags, Words: []string{"starttls", "auth", "pipelining", "8bitmime", "dsn", "xverp", "prdr"},
			Readme: "3.10", Into: &f.Flags, Doc: "Extensions that are offered, or with a negation are not." + later,
		}},
	}
}

func (c *Config) newCheck(name string) *confparse.Table {
	k := &Check{Stage: strings.ToLower(name)}
	return &confparse.Table{
		Done: func() { c.Checks = append(c.Checks, *k) },
		Options: []confparse.Option{
			{
				Name: "action", Type: confparse.Enum, Words: []string{"permfail", "tempfail", "abort"}, Required: true,
				Readme: "8.5.1", Into: &k.Action, Doc: "What to do if the condition holds." + later,
			},
			{
				Name: "condition", Type: confparse.Expr, Required: true, Readme: "8.5.1", Into: &k.Condition,
				Doc: "When to apply the action: a boolean expression behind ==." + later,
			},
		},
	}
}

func (t *TLS) table() *confparse.Table {
	file := func(name, doc string, into *string) confparse.Option {
		return confparse.Option{Name: name, Type: confparse.File, Readme: "3.10", Into: into, Doc: doc + later}
	}
	rows := []confparse.Option{
		{Name: "cache_size", Type: confparse.Int, Unit: "entries", Min: "0", Readme: "3.10", Into: &t.CacheSize, Doc: "Size of the TLS session cache; 0 for none." + later},
		{Name: "cache_timeout", Type: confparse.Time, Unit: "s", Readme: "3.10", Into: &t.CacheTimeout, Doc: "How long an entry stays in the TLS session cache." + later},
		file("cert_file", "File with our certificate in PEM format.", &t.CertFile),
		file("key_file", "File with the private key of the certificate.", &t.KeyFile),
		file("CAcert_file", "File with CA certificates.", &t.CACertFile),
		file("CAlist_file", "File with the CA certificates whose names are sent to clients.", &t.CAListFile),
		{Name: "CAcert_directory", Type: confparse.Dir, Readme: "3.10", Into: &t.CACertDirectory, Doc: "Directory with CA certificates." + later},
		{Name: "options", Type: confparse.List, Readme: "3.10", Into: &t.Options, Doc: "Options of the TLS library." + later},
		{Name: "CipherList", Type: confparse.String, Readme: "3.10", Into: &t.CipherList, Doc: "Ciphers before TLS 1.3." + later},
		{Name: "CipherSuites", Type: confparse.String, Readme: "3.10", Into: &t.CipherSuites, Doc: "Cipher suites of TLS 1.3." + later},
		file("CRL_file", "File with revoked certificates.", &t.CRLFile),
		{Name: "CRL_directory", Type: confparse.Dir, Readme: "3.10", Into: &t.CRLDirectory, Doc: "Directory with revoked certificates." + later},
		{
			Name: "Digest", Type: confparse.Enum, Words: []string{"sha1", "sha224", "sha256", "sha384", "sha512"}, Default: "sha1",
			Readme: "3.10", Into: &t.Digest, Doc: "Digest of certificate fingerprints." + later,
		},
		{Name: "DHParam", Kind: confparse.KindSection, Effect: confparse.Host, Readme: "3.10", Sub: t.dhTable(), Doc: "Diffie-Hellman parameters. They have no effect: Go chooses them itself."},
		{
			Name: "violation", Type: confparse.Enum, Words: []string{"permfail", "tempfail", "abort"}, Default: "permfail",
			Readme: "3.10", Into: &t.Violation, Doc: "What to do if TLS requirements are not met. The default is ours." + later,
		},
		{Name: "verify_depth", Type: confparse.Int, Min: "0", Readme: "3.10", Into: &t.VerifyDepth, Doc: "Longest chain of certificates; 0 for the library's limit." + later},
	}
	return &confparse.Table{Options: append(append(rows, t.flagRows()...), t.advancedRows()...)}
}

func (t *TLS) dhTable() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		host(confparse.Option{Name: "bits", Type: confparse.Int, Min: "0", Readme: "3.10", Into: &t.DHBits, Doc: "Size of the parameters."}),
		host(confparse.Option{Name: "file", Type: confparse.File, Readme: "3.10", Into: &t.DHFile, Doc: "File with the parameters."}),
	}}
}

func (t *TLS) flagRows() []confparse.Option {
	request := flagRow("request_cert", "3.10", "Ask the client for a certificate."+later, &t.RequestCert)
	request.Default = "true"
	return []confparse.Option{
		flagRow("allow_relaying_if_verified", "3.10", "Let a client whose certificate was verified relay."+later, &t.AllowRelayingIfVerified),
		flagRow("check_access_map_for_relaying", "3.10", "Look a verified certificate up in the access map for relaying."+later, &t.CheckAccessMapForRelaying),
		request,
		flagRow("use_chain", "3.10", "Take cert_file for a chain of certificates."+later, &t.UseChain),
	}
}

// advancedRows are the options of README 11.2.
func (t *TLS) advancedRows() []confparse.Option {
	return []confparse.Option{
		host(confparse.Option{Name: "DSA_cert_file", Type: confparse.File, Readme: "11.2", Into: &t.DSACertFile, Doc: "File with a DSA certificate."}),
		host(confparse.Option{Name: "DSA_key_file", Type: confparse.File, Readme: "11.2", Into: &t.DSAKeyFile, Doc: "File with the key of the DSA certificate."}),
		{Name: "EC_cert_file", Type: confparse.File, Readme: "11.2", Into: &t.ECCertFile, Doc: "File with an EC certificate." + later},
		{Name: "EC_key_file", Type: confparse.File, Readme: "11.2", Into: &t.ECKeyFile, Doc: "File with the key of the EC certificate." + later},
		{Name: "EC_curve", Type: confparse.List, Readme: "11.2", Into: &t.ECCurve, Doc: "Elliptic curves to use." + later},
	}
}
