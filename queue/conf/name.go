package conf

import (
	"fmt"
	"strings"

	"meta1/maps"
)

// NameTable has numbers by the name of a host: by the keys of README 3.12.1, a full
// name or a domain with a leading dot. The zero NameTable is empty.
type NameTable struct {
	byName map[string]int
	max    int
}

// Of gives the number of a host: its own entry, or that of the smallest .domain that
// it is in. name may end with a dot; "" has no number.
func (t *NameTable) Of(name string) (n int, found bool) {
	name = strings.TrimSuffix(maps.Lower(name), ".")
	if len(t.byName) == 0 || name == "" {
		return 0, false
	}
	for key := range maps.DomainKeys(name, maps.DotSubdomain) {
		if n, found = t.byName[key]; found {
			return n, true
		}
	}
	return 0, false
}

// Max is the largest number of all entries, 0 if there are none.
func (t *NameTable) Max() int { return t.max }

func (t *NameTable) add(arg, value string) error {
	key, err := nameKey(arg)
	if err != nil {
		return err
	}
	n, err := count(value)
	if err != nil {
		return err
	}
	t.max = max(t.max, n)
	return put(&t.byName, key, n, func(a, b int) bool { return a == b })
}

// nameMax bounds a host name (RFC 5321 section 4.5.3.1.2).
const nameMax = 255

// nameKey checks the argument of a tag: a host name, or .domain.
func nameKey(arg string) (string, error) {
	key := strings.TrimSuffix(arg, ".")
	host := strings.TrimPrefix(key, ".")
	switch {
	case host == "", host[0] == '.', len(host) > nameMax, strings.ContainsAny(host, "@[] \t"):
		return "", fmt.Errorf("%q is not a host name, nor a .domain", arg)
	case strings.Contains(host, ":"), strings.Trim(host, ".0123456789") == "":
		return "", fmt.Errorf("%q is an IP address or net, not a host name; for addresses there are the tags icr and icm", arg)
	}
	return key, nil
}
