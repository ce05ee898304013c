package tlsrpt

import (
	"strings"

	"meta1/confparse"
	"meta1/mta/smtp"
)

// Config is the section tls_reports of smtpc.
type Config struct {
	Present      bool
	Organization string
	Contact      string
	Sender       string
	HTTPS        bool
	PrivateHosts bool
}

// Options is the table of the section, bound to c.
func (c *Config) Options() *confparse.Table {
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		{
			Name: "organization", Type: confparse.String, Readme: "own", Into: &c.Organization,
			Doc: "Who sends the reports (organization-name). The default is the host name.",
		},
		{
			Name: "contact", Type: confparse.String, Readme: "own", Into: &c.Contact,
			Doc: "Where a receiver may ask about a report (contact-info), such as a mail address. The default is the address of sender.",
		},
		{
			Name: "sender", Type: confparse.Address, Readme: "own", Into: &c.Sender,
			Doc: "The mail address from which reports are sent. Its domain is the one that stands in them as the submitter (TLS-Report-Submitter). The default is noreply-tls-reports at the host name.",
		},
		{
			Name: "https", Type: confparse.Bool, Default: "true", Readme: "own", Into: &c.HTTPS,
			Doc: "Post reports to domains that want them by HTTPS. Without it only those go out that are wanted by mail.",
		},
		{
			Name: "https_private_hosts", Type: confparse.Bool, Default: "false", Readme: "own", Into: &c.PrivateHosts,
			Doc: "Post reports to private and loopback addresses, too, which is for trials: it lets strangers name a host of your own network as the one to which we connect.",
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
