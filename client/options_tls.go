package client

import "meta1/confparse"

// options is the table of section tls, the same rows as those of the SMTP server
// (README 3.10, item 24, and 11.2).
func (t *TLS) options() *confparse.Table {
	return &confparse.Table{Options: append(t.values(), t.flags()...)}
}

// values are the options of section tls that are not flags.
func (t *TLS) values() []confparse.Option {
	return []confparse.Option{
		{
			Name: "cache_size", Type: confparse.Int, Unit: "entries", Default: "1000", Min: "0", Max: "1000000",
			Readme: "3.10", Into: &t.CacheSize,
			Doc: "How many TLS sessions are remembered to resume them; 0 turns the cache off. Not yet in effect.",
		},
		{
			Name: "cache_timeout", Type: confparse.Time, Unit: "s", Default: "1h", Min: "1s", Max: "7d",
			Readme: "3.10", Into: &t.CacheTimeout,
			Doc: "How long a TLS session is remembered; the default is that of Postfix (smtp_tls_session_cache_timeout). Not yet in effect.",
		},
		tlsFile("cert_file", "3.10", &t.CertFile, "File with our certificate in PEM format."),
		tlsFile("key_file", "3.10", &t.KeyFile, "File with the private key of the certificate in PEM format."),
		tlsFile("CAcert_file", "3.10", &t.CACertFile, "File with the certificate of a CA in PEM format."),
		tlsFile("CAlist_file", "3.10", &t.CAListFile, "File with certificates of CAs in PEM format."),
		{
			Name: "CAcert_directory", Type: confparse.Dir, Readme: "3.10", Into: &t.CACertDirectory,
			Doc: "Directory with certificates of CAs in PEM format. Not yet in effect.",
		},
		{
			Name: "options", Type: confparse.List, Readme: "3.10", Into: &t.Options,
			Doc: "Options of TLS by OpenSSL's names. Not yet in effect.",
		},
		{
			Name: "CipherList", Type: confparse.String, Readme: "3.10", Into: &t.CipherList,
			Doc: "Ciphers for TLS before version 1.3, as in ciphers(1). Not yet in effect.",
		},
		{
			Name: "CipherSuites", Type: confparse.String, Readme: "3.10", Into: &t.CipherSuites,
			Doc: "Cipher suites of TLS version 1.3. Not yet in effect.",
		},
		tlsFile("CRL_file", "3.10", &t.CRLFile, "File with revoked certificates."),
		{
			Name: "CRL_directory", Type: confparse.Dir, Readme: "3.10", Into: &t.CRLDirectory,
			Doc: "Directory with lists of revoked certificates. Not yet in effect.",
		},
		{
			Name: "Digest", Type: confparse.Enum, Words: []string{"sha1", "sha256", "sha384", "sha512"}, Default: "sha1",
			Readme: "3.10", Into: &t.Digest,
			Doc: "Digest for the fingerprint of a certificate. Not yet in effect.",
		},
		{
			Name: "DHParam", Kind: confparse.KindSection, Readme: "3.10", Effect: confparse.Host, Sub: t.dhOptions(),
			Doc: "Parameters of Diffie-Hellman for a server; the TLS of this program chooses its own.",
		},
		{
			Name: "violation", Type: confparse.Enum, Words: []string{"permfail", "tempfail", "abort"}, Default: "tempfail",
			Readme: "3.10", Into: &t.Violation,
			Doc: "What follows when tls_requirements of smtpc_session_conf: or smtpc_rcpt_conf: are not met that do not say it themselves: a permanent failure, a temporary one, or that the whole transaction is given up for now. The default loses no mail.",
		},
		{
			Name: "verify_depth", Type: confparse.Int, Default: "9", Min: "1", Max: "100", Readme: "3.10", Into: &t.VerifyDepth,
			Doc: "How long a chain of certificates may be; the default is that of Postfix (smtp_tls_scert_verifydepth). Not yet in effect.",
		},
		hostFile("DSA_cert_file", &t.DSACertFile, "File with a DSA certificate in PEM format."),
		hostFile("DSA_key_file", &t.DSAKeyFile, "File with a DSA key in PEM format."),
		tlsFile("EC_cert_file", "11.2", &t.ECCertFile, "File with an EC certificate in PEM format."),
		tlsFile("EC_key_file", "11.2", &t.ECKeyFile, "File with an EC key in PEM format."),
		{
			Name: "EC_curve", Type: confparse.List, Readme: "11.2", Into: &t.ECCurve,
			Doc: "Names of elliptic curves. Not yet in effect.",
		},
	}
}

// flags are the flags of section tls.
func (t *TLS) flags() []confparse.Option {
	return []confparse.Option{
		tlsFlag("allow_relaying_if_verified", "", &t.AllowRelayingIfVerified, "For the SMTP server; the SMTP client takes no mail."),
		tlsFlag("check_access_map_for_relaying", "", &t.CheckAccessMapForRelaying, "For the SMTP server; the SMTP client takes no mail."),
		tlsFlag("request_cert", "on", &t.RequestCert, "For the SMTP server; a server's certificate is always sent."),
		tlsFlag("use_chain", "", &t.UseChain, "cert_file holds a chain of certificates. Not yet in effect."),
	}
}

func (t *TLS) dhOptions() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "bits", Type: confparse.Int, Default: "2048", Min: "512", Max: "2048",
			Readme: "3.10", Effect: confparse.Host, Into: &t.DHBits,
			Doc: "Size of the parameters: 2048, 1024 or 512.",
		},
		{
			Name: "file", Type: confparse.File, Readme: "3.10", Effect: confparse.Host, Into: &t.DHFile,
			Doc: "File with the parameters.",
		},
	}}
}

// options is the table of a tls section in session_features (README 3.11, item 5).
func (t *TLSClass) options() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		tlsFile("cert_file", "3.11", &t.CertFile, "File with our certificate in PEM format."),
		tlsFile("key_file", "3.11", &t.KeyFile, "File with the private key of the certificate in PEM format."),
		{
			Name: "flags", Type: confparse.Flags, Readme: "3.11", Into: &t.Flags,
			Words: []string{"allow_relaying_if_verified", "check_access_map_for_relaying", "request_cert", "use_chain"},
			Doc:   "The flags of section tls. Not yet in effect.",
		},
		{
			Name: "options", Type: confparse.List, Readme: "3.11", Into: &t.Options,
			Doc: "Options of TLS by OpenSSL's names. Not yet in effect.",
		},
		{
			Name: "CipherList", Type: confparse.String, Readme: "3.11", Into: &t.CipherList,
			Doc: "Ciphers for TLS before version 1.3, as in ciphers(1). Not yet in effect.",
		},
		{
			Name: "CipherSuites", Type: confparse.String, Readme: "3.11", Into: &t.CipherSuites,
			Doc: "Cipher suites of TLS version 1.3. Not yet in effect.",
		},
	}}
}

func tlsFile(name, readme string, into *string, doc string) confparse.Option {
	return confparse.Option{
		Name: name, Type: confparse.File, Readme: readme, Into: into, Doc: doc + " Not yet in effect.",
	}
}

func hostFile(name string, into *string, doc string) confparse.Option {
	return confparse.Option{
		Name: name, Type: confparse.File, Readme: "11.2", Effect: confparse.Host, Into: into, Doc: doc,
	}
}

func tlsFlag(name, value string, into *bool, doc string) confparse.Option {
	return confparse.Option{
		Name: name, Kind: confparse.KindFlag, Type: confparse.Bool, Default: value, Readme: "3.10", Into: into, Doc: doc,
	}
}
