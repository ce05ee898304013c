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

// Rewriter is a Scheme with a clock, which can come, change and go. Any goroutine may use it. nil is one that
// is off.
type Rewriter struct {
	files tlsconf.Files
	now   func() time.Time
	in    atomic.Pointer[Scheme] // nil: off
}

// New reads the secrets; without a section it is off. now is the clock; nil: time.Now.
func New(c Config, files tlsconf.Files, now func() time.Time) (*Rewriter, error) {
	if now == nil {
		now = time.Now
	}
	r := &Rewriter{files: files, now: now}
	return r, r.Reconfigure(c)
}

// Reconfigure takes other options and reads the secrets anew. After an error everything is as it was.
func (r *Rewriter) Reconfigure(c Config) error {
	commit, err := r.Prepare(c)
	if err == nil {
		commit()
	}
	return err
}

// Prepare reads the secrets of other options. commit takes them and cannot fail; until then nothing
// changes.
func (r *Rewriter) Prepare(c Config) (commit func(), err error) {
	if !c.Present {
		return func() { r.in.Store(nil) }, nil
	}
	s, err := load(c, r.files)
	return func() { r.in.Store(s) }, err
}

// scheme is the one in use; nil: it is off.
func (r *Rewriter) scheme() *Scheme {
	if r == nil {
		return nil
	}
	return r.in.Load()
}

// On reports whether senders are rewritten.
func (r *Rewriter) On() bool { return r.scheme() != nil }

// Check reads the secrets of a section. world reports whether everybody may read a file.
func Check(c Config, files tlsconf.Files, world func(path string) bool) error {
	if world(c.SecretFile) {
		return errors.New("everybody may read the secrets in " + c.SecretFile + ": anybody on this host could have mail forwarded by it")
	}
	_, err := load(c, files)
	return err
}

// Forward is Scheme.Forward now; false if it is off.
func (r *Rewriter) Forward(from smtp.Path) (smtp.Path, bool) {
	s := r.scheme()
	if s == nil {
		return smtp.Path{}, false
	}
	return s.Forward(from, r.now())
}

// Takes reports whether mail for p is to be reversed: p has the form of SRS and is of our domain.
func (r *Rewriter) Takes(p smtp.Path) bool {
	s := r.scheme()
	return s != nil && smtp.IsSRS(p.Local) && p.LowerDomain() == s.Domain
}

// Reverse is Scheme.Reverse now; ErrForm if it is off.
func (r *Rewriter) Reverse(p smtp.Path) (smtp.Path, error) {
	s := r.scheme()
	if s == nil {
		return smtp.Path{}, ErrForm
	}
	return s.Reverse(p.Local, r.now())
}

// Scheme is what is in use now, with its secrets; zero if it is off.
func (r *Rewriter) Scheme() Scheme {
	if s := r.scheme(); s != nil {
		return *s
	}
	return Scheme{}
}

// Domain is that of the addresses; "" if it is off.
func (r *Rewriter) Domain() string {
	s := r.scheme()
	if s == nil {
		return ""
	}
	return s.Domain
}
