package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/xdg-go/scram"
)

// Deps are what an Authenticator needs from the server.
type Deps struct {
	// Lookup asks for the entry of a key in a map; found says whether there is one.
	Lookup func(ctx context.Context, mapName, key string) (value string, found bool, err error)
	// Dial connects to Dovecot and saslauthd; nil: the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Random is nil for the system's.
	Random io.Reader
	Log    *slog.Logger
	// Hostname stands in the challenges of CRAM-MD5.
	Hostname string
	// Former is what the new one takes the place of, whose failures it goes on to count; nil: none.
	Former *Authenticator
}

// Authenticator is AUTH of one server section. Its methods may be called by many sessions
// at a time.
type Authenticator struct {
	cfg      Config
	deps     Deps
	dovecot  *dovecot // nil: not the source
	failures *failures
	slots    chan struct{} // one for each password that may be hashed now
	key      []byte        // of the salts of accounts that do not exist
	shape    atomic.Pointer[Secret]
}

// New makes an Authenticator. It starts nothing.
func New(cfg Config, deps Deps) (*Authenticator, error) {
	if deps.Random == nil {
		deps.Random = rand.Reader
	}
	if deps.Dial == nil {
		deps.Dial = new(net.Dialer).DialContext
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	a := &Authenticator{cfg: cfg.withDefaults(), deps: deps, key: make([]byte, sha256.Size)}
	if _, err := io.ReadFull(deps.Random, a.key); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	a.failures, a.slots = newFailures(a.cfg.Failures), make(chan struct{}, a.cfg.HashesMax)
	if f := deps.Former; f != nil {
		a.failures.memory, a.key = f.failures.memory, f.key // what is made up for an unknown account stays the same, too
		a.shape.Store(f.shape.Load())
	}
	a.deps.Former = nil
	if a.cfg.Dovecot.set() {
		a.dovecot = newDovecot(a.cfg.Dovecot, deps.Dial, a.key)
	}
	return a, nil
}

// Run learns from Dovecot which mechanisms it has, until ctx ends.
func (a *Authenticator) Run(ctx context.Context) error {
	if a.dovecot != nil {
		a.dovecot.watch(ctx, a.deps.Log, a.cfg.Timeout)
	}
	return nil
}

// Mechanisms are those that a session may use now, in the order of their strength.
func (a *Authenticator) Mechanisms(ch *Channel) []string {
	var list []string
	for _, name := range a.offers() {
		if t, ok := a.traits(name); ok && a.cfg.permits(t, ch) == nil {
			list = append(list, name)
		}
	}
	return list
}

// offers are the names that the configuration and the source have in common, the best first.
func (a *Authenticator) offers() []string {
	configured := a.cfg.Offers()
	var list []string
	for _, k := range known {
		if slices.Contains(configured, k.name) {
			list = append(list, k.name)
		}
	}
	if a.dovecot == nil {
		return list
	}
	named := len(a.cfg.Mechanisms) > 0
	for _, name := range a.dovecot.names() { // such as GSSAPI
		if _, ok := traitsOf(name); !ok && (!named || slices.Contains(configured, name)) {
			list = append(list, name)
		}
	}
	return list
}

// traits are those of a mechanism; ok is false if the source does not have it.
func (a *Authenticator) traits(name string) (t traits, ok bool) {
	t, ok = traitsOf(name)
	switch {
	case a.dovecot != nil:
		own, has := a.dovecot.traits(name)
		return own | t, has
	case a.cfg.Saslauthd.set():
		return t, name == Plain || name == Login
	}
	return t, ok && t&nobody == 0 && name != XOAuth2 && name != OAuthBearer
}

// Client says who authenticates, for Dovecot and for the tables of failures.
type Client struct {
	IP, Own       netip.Addr
	Port, OwnPort uint16
	Channel       Channel
}

// Begin starts an exchange. The error is ErrUnknown, ErrNeedsTLS, ErrTooWeak or
// ErrTooMany.
func (a *Authenticator) Begin(mechanism string, client Client) (*Exchange, error) {
	ch := &client.Channel
	t, ok := a.traits(mechanism)
	if !ok || !slices.Contains(a.offers(), mechanism) {
		return nil, ErrUnknown
	}
	if err := a.cfg.permits(t, ch); err != nil {
		return nil, err
	}
	if a.failures.clientBlocked(client.IP, time.Now()) {
		return nil, ErrTooMany
	}
	e := &Exchange{a: a, mechanism: mechanism, client: client}
	if a.dovecot != nil {
		e.remote = &remote{d: a.dovecot, client: client, mechanism: mechanism}
		return e, nil
	}
	var err error
	e.state, err = a.state(mechanism, ch)
	return e, err
}

// state makes the state machine of a mechanism.
func (a *Authenticator) state(mechanism string, ch *Channel) (state, error) {
	nonce := make([]byte, 18)
	if _, err := io.ReadFull(a.deps.Random, nonce); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	text := base64.StdEncoding.EncodeToString(nonce)
	// A client that could have had channel binding, and was not shown it, was cheated.
	bindings := func(plus string) []scram.ChannelBinding {
		if slices.Contains(a.Mechanisms(ch), plus) {
			return ch.bindings()
		}
		return nil
	}
	switch mechanism {
	case Plain:
		return plainState{}, nil
	case Login:
		return &loginState{}, nil
	case CRAMMD5:
		return &cramState{challenge: []byte("<" + text + "." + time.Now().UTC().Format("20060102150405") + "@" + a.deps.Hostname + ">")}, nil
	case SCRAMSHA1, SCRAMSHA1Plus:
		return &scramState{hash: scram.SHA1, form: formSHA1, nonce: text, plus: mechanism == SCRAMSHA1Plus, bindings: bindings(SCRAMSHA1Plus)}, nil
	case SCRAMSHA256, SCRAMSHA256Plus:
		return &scramState{hash: scram.SHA256, form: formSHA256, nonce: text, plus: mechanism == SCRAMSHA256Plus, bindings: bindings(SCRAMSHA256Plus)}, nil
	case External:
		return newExternal(ch.Peer, a.cfg.ExternalName), nil
	}
	return nil, ErrUnknown
}

// entry finds the secret of an account. One that does not exist, or cannot use the
// mechanism, gets a decoy; reason says why.
func (a *Authenticator) entry(ctx context.Context, mechanism, name string) (s *Secret, reason string, err error) {
	prepared, err := PrepareName(name)
	if err != nil {
		return a.decoy(mechanism, name), err.Error(), nil
	}
	account := a.cfg.account(prepared)
	value, found, err := a.deps.Lookup(ctx, a.cfg.PasswordMap, account)
	if err != nil {
		return nil, "", err
	}
	if !found {
		return a.decoy(mechanism, account), unknownAccount, nil
	}
	if s, err = ParseSecret(value); err != nil {
		return nil, "", fmt.Errorf("entry of account %q in map %s: %w", account, a.cfg.PasswordMap, err)
	}
	if !s.Serves(mechanism) {
		return a.decoy(mechanism, account), "the entry of the account has no form for " + mechanism, nil
	}
	if !s.external || s.HasPassword() {
		a.shape.Store(s)
	}
	if form, ok := formOf(mechanism); ok {
		s.fill(form, a.mac("salt", account)[:saltSize])
	}
	return s, "", nil
}

// formOf is the form of secret that a mechanism needs, if it is one of SCRAM.
func formOf(mechanism string) (form scramForm, ok bool) {
	switch mechanism {
	case SCRAMSHA1, SCRAMSHA1Plus:
		return formSHA1, true
	case SCRAMSHA256, SCRAMSHA256Plus:
		return formSHA256, true
	}
	return 0, false
}

// decoy is a secret that looks like, and takes as long as, the last that was read. The
// salt of a name is always the same, as it would be if there were such an account.
func (a *Authenticator) decoy(mechanism, name string) *Secret {
	d := &Secret{decoy: true}
	shape := a.shape.Load()
	if shape == nil {
		shape = &Secret{}
		shape.scram[formSHA256] = scram.StoredCredentials{KeyFactors: scram.KeyFactors{Iters: makeIterations}, StoredKey: make([]byte, sha256.Size)}
	}
	d.argon, d.bcrypt = shape.argon, shape.bcrypt
	if shape.hasPlain {
		d.hasPlain, d.plain = true, base64.StdEncoding.EncodeToString(a.mac("password", name))
	}
	salt := string(a.mac("salt", name)[:saltSize])
	for form := range d.scram {
		if shape.hasSCRAM(scramForm(form)) {
			d.setDecoy(scramForm(form), salt, shape.scram[form].Iters, a.mac("key", name))
		}
	}
	if form, ok := formOf(mechanism); ok {
		d.fill(form, []byte(salt))
		if !d.hasSCRAM(form) {
			d.setDecoy(form, salt, makeIterations, a.mac("key", name))
		}
	}
	return d
}

func (s *Secret) setDecoy(form scramForm, salt string, iterations int, key []byte) {
	size := [scramForms]int{formSHA1: 20, formSHA256: 32}[form]
	s.scram[form] = scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: salt, Iters: iterations}, StoredKey: key[:size], ServerKey: key[:size]}
}

// mac is a value of a name that nobody else can compute.
func (a *Authenticator) mac(what, name string) []byte {
	m := hmac.New(sha256.New, a.key)
	m.Write([]byte(what + "\x00" + name))
	return m.Sum(nil)
}

// verify checks a password against a secret. Few may do so at one time.
func (a *Authenticator) verify(ctx context.Context, s *Secret, password string) (bool, error) {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("waiting for a processor: %w", context.Cause(ctx))
	}
	defer func() { <-a.slots }()
	return s.Verify(password) && !s.decoy, nil
}
