package resolver

import (
	"net/netip"
	"time"

	"meta1/resolver/srs"
)

// Config is the section smar. Options gives the table that fills it; New takes zero
// values as the defaults of that table where zero makes no sense.
type Config struct {
	Maps      []MapConfig
	Access    MapRef
	Delimiter string // address_delimiter
	Aliases   AliasConfig
	DNS       DNSConfig
	DNSBLs    []DNSBLConfig
	Greylist  GreylistConfig
	MTASTS    MTASTSConfig
	SRS       srs.Config
	LocalUser LocalUserConfig

	Mailertable MailertableConfig

	DANE       string // secure, never, always
	IPSelect   string // IPv_Select
	MXMax      int    // MX_max
	AddrMax    int    // addresses_per_host_max
	FDsMax     int
	ThreadsMax int
	ThreadsMin int
}

// MapConfig is a section map (README 3.9.1).
type MapConfig struct {
	Name          string
	Type          string
	File          string
	MapName       string
	Address       netip.Addr
	Path          string
	Port          int
	Maps          []string
	CaseSensitive bool
	Timeout       time.Duration
}

// MapRef names a map by its file or by its declaration.
type MapRef struct {
	Present bool // the section stands in the configuration
	File    string
	Name    string
}

// AliasConfig is the section aliases.
type AliasConfig struct {
	MapRef
	LocalPart      bool
	LocalDomains   bool
	AllDomains     bool
	MatchDetail    bool
	ReplaceMacros  bool
	PreserveDomain bool
}

// DNSConfig is the section DNS.
type DNSConfig struct {
	Servers    []netip.Addr
	Retries    int
	Timeout    time.Duration
	Port       int
	ResolvConf bool
	TCP        bool
	Connect    bool
	DNSSEC     bool
	Trusted    []netip.Addr
	MixCase    bool
	CacheSize  int64
}

// DNSBLConfig is a section dnsbl.
type DNSBLConfig struct {
	Domain string
	Tag    string
}

// MTASTSConfig is the section mta_sts.
type MTASTSConfig struct {
	Present bool
	CAFile  string
}

// GreylistConfig is the section greylisting (README 3.9.4).
type GreylistConfig struct {
	Present      bool
	Wait         time.Duration
	Expire       time.Duration
	WhiteExpire  time.Duration
	WhiteTimeout time.Duration
	MainDB       string
	SecondaryDB  string
	ExpireLimit  int
	Netmask      int64
	Prefix6      int
}

// LocalUserConfig is the section local_user_map.
type LocalUserConfig struct {
	Name        string
	MatchDetail bool
}

// MailertableConfig is the section mailertable.
type MailertableConfig struct {
	File         string
	Name         string
	FullAddress  bool
	DetailPlus   bool
	DetailStar   bool
	Star         bool
	Domain       bool
	DotSubdomain bool
	Dot          bool
}
