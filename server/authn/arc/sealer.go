package arc

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"meta1/confparse"
	"meta1/mta/smtp"
	"meta1/mta/tlsconf"
	"meta1/server/dkim"
)

// Config holds section ARC_sealing of smtps.
type Config struct {
	Seal []dkim.Section // without From
}

// Table is the option table of the section.
func (c *Config) Table() *confparse.Table {
	return &confparse.Table{Check: c.check, Options: []confparse.Option{{
		Name: "seal", Kind: confparse.KindSection, Readme: "own", Reload: confparse.AtOnce, New: c.newSection,
		Doc: "A key that seals. With several the first one in the file that is in use does, since a set has one signature; not_before lets keys of one domain and kind follow one another. Keys are those of DKIM: see docs/arc.md.",
	}}}
}

func (c *Config) newSection(string) *confparse.Table {
	s := &dkim.Section{}
	return &confparse.Table{
		Check: func(r *confparse.Report) {
			for option, v := range map[string]string{"domain": s.Domain, "selector": s.Selector} {
				if err := smtp.CheckDomain(v); v != "" && err != nil {
					r.Errorf(option, "%s: %q is not a domain name in ASCII: %v", option, v, err)
				}
			}
			if _, err := s.InUseFrom(); err != nil {
				r.Errorf("not_before", "not_before: %v", err)
			}
		},
		Done: func() { c.Seal = append(c.Seal, *s) },
		Options: []confparse.Option{
			{
				Name: "keyfile", Type: confparse.File, Required: true, Readme: "own", Reload: confparse.AtOnce, Into: &s.KeyFile,
				Doc: "File with the private key in PEM format, RSA or Ed25519, as meta1 dkim genkey writes it. It may be one of DKIM_signing.",
			},
			{Name: "domain", Type: confparse.String, Required: true, Readme: "own", Reload: confparse.AtOnce, Into: &s.Domain, Doc: "Domain that seals (d=), below which DNS has the public key."},
			{Name: "selector", Type: confparse.String, Required: true, Readme: "own", Reload: confparse.AtOnce, Into: &s.Selector, Doc: "Selector (s=): DNS has the public key at SELECTOR._domainkey.DOMAIN."},
			{
				Name: "not_before", Type: confparse.String, Readme: "own", Reload: confparse.AtOnce, Into: &s.NotBefore,
				Doc: "When the key comes into use: 2027-01-31, which is midnight UTC, or 2027-01-31T09:00:00Z.",
			},
		},
	}
}

func (c *Config) check(r *confparse.Report) {
	if len(c.Seal) == 0 {
		r.Errorf("", "ARC_sealing needs at least one section seal")
	}
	for i := range c.Seal {
		for j := range c.Seal[:i] {
			if a, b := &c.Seal[i], &c.Seal[j]; strings.EqualFold(a.Domain, b.Domain) && strings.EqualFold(a.Selector, b.Selector) {
				r.Errorf(fmt.Sprintf("seal#%d", i+1), "two sections seal have the same domain and selector")
			}
		}
	}
}

// Keys is the section as one that names keys of DKIM, which are loaded and renewed alike.
func (c *Config) Keys() dkim.Config { return dkim.Config{Sign: c.Seal} }

// Check reads the keys of a section. world reports whether everybody may read a file. Options are
// those of this section.
func Check(c Config, files tlsconf.Files, world func(path string) bool, now time.Time) []dkim.Fault {
	faults := dkim.Check(c.Keys(), files, world, now)
	for i := range faults {
		faults[i].Option = strings.Replace(faults[i].Option, "sign#", "seal#", 1)
		faults[i].Text = strings.Replace(faults[i].Text, "mail is refused for now until then", "nothing is sealed until then", 1)
	}
	return faults
}

// Sealer has the keys of one section ARC_sealing. Any goroutine may use it.
type Sealer struct {
	*dkim.Signer // its keys, with their reload
	host         string
	now          func() time.Time
}

// NewSealer loads the keys of a section. host is the authserv-id for messages that have no results of ours.
func NewSealer(c Config, d dkim.Deps, host string) (*Sealer, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	keys, err := dkim.New(c.Keys(), d)
	if err != nil {
		return nil, err
	}
	return &Sealer{Signer: keys, host: host, now: d.Now}, nil
}

// Reconfigure takes other keys. After an error everything is as it was.
func (s *Sealer) Reconfigure(c Config) error { return s.Signer.Reconfigure(c.Keys()) }

// Prepare reads other keys, for their Commit to take them.
func (s *Sealer) Prepare(c Config) (*dkim.Next, error) { return s.Signer.Prepare(c.Keys()) }

var errNoKey = errors.New("no key is in use yet")

// Seal makes the set that goes on top of a message which is forwarded, as the function Seal says.
func (s *Sealer) Seal(message io.Reader) ([]byte, Sealed, error) {
	now := s.now()
	for _, k := range s.Keys(now) {
		if k.InUse {
			return Seal(message, Key{k.Domain, k.Selector, k.Private}, s.host, now)
		}
	}
	return nil, Sealed{}, errNoKey
}
