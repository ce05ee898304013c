package tlsconf

import (
	"path/filepath"

	"meta1/confparse"
)

// Options is the table of section tls, bound to s (README 3.10 item 24, 3.11 item 4, 11.2).
// Its Check resolves the directories: those of this section are relative to the folder of the
// configuration file, as its files are (README 3.6).
func (s *Section) Options(role Role) *confparse.Table {
	t := &confparse.Table{Check: s.resolve}
	for _, rows := range [][]confparse.Option{s.ownRows(role), s.trustRows(role), s.suiteRows(), s.sessionRows(role), s.flagRows(role), s.ignoredRows()} {
		t.Options = append(t.Options, rows...)
	}
	for i := range t.Options {
		switch o := &t.Options[i]; o.Name {
		case "violation", "allow_relaying_if_verified", "check_access_map_for_relaying": // who decides by them has its own copy
			o.Reload = confparse.NewSessions
		}
	}
	return t.Declare(confparse.AtOnce, "")
}

// resolve completes the section after its values were read.
func (s *Section) resolve(r *confparse.Report) {
	for _, dir := range []*string{&s.Trust.CADir, &s.Trust.CRLDir} {
		if *dir != "" && !filepath.IsAbs(*dir) {
			*dir = filepath.Join(r.Dir(), *dir)
		}
	}
	_, s.Trust.ListSet = r.Origin("CAlist_file")
}

func file(name, readme, doc string, into *string) confparse.Option {
	return confparse.Option{Name: name, Type: confparse.File, Readme: readme, Into: into, Doc: doc}
}

// ownRows are those of our certificates.
func (s *Section) ownRows(role Role) []confparse.Option {
	what := "It is what STARTTLS needs; without one it is not offered."
	if role == Client {
		what = "It is shown to servers that ask for one."
	}
	return []confparse.Option{
		file("cert_file", "3.10", "File with our certificate in PEM format. "+what, &s.Own.Cert),
		file("key_file", "3.10", "File with the private key of the certificate in PEM format, not encrypted. If meta1 is started as root, only root needs to be able to read it.", &s.Own.Key),
		file("EC_cert_file", "11.2", "File with a second certificate, of a key on an elliptic curve: whoever cannot use it gets that of cert_file.", &s.Own.ECCert),
		file("EC_key_file", "11.2", "File with the private key of the certificate in EC_cert_file.", &s.Own.ECKey),
		{
			Name: "certificate", Kind: confparse.KindSection, Readme: "own", New: s.newCertificate,
			Doc: "A further certificate, for clients that ask for one of its names (SNI). Without such a name, or if none fits, a client gets that of cert_file or EC_cert_file. It may stand several times.",
		},
	}
}

// newCertificate is the table of one more section certificate.
func (s *Section) newCertificate(string) *confparse.Table {
	p := &Pair{}
	cert := file("cert_file", "own", "File with the certificate in PEM format; its names decide which clients get it.", &p.Cert)
	key := file("key_file", "own", "File with its private key.", &p.Key)
	cert.Required, key.Required = true, true
	return &confparse.Table{
		Options: []confparse.Option{cert, key},
		Done:    func() { s.Own.More = append(s.Own.More, *p) },
	}
}

// trustRows are those of what peers' certificates are checked against.
func (s *Section) trustRows(role Role) []confparse.Option {
	t := &s.Trust
	list := file("CAlist_file", "3.10", `File with certificates of CAs whose names are sent to clients as those that we accept. Without the option they are those of CAcert_file; with "" none are sent. A long list keeps some clients from the handshake.`, &t.CAList)
	if role == Client {
		list.Doc, list.Effect = "For the SMTP server: Go's client sends no names of CAs.", confparse.None
	}
	return []confparse.Option{
		file("CAcert_file", "3.10", "File with certificates of CAs in PEM format. A peer's certificate is verified if one of these, or of CAcert_directory, has signed it, perhaps by CAs between. Without the flag use_chain the chain of our own certificate is completed from them, too.", &t.CAFile),
		{
			Name: "CAcert_directory", Type: confparse.Dir, Readme: "3.10", Into: &t.CADir,
			Doc: "Directory with certificates of CAs. All files with PEM blocks count, whatever their names are: c_rehash(1) is not needed. The account that runs meta1 must be able to read it. A relative path is relative to the folder of the configuration file.",
		},
		list,
		file("CRL_file", "3.10", "File with lists of revoked certificates (CRLs) in PEM format. With it or CRL_directory each certificate of a peer's chain but the root must have a valid list of its issuer and not be in it; otherwise it is not verified, also if a list has expired or is missing. Lists of changes (delta CRLs) and partitioned ones are not supported.", &t.CRLFile),
		{
			Name: "CRL_directory", Type: confparse.Dir, Readme: "3.10", Into: &t.CRLDir,
			Doc: "Directory with CRLs, as CRL_file. All files with PEM blocks count. A relative path is relative to the folder of the configuration file.",
		},
		{
			Name: "verify_depth", Type: confparse.Int, Default: "9", Min: "0", Max: "100", Readme: "3.10", Into: &t.MaxDepth,
			Doc: "How many CAs may stand between a peer's certificate and the root. The default is that of Postfix.",
		},
	}
}

