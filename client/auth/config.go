package auth

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/sasl"
)

// Level is how far TLS must protect a connection before a password or token goes over it.
type Level string

// The levels.
const (
	// Verified: the certificate is one for the host's name of an authority that is trusted, or
	// the one that DNS names (DANE).
	Verified Level = "verified"
	// Encrypted: against those who only listen.
	Encrypted Level = "encrypted"
	// None: not at all.
	None Level = "none"
)

// What follows if a host refuses a login for good.
const (
	deferMail  = "defer"
	bounceMail = "bounce"
)

// Config holds the options of section auth of smtpc.
type Config struct {
	PasswordMap     string
	SenderDependent bool
	Optional        bool
	Mechanisms      []string
	TLS             string
	OnFailure       string
	TokenFile       string
	FailureTime     time.Duration
}

// Level is the option tls.
func (c *Config) Level() Level { return Level(cmp.Or(c.TLS, string(Verified))) }

// Bounces reports whether mail comes back if the host refuses the login for good.
func (c *Config) Bounces() bool { return c.OnFailure == bounceMail }

// Keys are those under which the entry of a host is looked up, in their order: name and port,
// the name, the address in brackets with port and without, and the destination of the route
// with port and without. Names are in lower case.
func Keys(name, addr, port, dest string) []string {
	var keys []string
	add := func(key string) {
		if key != "" && key != "[]" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	withPort := func(host string) {
		if host != "" && port != "" {
			add(host + ":" + port)
		}
		add(host)
	}
	withPort(strings.ToLower(strings.TrimSuffix(name, ".")))
	if addr != "" {
		withPort("[" + addr + "]")
	}
	if _, where, ok := strings.Cut(dest, ":"); ok {
		where, _, _ = strings.Cut(strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(where), msg.DestTLSOptional), msg.DestHandover), "/ip") // the family of addresses
		add(where)
		if i := strings.LastIndexByte(where, ':'); i > 0 && i+1 < len(where) && strings.Trim(where[i+1:], "0123456789") == "" {
			add(where[:i])
		}
	}
	return keys
}

// SenderKeys are those of a sender, in their order: the address, and its domain behind "@".
func SenderKeys(local, domain string) []string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if domain == "" {
		return nil
	}
	return []string{local + "@" + domain, "@" + domain}
}

// The orders in which mechanisms are tried: those that tell the host least come first.
var (
	withPassword = [...]string{
		sasl.SCRAMSHA256Plus, sasl.SCRAMSHA1Plus, sasl.SCRAMSHA256, sasl.SCRAMSHA1, sasl.CRAMMD5, sasl.Plain, sasl.Login,
	}
	withToken = [...]string{sasl.OAuthBearer, sasl.XOAuth2}
)

// Choose lists the mechanisms to try, in their order: those of the option, that the host
// offers, that serve the login, and that the connection allows.
func (c *Config) Choose(l Login, offered []string, ch *Channel) []string {
	usable := withPassword[:]
	if l.TokenFile != "" {
		usable = withToken[:]
	}
	list := make([]string, 0, len(usable))
	for _, name := range c.order(usable) {
		plus := strings.HasSuffix(name, "-PLUS")
		if slices.Contains(usable, name) && slices.Contains(offered, name) && (!plus || len(ch.Bindings) > 0) {
			list = append(list, name)
		}
	}
	return list
}

