// Package tlsconf is section tls of the configuration, for the SMTP server and for the SMTP
// client (README 3.10 item 24, 3.11, 3.13, 11): its options, the certificates, keys, CAs and
// CRLs that they name, what a handshake gave, and whether that meets tls_requirements.
//
// A [Section] holds the options; [Section.Options] is their table, by [Role]. A [Provider]
// loads what a section names and hands out configurations of crypto/tls:
//
//	p, err := tlsconf.New(section, tlsconf.Deps{Role: tlsconf.Server})
//	c := tls.Server(conn, p.ServerConfig())    // nil without a certificate: no STARTTLS
//	err = c.HandshakeContext(ctx)
//	state := c.ConnectionState()
//	t := p.Describe(&state)                    // version, cipher, names, verify=OK
//	words := tlsconf.Violations(requirements, t)
//
// A handshake never fails because of the peer's certificate: the dialogue goes on, and
// Describe says in Verify what the certificate is worth (README 10.5). Whoever demands a
// verified one must look there. The client's side is
//
//	c := tls.Client(conn, p.ClientConfig(tlsconf.Peer{ServerName: name, SessionKey: key}))
//
// ServerConfig and ClientConfig are asked for each handshake: after a renewal they give the
// new certificate. [Provider.Run] looks for renewals and warns of what expires;
// [Provider.Reload] and [Provider.Reconfigure] take what is there now. What cannot be used
// leaves everything as it was. [Check] finds the mistakes of a section for "config check".
//
// Files are read through [Files], so that those that only root may read can come from
// elsewhere. The package knows no more of the modules than mta/msg.
package tlsconf
