package access

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/msg"
)

// keyKind is what stands behind a tag.
type keyKind uint8

const (
	anyKey  keyKind = iota
	addrKey         // user@domain, @domain, @.domain, user
	ipKey           // an IP address, or a net
	nameKey         // a client's name with the dot at its end, or .domain.
	wordKey         // a word of Tag.words
	listKey         // what a DNS list answers: an address or net, temp or perm
)

// Tag is one tag of the access map.
type Tag struct {
	Name string // with its colon
	// Keys says what stands behind the tag, Doc what the entry is about; for manuals.
	Keys, Doc string
	// Readme is the section of MeTA1's README.
	Readme string
	// Words are the right hand sides that have a meaning.
	Words []Word
	// Conf are the options of a structured right hand side; nil if there is none.
	Conf []string

	kind  keyKind
	words []string
	other func(value string) error // reads another right hand side
}

// Tags are the tags of the access map; lists are those of the DNS lists (tag of dnsbl).
func Tags(lists ...string) []Tag {
	reject := []Word{OK, Error, Discard, Cont}
	relay := append([]Word{Relay}, reject...)
	const addresses, ips = "an address, in parts (user@domain, @domain, @.domain, user)", "an IP address or a net (10.1.2.3, 10.1., 2001:db8:0:0:0:0:0:1, 2001:db8:)"
	tags := []Tag{
		{Name: "cltaddr:", Keys: ips, Readme: "3.9.3", Words: relay, kind: ipKey, Doc: "The IP address of the client."},
		{
			Name: "cltresolve:", Keys: "ok, no, tempptr or tempa", Readme: "3.9.3", Words: relay, kind: wordKey, words: []string{"ok", "no", "tempptr", "tempa"},
			Doc: "How the client's name was found: it was (ok), there is none or its addresses are others (no), the PTR record could not be asked for now (tempptr), nor the addresses of the name (tempa).",
		},
		{
			Name: "cltname:", Keys: "a host name with a dot at its end, or .domain.", Readme: "3.9.3", Words: relay, kind: nameKey,
			Doc: "The name of the client: the PTR record of its address, if an address of that name is the client's.",
		},
		{Name: "ehlo:", Keys: "a host name, or .domain", Readme: "12.1.4", Words: reject, Doc: "What the client says of itself in EHLO or HELO."},
		{
			Name: "certissuer:", Keys: "a distinguished name, in which blanks and < > ( ) \" + are written as + and two hexadecimal digits", Readme: "3.10", Words: []Word{Relay, Cont},
			Doc: "The issuer of the client's verified certificate; cont goes on with certsubject:.",
		},
		{Name: "certsubject:", Keys: "as for certissuer:", Readme: "3.10", Words: []Word{Relay}, Doc: "The subject of the client's verified certificate."},
		{Name: "from:", Keys: addresses, Readme: "3.9.3", Words: reject, kind: addrKey, Doc: "The sender (MAIL)."},
		{
			Name: "mxbadip:", Keys: ips, Readme: "3.9.3", Words: reject, kind: ipKey,
			Doc: "The addresses to which mail for the sender would go by DNS.",
		},
		{
			Name: "protectedrcpt:", Keys: addresses, Readme: "3.10.3", Words: []Word{OK, Error, Discard, Cont, Other}, kind: addrKey, other: checkRestrictions,
			Doc: "Who may send to a recipient: from:user@domain, list:alias (its members), cltaddr:address, any number with blanks between; temp: among them makes the refusal temporary.",
		},
		{Name: "to:", Keys: addresses, Readme: "3.9.3", Words: relay, kind: addrKey, Doc: "A recipient (RCPT). relay accepts mail to it from everybody."},
		{
			Name: "smtps_session_conf:", Keys: ips, Readme: "3.10.1", Words: []Word{Error, Cont, Other}, kind: ipKey, Conf: []string{"session_feature", "tls_requirements"},
			Doc: "The configuration of the session, by the client's address.",
		},
		{
			Name: "smtps_se_conf:", Keys: "a host name with a dot at its end, or .domain.", Readme: "3.10.1", Words: []Word{Error, Cont, Other}, kind: nameKey, Conf: []string{"session_feature", "tls_requirements"},
			Doc: "The same by the client's name, if there is no entry for its address.",
		},
		{
			Name: "smtps_rcpt_conf:", Keys: addresses, Readme: "3.10", Words: []Word{Cont, Other}, kind: addrKey, Conf: []string{"flags"},
			Doc: "The configuration of a recipient for the server: flags = greylisting; asks for greylisting. It takes the flag rcpt_conf of smtps.",
		},
		{
			Name: "smtpc_rcpt_conf:", Keys: addresses, Readme: "3.11.1", Words: []Word{Other}, kind: addrKey, Conf: []string{"session_feature", "tls_requirements"},
			Doc: "The configuration of a recipient for the client. It takes the flag lookup_rcpt_conf of qmgr.smtpc.",
		},
		{
			Name: "smtpc_session_conf:", Keys: ips, Readme: "3.11.1", Words: []Word{Other}, kind: ipKey, Conf: []string{"session_feature", "tls_requirements"},
			Doc: "Has no effect in the access map: QMGR looks it up in its own (option conf of qmgr).",
		},
	}
	for _, l := range lists {
		tags = append(tags, Tag{
			Name: l + ":", Keys: "an address that the list answers, or its net (127.0.0.2, 127.), temp or perm", Readme: "3.9.2", Words: relay, kind: listKey,
			Doc: "What a DNS list answers for the client's address; temp and perm: that it could not be asked.",
		})
	}
	return tags
}

