package srs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"meta1/confparse"
	"meta1/mta/smtp"
	"meta1/mta/tlsconf"
)

// Config is section srs of smar.
type Config struct {
	Present    bool
	Domain     string
	SecretFile string
	Separator  string
	MaxAge     int // days
}

// Table is the option table of the section.
func (c *Config) Table() *confparse.Table {
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		{
			Name: "domain", Type: confparse.String, Required: true, Readme: "own", Reload: confparse.AtOnce, Into: &c.Domain,
			Doc: "Domain of the senders that are made. Its MX record must lead here; SPF and DKIM of it are those of this host. It may be a domain with other users.",
		},
		{
			Name: "secret_file", Type: confparse.File, Required: true, Readme: "own", Reload: confparse.AtOnce, Into: &c.SecretFile,
			Doc: "File with the secrets, one a line, which only its owner and his group may read. The first one makes addresses, all are good for those that come back: put a new one on top, and take the old one away when max_age is over.",
		},
		{
			Name: "separator", Type: confparse.Enum, Words: []string{"=", "+", "-"}, Default: `"="`, Readme: "own", Reload: confparse.AtOnce, Into: &c.Separator,
			Doc: "Character behind SRS0 and SRS1 in the addresses that are made. All three are understood.",
		},
		{
			Name: "max_age", Type: confparse.Int, Unit: "days", Default: "21", Min: "1", Max: "365", Readme: "own", Reload: confparse.AtOnce, Into: &c.MaxAge,
			Doc: "For how many days mail to such an address is taken.",
		},
	}}
}

func (c *Config) check(r *confparse.Report) {
	if err := smtp.CheckDomain(c.Domain); c.Domain != "" && err != nil {
		r.Errorf("domain", "domain: %q is not a domain name in ASCII: %v", c.Domain, err)
	}
}

// Bounds of the file of secrets.
const (
	secretMin  = 8 // bytes
	secretsMax = 100
)

// load reads the secrets.
func load(c Config, files tlsconf.Files) (*Scheme, error) {
	text, _, err := files.Read(c.SecretFile, "")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("srs secret_file: %s does not exist", c.SecretFile)
	case err != nil:
		return nil, fmt.Errorf("srs secret_file: %w", err)
	}
	s := &Scheme{Domain: lower(c.Domain), Separator: '=', MaxAge: c.MaxAge}
	if c.Separator != "" {
		s.Separator = c.Separator[0]
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if len(line) < secretMin {
			return nil, fmt.Errorf("srs secret_file %s: a secret has fewer than %d characters", c.SecretFile, secretMin)
		}
		s.Secrets = append(s.Secrets, line)
	}
	if n := len(s.Secrets); n == 0 || n > secretsMax {
		return nil, fmt.Errorf("srs secret_file %s has %d secrets: it has one a line, and at most %d", c.SecretFile, n, secretsMax)
	}
	return s, nil
}

// Rewriter is a Scheme with a clock, whose secrets can be read anew. Any goroutine may use it.
type Rewriter struct {
	files tlsconf.Files
	now   func() time.Time
	in    atomic.Pointer[Scheme]
}

// New reads the secrets. now is the clock; nil: time.Now.
func New(c Config, files tlsconf.Files, now func() time.Time) (*Rewriter, error) {
	if now == nil {
		now = time.Now
	}
	r := &Rewriter{files: files, now: now}
	return r, r.Reconfigure(c)
}

// Reconfigure takes other options and reads the secrets anew. After an error everything is as it was.
func (r *Rewriter) Reconfigure(c Config) error {
	s, err := load(c, r.files)
	if err == nil {
		r.in.Store(s)
	}
	return err
}

// Prepare reads the secrets of other options. commit takes them and cannot fail; until then nothing
// changes.
func (r *Rewriter) Prepare(c Config) (commit func(), err error) {
	s, err := load(c, r.files)
	return func() { r.in.Store(s) }, err
}

// Check reads the secrets of a section. world reports whether everybody may read a file.
func Check(c Config, files tlsconf.Files, world func(path string) bool) error {
	if world(c.SecretFile) {
		return errors.New("everybody may read the secrets in " + c.SecretFile + ": anybody on this host could have mail forwarded by it")
	}
	_, err := load(c, files)
	return err
}

// Forward is Scheme.Forward now.
func (r *Rewriter) Forward(from smtp.Path) (smtp.Path, bool) {
	return r.in.Load().Forward(from, r.now())
}

// Takes reports whether mail for p is to be reversed: p has the form of SRS and is of our domain.
func (r *Rewriter) Takes(p smtp.Path) bool {
	return r != nil && smtp.IsSRS(p.Local) && p.LowerDomain() == r.in.Load().Domain
}

// Reverse is Scheme.Reverse now.
func (r *Rewriter) Reverse(p smtp.Path) (smtp.Path, error) {
	return r.in.Load().Reverse(p.Local, r.now())
}

// Domain is that of the addresses.
func (r *Rewriter) Domain() string { return r.in.Load().Domain }
