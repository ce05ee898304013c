package tlsconf

import (
	"slices"
	"time"

	"meta1/confparse"
)

// Role is the side of a handshake that a section is for.
type Role uint8

// The roles.
const (
	Server Role = iota // section tls of smtps
	Client             // section tls of smtpc
)

// Section holds the options of one section tls. Zero values are not the defaults: those are
// in the table.
type Section struct {
	Own     Own
	Trust   Trust
	Suites  Suites
	Cache   Cache
	Flags   Flags
	Digest  string // of fingerprints: sha1, sha224, sha256, sha384, sha512
	Ignored Ignored
	// Violation is what follows when tls_requirements are not met: permfail, tempfail or
	// abort.
	Violation string
}

// Own are our certificates.
type Own struct {
	Cert, Key     string // cert_file, key_file
	ECCert, ECKey string // EC_cert_file, EC_key_file
	More          []Pair // sections certificate
}

// Pair is a certificate and its key, by their files.
type Pair struct{ Cert, Key string }

// Trust is what peers' certificates are checked against.
type Trust struct {
	CAFile   string
	CADir    string
	CAList   string
	ListSet  bool // CAlist_file stands in the file, perhaps as ""
	CRLFile  string
	CRLDir   string
	MaxDepth int // verify_depth
}

// Suites are the limits of what is negotiated.
type Suites struct {
	Options      []string
	CipherList   string
	CipherSuites string
	Curves       []string
}

// Cache is about the resumption of sessions.
type Cache struct {
	Size    int // 0: none
	Timeout time.Duration
}

// Flags are the words of the section's flags option. All but UseChain are for a server.
type Flags struct {
	AllowRelayingIfVerified   bool
	CheckAccessMapForRelaying bool
	RequestCert               bool
	UseChain                  bool
}

// Ignored are options that have no effect here.
type Ignored struct {
	DHBits          int
	DHFile          string
	DSACert, DSAKey string
}

// Class is section tls of a section session_features of smtpc: what differs from the
// section tls of smtpc (README 3.11, item 5).
type Class struct {
	Cert, Key    string
	Flags        []string
	SSLOptions   []string // options
	CipherList   string
	CipherSuites string
}

// flagWords are the flags of a section tls.
func flagWords() []string {
	return []string{"allow_relaying_if_verified", "check_access_map_for_relaying", "request_cert", "use_chain"}
}

// Over is a section with what a class changes. A class with a certificate has none of the
// section's.
func (c *Class) Over(s Section) Section {
	if c.Cert != "" || c.Key != "" {
		s.Own = Own{Cert: c.Cert, Key: c.Key}
	}
	if len(c.SSLOptions) > 0 {
		s.Suites.Options = slices.Clone(c.SSLOptions)
	}
	if c.CipherList != "" {
		s.Suites.CipherList = c.CipherList
	}
	if c.CipherSuites != "" {
		s.Suites.CipherSuites = c.CipherSuites
	}
	s.Flags.UseChain = confparse.HasFlag(c.Flags, "use_chain", s.Flags.UseChain)
	return s
}

// Has reports whether an option is the class's own and not that of the section below it.
func (c *Class) Has(option string) bool {
	switch option {
	case "cert_file", "key_file":
		return c.Cert != "" || c.Key != ""
	case "options":
		return len(c.SSLOptions) > 0
	case "CipherList":
		return c.CipherList != ""
	case "CipherSuites":
		return c.CipherSuites != ""
	}
	return false
}

// IsZero reports that a class changes nothing.
func (c *Class) IsZero() bool {
	return c.Cert == "" && c.Key == "" && len(c.Flags) == 0 && len(c.SSLOptions) == 0 && c.CipherList == "" && c.CipherSuites == ""
}

// Files are all files and directories that the section names, without those that have no
// effect. What only root may read of them a process that has dropped root's rights may
// still need.
func (s Section) Files() []string {
	all := []string{s.Own.Cert, s.Own.Key, s.Own.ECCert, s.Own.ECKey, s.Trust.CAFile, s.Trust.CAList, s.Trust.CRLFile}
	for _, p := range s.Own.More {
		all = append(all, p.Cert, p.Key)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > 0 && all[0] == "" {
		all = all[1:]
	}
	return all
}
