package access

import (
	"net/netip"
	"path/filepath"

	"meta1/confparse"
	"meta1/mta/tlsconf"
)

// Config is the section control.
type Config struct {
	Users, Groups         []string // who may change by the Unix socket, besides root and the account that serves
	ReadUsers, ReadGroups []string // who may read
	HTTP                  HTTP
}

// HTTP is the section http of control: the API over TCP.
type HTTP struct {
	Present       bool
	Address       netip.Addr
	Port          int
	Console       bool
	Plaintext     bool
	Hostnames     []string
	TokenFile     string // of those who may change
	ReadTokenFile string
	// The certificates of clients, by the SHA-256 fingerprint or the common name.
	ChangeCertificates, ReadCertificates []string
	TLS                                  tlsconf.Section
	TLSPresent                           bool
	Where                                string // in the configuration
}

// Options is the table of the section, bound to c.
func (c *Config) Options() *confparse.Table {
	accounts := func(name, doc string, into *[]string) confparse.Option {
		return confparse.Option{Name: name, Type: confparse.List, Readme: "own", Reload: confparse.AtOnce, Into: into, Doc: doc}
	}
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		accounts("users", "Users, by name or number, who may do everything by the control socket, as root and the account that serves always may. If this or one of the next three options is set the socket is open to every account, of which others are refused; the directory that holds it must let them in, too.", &c.Users),
		accounts("groups", "Groups whose members may do everything by the control socket.", &c.Groups),
		accounts("read_users", "Users who may ask by the control socket, and change nothing.", &c.ReadUsers),
		accounts("read_groups", "Groups whose members may ask by the control socket, and change nothing.", &c.ReadGroups),
		{
			Name: "http", Kind: confparse.KindSection, Readme: "own", Sub: c.HTTP.options().Declare(confparse.AtOnce, ""), Present: &c.HTTP.Present, Reload: confparse.AtOnce,
			Doc: "If this section is there, the API of the control socket and the web console are served over TCP to those who have a token or a certificate. docs/control.md tells more.",
		},
	}}
}

func (c *Config) check(r *confparse.Report) {
	if knowsPeers {
		return
	}
	for name, list := range map[string][]string{"users": c.Users, "groups": c.Groups, "read_users": c.ReadUsers, "read_groups": c.ReadGroups} {
		if len(list) > 0 {
			r.Warnf(name, "%s has no effect: this system does not tell the account of a peer; the permissions of the socket decide", name)
		}
	}
}

// own marks all options of a table as ours: MeTA1 has no such section.
func own(t *confparse.Table) *confparse.Table {
	for i := range t.Options {
		t.Options[i].Readme = "own"
		if t.Options[i].Sub != nil {
			own(t.Options[i].Sub)
		}
	}
	return t
}

func (h *HTTP) options() *confparse.Table {
	names := func(name, doc string, into *[]string) confparse.Option {
		return confparse.Option{Name: name, Type: confparse.List, Readme: "own", Reload: confparse.AtOnce, Into: into, Doc: doc}
	}
	return &confparse.Table{Check: h.check, Options: []confparse.Option{
		{
			Name: "address", Type: confparse.IP, Default: "127.0.0.1", Readme: "own", Into: &h.Address,
			Doc: "The address to listen on. One that others can reach needs section tls.",
		},
		{
			Name: "port", Type: confparse.Int, Default: "9026", Min: "0", Max: "65535", Readme: "own", Into: &h.Port,
			Doc: "The port to listen on; 0 lets the system choose.",
		},
		{
			Name: "console", Type: confparse.Bool, Default: "true", Readme: "own", Into: &h.Console,
			Doc: "Serve the web console at /. It asks for a token. docs/console.md shows it.",
		},
		{
			Name: "plaintext", Type: confparse.Bool, Default: "false", Readme: "own", Into: &h.Plaintext,
			Doc: "Serve without TLS even if the address is one that others can reach: tokens pass in plain text then. For a proxy that does TLS and comes over a network of its own.",
		},
		names("hostnames", "Names by which browsers and programs may call this server, besides addresses, localhost and the option hostname. Other names are refused, because a page of a stranger could have them lead here.", &h.Hostnames),
		{
			Name: "token_file", Type: confparse.Path, Readme: "own", Reload: confparse.AtOnce, Into: &h.TokenFile,
			Doc: "A file with tokens, one a line, of those who may change things. A relative path is relative to the configuration file. A reload reads it anew.",
		},
		{
			Name: "read_token_file", Type: confparse.Path, Readme: "own", Reload: confparse.AtOnce, Into: &h.ReadTokenFile,
			Doc: "A file with tokens of those who may ask, and change nothing.",
		},
		names("change_certificates", "Certificates of clients who may change things: the SHA-256 fingerprint in hexadecimal digits, or the common name if an authority of section tls (CAcert_file) has signed it. Needs section tls.", &h.ChangeCertificates),
		names("read_certificates", "Certificates of clients who may ask, and change nothing, in the same form.", &h.ReadCertificates),
		{
			Name: "tls", Kind: confparse.KindSection, Readme: "own", Reload: confparse.AtOnce, Sub: own(h.TLS.Options(tlsconf.Server)), Present: &h.TLSPresent,
			Doc: "The certificate with which the API is served by HTTPS, and the authorities of clients. docs/tls.md explains the options.",
		},
	}}
}

func (h *HTTP) check(r *confparse.Report) {
	for _, name := range []string{"address", "port"} {
		if pos, ok := r.Origin(name); ok {
			h.Where = pos.String()
		}
	}
	for _, path := range []*string{&h.TokenFile, &h.ReadTokenFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(r.Dir(), *path)
		}
	}
	certificates := len(h.ChangeCertificates)+len(h.ReadCertificates) > 0
	own := &h.TLS.Own
	switch {
	case h.TLSPresent && own.Cert == "" && own.ECCert == "" && len(own.More) == 0:
		r.Errorf("tls", "section tls of control/http needs cert_file and key_file")
	case h.TokenFile == "" && h.ReadTokenFile == "" && !certificates:
		r.Errorf("", "section http of control needs token_file or read_token_file, or change_certificates or read_certificates: nobody could use it")
	case certificates && !h.TLSPresent:
		r.Errorf("", "change_certificates and read_certificates need section tls")
	case !h.TLSPresent && !h.Plaintext && !h.Address.IsLoopback():
		r.Errorf("address", "%s can be reached by others: section tls is needed, or plaintext if a proxy does TLS", h.Address)
	}
}
