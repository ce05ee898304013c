package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"meta1/mta/msg"
)

// Rules are what the configuration map says, with the sections it names. They do not change.
type Rules struct {
	*Table
	// SessionConfs says that entries of smtpc_session_conf: count. Where sections session_features
	// are configured no flag is needed (README 3.8, item 16g), nor where providers are.
	SessionConfs bool

	limits    map[string]*ConnectionLimits
	providers map[string]*Provider
	sources   map[string][]netip.Addr
}

// Names are the sections that entries of the map may name. features are those of smtpc.
func (c *Config) Names(features []string) Names {
	names := Names{Features: features}
	for _, l := range c.SMTPC.ConnectionLimits {
		names.Limits = append(names.Limits, l.Name)
	}
	for _, p := range c.SMTPC.Providers {
		names.Providers = append(names.Providers, p.Name)
	}
	for _, s := range c.SMTPC.Sources {
		names.Sources = append(names.Sources, s.Name)
	}
	return names
}

// LooksSessionsUp reports whether entries of smtpc_session_conf: count. features are the names of the
// sections session_features of smtpc.
func (c *Config) LooksSessionsUp(features []string) bool {
	return c.SMTPC.LookupSessionConf || len(features)+len(c.SMTPC.Providers) > 0
}

// Rules reads the configuration map. Only the default file may be missing: it has no entries
// then.
func (c *Config) Rules(features []string) (*Rules, error) {
	r := &Rules{
		Table: &Table{}, SessionConfs: c.LooksSessionsUp(features),
		limits: map[string]*ConnectionLimits{}, providers: map[string]*Provider{}, sources: map[string][]netip.Addr{},
	}
	for i := range c.SMTPC.Providers {
		p := &c.SMTPC.Providers[i]
		r.providers[p.Name] = p
	}
	for i := range c.SMTPC.ConnectionLimits {
		l := &c.SMTPC.ConnectionLimits[i]
		r.limits[l.Name] = l
	}
	for _, s := range c.SMTPC.Sources {
		r.sources[s.Name] = s.IPs
	}
	if c.Conf == "" {
		return r, nil
	}
	t, err := Open(c.Conf, c.Names(features))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.ConfNamed:
		return r, nil
	case err != nil:
		return nil, fmt.Errorf("reading the configuration map of QMGR: %w", err)
	}
	r.Table = t
	return r, nil
}

// Ruled reports whether the map has limits for an address or its net, which override
// connection_limits (README 3.8.1).
func (r *Rules) Ruled(ip netip.Addr) bool {
	_, initial := r.Initial.Of(ip)
	_, most := r.Max.Of(ip)
	return initial || most
}

// ConnectionLimits are those of a name, nil for none.
func (r *Rules) ConnectionLimits(name string) *ConnectionLimits { return r.limits[name] }

// LimitsOf names the connection_limits for recipients at a domain, "" for none.
func (r *Rules) LimitsOf(domain string) string {
	name := r.Limits(domain)
	if r.limits[name] == nil {
		return ""
	}
	return name
}

// SourcesOf gives the local addresses from which mail of an envelope goes out, nil for
// any: those of all sections that the entry names.
func (r *Rules) SourcesOf(e *msg.Envelope) []netip.Addr {
	names := r.Sources(e.Client.IP, e.Mail.From.Local, e.Mail.From.Domain)
	if len(names) == 1 {
		return r.sources[names[0]]
	}
	var ips []netip.Addr
	for _, name := range names {
		ips = append(ips, r.sources[name]...)
	}
	return slices.Clip(ips)
}

// SessionOf gives the configuration of sessions with a host, nil for none, and the key of its entry.
func (r *Rules) SessionOf(hop msg.Hop) (c *msg.Conf, key string) {
	if !r.SessionConfs || r.Sessions() == 0 {
		return nil, ""
	}
	return r.Session(hop.Addr.Addr(), hop.Host)
}

// ProviderOf names the provider of a host, "" for none. Where it stands, as the configuration of its
// sessions does, is what SessionOf gives.
func (r *Rules) ProviderOf(hop msg.Hop) string {
	if len(r.providers) == 0 {
		return ""
	}
	if c, _ := r.SessionOf(hop); c != nil {
		return c.Provider
	}
	return ""
}

// Provider is the provider of a name, nil for none.
func (r *Rules) Provider(name string) *Provider { return r.providers[name] }
