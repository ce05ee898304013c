package verify

import (
	"time"

	"meta1/confparse"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/dkim"
)

// Config holds section authentication of smtps.
type Config struct {
	ID      string   // authserv_id; "" for the host name
	OwnIDs  []string // further ones that only we may use
	Remove  string   // remove_results
	Trusted bool     // check_trusted
	Time    time.Duration
	Auth    bool // report AUTH
	IPRev   bool // report the client's name
	SPF     SPF
	DKIM    DKIM
	ARC     ARC
	DMARC   DMARC
	// Reports are what makes reports about DMARC; all sections smtps have the same.
	Reports dmarcrpt.Config
}

// SPF holds subsection spf.
type SPF struct {
	Check       bool
	Fail        string // what becomes of mail whose sender's domain says fail
	HeloFail    string // and of that whose HELO name says so
	PermError   string
	TempError   string
	Lookups     int
	VoidLookups int
}

// DKIM holds subsection dkim.
type DKIM struct {
	Verify     bool
	Signatures int
}

// The words of remove_results.
const (
	RemoveOwn       = "own"
	RemoveUntrusted = "untrusted"
	RemoveAll       = "all"
)

// What becomes of mail.
const (
	ActionNone       = "none"
	ActionReject     = "reject"
	ActionQuarantine = "quarantine"
	ActionTempfail   = "tempfail"
)

// timeDefault is how long the lookups of one stage may take: RFC 7208 section 4.6.4 wants at
// least 20 seconds for SPF.
const timeDefault = 20 * time.Second

// Table is the option table of the section.
func (c *Config) Table() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "authserv_id", Type: confparse.String, Readme: "own", Into: &c.ID,
			Doc: "The name under which results are reported: the authserv-id of Authentication-Results: (RFC 8601). The default is the host name.",
		},
		{
			Name: "own_authserv_ids", Type: confparse.List, Readme: "own", Into: &c.OwnIDs,
			Doc: "Further names that nobody outside may use in Authentication-Results:, such as those of our other hosts. A name that begins with a dot stands for all names below that domain. Fields with such a name are removed as remove_results says.",
		},
		{
			Name: "remove_results", Type: confparse.Enum, Words: []string{RemoveOwn, RemoveUntrusted, RemoveAll}, Default: RemoveOwn, Readme: "own", Into: &c.Remove,
			Doc: "Which Authentication-Results: fields of incoming mail are removed. own: those with a name of ours (authserv_id, own_authserv_ids), whoever sends them. untrusted: the same, but mail of clients that may relay keeps them, as mail does that a content filter hands back. all: every such field.",
		},
		{
			Name: "check_trusted", Type: confparse.Bool, Default: "false", Readme: "own", Into: &c.Trusted,
			Doc: "Check also mail of clients that may relay: by AUTH, a certificate, or the access map, and of clients with a loopback address. Their domains' records rarely name them.",
		},
		{
			Name: "time", Type: confparse.Time, Unit: "s", Default: "20", Min: "1", Max: "2m", Readme: "own", Into: &c.Time,
			Doc: "How long the lookups for one message may take at MAIL, and again at its end; what is not known then is temperror. Default from RFC 7208, 4.6.4.",
		},
		{
			Name: "report_auth", Type: confparse.Bool, Default: "true", Readme: "own", Into: &c.Auth,
			Doc: "Report AUTH as auth=pass smtp.auth=ACCOUNT. All recipients read it.",
		},
		{
			Name: "report_iprev", Type: confparse.Bool, Default: "true", Readme: "own", Into: &c.IPRev,
			Doc: "Report whether the client's address and name confirm each other (iprev). It needs the flag access, with which names are looked up.",
		},
		{
			Name: "spf", Kind: confparse.KindSection, Readme: "own", Sub: c.SPF.table(),
			Doc: "SPF (RFC 7208): may the client send for the domain of MAIL, and has it the name of HELO?",
		},
		{
			Name: "dkim", Kind: confparse.KindSection, Readme: "own", Sub: c.DKIM.table(),
			Doc: "Verification of DKIM signatures (RFC 6376, RFC 8463).",
		},
		{
			Name: "arc", Kind: confparse.KindSection, Readme: "own", Sub: c.ARC.table(),
			Doc: "Verification of ARC sets (RFC 8617), which say what hosts that forwarded the mail found. docs/arc.md explains it.",
		},
		{
			Name: "dmarc", Kind: confparse.KindSection, Readme: "own", Sub: c.DMARC.table(),
			Doc: "DMARC (RFC 9989): what does the domain of From: ask for if neither SPF nor DKIM speaks for it? docs/dmarc.md explains it.",
		},
		{
			Name: "dmarc_reports", Kind: confparse.KindSection, Readme: "own", Present: &c.Reports.Present,
			Reload: confparse.NewSessions, Sub: c.Reports.Options().Declare(confparse.AtOnce, ""),
			Doc: "If this section is there, mail is counted for domains that ask for reports about DMARC, and each of them gets one a day (aggregate reports, RFC 9990). Counts are kept in the directory dmarcrpt of the main queue directory. All sections smtps that have it must have the same. docs/dmarc.md tells more.",
		},
	}}
}

func (s *SPF) table() *confparse.Table {
	action := func(name, doc string, into *string) confparse.Option {
		return confparse.Option{
			Name: name, Type: confparse.Enum, Words: []string{ActionNone, ActionReject, ActionQuarantine}, Default: ActionNone,
			Readme: "own", Into: into, Doc: doc + " none: it is only reported. reject: 550 at MAIL. quarantine: it is held in the queue.",
		}
	}
	return &confparse.Table{Options: []confparse.Option{
		{Name: "check", Type: confparse.Bool, Default: "true", Readme: "own", Into: &s.Check, Doc: "Check SPF."},
		action("fail", "What becomes of mail if the domain of its sender says that the client may not send for it (fail).", &s.Fail),
		action("helo_fail", "What becomes of mail if the domain in HELO says that the client has not that name (fail).", &s.HeloFail),
		action("permerror", "What becomes of mail if the record of its sender's domain is wrong (permerror).", &s.PermError),
		{
			Name: "temperror", Type: confparse.Enum, Words: []string{ActionNone, ActionTempfail}, Default: ActionNone, Readme: "own", Into: &s.TempError,
			Doc: "What becomes of mail if DNS does not answer (temperror). none: it is only reported. tempfail: 451 at MAIL.",
		},
		{
			Name: "lookups_max", Type: confparse.Int, Default: "10", Min: "1", Max: "100", Readme: "own", Into: &s.Lookups,
			Doc: "How many terms of a record may need DNS, those of included records with them; more are a permerror. RFC 7208, 4.6.4, demands the default.",
		},
		{
			Name: "void_lookups_max", Type: confparse.Int, Default: "2", Min: "0", Max: "100", Readme: "own", Into: &s.VoidLookups,
			Doc: "How many of those lookups may find nothing; more are a permerror. Default from RFC 7208, 4.6.4.",
		},
	}}
}

func (d *DKIM) table() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{Name: "verify", Type: confparse.Bool, Default: "true", Readme: "own", Into: &d.Verify, Doc: "Verify DKIM signatures."},
		{
			Name: "signatures_max", Type: confparse.Int, Unit: "entries", Default: "10", Min: "1", Max: "10", Readme: "own", Into: &d.Signatures,
			Doc: "How many signatures of a message are verified, from the top; the others are not looked at. Each costs a lookup.",
		},
	}}
}

// maxSignatures is what the row signatures_max says at most.
const maxSignatures = dkim.MaxSignatures
