package tlsconf

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"meta1/mta/tlsconf/ciphers"
)

// Deps is what a Provider needs of the rest. All but Role may be left out.
type Deps struct {
	Role  Role
	Name  string           // of the section for logs and metrics: "smtps MSA"
	Files Files            // nil: OS
	Now   func() time.Time // nil: time.Now
	Rand  io.Reader        // of keys for tickets; nil: crypto/rand
}

// Provider holds what one section tls and its files say, and gives it to handshakes. Any
// goroutine may use it.
type Provider struct {
	deps   Deps
	suites map[uint16]ciphers.Suite

	now      atomic.Pointer[current]
	tickets  tickets
	sessions sessions

	mu   sync.Mutex // held during a load; guards last
	last attempt
}

// attempt is the last try to load, whether it went well or not.
type attempt struct {
	section Section
	stamps  map[string]Stamp
	err     error
}

// current is what handshakes use. It is replaced as a whole.
type current struct {
	*loaded
	server *tls.Config // nil without a certificate
	client *tls.Config // a template; nil for a server
}

// New loads a section. The error has everything that keeps it from being used.
func New(s Section, d Deps) (*Provider, error) {
	if d.Files == nil {
		d.Files = OS{}
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Rand == nil {
		d.Rand = rand.Reader
	}
	p := &Provider{deps: d, suites: ciphers.Names()}
	if err := p.Reconfigure(s); err != nil {
		return nil, err
	}
	return p, nil
}

// errNoCertificate: a server that has a certificate cannot go on without.
var errNoCertificate = errors.New("there is no certificate any more")

// loadLocked takes a section and what its files have now.
func (p *Provider) loadLocked(s Section) error {
	next, err := p.load(s)
	p.last = next.last
	if err != nil {
		p.last.err = err
		return err
	}
	next.commitLocked()
	return nil
}

// Next is what a Provider has loaded and not yet taken.
type Next struct {
	p    *Provider
	c    *current
	last attempt
}

// load makes what handshakes would use. Only keys for tickets may be made, which change nothing.
func (p *Provider) load(s Section) (*Next, error) {
	l, f := load(s, p.deps.Role, p.deps.Files)
	n := &Next{p: p, c: &current{loaded: l}, last: attempt{s, l.stamps, f.errors()}}
	if n.last.err != nil {
		return n, n.last.err
	}
	if old := p.now.Load(); old != nil && old.server != nil && len(l.pairs) == 0 {
		return n, errNoCertificate
	}
	if p.deps.Role == Client {
		n.c.client = l.clientConfig(p.deps)
	} else if len(l.pairs) > 0 {
		n.c.server = l.serverConfig(p.deps)
		if err := p.tickets.begin(n.c.server, s.Cache.Timeout, p.deps); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (n *Next) commitLocked() {
	n.p.last = n.last
	if n.p.deps.Role == Client {
		n.p.sessions.limit(n.last.section.Cache, n.p.deps.Now)
	}
	n.p.now.Store(n.c)
}

// Prepare reads all files of a section, for Commit to take them. Nothing changes; after an error
// there is nothing to commit.
func (p *Provider) Prepare(s Section) (*Next, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.load(s)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Judge reads the files of the section in effect, and notes for the metric and the daily reminder if they cannot be
// used. Nothing else changes: files that can be used wait for the next load. It is for a reload that has failed.
func (p *Provider) Judge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.load(p.Section())
	if err != nil {
		p.last = attempt{p.last.section, n.last.stamps, err}
	}
}

// Serves reports whether there will be a certificate, with which a server offers TLS.
func (n *Next) Serves() bool { return n.c.server != nil }

// Commit has the handshakes that begin from now on use what Prepare has read. It cannot fail.
func (n *Next) Commit() {
	n.p.mu.Lock()
	defer n.p.mu.Unlock()
	n.commitLocked()
}

// Reload reads all files anew. After an error everything is as it was.
func (p *Provider) Reload() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loadLocked(p.last.section)
}

// Reconfigure takes other options, and reads all files anew. After an error everything is as
// it was, but a later Reload tries the new options. Options that the table does not mark as
// changed at once are not the Provider's: whoever decides by them has its own copy.
func (p *Provider) Reconfigure(s Section) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loadLocked(s)
}

// Name is Deps.Name.
func (p *Provider) Name() string { return p.deps.Name }

// Section is the section that is in effect.
func (p *Provider) Section() Section { return p.now.Load().section }

// ServerConfig is the configuration of a server for the next handshake. It is nil if there is no
// certificate. It is shared: do not change it.
func (p *Provider) ServerConfig() *tls.Config {
	c := p.now.Load()
	if c.server != nil {
		p.tickets.rotate(c.server, c.section.Cache.Timeout, p.deps)
	}
	return c.server
}

// Peer says with whom a client's handshake is.
type Peer struct {
	// ServerName is sent to the server (SNI), without a dot at its end; "" for none, also for
	// an address.
	ServerName string
	// SessionKey tells servers apart whose sessions must not be mixed up: the address and
	// port, and whatever the session's assessment depends on. "" resumes nothing.
	SessionKey string
}

// ClientConfig is the configuration of a client for one handshake. The server's certificate
// is asked for and not judged: see Describe.
func (p *Provider) ClientConfig(peer Peer) *tls.Config {
	cur := p.now.Load()
	c := cur.client.Clone()
	c.ServerName = peer.ServerName
	if peer.SessionKey != "" && cur.section.Cache.Size > 0 && !cur.options.NoTicket {
		c.ClientSessionCache = &keyedSessions{&p.sessions, peer.SessionKey}
	}
	return c
}

// common is what both sides have of a section.
func (l *loaded) common(d Deps) *tls.Config {
	return &tls.Config{
		MinVersion: l.options.Min, MaxVersion: l.options.Max,
		CipherSuites: l.suites, CurvePreferences: l.curves,
		SessionTicketsDisabled: l.options.NoTicket || l.section.Cache.Size == 0,
		Time:                   d.Now,
	}
}

func (l *loaded) serverConfig(d Deps) *tls.Config {
	c := l.common(d)
	c.GetCertificate = newChooser(l).show
	if l.section.Flags.RequestCert {
		c.ClientAuth = tls.RequestClientCert
		c.ClientCAs = x509.NewCertPool()
		for _, ca := range l.list {
			c.ClientCAs.AddCert(ca)
		}
	}
	return c
}

func (l *loaded) clientConfig(d Deps) *tls.Config {
	c := l.common(d)
	// Whether the server's certificate is good enough is for tls_requirements, TLSA records
	// and the like to say, after the handshake: Describe verifies it.
	c.InsecureSkipVerify = true
	for _, p := range inOrder(l.pairs) {
		c.Certificates = append(c.Certificates, *p.cert)
	}
	return c
}

// inOrder puts certificates of keys on elliptic curves before those of RSA keys: whoever
// can use them saves time.
func inOrder(pairs []pair) []pair {
	var ec, rsa []pair
	for _, p := range pairs {
		if p.chain[0].PublicKeyAlgorithm == x509.RSA {
			rsa = append(rsa, p)
		} else {
			ec = append(ec, p)
		}
	}
	return append(ec, rsa...)
}
