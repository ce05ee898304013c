package dryrun

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/explain"
	"meta1/mta/msg"
	"meta1/mta/settings"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/resolver"
	"meta1/resolver/srs"
	"meta1/server"
	"meta1/server/auth"
)

// resolverUnit is the name of SMAR, which a trial needs.
const resolverUnit = "smar"

// explainer tries dialogues with the sections smtps of one configuration.
type explainer struct {
	conf     *settings.Config
	result   *confparse.Result
	dir      string // the main queue directory
	hostname string
	version  string
	ports    *msg.Ports
	tls      func(section string) server.TLSSource
	running  bool
	once     sync.Once         // makes shown
	shown    []confparse.Shown // all values, once they were needed
}

// Running is a configuration whose modules run. All fields are needed.
type Running struct {
	Conf     *settings.Config
	Result   *confparse.Result
	Dir      string // the main queue directory, absolute
	Hostname string
	Version  string
	Ports    *msg.Ports // of the modules
	// TLS is what the section tls of a section smtps gives; nil without a certificate.
	TLS func(section string) server.TLSSource
}

// Explain tries a dialogue with the running modules.
func (r Running) Explain(ctx context.Context, q explain.Question) (*explain.Report, error) {
	e := &explainer{
		conf: r.Conf, result: r.Result, dir: r.Dir, hostname: r.Hostname, version: r.Version, ports: r.Ports, tls: r.TLS, running: true,
	}
	return e.explain(ctx, &q)
}

// Explain tries a dialogue with a configuration that nobody need serve: with its maps, and
// with the name servers that it names. There is no queue, so the limits on connections do not
// count, and greylisting knows nobody. The error for a wrong configuration is that of Load.
func Explain(ctx context.Context, file, version string, q explain.Question) (report *explain.Report, err error) {
	err = withFile(ctx, file, version, func(ctx context.Context, e *explainer) (err error) {
		report, err = e.explain(ctx, &q)
		return err
	})
	return report, err
}

// withFile calls ask while the modules that a trial needs run by a configuration file, beside
// nobody's spool. ask may try several dialogues at once.
func withFile(ctx context.Context, file, version string, ask func(context.Context, *explainer) error) error {
	c, result, err := settings.Load(file, confparse.LoadOptions{})
	if err != nil {
		return err
	}
	c.ShareLog()
	e := &explainer{conf: c, result: result, hostname: c.Hostname, version: version, ports: msg.NewPorts()}
	if e.hostname == "" {
		e.hostname = settings.OwnHostname(ctx)
	}
	if e.dir, err = filepath.Abs(c.WorkingDirectory); err != nil {
		return exit.With(exit.OSErr, fmt.Errorf("finding the main queue directory: %w", err))
	}
	e.tls = e.providerOf
	// What SMAR keeps is that of a new spool: the real one belongs to another process.
	spool, err := os.MkdirTemp("", "meta1-explain-")
	if err != nil {
		return exit.With(exit.CantCreate, fmt.Errorf("making a directory for the trial: %w", err))
	}
	defer os.RemoveAll(spool)
	var senders *srs.Rewriter
	if c.Resolver.SRS.Present {
		if senders, err = srs.New(c.Resolver.SRS, tlsconf.OS{}, nil); err != nil {
			senders = nil // without the secrets no address of SRS is known
		}
	}
	r, err := resolver.New(c.Resolver, resolver.Deps{
		Ports: e.ports, Hostname: e.hostname, ConfigDir: filepath.Dir(result.File), LMTPSocket: settings.Below(e.dir, c.Client.LMTPSocket),
		RemotePort: uint16(c.Client.RemotePort), ConnectOnlyTo: c.Client.ConnectOnlyTo, SpoolDir: spool, RcptConf: settings.RcptConfSteps(&c.Queue.SMTPC), SRS: senders,
	})
	if err != nil {
		return exit.With(exit.Config, err)
	}
	g := supervise.NewGroup(ctx)
	g.Go(r.Run)
	g.Go(func(ctx context.Context) error {
		defer g.Stop()
		if err := msg.AwaitStatus(ctx, e.ports.Status[resolverUnit]); err != nil {
			return err
		}
		return ask(ctx, e)
	})
	return g.Wait()
}

// providerOf loads the certificates of a section; nil without a certificate that can be used.
func (e *explainer) providerOf(section string) server.TLSSource {
	for _, s := range e.conf.TLSSections() {
		if s.Name != section {
			continue
		}
		p, err := tlsconf.New(s.Section, tlsconf.Deps{Role: s.Role, Name: s.Name})
		if err == nil && p.ServerConfig() != nil {
			return p
		}
	}
	return nil
}

