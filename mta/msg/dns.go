package msg

import (
	"net/netip"
)

// RecordType is a type of DNS records that SMAR looks up for others.
type RecordType uint8

// The types.
const (
	RecordTXT RecordType = iota
	RecordMX
	RecordA
	RecordAAAA
	RecordPTR // DNSQ.Name is the name in the reverse zone
)

// String is the type's name in DNS.
func (t RecordType) String() string { return [...]string{"TXT", "MX", "A", "AAAA", "PTR"}[t] }

// DNSQ asks SMAR for the records of a name, which is taken as fully qualified, with or without
// a dot at its end. SMAR's cache, name servers and time limits hold for it; an asker that cannot
// wait as long as those let it ends the context of its question.
type DNSQ struct {
	Name string
	Type RecordType
}

// DNSStatus says what kind of answer there is.
type DNSStatus uint8

// The kinds of answers.
const (
	DNSFound       DNSStatus = iota // there are records
	DNSNoData                       // the name exists, but has no record of that type
	DNSNoName                       // the name does not exist (NXDOMAIN), or is none that can be asked for
	DNSUnavailable                  // no server gave an answer
)

// DNSA answers DNSQ. It is shared and must not be changed. One of the lists is set if Status
// is DNSFound; each holds RecordsMax entries at most.
type DNSA struct {
	Status DNSStatus
	Err    string       // why Status is DNSUnavailable
	Texts  []string     // of TXT, each with its strings joined, octets as they are
	Hosts  []MXHost     // of MX, in no order
	Addrs  []netip.Addr // of A and AAAA
	Names  []string     // of PTR, with a dot at the end
	Secure bool         // DNSSEC has validated the answer, and the option Use_DNSSEC is set
}

// MXHost is an MX record: the host with a dot at its end, "." for the one of RFC 7505.
type MXHost struct {
	Pref uint16
	Host string
}

// RecordsMax bounds the records of a DNSA.
const RecordsMax = 128
