package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"meta1/maps"
	"meta1/mta/msg"
)

// addSession adds an entry of smtpc_session_conf: (README 3.11.1), by an address or a net, or, which
// MeTA1 has not, by the name of a host or a .domain above it.
func (t *Table) addSession(arg, value string, names *Names) error {
	table := &t.session
	key, err := ipKey(arg)
	if err != nil {
		if key, err = hostKey(arg); err != nil {
			return err
		}
		table = &t.sessionOf
	}
	c, err := msg.ParseConf(value)
	if err != nil {
		return err
	}
	switch f := c.SessionFeature; {
	case f != "" && !slices.Contains(names.Features, f):
		return fmt.Errorf("there is no section session_features %q in smtpc", f)
	case c.Provider != "" && !slices.Contains(names.Providers, c.Provider):
		return fmt.Errorf("there is no section provider %q in qmgr.smtpc", c.Provider)
	case c.ConnectionLimits != "", c.Source != "", len(c.Flags) > 0, f == "" && c.TLS == nil && c.Provider == "":
		return errors.New("expected provider = name; session_feature = name; or tls_requirements { ... }, and nothing else")
	case c.TLS != nil && c.TLS.Delay:
		return errors.New("violation = delay is for smtpc_rcpt_conf: only")
	}
	return put(table, key, &c, func(a, b *msg.Conf) bool { return reflect.DeepEqual(a, b) })
}

// hostKey is nameKey for a tag that takes addresses, too.
func hostKey(arg string) (string, error) {
	key, err := nameKey(arg)
	if err != nil || strings.Contains(arg, "..") || !hasLetter(key) {
		return "", fmt.Errorf("%q is not an IP address or net (an IPv6 one is written in full, without \"::\"), nor a host name or a .domain", arg)
	}
	return key, nil
}

// hasLetter reports whether the last label of a name has a letter, as that of each name in DNS has.
func hasLetter(name string) bool {
	return strings.ContainsFunc(name[strings.LastIndexByte(name, '.')+1:], func(r rune) bool { return r >= 'a' && r <= 'z' })
}

// Session gives the configuration of sessions with a server, and the key of its entry: that of its
// address, of the smallest net it is in, of its name, of the smallest .domain that it is in, or that for
// all; nil for none. ip may be zero, and name "", which have none of their own.
func (t *Table) Session(ip netip.Addr, name string) (c *msg.Conf, key string) {
	if len(t.session) > 0 && ip.IsValid() {
		for key := range maps.IPKeys(ip) {
			if c := t.session[key]; c != nil {
				return c, key
			}
		}
	}
	if name = strings.TrimSuffix(maps.Lower(name), "."); len(t.sessionOf) > 0 && name != "" {
		for key := range maps.DomainKeys(name, maps.DotSubdomain) {
			if c := t.sessionOf[key]; c != nil {
				return c, key
			}
		}
	}
	if !ip.IsValid() {
		return nil, ""
	}
	return t.session[""], ""
}

// Sessions is the number of entries that Session looks up.
func (t *Table) Sessions() int { return len(t.session) + len(t.sessionOf) }
