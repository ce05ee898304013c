package auth

import (
	"slices"
	"strings"
	"time"

	"meta1/confparse"
)

// Config is a section auth (README 3.10, item 1).
type Config struct {
	Flags
	TrustedMechanisms []string
	UserRealm         string
	Mechanisms        []string // that are offered if the source has them; none: the usual ones
	ExternalName      string   // what of a certificate is the account
	SenderLogin       string   // map of who may use which sender; "" for none

	PasswordMap string
	Dovecot     Dovecot
	Saslauthd   Saslauthd

	Timeout   time.Duration // for one question to a source
	HashesMax int           // passwords that are hashed at a time
	Failures  Limits
}

// Flags are the words of the option flags.
type Flags struct {
	NoPlaintext     bool
	NoActive        bool
	NoDictionary    bool
	ForwardSecrecy  bool
	NoAnonymous     bool
	PassCredentials bool
	MutualAuth      bool
	MailAuth        bool // allow_mail_auth
}

// Dovecot is where Dovecot's auth service listens for clients.
type Dovecot struct {
	Path    string
	Address string // host:port, in place of Path
}

func (d *Dovecot) set() bool { return d.Path != "" || d.Address != "" }

// Saslauthd is saslauthd's socket.
type Saslauthd struct {
	Path    string
	Service string
}

func (s *Saslauthd) set() bool { return s.Path != "" }

// Limits say what failures lead to.
type Limits struct {
	PerClient  int           // failures of an address after which it must wait; 0 for no limit
	PerAccount int           // the same of an account, for addresses that are new to it
	Expire     time.Duration // how long failures are remembered
	Delay      time.Duration // of the first refusal; it doubles with each
}

// delayMax bounds the delay of a refusal.
const delayMax = 8 * time.Second

// withDefaults fills what a Config made by hand leaves out.
func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = 20 * time.Second
	}
	if c.Failures.Expire <= 0 {
		c.Failures.Expire = 10 * time.Minute
	}
	c.HashesMax = max(c.HashesMax, 1)
	if c.ExternalName == "" {
		c.ExternalName = byCommonName
	}
	c.Mechanisms, c.TrustedMechanisms = words(c.Mechanisms), words(c.TrustedMechanisms)
	return c
}

// words are the words of a list in upper case: the README writes several in one string.
func words(list []string) []string {
	var all []string
	for _, s := range list {
		all = append(all, strings.Fields(strings.ToUpper(s))...)
	}
	return all
}

// XClient is the name in trusted_mechanisms for clients whose account a host has named by
// XCLIENT. It is no mechanism of AUTH.
const XClient = "XCLIENT"

// Trusts reports whether a client that authenticated by the mechanism may relay.
func (c *Config) Trusts(mechanism string) bool {
	return slices.Contains(words(c.TrustedMechanisms), mechanism)
}

// Offers are the mechanisms that the configuration offers, whatever the connection is. With
// Dovecot these are at most what it has.
func (c *Config) Offers() []string {
	if list := words(c.Mechanisms); len(list) > 0 {
		return list
	}
	switch {
	case c.PasswordMap != "":
		return []string{SCRAMSHA256Plus, SCRAMSHA256, Plain, Login}
	case c.Dovecot.set():
		return append(names()[1:len(names())-1], External) // not ANONYMOUS
	case c.Saslauthd.set():
		return []string{Plain, Login}
	}
	return nil
}

