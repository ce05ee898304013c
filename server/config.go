package server

import (
	"cmp"
	"net/netip"
	"time"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/tlsconf"
	"meta1/server/auth"
	"meta1/server/authn/arc"
	"meta1/server/authn/verify"
	"meta1/server/content"
	"meta1/server/dkim"
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

	StressTimeout time.Duration // IOTimeout of idle clients while all sessions are taken

	ThreadsMax     int    // sessions at a time
	AddressShare   int    // percent of them that one address may hold under stress
	MessageSizeMax int64  // bytes
	LineLengthMax  int64  // bytes of a line of content, without CR LF
	NUL            string // what becomes of NUL in content: reject, strip or accept
	Limits         Limits
	Slow           Slow
	Flags          Flags

	Auth                  auth.Config
	Authentication        verify.Config
	AuthenticationPresent bool
	AuthPresent           bool
	// ARC is for mail that is forwarded: QMGR seals it.
	ARC              arc.Config
	ARCPresent       bool
	DKIM             dkim.Config
	DKIMPresent      bool
	PolicyMilter     PolicyMilter
	MilterPresent    bool
	Milters          []Milter
	PolicyServices   []PolicyService
	Relays           Relays
	Proxy            Proxy
	ProxyPresent     bool
	Protected        Protected
	ProtectedPresent bool
	TLS              tlsconf.Section
	TLSPresent       bool
	Handshakes       Handshakes
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

// Slow bounds how long the whole of a message may take: Grace, and one second for each Rate
// bytes of it. The time is counted from DATA or the first BDAT on. Rate 0: no limit.
type Slow struct {
	Grace time.Duration
	Rate  int64
}

// Flags are the words of the section's flags option (README 3.10 item 4, 8.5).
type Flags struct {
	Offers
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
	UntrustedRouting         bool
	Submission               bool
}

// Offers are the flags that offer an extension of SMTP.
type Offers struct {
	EightBitMIME bool // 8bitmime
	XVERP        bool
	PRDR         bool
	UTF8         bool // smtputf8
	Chunking     bool
	Binary       bool // binarymime
	RequireTLS   bool
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
	Where     string // file:line of the section
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
		{&c.Handshakes.Timeout, 30 * time.Second},
		{&c.StressTimeout, 10 * time.Second},
		{&c.Slow.Grace, 10 * time.Minute},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	c.NUL = cmp.Or(c.NUL, content.RejectNUL)
	c.AddressShare = cmp.Or(c.AddressShare, 25)
	return c
}

// checkRules are the options that SMAR needs to know of.
func (c *Config) checkRules() msg.CheckRules {
	r := msg.CheckRules{
		Access: c.Flags.Access, LMTPNoRelay: c.Flags.LMTPDoesNotImplyRelaying,
		UntrustedRouting: c.Flags.UntrustedRouting,
		SessionConf:      c.Flags.LookupSessionConf, RcptConf: c.Flags.RcptConf,
	}
	if c.AuthPresent {
		r.SenderLogin = c.Auth.SenderLogin
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
