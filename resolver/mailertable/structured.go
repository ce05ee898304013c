package mailertable

import (
	"fmt"
	"net/netip"
	"strings"

	"meta1/confparse"
	"meta1/mta/msg"
)

// maxParts bounds the options and values of a structured right hand side.
const maxParts = 2*maxAddrs + 16

// parseStructured reads { name = value; name = { value, value }; ... }, which is the
// language of the configuration file in one line. The options may stand in any order.
func parseStructured(text string) (Rule, error) {
	inner, closed := strings.CutSuffix(text[1:], "}")
	if !closed {
		return Rule{}, fmt.Errorf("the last character is not the closing brace")
	}
	s := structured{}
	if err := confparse.ReadLine(inner, maxParts, s.Options()); err != nil {
		return Rule{}, err
	}
	return s.rule, s.rule.check()
}

// structured is a structured right hand side while it is read.
type structured struct {
	rule     Rule
	protocol string
	host     string
	ips      []string
	sel      string
	mx       bool
}

// Options is the option table of a structured right hand side (README 3.9.3).
func Options() *confparse.Table { return (&structured{}).Options() }

func (s *structured) Options() *confparse.Table {
	return &confparse.Table{
		Options: []confparse.Option{
			{
				Name: "protocol", Type: confparse.Enum, Words: []string{"esmtp", "lmtp"}, Default: "esmtp", Readme: "3.9.3", Into: &s.protocol,
				Doc: "The protocol of the hosts. lmtp alone, without a host, is the socket that section smtpc names (LMTP_socket).",
			},
			{
				Name: "port", Type: confparse.Int, Min: "1", Max: "65535", Readme: "3.9.3", Into: &s.rule.Port,
				Doc: "The port of the hosts; the default is remote_port of section smtpc. LMTP to a host needs it.",
			},
			{
				Name: "host", Type: confparse.String, Readme: "3.9.3", Into: &s.host,
				Doc: "The name of a host or domain: its MX records are used, and its addresses if there are none.",
			},
			{
				Name: "ip", Type: confparse.List, Readme: "3.9.3", Into: &s.ips,
				Doc: "IP addresses, tried in order, in place of host.",
			},
			{
				Name: "MX_lookup", Kind: confparse.KindFlag, Default: "on", Readme: "3.9.3", Into: &s.mx,
				Doc: "Use the MX records of host; no_MX_lookup uses its addresses.",
			},
			{
				Name: "IPv_Select", Type: confparse.Enum, Words: selectWords[1:], Readme: "3.9.3", Into: &s.sel,
				Doc: "Which family of addresses is used, or is tried first, of each host. It may stand alone, for the domain's own hosts.",
			},
		},
		Check: func(r *confparse.Report) {
			if err := s.finish(); err != nil {
				r.Errorf("", "%v", err)
			}
		},
	}
}

// addrs reads the list of IP addresses, which may stand in brackets.
func (s *structured) addrs() ([]netip.Addr, error) {
	if len(s.ips) == 0 {
		return nil, fmt.Errorf("ip has no address")
	}
	words := make([]string, len(s.ips))
	for i, ip := range s.ips {
		words[i] = "[" + strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]") + "]"
	}
	return parseAddrList(words)
}

// finish makes the rule of what was read.
func (s *structured) finish() (err error) {
	r := &s.rule
	if s.protocol == "lmtp" {
		r.Protocol = msg.ProtoLMTP
	}
	r.NoMX = !s.mx
	if s.host != "" {
		if r.Host, err = parseHost(s.host); err != nil {
			return err
		}
	}
	if s.ips != nil {
		if r.Addrs, err = s.addrs(); err != nil {
			return err
		}
	}
	if s.sel != "" {
		if r.Select, err = ParseSelect(s.sel); err != nil {
			return err
		}
	}
	switch none := r.Host == "" && len(r.Addrs) == 0; {
	case r.Host != "" && len(r.Addrs) > 0:
		return fmt.Errorf("host and ip exclude each other")
	case none && r.Protocol == msg.ProtoSMTP && r.Port != 0:
		// README 3.9.3 has portdef before hostdef only: whose port would it be?
		return fmt.Errorf("port without host or ip")
	}
	return nil
}