// explain tries a dialogue, and says where what decided it is set.
func (e *explainer) explain(ctx context.Context, q *explain.Question) (*explain.Report, error) {
	report, err := e.try(ctx, q)
	if err == nil {
		e.addOrigins(report, report.Server)
	}
	return report, err
}

// try tries a dialogue.
func (e *explainer) try(ctx context.Context, q *explain.Question) (*explain.Report, error) {
	s, err := e.section(q.Server)
	if err != nil {
		return nil, err
	}
	real := e.tls(s.Of.Section)
	report, err := explain.Run(ctx, q, explain.Deps{
		Ports: e.ports, HasQueue: e.running, Implicit: s.Server.Flags.SMTPS, Own: ownAddress(s, q.Client),
		Serve: func(t explain.Trial) (func(context.Context) error, error) { return e.server(s, real, t) },
		Hop:   e.hops(ctx),
	})
	if err != nil {
		return nil, err
	}
	report.Source, report.Config, report.Server = "running", e.result.File, s.Of.Section
	if !e.running {
		report.Source = "file"
		report.Notes = append(report.Notes, "limits on connections were not asked for: no queue runs")
		if e.conf.Resolver.Greylist.Present {
			report.Notes = append(report.Notes, "greylisting knows no client")
		}
		if s.Server.TLSPresent && real == nil {
			report.Notes = append(report.Notes, "STARTTLS is not offered: the certificate or its key cannot be read by this account")
		}
	}
	if len(s.Server.Milters)+len(s.Server.PolicyServices) > 0 || s.Server.MilterPresent {
		report.Notes = append(report.Notes, "milters, the policy milter and policy services were not asked")
	}
	report.Notes = append(report.Notes, "DATA was not given: what is decided on the content is not told")
	return report, nil
}

// section finds a section smtps.
func (e *explainer) section(name string) (*settings.ServerSection, error) {
	var titles []string
	for _, s := range e.conf.Servers {
		if name == "" || strings.EqualFold(name, s.Name) || strings.EqualFold(name, s.Of.Section) {
			return s, nil
		}
		titles = append(titles, s.Of.Section)
	}
	if len(titles) == 0 {
		return nil, errors.New("the configuration has no section smtps")
	}
	return nil, fmt.Errorf("no section smtps is named %.60q; there are: %s", name, strings.Join(titles, ", "))
}

// ownAddress is where the section listens.
func ownAddress(s *settings.ServerSection, client netip.Addr) netip.AddrPort {
	own := netip.AddrPortFrom(netip.IPv4Unspecified(), 25)
	if client.Is6() {
		own = netip.AddrPortFrom(netip.IPv6Unspecified(), 25)
	}
	for _, l := range s.Of.Listen {
		if l.Port != 0 {
			own = netip.AddrPortFrom(own.Addr(), uint16(l.Port))
			if l.Address.IsValid() && l.Address.Is4() == client.Is4() {
				return netip.AddrPortFrom(l.Address, uint16(l.Port))
			}
		}
	}
	return own
}

// server makes the server of a trial: that of the section, with a source of passwords of our
// own, and without the pause before the greeting.
func (e *explainer) server(s *settings.ServerSection, real server.TLSSource, t explain.Trial) (func(context.Context) error, error) {
	cfg := s.Server
	cfg.GreetPause, cfg.ProxyPresent = 0, false
	cfg.Flags.Offers.PRDR = cfg.Flags.Offers.PRDR || cfg.MilterPresent   // it offers that
	cfg.Milters, cfg.PolicyServices, cfg.MilterPresent = nil, nil, false // they may remember what they are asked
	if cfg.AuthPresent && t.Question.Auth != "" {
		cfg.Auth = trialAuth(cfg.Auth, t.Question)
	}
	deps := server.Deps{
		Ports: t.Ports, Listeners: []net.Listener{t.Listener}, Log: t.Log, Hostname: e.hostname, Version: e.version, DoubleBounce: e.conf.DoubleBounce(),
	}
	if real != nil {
		deps.TLS = &trialTLS{TLSSource: real, q: t.Question.TLS}
	}
	srv, err := server.New(cfg, deps)
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Of.Section, err)
	}
	return srv.Run, nil
}