// suiteRows are those of what is negotiated.
func (s *Section) suiteRows() []confparse.Option {
	return []confparse.Option{
		{
			Name: "options", Type: confparse.List, Readme: "3.10", Into: &s.Suites.Options,
			Doc: "Options of TLS by OpenSSL's names, SSL_OP_NO_TICKET or no_ticket. In effect are no_ticket and no_TLSv1, no_TLSv1_1, no_TLSv1_2, no_TLSv1_3. TLS 1.0 and 1.1 are off unless -no_TLSv1 and -no_TLSv1_1 turn them on. cipher_server_preference and several others describe how Go behaves in any case; config check names those that it cannot obey.",
		},
		{
			Name: "CipherList", Type: confparse.String, Readme: "3.10", Into: &s.Suites.CipherList, DefaultWords: "Go's own choice",
			Doc: "Ciphers for TLS before version 1.3, as in ciphers(1): names, groups such as HIGH or ECDHE+AESGCM, and ! and - to remove some. It says which ones may be used; which one is used Go decides by an order of its own. config check names what Go does not have. Without the option Go's choice holds: ECDHE with AES or ChaCha20, and no exchange of the key by RSA.",
		},
		{
			Name: "CipherSuites", Type: confparse.String, Readme: "3.10", Into: &s.Suites.CipherSuites, Effect: confparse.None,
			Doc: "Cipher suites of TLS 1.3. Go does not let anybody choose them: TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384 and TLS_CHACHA20_POLY1305_SHA256 are always on, and all are strong.",
		},
		{
			Name: "EC_curve", Type: confparse.List, Readme: "11.2", Into: &s.Suites.Curves, DefaultWords: "Go's own choice",
			Doc: "Elliptic curves and key exchanges that may be used, by OpenSSL's names: prime256v1, secp384r1, secp521r1, X25519, X25519MLKEM768, SecP256r1MLKEM768, SecP384r1MLKEM1024. Their order is Go's. Without the option all of these are on.",
		},
	}
}

// sessionRows are those of sessions and of their assessment.
func (s *Section) sessionRows(role Role) []confparse.Option {
	size := "Sessions can be resumed by tickets, which the clients keep, so that this server keeps nothing: 0 turns that off, any other number leaves it on."
	timeout := "How long a ticket is good, and at most half as long again: the keys that encrypt tickets are replaced so often. The default is that of Postfix (smtpd_tls_session_cache_timeout)."
	violation := "What follows when tls_requirements of smtps_session_conf: or smtps_se_conf: are not met that do not say it themselves: a permanent failure, a temporary one, or the end of the session. The default is ours."
	deflt := "permfail"
	if role == Client {
		size = "How many TLS sessions are remembered to resume them; 0 turns that off."
		timeout = "How long a TLS session is remembered, from when it was made. The default is that of Postfix (smtp_tls_session_cache_timeout)."
		violation = "What follows when tls_requirements of smtpc_session_conf: or smtpc_rcpt_conf: are not met that do not say it themselves: a permanent failure, a temporary one, or that the whole transaction is given up for now. The default loses no mail."
		deflt = "tempfail"
	}
	return []confparse.Option{
		{Name: "cache_size", Type: confparse.Int, Unit: "entries", Default: "1000", Min: "0", Max: "1000000", Readme: "3.10", Into: &s.Cache.Size, Doc: size},
		{Name: "cache_timeout", Type: confparse.Time, Unit: "s", Default: "1h", Min: "1m", Max: "7d", Readme: "3.10", Into: &s.Cache.Timeout, Doc: timeout},
		{
			Name: "Digest", Type: confparse.Enum, Words: []string{"sha1", "sha224", "sha256", "sha384", "sha512"}, Default: "sha1",
			Readme: "3.10", Into: &s.Digest, Doc: "Digest of the fingerprint of a certificate, for the log and for cert_fps of tls_requirements. sha1 is MeTA1's default; sha256 is better.",
		},
		{
			Name: "violation", Type: confparse.Enum, Words: []string{"permfail", "tempfail", "abort"}, Default: deflt,
			Readme: "3.10", Into: &s.Violation, Doc: violation,
		},
	}
}

