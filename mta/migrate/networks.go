package migrate

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"meta1/maps"
	"meta1/mta/migrate/postfix"
)

// maxSplit is how many entries one network may become.
const maxSplit = 1024

// networkKeys writes a network as keys of the access map: whole octets, or of IPv6 whole groups of 16
// bits. ok is false if there would be too many.
func networkKeys(p netip.Prefix) (keys []string, ok bool) {
	if p.IsSingleIP() {
		return []string{maps.FullIP(p.Addr())}, true
	}
	if p.Bits() == 0 {
		return nil, false
	}
	unit := 8
	if p.Addr().Is6() {
		unit = 16
	}
	whole := (p.Bits() + unit - 1) / unit * unit
	count := 1 << (whole - p.Bits())
	if count > maxSplit {
		return nil, false
	}
	addr := p.Addr().As16()
	at := whole / 8 // the bytes that a key has
	if p.Addr().Is4() {
		at += 12
	}
	for i := range count {
		a := addr
		if unit == 8 {
			a[at-1] += byte(i)
		} else {
			binary.BigEndian.PutUint16(a[at-2:], binary.BigEndian.Uint16(a[at-2:])+uint16(i))
		}
		keys = append(keys, netKey(netip.AddrFrom16(a), whole/unit))
	}
	return keys, true
}

// netKey is the beginning of an address of so many parts.
func netKey(a netip.Addr, parts int) string {
	a = a.Unmap()
	full, separator := maps.FullIP(a), "."
	if a.Is6() {
		separator = ":"
	}
	all := strings.Split(full, separator)
	if parts == len(all) {
		return full
	}
	return strings.Join(all[:parts], separator) + separator
}

// addNetwork adds entries for a network: tag is cltaddr: or another tag of addresses.
func (m *migrator) addNetwork(s *postfix.Service, name, tag string, p netip.Prefix, value, why string) {
	keys, ok := networkKeys(p)
	if !ok {
		m.note(s, name, NotCarried, fmt.Sprintf("The network %s would be more than %d entries: write larger ones, or a section check with a condition on client_ip.", p, maxSplit))
		return
	}
	for _, k := range keys {
		if !m.access.add(tag+k, value, why) {
			m.note(s, name, Different, "The first entry for "+k+" holds, and later ones were left out.")
		}
	}
}

// networks lets the clients of mynetworks relay.
func (m *migrator) networks() {
	const name = "mynetworks"
	value := "quick:relay"
	if !m.networksFirst() {
		value = "relay"
	}
	if !m.isSet(nil, name) {
		m.addNetwork(nil, name, "cltaddr:", netip.MustParsePrefix("127.0.0.0/8"), value, "this host")
		m.addNetwork(nil, name, "cltaddr:", netip.MustParsePrefix("::1/128"), value, "this host")
		m.differs("mynetworks is not set. Postfix takes this host's own addresses, or with mynetworks_style = subnet its networks, too; meta1 got the loopback addresses alone.")
		return
	}
	elements := m.networkList(m.list(nil, name), 0)
	// What is excluded stands in front: the more special key holds in any case.
	slices.SortStableFunc(elements, func(a, b string) int {
		return strings.Compare(fmt.Sprint(!strings.HasPrefix(a, "!")), fmt.Sprint(!strings.HasPrefix(b, "!")))
	})
	for _, e := range elements {
		rhs := value
		rest, not := strings.CutPrefix(e, "!")
		if not {
			rhs = "cont"
		}
		if t, ok := postfix.ParseTable(rest, ""); ok {
			m.networkTable(name, t, rhs)
			continue
		}
		p, err := postfix.ParseNet(rest)
		if err != nil {
			m.note(nil, name, NotCarried, "Element "+short(e)+" was not carried over: "+reason(err)+".")
			continue
		}
		m.addNetwork(nil, name, "cltaddr:", p, rhs, m.why(nil, name))
	}
	m.done(nil, name, "smar access_map: cltaddr:")
	m.mark(nil, "mynetworks_style", NotNeeded, "", "mynetworks is set, so that it has no effect.")
}

func (m *migrator) networkList(elements []string, depth int) (out []string) {
	for _, e := range elements {
		if !strings.HasPrefix(e, "/") || depth > 4 {
			out = append(out, e)
			continue
		}
		words, err := readWords(e)
		if err != nil {
			m.note(nil, "mynetworks", NotCarried, "The file "+e+" cannot be read: "+reason(err)+".")
		}
		out = append(out, m.networkList(words, depth+1)...)
	}
	return out
}

func (m *migrator) networkTable(name string, t postfix.Table, rhs string) {
	for _, entry := range m.read(nil, name, t, false) {
		p := entry.Net
		if !p.IsValid() {
			var err error
			if p, err = postfix.ParseNet(entry.Key); err != nil {
				m.note(nil, name, NotCarried, "Entry "+entry.Key+" of "+t.String()+" is no network.")
				continue
			}
		}
		if entry.Not {
			m.note(nil, name, NotCarried, "Entry !"+entry.Key+" of "+t.String()+" has no counterpart.")
			continue
		}
		m.addNetwork(nil, name, "cltaddr:", p, rhs, m.why(nil, name)+" ("+t.String()+")")
	}
}