// Table is the option table of the section, bound to c.
func (c *Config) Table() *confparse.Table {
	flag := func(name, readme, deflt, doc string, into *bool) confparse.Option {
		return confparse.Option{Name: name, Kind: confparse.KindFlag, Type: confparse.Bool, Default: deflt, Readme: readme, Into: into, Doc: doc}
	}
	own := func(o confparse.Option) confparse.Option { o.Readme = "own"; return o }
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		flag("noplaintext", "3.10", "true", "Without TLS no mechanism that sends a password or a token as it is: PLAIN, LOGIN, XOAUTH2, OAUTHBEARER. On by default; turn it off with -noplaintext.", &c.NoPlaintext),
		flag("noactive", "3.10", "false", "No mechanism that is open to somebody who changes what is sent: SCRAM and EXTERNAL alone are left.", &c.NoActive),
		flag("nodictionary", "3.10", "false", "Without TLS no mechanism by which somebody who listens can try passwords afterwards: nothing is offered without TLS.", &c.NoDictionary),
		flag("forward_secrecy", "3.10", "false", "Mechanisms only over TLS with a cipher that keeps what was sent secret even if our key is stolen later; all of TLS 1.3 do.", &c.ForwardSecrecy),
		flag("noanonymous", "3.10", "false", "No ANONYMOUS, which only Dovecot has, and which is offered only if mechanisms names it.", &c.NoAnonymous),
		flag("pass_credentials", "3.10", "false", "Only mechanisms that give the server what it could log in elsewhere with: PLAIN, LOGIN, XOAUTH2, OAUTHBEARER.", &c.PassCredentials),
		flag("mutual_auth", "3.10", "false", "Only mechanisms by which the server proves that it knows the password, too: SCRAM, and those of which Dovecot says so.", &c.MutualAuth),
		flag("allow_mail_auth", "own", "false", "Take AUTH= of MAIL (RFC 4954 section 5) from clients that authenticated by one of trusted_mechanisms. Without it, and from others, it counts as AUTH=<>.", &c.MailAuth),
		{
			Name: "trusted_mechanisms", Type: confparse.List, Readme: "3.10", Into: &c.TrustedMechanisms,
			Doc: "Mechanisms by which a client that authenticated may relay. Without it nobody may because of AUTH.",
		},
		{
			Name: "user_realm", Type: confparse.String, Readme: "3.10", Into: &c.UserRealm,
			Doc: "Realm of user names that have none: name becomes name@realm, for lookups and in logs. Without it names stay as they are. Dovecot has a setting of its own (auth_default_realm).",
		},
		own(confparse.Option{
			Name: "mechanisms", Type: confparse.List, DefaultWords: "those of the source", Into: &c.Mechanisms,
			Doc: "Mechanisms that are offered, as far as the source of passwords, the flags and TLS allow. The default with password_map is SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN and LOGIN, with saslauthd PLAIN and LOGIN, with Dovecot all that it has but ANONYMOUS. Name PLAIN and LOGIN alone if the map has argon2id or bcrypt forms.",
		}),
		own(confparse.Option{
			Name: "password_map", Type: confparse.MapName, Into: &c.PasswordMap,
			Doc: "Name of a map of section smar whose keys are accounts and whose values are passwords, as meta1 passwd writes them (docs/auth.md).",
		}),
		own(confparse.Option{
			Name: "sender_login", Type: confparse.MapName, Into: &c.SenderLogin,
			Doc: "Name of a map of section smar that says who may use which sender: keys are addresses, in parts as in the access map but without local parts alone, values are accounts with blanks between. A client that authenticated may only use senders of its account; a sender that stands in the map is refused to who did not, unless the client may relay otherwise. As Postfix's smtpd_sender_login_maps.",
		}),
		own(confparse.Option{
			Name: "external_name", Type: confparse.Enum, Words: []string{byCommonName, byEmail, byDNS}, Default: byCommonName, Into: &c.ExternalName,
			Doc: "What of a client's certificate is the account for EXTERNAL: the common name, the mail addresses or the DNS names. The account must have an entry in password_map ({EXTERNAL} if it has no password), or be known to Dovecot.",
		}),
		own(confparse.Option{
			Name: "dovecot_socket", Type: confparse.Path, Into: &c.Dovecot.Path,
			Doc: "Unix socket of Dovecot's service auth for clients (auth-client, or one of its own as for Postfix), relative to the main queue directory. Dovecot checks passwords, and says which mechanisms there are.",
		}),
		own(confparse.Option{
			Name: "dovecot_address", Type: confparse.String, Into: &c.Dovecot.Address,
			Doc: "Address host:port of an inet_listener of the service, in place of dovecot_socket. Passwords can be read on the way.",
		}),
		own(confparse.Option{
			Name: "saslauthd_socket", Type: confparse.Path, Into: &c.Saslauthd.Path,
			Doc: "Socket of Cyrus SASL's saslauthd, such as /run/saslauthd/mux, relative to the main queue directory. It checks passwords, for PLAIN and LOGIN. The account of meta1 must be in the group that may enter its folder (sasl on Debian).",
		}),
		own(confparse.Option{
			Name: "saslauthd_service", Type: confparse.String, Default: "smtp", Into: &c.Saslauthd.Service,
			Doc: "Name of the service for saslauthd; PAM takes /etc/pam.d/NAME.",
		}),
		own(confparse.Option{
			Name: "timeout", Type: confparse.Time, Unit: "s", Default: "20", Min: "1", Max: "5m", Into: &c.Timeout,
			Doc: "How long one question about an account may take: to the map, to Dovecot, to saslauthd, or the wait for a processor to hash on. Then the client gets 454. Dovecot lets an address wait for up to 17 seconds that has failed before.",
		}),
		own(confparse.Option{
			Name: "hashes_max", Type: confparse.Int, Unit: "entries", Default: "2", Min: "1", Max: "256", Into: &c.HashesMax,
			Doc: "Passwords of password_map that are hashed at one time. Each takes a processor, and with argon2id the memory that the entry says (64 MB).",
		}),
		own(confparse.Option{
			Name: "client_failures_max", Type: confparse.Int, Unit: "entries", Default: "20", Min: "0", Into: &c.Failures.PerClient,
			Doc: "Failures of a client's address (of IPv6 its /64) after which AUTH is answered 454 until failure_expire has passed without another. 0 for no limit.",
		}),
		own(confparse.Option{
			Name: "account_failures_max", Type: confparse.Int, Unit: "entries", Default: "100", Min: "0", Into: &c.Failures.PerAccount,
			Doc: "Failures for an account, from any address, after which AUTH for it is answered 454 until failure_expire has passed without another. Addresses from which the account succeeded lately go on. 0 for no limit.",
		}),
		own(confparse.Option{
			Name: "failure_expire", Type: confparse.Time, Unit: "s", Default: "10m", Min: "1", Max: "7d", Into: &c.Failures.Expire,
			Doc: "How long a failure is remembered, and a success.",
		}),
		own(confparse.Option{
			Name: "failure_delay", Type: confparse.Time, Unit: "s", Default: "1s", Min: "0", Max: "8s", Into: &c.Failures.Delay,
			Doc: "How long the refusal of the first failure is held back. It doubles with each further one of the address or account, up to 8 seconds. 0 for not at all.",
		}),
	}}
}