// order is that of the option mechanisms: the names in it, or if it only has names with "!"
// the default without those.
func (c *Config) order(usual []string) []string {
	var wanted, forbidden []string
	for _, name := range words(c.Mechanisms) {
		if not, ok := strings.CutPrefix(name, "!"); ok {
			forbidden = append(forbidden, not)
		} else {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		wanted = slices.Clone(usual)
	}
	return slices.DeleteFunc(wanted, func(name string) bool { return slices.Contains(forbidden, name) })
}

// words are the words of a list in upper case; one string may have several.
func words(list []string) []string {
	var all []string
	for _, s := range list {
		all = append(all, strings.Fields(strings.ToUpper(s))...)
	}
	return all
}

// Files are those that the section names.
func (c *Config) Files() []string {
	if c.TokenFile == "" {
		return nil
	}
	return []string{c.TokenFile}
}

// Table is the option table of the section, bound to c.
func (c *Config) Table() *confparse.Table {
	flag := func(name, doc string, into *bool) confparse.Option {
		return confparse.Option{Name: name, Kind: confparse.KindFlag, Type: confparse.Bool, Readme: "own", Into: into, Doc: doc}
	}
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		{
			Name: "password_map", Type: confparse.MapName, Readme: "own", Into: &c.PasswordMap,
			Doc: "Name of a map of section smar with the accounts at other hosts (docs/auth.md). Keys are host:port, a host's name, its address in brackets, or the destination of a mailertable entry; values account:password, as in Postfix's smtp_sasl_password_maps.",
		},
		flag("sender_dependent", "Look the sender up in password_map too, as user@domain and @domain. Its entry is used in place of the host's, and only for hosts that have an entry, so that no other host gets the password of a sender. The entry - of a host stands for no account but those of senders. As Postfix's smtp_sender_dependent_authentication.", &c.SenderDependent),
		flag("optional", "Send without authentication to a host that does not offer AUTH though it has an entry. Without the flag the mail waits: whoever took AUTH out of what the host offers would otherwise get it.", &c.Optional),
		{
			Name: "mechanisms", Type: confparse.List, DefaultWords: "those that are known", Readme: "own", Into: &c.Mechanisms,
			Doc: "Mechanisms that may be used, the first one that the host offers is tried. A name behind ! is forbidden; a list of such names alone leaves the others in their usual order: SCRAM-SHA-256-PLUS, SCRAM-SHA-1-PLUS, SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN, LOGIN, and for tokens OAUTHBEARER, XOAUTH2. As Postfix's smtp_sasl_mechanism_filter.",
		},
		{
			Name: "tls", Type: confparse.Enum, Words: []string{string(Verified), string(Encrypted), string(None)}, Default: string(Verified), Readme: "own", Into: &c.TLS,
			Doc: "How far TLS must protect a connection before we authenticate over it: verified takes a certificate for the name of the host from an authority of section tls or of the system, or one that DANE confirms; encrypted takes any; none goes without TLS, where everybody on the way can read a password. Mail waits while it cannot be had.",
		},
		{
			Name: "on_failure", Type: confparse.Enum, Words: []string{deferMail, bounceMail}, Default: deferMail, Readme: "own", Into: &c.OnFailure,
			Doc: "What becomes of mail if the host refuses the login with 5xx: defer keeps it in the queue until the password is right or the mail expires, bounce returns it. A 4xx defers always. As Postfix's smtp_sasl_auth_soft_bounce.",
		},
		{
			Name: "failure_time", Type: confparse.Time, Unit: "s", Default: "5m", Min: "0s", Max: "1d", Readme: "own", Into: &c.FailureTime,
			Doc: "How long the same login is not tried again at a host that has refused it; mail for it waits meanwhile. Another password in the map, or another token, is tried at once. 0 tries for each message.",
		},
		{
			Name: "token_file", Type: confparse.Path, Readme: "own", Into: &c.TokenFile,
			Doc: "File with the OAuth 2.0 access token of entries without a password, for OAUTHBEARER and XOAUTH2: the token alone, or JSON with access_token. It is read for each login, so that a new token takes effect at once. Relative to the folder of the configuration file. A file that only root may read is read by root, as keys of section tls are.",
		},
	}}
}

// check makes the cross-checks of the section, and makes paths absolute.
func (c *Config) check(r *confparse.Report) {
	if c.TokenFile != "" && !filepath.IsAbs(c.TokenFile) {
		c.TokenFile = filepath.Join(r.Dir(), c.TokenFile)
	}
	if c.PasswordMap == "" {
		r.Warnf("", "section auth has no password_map: nothing is authenticated")
	}
	if c.Level() == None {
		r.Warnf("tls", "passwords may be sent without TLS: everybody on the way can read them")
	}
	known := slices.Concat(withPassword[:], withToken[:])
	for _, name := range words(c.Mechanisms) {
		if !slices.Contains(known, strings.TrimPrefix(name, "!")) {
			r.Warnf("mechanisms", "mechanism %q is not spoken here", name)
		}
	}
	if len(c.order(known)) == 0 {
		r.Errorf("mechanisms", "no mechanism is left")
	}
}
