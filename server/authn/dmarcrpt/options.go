package dmarcrpt

import (
	"strings"

	"meta1/confparse"
	"meta1/mta/smtp"
)

// Config is the section dmarc_reports of authentication in smtps.
type Config struct {
	Present      bool
	Organization string
	Contact      string
	Sender       string
}

// Options is the table of the section, bound to c.
func (c *Config) Options() *confparse.Table {
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		{
			Name: "organization", Type: confparse.String, Readme: "own", Into: &c.Organization,
			Doc: "Who sends the reports (org_name). The default is the host name.",
		},
		{
			Name: "contact", Type: confparse.String, Readme: "own", Into: &c.Contact,
			Doc: "Where a receiver may ask about a report (extra_contact_info), such as the address of a web page. The default is none; the address of sender stands in every report.",
		},
		{
			Name: "sender", Type: confparse.Address, Readme: "own", Into: &c.Sender,
			Doc: "The mail address from which reports are sent. Its domain is the one that stands in them as the submitter; mail from it must pass DMARC, so sign for it. The default is noreply-dmarc-reports at the host name.",
		},
	}}
}

// check refuses what a receiver would not understand.
func (c *Config) check(r *confparse.Report) {
	if c.Sender != "" {
		if p, err := c.sender(); err != nil || p.Domain == "" {
			r.Errorf("sender", "%q is no mail address with a domain in ASCII", c.Sender)
		}
	}
	for name, s := range map[string]string{"organization": c.Organization, "contact": c.Contact} {
		if len(s) > textMax || hasControl(s) {
			r.Errorf(name, "must be text of at most %d octets without control characters", textMax)
		}
	}
}

// sender is the address from which reports are sent.
func (c *Config) sender() (smtp.Path, error) {
	return smtp.ParseMailbox(strings.Trim(c.Sender, "<>"), smtp.ASCII)
}

// hasControl reports a control character.
func hasControl(s string) bool {
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}