// check makes the cross-checks of the section.
func (c *Config) check(r *confparse.Report) {
	var sources []string
	for _, source := range []struct {
		option string
		set    bool
	}{
		{"password_map", c.PasswordMap != ""},
		{"dovecot_socket", c.Dovecot.Path != ""},
		{"dovecot_address", c.Dovecot.Address != ""},
		{"saslauthd_socket", c.Saslauthd.set()},
	} {
		if source.set {
			sources = append(sources, source.option)
		}
	}
	switch {
	case len(sources) > 1:
		r.Errorf(sources[1], "section auth takes one source of passwords, not %s", strings.Join(sources, " and "))
		return
	case len(sources) == 0:
		r.Warnf("", "section auth has neither password_map nor dovecot_socket nor saslauthd_socket: nobody can authenticate")
		return
	}
	for _, list := range []struct {
		option string
		words  []string
	}{{"mechanisms", c.Mechanisms}, {"trusted_mechanisms", c.TrustedMechanisms}} {
		for _, name := range words(list.words) {
			_, ok := traitsOf(name)
			switch {
			case ok && !c.Dovecot.set() && slices.Contains([]string{XOAuth2, OAuthBearer, anonymous}, name):
				r.Warnf(list.option, "%s is offered with Dovecot alone", name)
			case ok && c.Saslauthd.set() && name != Plain && name != Login:
				r.Warnf(list.option, "%s cannot be had with saslauthd, which knows PLAIN and LOGIN", name)
			case !ok && !c.Dovecot.set() && name != XClient:
				r.Warnf(list.option, "mechanism %q is not offered here", name)
			}
		}
	}
	offers := c.Offers()
	for _, name := range words(c.TrustedMechanisms) {
		if _, ok := traitsOf(name); ok && !slices.Contains(offers, name) {
			r.Warnf("trusted_mechanisms", "%s is trusted and not among mechanisms, so that nobody authenticates by it", name)
		}
	}
	if len(words(c.TrustedMechanisms)) == 0 {
		r.Warnf("", "section auth has no trusted_mechanisms: nobody may relay because of AUTH")
	}
}