// CheckEntry finds out whether an entry of the access map can have an effect. The colon
// of a tag without more may be missing, as createmap may have taken it away.
func CheckEntry(tags []Tag, key, value string) error {
	name, arg, _ := strings.Cut(key, ":")
	name += ":"
	i := slices.IndexFunc(tags, func(t Tag) bool { return strings.EqualFold(t.Name, name) })
	if i < 0 {
		var names []string
		for _, t := range tags {
			names = append(names, t.Name)
		}
		return suggest(errors.New("it begins with none of the tags of an access map"), name, names)
	}
	t := &tags[i]
	return errors.Join(t.checkKey(maps.Lower(arg)), t.checkValue(value))
}

// suggest adds what was perhaps meant.
func suggest(err error, word string, words []string) error {
	if hint := confparse.DidYouMean(maps.Lower(word), words); hint != "" {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return err
}

// checkKey finds keys that no lookup asks for.
func (t *Tag) checkKey(arg string) error {
	if arg == "" {
		return fmt.Errorf("%s needs %s behind it", t.Name, t.Keys)
	}
	switch t.kind {
	case ipKey:
		return checkIP(arg)
	case listKey:
		if arg == "temp" || arg == "perm" {
			return nil
		}
		return checkIP(arg)
	case nameKey:
		if !strings.HasSuffix(arg, ".") {
			return fmt.Errorf("%q is never looked up: the name of a client ends with a dot", arg)
		}
	case wordKey:
		if !slices.Contains(t.words, arg) {
			return suggest(fmt.Errorf("%q is never looked up, expected %s", arg, t.Keys), arg, t.words)
		}
	case addrKey:
		if !strings.Contains(arg, "@") && strings.HasPrefix(arg, ".") {
			return fmt.Errorf("%q is never looked up: domains have an @ before them", arg)
		}
	}
	return nil
}

// checkIP takes an address or net as maps.IPKeys has it.
func checkIP(arg string) error {
	if ip, err := netip.ParseAddr(arg); err == nil {
		if full := maps.FullIP(ip); full != arg {
			return fmt.Errorf("%q is never looked up: it is written %s", arg, full)
		}
		return nil
	}
	sep, base, bits, most := ".", 10, 8, 3
	if strings.Contains(arg, ":") {
		sep, base, bits, most = ":", 16, 16, 7
	}
	net, _ := strings.CutSuffix(arg, sep)
	parts := strings.Split(net, sep)
	for _, part := range parts {
		n, err := strconv.ParseUint(part, base, bits)
		if err != nil || len(parts) > most || part != strconv.FormatUint(n, base) {
			return fmt.Errorf("%q is not an IP address, nor a net (192.0.2. and 2001:db8: are such)", arg)
		}
	}
	if sep == "." && net == arg {
		return fmt.Errorf("%q is never looked up: a net ends with a dot", arg)
	}
	return nil
}

// checkValue finds right hand sides that cannot be read or mean nothing here.
func (t *Tag) checkValue(value string) error {
	rhs, err := Parse(value)
	if err != nil {
		return err
	}
	if rhs.Word != Other && slices.Contains(t.Words, rhs.Word) {
		return nil
	}
	switch {
	case rhs.Word == Other && t.Conf != nil:
		return t.checkConf(rhs.Text)
	case rhs.Word == Other && t.other != nil:
		return t.other(rhs.Text)
	case rhs.Word != Other:
		return fmt.Errorf("%s is no right hand side of %s, expected %s", rhs.Word, t.Name, t.Expects())
	}
	word, _, _ := strings.Cut(rhs.Text, " ")
	if before, _, ok := strings.Cut(word, ":"); ok {
		word = before + ":"
	}
	return suggest(fmt.Errorf("%.60q is no right hand side of %s, expected %s", rhs.Text, t.Name, t.Expects()), word,
		[]string{"relay", "ok", "reject", "error:", "discard", "cont"})
}

// Expects names the right hand sides that a tag may have.
func (t *Tag) Expects() string {
	var words []string
	for _, w := range t.Words {
		switch w {
		case Error:
			words = append(words, "reject", "error:XYZ A.B.C text")
		case Other:
		default:
			words = append(words, w.String())
		}
	}
	for _, o := range t.Conf {
		switch o {
		case "tls_requirements":
			words = append(words, o+" { ... }")
		default:
			words = append(words, o+" = value;")
		}
	}
	return strings.Join(words, ", ")
}

// checkConf reads a structured right hand side.
func (t *Tag) checkConf(text string) error {
	c, err := msg.ParseConf(text)
	if err != nil {
		return err
	}
	for _, o := range []struct {
		name string
		set  bool
	}{
		{"session_feature", c.SessionFeature != ""},
		{"connection_limits", c.ConnectionLimits != ""},
		{"source", c.Source != ""},
		{"provider", c.Provider != ""},
		{"flags", len(c.Flags) > 0},
		{"tls_requirements", c.TLS != nil},
	} {
		if o.set && !slices.Contains(t.Conf, o.name) {
			return fmt.Errorf("%s has no effect here, expected %s", o.name, t.Expects())
		}
	}
	for _, f := range c.Flags {
		if f != "greylisting" {
			return suggest(fmt.Errorf("unknown flag %q; known is greylisting", f), f, []string{"greylisting"})
		}
	}
	return nil
}

// checkRestrictions reads the right hand side of protectedrcpt: (README 3.10.3).
func checkRestrictions(text string) error {
	known := []string{"from:", "list:", "cltaddr:"}
	for _, r := range strings.Fields(text) {
		tag, arg, _ := strings.Cut(maps.Lower(r), ":")
		switch tag += ":"; {
		case tag == "temp:" && arg == "":
		case !slices.Contains(known, tag):
			return suggest(fmt.Errorf("%q is no restriction, expected from:, list:, cltaddr: or temp: and what belongs to it", r), tag, known)
		case strings.Trim(arg, "<>") == "":
			return fmt.Errorf("%q needs something behind its colon", r)
		}
	}
	return nil
}
