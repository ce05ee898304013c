package dmarc

import (
	"net/url"
	"strconv"
	"strings"

	"meta1/mta/smtp"
)

// Bounds of a record.
const (
	recordMax   = 8 << 10 // bytes; a longer record is none
	tagsMax     = 100
	urisMax     = 10 // of one tag; more are left out
	uriMax      = 1000
	problemsMax = 10
)

// Policy is what the owner of a domain asks for (RFC 9989 section 4.7, p, sp and np).
type Policy uint8

// The policies. Unset: the record does not have the tag, or not a valid one.
const (
	Unset Policy = iota
	None
	Quarantine
	Reject
)

// String is the word of a record; "" for Unset.
func (p Policy) String() string { return [...]string{"", "none", "quarantine", "reject"}[p] }

// relaxed is the policy one step below (t=y).
func (p Policy) relaxed() Policy {
	if p > None {
		return p - 1
	}
	return p
}

// PSD says whether a domain is a public suffix (RFC 9989 section 4.7, psd).
type PSD uint8

// The values of psd.
const (
	PSDUnknown PSD = iota
	PSDYes
	PSDNo
)

// Record is a DMARC policy record (RFC 9989 section 4.7). Tags that are missing or not valid have
// their default.
type Record struct {
	P, SP, NP Policy
	// StrictDKIM and StrictSPF: adkim and aspf are s.
	StrictDKIM, StrictSPF bool
	PSD                   PSD
	Testing               bool   // t=y
	FO                    string // fo as it stands; "0" if there is none
	RUA                   []URI
	// Problems are what is wrong with the record, in few words, for its owner. Nothing in
	// them needs escaping.
	Problems []string
	// invalid: p, sp or np is there and not valid.
	invalid bool
}

// URI is an address for aggregate reports.
type URI struct {
	// To is the mail address of a mailto URI; zero for another scheme, which nobody here
	// sends to.
	To smtp.Path
	// Max is how large a report may be as it is sent, in bytes (obs-dmarc-report-size, RFC 9989
	// section 4.8); 0: no limit.
	Max int64
	// Text is the URI as it stands in the record.
	Text string
}

// ParseRecord reads the text of a TXT record. ok is false for one that is not a DMARC record:
// "v=DMARC1" must come first. Anything else that is wrong is ignored, and listed in Problems.
func ParseRecord(text string) (r *Record, ok bool) {
	rest, ok := cutVersion(text)
	if !ok {
		return nil, false
	}
	r = &Record{FO: "0"}
	seen := map[string]bool{"v": true}
	for n := 0; rest != ""; n++ {
		var tag string
		tag, rest, _ = strings.Cut(rest, ";")
		if tag = trim(tag); tag == "" {
			continue
		}
		if n == tagsMax {
			r.problem("it has too many tags")
			break
		}
		name, value, found := strings.Cut(tag, "=")
		name, value = strings.ToLower(trim(name)), trim(value)
		switch {
		case !found || !isName(name):
			r.problem("a part is no tag")
		case seen[name]:
			r.problem("the tag " + name + " stands twice") // the first counts
		default:
			seen[name] = true
			r.set(name, value)
		}
	}
	return r, true
}

// cutVersion takes dmarc-version off the start (RFC 9989 section 4.8).
func cutVersion(text string) (rest string, ok bool) {
	if len(text) > recordMax {
		return "", false
	}
	version, rest, _ := strings.Cut(text, ";")
	name, value, found := strings.Cut(version, "=")
	if !found || !strings.EqualFold(strings.TrimRight(name, " \t"), "v") || trim(value) != "DMARC1" {
		return "", false
	}
	return rest, true
}

// trim takes white space off (WSP of RFC 5234).
func trim(s string) string { return strings.Trim(s, " \t") }

// isName reports that a tag's name has letters only, and few.
func isName(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") == ""
}

