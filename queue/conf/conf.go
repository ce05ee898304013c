// Package conf reads QMGR's configuration map qmgr_conf (README 3.8.1) and answers
// lookups in it. Every entry is checked when the map is read, so that a mistake is
// told with its key at the start or at the reload, and not found out later.
package conf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"meta1/maps"
	"meta1/mta/msg"
)

// errorsMax bounds the mistakes that Open tells of.
const errorsMax = 10

// Names are the sections of the configuration file that entries may name.
type Names struct {
	Limits    []string // connection_limits of qmgr.smtpc
	Sources   []string // source of qmgr.smtpc
	Providers []string // provider of qmgr.smtpc
	Features  []string // session_features of smtpc
}

// Table is what a map says. It does not change. The zero Table has no entries.
type Table struct {
	Initial IPTable // oci: connections with which slow start begins
	Max     IPTable // ocm: most connections
	Rate    IPTable // ocr: most connections opened within a minute
	Timeout IPTable // octo: seconds that an entry of the connection cache lasts
	InRate  IPTable // icr: most incoming connections within a minute
	InOpen  IPTable // icm: most open incoming connections

	InNameRate NameTable // icl: as icr, by the name of the client
	InNameOpen NameTable // icc: as icm, by the name of the client
	// Entries is the number of all entries.
	Entries int

	limits  map[string]string    // by domain
	client  map[string][]string  // sources by IP address or net
	mail    map[string][]string  // sources by sender: user@domain, @domain, @.domain
	session map[string]*msg.Conf // by IP address or net of the server, "" for all

	sessionOf map[string]*msg.Conf // by name of the server, or .domain
}

// Open reads the map file path, made by createmap: a name that ends with .db is a
// hash map, .cdb a cdb map, any other a text file, as for SMAR's maps. An error that
// is of a missing file wraps fs.ErrNotExist; one that is of a line in a text file wraps
// a *maps.LineError.
func Open(path string, names Names) (*Table, error) {
	t := &Table{}
	var bad []*maps.LineError
	tags := Tags()
	err := maps.EachEntry(path, maps.TypeOf(path), func(e maps.Entry) error {
		if err := t.add(tags, e.Key, e.Value, &names); err != nil {
			bad = append(bad, &maps.LineError{File: path, Line: e.Line, Err: fmt.Errorf("entry %q: %w", e.Key, err)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(bad) > 0 {
		return nil, fmt.Errorf("configuration map %s: %w", path, mistakes(bad))
	}
	return t, nil
}

// mistakes joins the first of what is wrong.
func mistakes(bad []*maps.LineError) error {
	slices.SortFunc(bad, func(a, b *maps.LineError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Error(), b.Error()))
	})
	var errs []error
	for _, e := range bad[:min(len(bad), errorsMax)] {
		if e.Line == 0 { // only a text file has lines
			errs = append(errs, e.Err)
			continue
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

func (t *Table) addLimits(domain, value string, names *Names) error {
	if domain == "" || strings.ContainsAny(domain, "@ \t") {
		return fmt.Errorf("%q is not a domain", domain)
	}
	found, err := references(value, "connection_limits", names.Limits)
	if err != nil {
		return err
	}
	if len(found) > 1 {
		return errors.New("connection_limits stands twice")
	}
	return put(&t.limits, domain, found[0], func(a, b string) bool { return a == b })
}

func (t *Table) addClient(ip, value string, names *Names) error {
	key, err := ipKey(ip)
	if err != nil {
		return err
	}
	found, err := references(value, "source", names.Sources)
	if err != nil {
		return err
	}
	return put(&t.client, key, found, slices.Equal[[]string])
}

func (t *Table) addMail(addr, value string, names *Names) error {
	if i := strings.LastIndexByte(addr, '@'); i < 0 {
		addr = "@" + addr // a domain
	} else if addr[i:] == "@" {
		return fmt.Errorf("%q is not a mail address, nor a domain", addr)
	}
	if addr == "@" {
		return errors.New("it needs a mail address or a domain")
	}
	found, err := references(value, "source", names.Sources)
	if err != nil {
		return err
	}
	return put(&t.mail, addr, found, slices.Equal[[]string])
}

// put adds an entry, which must not contradict one that is there.
func put[V any](m *map[string]V, key string, v V, same func(a, b V) bool) error {
	if *m == nil {
		*m = map[string]V{}
	}
	if old, ok := (*m)[key]; ok && !same(old, v) {
		return errors.New("another entry says something else of the same")
	}
	(*m)[key] = v
	return nil
}

// Limits names the section connection_limits for recipients at a domain, "" for none:
// the entry of the domain, or that of .domain for one above it.
func (t *Table) Limits(domain string) string {
	if len(t.limits) == 0 {
		return ""
	}
	for key := range maps.DomainKeys(maps.Lower(domain), maps.DotSubdomain) {
		if name := t.limits[key]; name != "" {
			return name
		}
	}
	return ""
}

// Sources names the sections source for mail that came from an IP address, zero if
// there is none, with a sender: what the first of smtpc_conf_cltaddr:address,
// smtpc_conf_cltaddr:net, smtpc_conf_cltaddr:, smtpc_conf_mail:address and
// smtpc_conf_mail:domain says.
func (t *Table) Sources(client netip.Addr, local, domain string) []string {
	if len(t.client) > 0 && client.IsValid() {
		for key := range maps.IPKeys(client) {
			if s := t.client[key]; s != nil {
				return s
			}
		}
		if s := t.client[""]; s != nil {
			return s
		}
	}
	if len(t.mail) == 0 || domain == "" {
		return nil
	}
	a := maps.ParseAddress(maps.Lower(local), domain, "")
	if s := t.mail[a.String()]; s != nil {
		return s
	}
	for key := range maps.DomainKeys(a.Domain, maps.DotSubdomain) {
		if s := t.mail["@"+key]; s != nil {
			return s
		}
	}
	return nil
}
