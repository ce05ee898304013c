package settings

import (
	clientauth "meta1/client/auth"
	"meta1/mta/tlsconf"
	"meta1/server/authn/arc"
	"meta1/server/dkim"
)

// ForHTTP is the name of section http of section control, and of its socket.
const ForHTTP = "control/http"

// LoginSection is one section auth of smtpc, with its place in the configuration.
type LoginSection struct {
	Path string // in confparse.Result
	Auth *clientauth.Config
}

// Logins are all sections auth of smtpc and of its session_features.
func (c *Config) Logins() (all []LoginSection) {
	if c.Client.AuthPresent {
		all = append(all, LoginSection{"smtpc/auth", &c.Client.Auth})
	}
	for i := range c.Client.SessionFeatures {
		if f := &c.Client.SessionFeatures[i]; f.AuthPresent {
			all = append(all, LoginSection{"smtpc/session_features " + f.Name + "/auth", &f.Auth})
		}
	}
	return all
}

// TLSSection is one section tls of the configuration, with its place in it.
type TLSSection struct {
	Name    string // of the module section: "smtps MSA", "smtpc", "smtpc/session_features a"
	Path    string // of the section itself in confparse.Result
	Role    tlsconf.Role
	Section tlsconf.Section
	Class   *tlsconf.Class // of session_features, which section has over that of smtpc
}

// TLSSections are all that stand in the configuration, by name. That of smtpc is always one
// of them: SMTPC uses STARTTLS without a section, too (README 11.1).
func (c *Config) TLSSections() []TLSSection {
	all := []TLSSection{{Name: "smtpc", Path: "smtpc/tls", Role: tlsconf.Client, Section: c.Client.TLS}}
	for i := range c.Client.SessionFeatures {
		f := &c.Client.SessionFeatures[i]
		if !f.TLS.IsZero() {
			name := "smtpc/session_features " + f.Name
			all = append(all, TLSSection{name, name + "/tls", tlsconf.Client, f.TLS.Over(c.Client.TLS), &f.TLS})
		}
	}
	if c.Control.HTTP.TLSPresent {
		all = append(all, TLSSection{ForHTTP, ForHTTP + "/tls", tlsconf.Server, c.Control.HTTP.TLS, nil})
	}
	for _, s := range c.Servers {
		if s.Server.TLSPresent {
			all = append(all, TLSSection{s.Of.Section, s.Of.Section + "/tls", tlsconf.Server, s.Server.TLS, nil})
		}
	}
	return all
}

// DKIMSection is one section DKIM_signing of the configuration.
type DKIMSection struct {
	Name   string // of the server section: "smtps MSA"
	Path   string // of the section itself in confparse.Result
	Config dkim.Config
}

// DKIMSections are all that stand in the configuration, in its order.
func (c *Config) DKIMSections() []DKIMSection {
	var all []DKIMSection
	for _, s := range c.Servers {
		if s.Server.DKIMPresent {
			all = append(all, DKIMSection{s.Of.Section, s.Of.Section + "/DKIM_signing", s.Server.DKIM})
		}
	}
	return all
}

// ARCSection is one section ARC_sealing of the configuration.
type ARCSection struct {
	Name   string // of the server section: "smtps MSA"
	Path   string // of the section itself in confparse.Result
	Config arc.Config
}

// ARCSections are all that stand in the configuration, in its order.
func (c *Config) ARCSections() []ARCSection {
	var all []ARCSection
	for _, s := range c.Servers {
		if s.Server.ARCPresent {
			all = append(all, ARCSection{s.Of.Section, s.Of.Section + "/ARC_sealing", s.Server.ARC})
		}
	}
	return all
}

// ReportingServer is the first section smtps that has dmarc_reports; nil: there is none.
func (c *Config) ReportingServer() *ServerSection {
	for _, s := range c.Servers {
		if s.Server.AuthenticationPresent && s.Server.Authentication.Reports.Present {
			return s
		}
	}
	return nil
}

// ContentGroup is the group that content files are to have (CDB_gid), 0 for none of its
// own. All sections smtps name the same, see checkServer.
func (c *Config) ContentGroup() int {
	for _, s := range c.Servers {
		if s.Server.Host.CDBGid != 0 {
			return s.Server.Host.CDBGid
		}
	}
	return 0
}
