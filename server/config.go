package server

import (
	"net/netip"
	"time"

	"meta1/confparse"
	"meta1/mta/msg"
)

// Config holds the options of one smtps section (README 3.10, 8.5). The zero value
// of a time means its default; the zero value of a limit means no limit. Use
// Options for the defaults of the rest.
type Config struct {
	Greeting string
	ID       uint8 // unique among the smtps sections; part of each id

	IOTimeout     time.Duration
	ModuleTimeout time.Duration // for answers of QMGR
	WaitForSMAR   time.Duration // for answers of SMAR
	GreetPause    time.Duration // silence demanded before the greeting
	StopTimeout   time.Duration // for sessions in DATA when the server stops

	ThreadsMax     int   // sessions at a time
	MessageSizeMax int64 // bytes
	LineLengthMax  int64 // bytes of a line of content, without CR LF
	Limits         Limits
	Flags          Flags

	Auth             Auth
	AuthPresent      bool
	DKIM             DKIM
	DKIMPresent      bool
	PolicyMilter     PolicyMilter
	MilterPresent    bool
	Proxy            Socket
	ProxyPresent     bool
	Protected        Protected
	ProtectedPresent bool
	TLS              TLS
	TLSPresent       bool
	SessionFeatures  []SessionFeatures
	Checks           []Check
	DaemonAddress    []string

	Host HostOptions
}

// Limits bound what a client may do in one session or transaction (README 3.10,
// items 9 to 17 and 23). 0 means no limit.
type Limits struct {
	BadCommandsSession     int
	BadCommandsTransaction int
	NopsBetween            int // since the last successful transaction
	NopsInTransaction      int
	InvalidSession         int // refused recipients
	InvalidTransaction     int
	RecipientsSession      int
	RecipientsTransaction  int
	Transactions           int
	Hops                   int // Received: headers
}

// Flags are the words of the section's flags option (README 3.10 item 4, 8.5).
type Flags struct {
	EightBitMIME             bool
	Access                   bool
	AllowDataBeforeGreeting  bool
	AllowSpaceAfterColon     bool
	DelayChecks              bool
	DelayGreylistingError    bool
	Greylisting              bool
	FullGreylisting          bool
	RcptConf                 bool
	LMTPDoesNotImplyRelaying bool
	LookupSessionConf        bool
	RequireEHLO              bool
	SoftBounce               bool
	StrictEHLO               bool
	SMTPS                    bool
	XVERP                    bool
	PRDR                     bool
}

// HostOptions belong to MeTA1's many-process form; they have no effect.
type HostOptions struct {
	CDBGid          int
	Processes       int
	ListenQueue     int
	WaitThreadsMax  int
	WaitThreadsMin  int
	Background      bool
	SerializeAccept bool
}

// Auth holds subsection auth.
type Auth struct {
	NoPlaintext       bool
	NoActive          bool
	NoDictionary      bool
	ForwardSecrecy    bool
	NoAnonymous       bool
	PassCredentials   bool
	MutualAuth        bool
	TrustedMechanisms []string
	UserRealm         string
}

// DKIM holds subsection DKIM_signing.
type DKIM struct {
	SignatureMethod        string
	BodyCanonicalization   string
	HeaderCanonicalization string
	IgnoreErrors           bool
	SignHeader             []string
	SkipHeader             []string
	OverSignHeaders        []string
	TotalHeaderLen         int64
	HeaderValLenMax        int64
	Sign                   []DKIMSign
}

// DKIMSign is one subsection sign of DKIM_signing.
type DKIMSign struct {
	KeyFile  string
	Domain   string
	Selector string
	From     string
}

// Socket is a generic socket specification.
type Socket struct {
	Type      string
	Port      int
	Address   netip.Addr
	Path      string
	ClientKey string
}

// PolicyMilter holds subsection policy_milter.
type PolicyMilter struct {
	Socket             Socket
	Timeout            time.Duration
	Abort              bool
	AcceptButReconnect bool
}

// Protected holds subsection protected_recipients.
type Protected struct {
	AllowBy   []string
	MatchType string
}

// SessionFeatures is one named class of session features.
type SessionFeatures struct {
	Name  string
	Flags []string
}

// Check is one section check (README 8.5.1). Stage is its name.
type Check struct {
	Stage     string
	Action    string
	Condition string
}

// TLS holds subsection tls (README 3.10 item 24, 11.2).
type TLS struct {
	CacheSize       int
	CacheTimeout    time.Duration
	CertFile        string
	KeyFile         string
	CACertFile      string
	CAListFile      string
	CACertDirectory string
	Options         []string
	CipherList      string
	CipherSuites    string
	CRLFile         string
	CRLDirectory    string
	Digest          string
	Violation       string
	VerifyDepth     int
	DHBits          int
	DHFile          string
	DSACertFile     string
	DSAKeyFile      string
	ECCertFile      string
	ECKeyFile       string
	ECCurve         []string

	AllowRelayingIfVerified   bool
	CheckAccessMapForRelaying bool
	RequestCert               bool
	UseChain                  bool
}

// withDefaults fills the times of a Config that was made by hand.
func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.IOTimeout, 5 * time.Minute},
		{&c.ModuleTimeout, time.Minute},
		{&c.WaitForSMAR, 2 * time.Minute},
		{&c.StopTimeout, 10 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return c
}

// checkRules are the options that SMAR needs to know of.
func (c *Config) checkRules() msg.CheckRules {
	r := msg.CheckRules{
		Access: c.Flags.Access, LMTPNoRelay: c.Flags.LMTPDoesNotImplyRelaying,
		SessionConf: c.Flags.LookupSessionConf, RcptConf: c.Flags.RcptConf,
	}
	switch {
	case c.Flags.FullGreylisting:
		r.Greylist = msg.GreylistFull
	case c.Flags.Greylisting:
		r.Greylist = msg.GreylistSimple
	}
	if c.ProtectedPresent {
		r.ProtectSender = confparse.HasFlag(c.Protected.AllowBy, "sender", false)
		r.ProtectClient = confparse.HasFlag(c.Protected.AllowBy, "client_ip", false)
		r.ProtectGeneric = c.Protected.MatchType == "generic_lookup"
		r.ProtectDetail = c.Protected.MatchType == "implicitly_match_detail"
	}
	return r
}
