package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"meta1/maps"
	"meta1/mta/msg"
)

// addSession adds an entry of smtpc_session_conf: (README 3.11.1).
func (t *Table) addSession(ip, value string, names *Names) error {
	key, err := ipKey(ip)
	if err != nil {
		return err
	}
	c, err := msg.ParseConf(value)
	if err != nil {
		return err
	}
	switch f := c.SessionFeature; {
	case f != "" && !contains(names.Features, f):
		return fmt.Errorf("there is no section session_features %q in smtpc", f)
	case c.ConnectionLimits != "", c.Source != "", len(c.Flags) > 0, f == "" && c.TLS == nil:
		return errors.New("expected session_feature = name; or tls_requirements { ... }, and nothing else")
	case c.TLS != nil && c.TLS.Delay:
		return errors.New("violation = delay is for smtpc_rcpt_conf: only")
	}
	return put(&t.session, key, &c, func(a, b *msg.Conf) bool { return reflect.DeepEqual(a, b) })
}

// Session gives the configuration of sessions with a server: of its address, of the
// smallest net it is in, or that for all; nil for none.
func (t *Table) Session(ip netip.Addr) *msg.Conf {
	if len(t.session) == 0 || !ip.IsValid() {
		return nil
	}
	for key := range maps.IPKeys(ip) {
		if c := t.session[key]; c != nil {
			return c
		}
	}
	return t.session[""]
}

// Sessions is the number of entries that Session looks up.
func (t *Table) Sessions() int { return len(t.session) }