func (s *Section) flagRows(role Role) []confparse.Option {
	f := &s.Flags
	flag := func(name, value, doc string, into *bool) confparse.Option {
		return confparse.Option{Name: name, Kind: confparse.KindFlag, Type: confparse.Bool, Default: value, Readme: "3.10", Into: into, Doc: doc}
	}
	rows := []confparse.Option{
		flag("allow_relaying_if_verified", "", "Let a client whose certificate was verified relay.", &f.AllowRelayingIfVerified),
		flag("check_access_map_for_relaying", "", "Look the names in a verified certificate up in the access map (certissuer: and certsubject:) to see whether the client may relay.", &f.CheckAccessMapForRelaying),
		flag("request_cert", "on", "Ask clients for a certificate. dont_request_cert helps those that break when they are asked.", &f.RequestCert),
	}
	if role == Client {
		for i, doc := range []string{
			"For the SMTP server; the SMTP client takes no mail.",
			"For the SMTP server; the SMTP client takes no mail.",
			"For the SMTP server; a server's certificate is always sent.",
		} {
			rows[i].Doc, rows[i].Effect = doc, confparse.None
		}
	}
	return append(rows, flag("use_chain", "", "Each file with a certificate holds its chain, too: our own certificate first, then that of the CA that signed it, and so on, as ACME clients write it (fullchain.pem). All are sent. Without the flag only the first one is, and what CAcert_file and CAcert_directory have towards the root.", &f.UseChain))
}

// ignoredRows are those of which nothing exists in Go.
func (s *Section) ignoredRows() []confparse.Option {
	host := func(o confparse.Option) confparse.Option {
		o.Effect = confparse.Host
		return o
	}
	g := &s.Ignored
	dh := &confparse.Table{Options: []confparse.Option{
		host(confparse.Option{Name: "bits", Type: confparse.Int, Min: "0", Max: "16384", Readme: "3.10", Into: &g.DHBits, Doc: "Size of the parameters."}),
		host(confparse.Option{Name: "file", Type: confparse.File, Readme: "3.10", Into: &g.DHFile, Doc: "File with the parameters."}),
	}}
	return []confparse.Option{
		{Name: "DHParam", Kind: confparse.KindSection, Readme: "3.10", Effect: confparse.Host, Sub: dh, Doc: "Parameters of the Diffie-Hellman exchange without elliptic curves, which Go does not have."},
		host(file("DSA_cert_file", "11.2", "File with a DSA certificate. Go has no DSA in TLS, and neither have today's clients.", &g.DSACert)),
		host(file("DSA_key_file", "11.2", "File with the key of the DSA certificate.", &g.DSAKey)),
	}
}

// Options is the table of section tls of a section session_features (README 3.11, item 5).
func (c *Class) Options() *confparse.Table {
	t := &confparse.Table{Options: []confparse.Option{
		file("cert_file", "3.11", "File with the certificate for servers of this class in PEM format, in place of those of section tls of smtpc.", &c.Cert),
		file("key_file", "3.11", "File with the private key of the certificate in PEM format.", &c.Key),
		{
			Name: "flags", Type: confparse.Flags, Words: flagWords(), Readme: "3.11", Into: &c.Flags,
			Doc: "The flags of section tls. use_chain alone has an effect; it replaces that of section tls of smtpc, also negated.",
		},
		{
			Name: "options", Type: confparse.List, Readme: "3.11", Into: &c.SSLOptions,
			Doc: "Options of TLS by OpenSSL's names, in place of those of section tls of smtpc.",
		},
		{
			Name: "CipherList", Type: confparse.String, Readme: "3.11", Into: &c.CipherList,
			Doc: "Ciphers for TLS before version 1.3, as in ciphers(1), in place of those of section tls of smtpc.",
		},
		{
			Name: "CipherSuites", Type: confparse.String, Readme: "3.11", Into: &c.CipherSuites, Effect: confparse.None,
			Doc: "Cipher suites of TLS 1.3. Go does not let anybody choose them.",
		},
	}}
	return t.Declare(confparse.AtOnce, "")
}
