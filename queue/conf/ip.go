package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"meta1/confparse"
	"meta1/confparse/syntax"
	"meta1/maps"
)

// IPTable has numbers by IP address and net: by the keys of README 3.12.1, and "" for
// the default. The zero IPTable is empty.
type IPTable map[string]int

// Of gives the number of an address: its own entry, or that of the smallest net it is
// in. The default does not count.
func (t IPTable) Of(ip netip.Addr) (n int, found bool) {
	if len(t) == 0 {
		return 0, false
	}
	for key := range maps.IPKeys(ip) {
		if n, found = t[key]; found {
			return n, true
		}
	}
	return 0, false
}

// Default gives the number of the entry without address, or else that.
func (t IPTable) Default(otherwise int) int {
	if n, ok := t[""]; ok {
		return n
	}
	return otherwise
}

func (t *IPTable) add(arg, value string, parse func(string) (int, error)) error {
	key, err := ipKey(arg)
	if err != nil {
		return err
	}
	n, err := parse(value)
	if err != nil {
		return err
	}
	return put((*map[string]int)(t), key, n, func(a, b int) bool { return a == b })
}

// ipKey makes the argument of a tag a key of maps.IPKeys. A net may be written with a
// dot or a colon at its end, as README 3.12.1 does, or without, as its examples do.
func ipKey(arg string) (string, error) {
	if arg == "" {
		return "", nil
	}
	if strings.Contains(arg, "::") {
		return "", fmt.Errorf("%q: an IPv6 address or net is written in full, without \"::\"", arg)
	}
	if ip, err := netip.ParseAddr(arg); err == nil && ip.Zone() == "" {
		return maps.FullIP(ip), nil
	}
	sep, base, bits, most := ".", 10, 8, 3
	if strings.Contains(arg, ":") {
		sep, base, bits, most = ":", 16, 16, 7
	}
	parts := strings.Split(strings.TrimSuffix(arg, sep), sep)
	var key strings.Builder
	for _, part := range parts {
		n, err := strconv.ParseUint(part, base, bits)
		if err != nil || len(parts) > most || base == 10 && part != strconv.FormatUint(n, 10) {
			return "", fmt.Errorf("%q is not an IP address, nor a net (192.0.2. and 2001:db8: are such)", arg)
		}
		key.WriteString(strconv.FormatUint(n, base))
		key.WriteString(sep)
	}
	return key.String(), nil
}

// countMax bounds all numbers.
const countMax = 1_000_000

// count reads a number of connections.
func count(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n < 1 || n > countMax {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", s, countMax)
	}
	return int(n), nil
}

// seconds reads a time in the words of the configuration file.
func seconds(s string) (int, error) {
	const most = 366 * 24 * time.Hour
	d, err := confparse.ParseTime(s)
	if err != nil || d < time.Second || d > most {
		return 0, fmt.Errorf("%q is not a time such as 90, 90s, 5m or 1h 30m, from a second to a year", s)
	}
	return int(d / time.Second), nil
}

// maxReferences bounds the names of one right hand side.
const maxReferences = 256

// references reads a right hand side "option = name;", which may stand several times
// (README 3.8.1). The names must be known. The last semicolon may be left out.
func references(text, option string, known []string) (names []string, err error) {
	entries, err := syntax.ParseLine(text, maxReferences)
	if err != nil {
		return nil, fmt.Errorf("%w; expected %s = name;", err, option)
	}
	for _, e := range entries {
		if e.Form != syntax.FormOption || !strings.EqualFold(e.Name, option) || e.Values[0].Words {
			return nil, fmt.Errorf("found %s, expected %s = name;", syntax.ShownWord(e.Name), option)
		}
		name := e.Values[0].Text
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no section %s %s in qmgr.smtpc", option, syntax.ShownWord(name))
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("nothing is there, expected %s = name;", option)
	}
	return names, nil
}
