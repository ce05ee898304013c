package mailertable

import (
	"fmt"
	"net/netip"
	"strings"

	"meta1/mta/msg"
)

// parseStructured reads { name = value; name = { value, value }; ... }. The last
// semicolon may be left out, as in README 3.9.3's examples, and the options may
// stand in any order.
func parseStructured(text string) (Rule, error) {
	p := structParser{text: text[1:], seen: map[string]bool{}}
	for !p.accept("}") {
		if err := p.option(); err != nil {
			return Rule{}, err
		}
		if !p.accept(";") && p.peek() != "}" {
			return Rule{}, fmt.Errorf("found %q, expected ; or }", p.peek())
		}
	}
	if rest := p.peek(); rest != "" {
		return Rule{}, fmt.Errorf("found %q after the closing brace", rest)
	}
	if p.noPort() {
		return Rule{}, fmt.Errorf("port without host or ip")
	}
	return p.rule, p.rule.check()
}

type structParser struct {
	text string
	rule Rule
	seen map[string]bool
}

// noPort reports a port that stands with IPv_Select alone; the grammar of README
// 3.9.3 has portdef before hostdef only, so what host it belongs to is unclear.
func (p *structParser) noPort() bool {
	return p.rule.Protocol == msg.ProtoSMTP && p.rule.Port != 0 && p.rule.Host == "" && len(p.rule.Addrs) == 0
}

// next takes the next token: one of = ; { } , or a word, or a word in quotes; ""
// at the end.
func (p *structParser) next() string {
	t := p.peek()
	p.text = strings.TrimLeft(p.text, " \t")[len(t):]
	return t
}

func (p *structParser) peek() string {
	s := strings.TrimLeft(p.text, " \t")
	if s == "" {
		return ""
	}
	if strings.IndexByte("=;{},", s[0]) >= 0 {
		return s[:1]
	}
	if s[0] == '"' {
		if i := strings.IndexByte(s[1:], '"'); i >= 0 {
			return s[:i+2]
		}
		return s
	}
	if i := strings.IndexAny(s, "=;{}, \t\""); i >= 0 {
		return s[:i]
	}
	return s
}

func (p *structParser) accept(token string) bool {
	if p.peek() != token {
		return false
	}
	p.next()
	return true
}

func (p *structParser) option() error {
	name := strings.ToLower(p.next())
	if name == "" {
		return fmt.Errorf("closing brace is missing")
	}
	if p.seen[name] {
		return fmt.Errorf("%s stands twice", name)
	}
	p.seen[name] = true
	if !p.accept("=") {
		return fmt.Errorf("found %q after %q, expected =", p.peek(), name)
	}
	values, err := p.values()
	if err != nil {
		return err
	}
	return p.set(name, values)
}

// values reads one value or a list in braces; commas between its elements may be
// left out.
func (p *structParser) values() ([]string, error) {
	if !p.accept("{") {
		return p.value(nil)
	}
	var list []string
	for !p.accept("}") {
		if p.accept(",") {
			continue
		}
		var err error
		if list, err = p.value(list); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (p *structParser) value(list []string) ([]string, error) {
	t := p.next()
	switch {
	case t == "" || strings.IndexByte("=;{},", t[0]) >= 0:
		return nil, fmt.Errorf("found %q, expected a value", t)
	case t[0] == '"':
		if len(t) < 2 || t[len(t)-1] != '"' {
			return nil, fmt.Errorf("quote has no end")
		}
		t = t[1 : len(t)-1]
	}
	return append(list, t), nil
}

func (p *structParser) set(name string, values []string) error {
	if name == "ip" {
		return p.setIPs(values)
	}
	if name == "flags" {
		return p.setFlags(values)
	}
	if len(values) != 1 {
		return fmt.Errorf("%s needs one value", name)
	}
	var err error
	switch v := values[0]; name {
	case "protocol":
		return p.setProtocol(v)
	case "port":
		p.rule.Port, err = parsePort(v)
	case "host":
		p.rule.Host, err = parseHost(v)
	case "ipv_select":
		p.rule.Select, err = ParseSelect(v)
	default:
		return fmt.Errorf("unknown option %q; known are protocol, port, host, ip, flags, IPv_Select", name)
	}
	if err == nil {
		err = p.oneHost()
	}
	return err
}

func (p *structParser) setProtocol(word string) error {
	switch strings.ToLower(word) {
	case "esmtp":
		p.rule.Protocol = msg.ProtoSMTP
	case "lmtp":
		p.rule.Protocol = msg.ProtoLMTP
	default:
		return fmt.Errorf("protocol is %q, must be esmtp or lmtp", word)
	}
	return nil
}

func (p *structParser) setIPs(values []string) error {
	if len(values) == 0 {
		return fmt.Errorf("ip has no address")
	}
	if len(values) > maxAddrs {
		return fmt.Errorf("ip has more than %d addresses", maxAddrs)
	}
	p.rule.Addrs = make([]netip.Addr, 0, len(values))
	for _, v := range values {
		if strings.HasPrefix(v, "[") {
			v = strings.TrimSuffix(v[1:], "]")
		}
		a, err := parseIP(v)
		if err != nil {
			return err
		}
		p.rule.Addrs = append(p.rule.Addrs, a)
	}
	return p.oneHost()
}

func (p *structParser) oneHost() error {
	if p.rule.Host != "" && len(p.rule.Addrs) > 0 {
		return fmt.Errorf("host and ip exclude each other")
	}
	return nil
}

// setFlags reads MX_lookup and its negations (README 8.1.1).
func (p *structParser) setFlags(values []string) error {
	for _, v := range values {
		word := strings.ToLower(v)
		no := false
		for _, prefix := range []string{"not_", "dont_", "no_", "-", "!", "~"} {
			if rest, ok := strings.CutPrefix(word, prefix); ok {
				word, no = rest, true
				break
			}
		}
		if word != "mx_lookup" {
			return fmt.Errorf("unknown flag %q; known is no_MX_lookup", v)
		}
		p.rule.NoMX = no
	}
	return nil
}