// set takes one tag in. Tags that nobody knows are ignored (RFC 9989 section 4.7), and so are the
// historic ones.
func (r *Record) set(name, value string) {
	lower := strings.ToLower(value)
	wrong := func() { r.problem("the value of the tag " + name + " is not valid") }
	switch name {
	case "p", "sp", "np":
		p := policyOf(lower)
		if p == Unset {
			r.invalid = true
			wrong()
		}
		*map[string]*Policy{"p": &r.P, "sp": &r.SP, "np": &r.NP}[name] = p
	case "adkim", "aspf":
		if lower != "r" && lower != "s" {
			wrong()
		}
		if strict := lower == "s"; name == "adkim" {
			r.StrictDKIM = strict
		} else {
			r.StrictSPF = strict
		}
	case "psd":
		switch lower {
		case "y":
			r.PSD = PSDYes
		case "n":
			r.PSD = PSDNo
		case "u":
		default:
			wrong()
		}
	case "t":
		if r.Testing = lower == "y"; !r.Testing && lower != "n" {
			wrong()
		}
	case "fo":
		if !isFO(lower) {
			wrong()
			return
		}
		r.FO = lower
	case "rua":
		if r.RUA = parseURIs(value); len(r.RUA) == 0 {
			wrong()
		}
	}
}

// isFO reports a list of failure options (RFC 9989 section 4.7).
func isFO(s string) bool {
	seen := ""
	for part := range strings.SplitSeq(s, ":") {
		if part = trim(part); len(part) != 1 || !strings.Contains("01ds", part) || strings.Contains(seen, part) {
			return false
		}
		seen += part
	}
	return !strings.Contains(seen, "0") || !strings.Contains(seen, "1")
}

func policyOf(s string) Policy {
	for _, p := range []Policy{None, Quarantine, Reject} {
		if s == p.String() {
			return p
		}
	}
	return Unset
}

func (r *Record) problem(s string) {
	if len(r.Problems) < problemsMax {
		r.Problems = append(r.Problems, s)
	}
}

// parseURIs reads the value of rua: what is no URI is left out.
func parseURIs(value string) (list []URI) {
	for one := range strings.SplitSeq(value, ",") {
		if len(list) == urisMax {
			break
		}
		if u, ok := parseURI(trim(one)); ok {
			list = append(list, u)
		}
	}
	return list
}

// parseURI reads one URI, with or without a limit behind a "!".
func parseURI(text string) (u URI, ok bool) {
	u.Text = text
	if text == "" || len(text) > uriMax {
		return u, false
	}
	if head, limit, found := strings.Cut(text, "!"); found {
		if u.Max, ok = parseSize(limit); !ok {
			return u, false
		}
		text = head
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme == "" || parsed.Opaque == "" && parsed.Host == "" {
		return u, false
	}
	if parsed.Scheme != "mailto" {
		return u, true
	}
	address, err := url.PathUnescape(parsed.Opaque)
	if err != nil {
		return u, false
	}
	if u.To, err = smtp.ParseMailbox(address, smtp.ASCII); err != nil || u.To.Domain == "" {
		return u, false
	}
	return u, true
}

// parseSize reads a limit such as 10m.
func parseSize(s string) (int64, bool) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("kmgt", s[len(s)-1]|0x20); i >= 0 {
			s, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strings.HasPrefix(s, "+") {
		return 0, false
	}
	if n<<shift>>shift != n || n<<shift > 1<<62 {
		return 1 << 62, true
	}
	return int64(n << shift), true
}

// policy is the policy for a domain at or below that of the record, and the tag it is taken
// from. below: it is a subdomain. exists is asked only if it matters.
func (r *Record) policy(below bool, exists func() (bool, error)) (p Policy, tag string, err error) {
	p, tag = r.P, "p"
	if !below {
		return p, tag, nil
	}
	if r.SP != Unset {
		p, tag = r.SP, "sp"
	}
	if r.NP != Unset && r.NP != p {
		there, err := exists()
		if err != nil {
			return p, tag, err
		}
		if !there {
			p, tag = r.NP, "np"
		}
	}
	return p, tag, nil
}

// Report reads what a domain says that gets reports about others (RFC 9990 section 4): the text
// must be a DMARC record. rua are the addresses that it wants them to go to instead; none: those
// that were asked for.
func Report(text string) (rua []URI, ok bool) {
	r, ok := ParseRecord(text)
	if !ok {
		return nil, false
	}
	return r.RUA, true
}