// trialAuth is section auth for a client that knows its password: PLAIN stands for the mechanism
// in question, and is trusted if that is.
func trialAuth(c auth.Config, q *explain.Question) auth.Config {
	if q.Mechanism = strings.ToUpper(q.Mechanism); q.Mechanism == "" {
		offers := c.Offers()
		if len(offers) == 0 {
			offers = []string{auth.Plain}
		}
		q.Mechanism = offers[0]
		if i := slices.IndexFunc(offers, c.Trusts); i >= 0 {
			q.Mechanism = offers[i]
		}
	}
	plain := q.Mechanism == auth.Plain || q.Mechanism == auth.Login
	trusted := c.Trusts(q.Mechanism)
	c.Dovecot, c.Saslauthd, c.PasswordMap = auth.Dovecot{}, auth.Saslauthd{}, explain.PasswordMap
	c.Mechanisms, c.TrustedMechanisms = []string{auth.Plain}, nil
	if trusted {
		c.TrustedMechanisms = []string{auth.Plain}
	}
	c.Flags = auth.Flags{NoPlaintext: c.NoPlaintext && plain, MailAuth: c.MailAuth}
	return c
}

// trialTLS is section tls for a handshake of which the question says what it gave.
type trialTLS struct {
	server.TLSSource
	q *explain.TLS
}

// ServerConfig implements server.TLSSource. Our own client has no certificate to show.
func (t *trialTLS) ServerConfig() *tls.Config {
	c := t.TLSSource.ServerConfig()
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.ClientAuth = tls.NoClientCert
	return c
}

// Describe implements server.TLSSource.
func (t *trialTLS) Describe(state *tls.ConnectionState) *msg.TLS {
	d := *t.TLSSource.Describe(state)
	q := t.q
	if q == nil {
		return &d
	}
	d.Version, d.Cipher, d.Bits = cmp.Or(q.Version, d.Version), cmp.Or(q.Cipher, d.Cipher), cmp.Or(q.Bits, d.Bits)
	if q.Subject != "" || q.Issuer != "" {
		d.Verify, d.Reason, d.Subject, d.Issuer = msg.VerifyOK, "", q.Subject, q.Issuer
		d.CN, d.IssuerCN = commonName(q.Subject), commonName(q.Issuer)
	}
	return &d
}

// commonName is the CN in a name such as /C=US/CN=client.example.
func commonName(name string) string {
	for part := range strings.SplitSeq(name, "/") {
		if cn, ok := strings.CutPrefix(part, "CN="); ok {
			return cn
		}
	}
	return ""
}

// hops tells of a hop what QMGR has on it, and what limits it.
func (e *explainer) hops(ctx context.Context) func(context.Context, *explain.Hop, msg.Hop, *msg.RouteA, *msg.RouteQ) {
	rules, err := e.conf.Queue.Rules(e.conf.ClientFeatures())
	states, triedLast := map[string]string{}, map[string]string{}
	if e.running {
		if a, err := e.ports.Hosts.Ask(ctx, msg.HostsQ{Max: hostsMax}); err == nil {
			for _, f := range a.TriedLast {
				triedLast[f.Family] = fmt.Sprintf("%s does not work, and its hosts are tried last until %s: %s", f.Family, f.Until.Format("Jan _2 15:04:05"), f.Reason)
			}
			slowed := map[string]string{}
			for i := range a.Providers {
				if p := &a.Providers[i]; p.Reason != "" {
					slowed[p.Provider] = fmt.Sprintf("; the provider %s asked for less mail: %.0f messages in %v, whole again at %s: %s",
						p.Provider, p.Rate, p.Per, p.Until.Format("Jan _2 15:04:05"), p.Reason)
				}
			}
			for i := range a.Hosts {
				states[a.Hosts[i].Host] = hostState(&a.Hosts[i]) + slowed[a.Hosts[i].Provider]
			}
		}
	}
	return func(_ context.Context, h *explain.Hop, hop msg.Hop, _ *msg.RouteA, q *msg.RouteQ) {
		h.State = states[h.Hop]
		family := "IPv6"
		if hop.Addr.Addr().Unmap().Is4() {
			family = "IPv4"
		}
		if last := triedLast[family]; last != "" && hop.Socket == "" {
			h.State = strings.TrimPrefix(h.State+"; "+last, "; ")
		}
		if err != nil {
			h.Limits = []explain.Option{{Option: "qmgr/conf", Value: err.Error()}}
			return
		}
		e.limits(h, hop, q, rules)
	}
}

// hostsMax is how many hosts are asked for.
const hostsMax = 10_000

func hostState(h *msg.HostEntry) string {
	s := fmt.Sprintf("%s: %d of %d connections in use, at most %d, %d recipients wait", h.State, h.InUse, h.Window, h.Max, h.Waiting)
	if h.Reason != "" {
		s += ": " + h.Reason
	}
	if h.State == msg.HostClosed {
		s += ", until " + h.Until.Format("Jan _2 15:04:05")
	}
	return s
}
