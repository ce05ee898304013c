package conf

import (
	"errors"
	"slices"
	"strings"

	"meta1/confparse"
	"meta1/maps"
)

// Tag is one tag of the configuration map.
type Tag struct {
	Name string // with its colon
	// Keys says what stands behind the tag, Values what the right hand side is, Doc what
	// the entry sets; for manuals.
	Keys, Values, Doc string

	add func(t *Table, arg, value string, names *Names) error
}

// Tags are the tags of the configuration map (README 3.8.1).
func Tags() []Tag {
	const ips = "nothing, an IP address or a net (10.1.2.3, 10.1., 10.1)"
	const hosts = "nothing, a host name, or .domain"
	number := func(of func(*Table) *IPTable) func(*Table, string, string, *Names) error {
		return func(t *Table, arg, value string, _ *Names) error { return of(t).add(arg, value, count) }
	}
	byName := func(of func(*Table) *NameTable) func(*Table, string, string, *Names) error {
		return func(t *Table, arg, value string, _ *Names) error { return of(t).add(arg, value) }
	}
	return []Tag{
		{"oci:", ips, "a number", "Connections to a host with which slow start begins.", number(func(t *Table) *IPTable { return &t.Initial })},
		{"ocm:", ips, "a number", "Most connections to a host at one time.", number(func(t *Table) *IPTable { return &t.Max })},
		{"ocr:", ips, "a number", "Most connections to a host that are opened within a minute.", number(func(t *Table) *IPTable { return &t.Rate })},
		{
			"octo:", ips, "a time: 90, 90s, 5m, 1h 30m, 2d or 1w", "How long it is remembered how a host behaved.",
			func(t *Table, arg, value string, _ *Names) error { return t.Timeout.add(arg, value, seconds) },
		},
		{"icr:", ips, "a number", "Most connections of a client within a minute.", number(func(t *Table) *IPTable { return &t.InRate })},
		{"icm:", ips, "a number", "Most open connections of a client.", number(func(t *Table) *IPTable { return &t.InOpen })},
		{"icl:", hosts, "a number", "The same as icr:, by the verified name of the client.", byName(func(t *Table) *NameTable { return &t.InNameRate })},
		{"icc:", hosts, "a number", "The same as icm:, by the verified name of the client.", byName(func(t *Table) *NameTable { return &t.InNameOpen })},
		{"smtpc_conf_rcpt_domain:", "a domain, or .domain", "connection_limits = name;", "The section connection_limits of qmgr.smtpc for recipients of the domain.", (*Table).addLimits},
		{
			"smtpc_conf_cltaddr:", ips, "source = name; source = name;", "The sections source of qmgr.smtpc, whose addresses mail goes out from, by the client that it came from.",
			(*Table).addClient,
		},
		{"smtpc_conf_mail:", "an address, a domain, or .domain", "source = name; source = name;", "The same by the sender, if there is no entry for the client.", (*Table).addMail},
		{
			"smtpc_session_conf:", ips + ", a host name, or .domain", "provider = name; session_feature = name; tls_requirements { ... }", "The configuration of sessions with a host to which mail goes out, by its address or else by the name that led to it.",
			(*Table).addSession,
		},
	}
}

// errUnknownTag says what an entry may begin with.
func errUnknownTag(tags []Tag, tag string) error {
	names := make([]string, len(tags))
	for i, t := range tags {
		names[i] = t.Name
	}
	text := "unknown tag; known are " + strings.Join(names, ", ")
	if hint := confparse.DidYouMean(tag+":", names); hint != "" {
		text += "; " + hint
	}
	return errors.New(text)
}

// add checks an entry and adds it. The colon of a tag without argument may be missing,
// as createmap may have taken it away.
func (t *Table) add(tags []Tag, key, value string, names *Names) error {
	tag, arg, _ := strings.Cut(maps.Lower(key), ":")
	t.Entries++
	i := slices.IndexFunc(tags, func(k Tag) bool { return k.Name == tag+":" })
	if i < 0 {
		return errUnknownTag(tags, tag)
	}
	return tags[i].add(t, arg, strings.TrimSpace(value), names)
}
