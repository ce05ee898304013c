package pmult

import (
	"slices"
	"strconv"
	"strings"

	"meta1/confparse/mailutils"
	"meta1/confparse/syntax"
	"meta1/pmilter"
)

// handlers are the names of define-macros and their stages.
func handlers() map[string]pmilter.Stage {
	return map[string]pmilter.Stage{
		"connect": pmilter.StageConnect, "helo": pmilter.StageHelo,
		"mail": pmilter.StageMail, "envfrom": pmilter.StageMail, "envmail": pmilter.StageMail,
		"rcpt": pmilter.StageRcpt, "envrcpt": pmilter.StageRcpt,
		"data": pmilter.StageData, "header": pmilter.StageData, "body": pmilter.StageData,
		"dot": pmilter.StageDot, "eom": pmilter.StageDot,
	}
}

// definable are the macros of define-macros. c has no symbol of the server: we count.
func definable() map[string]pmilter.Macro {
	return map[string]pmilter.Macro{
		"hostname": pmilter.MacroSrvHostname, "client_resolve": pmilter.MacroClientResolve,
		"tls_version": pmilter.MacroTLSVersion, "tls_cipher_suite": pmilter.MacroTLSCipherSuite, "tls_cipher_bits": pmilter.MacroTLSCipherBits,
		"tls_cert_subject": pmilter.MacroTLSCertSubject, "tls_cert_issuer": pmilter.MacroTLSCertIssuer, "tls_alg_bits": pmilter.MacroTLSAlgBits,
		"tls_vrfy": pmilter.MacroTLSVrfy, "tls_cn_subject": pmilter.MacroTLSCNSubject, "cn_subject": pmilter.MacroTLSCNSubject,
		"tls_cn_issuer": pmilter.MacroTLSCNIssuer, "cn_issuer": pmilter.MacroTLSCNIssuer,
		"auth_type": pmilter.MacroAuthType, "auth_authen": pmilter.MacroAuthAuthen, "auth_author": pmilter.MacroAuthAuthor,
		"taid": pmilter.MacroMailTAID, "msgid": pmilter.MacroDotMsgID, "c": pmilter.MacroEnd,
	}
}

// sendmails are Sendmail's names of macros that define-macros has by another name.
func sendmails() map[string]string {
	return map[string]string{
		"{cipher}": "tls_cipher_suite", "{cipher_bits}": "tls_cipher_bits", "{cert_subject}": "tls_cert_subject",
		"{cert_issuer}": "tls_cert_issuer", "{alg_bits}": "tls_alg_bits", "{verify}": "tls_vrfy",
	}
}

// defineMacros reads define-macros.
func (r *reader) defineMacros(s *mailutils.Stmt) {
	if len(s.Args) != 2 {
		r.diags.Errorf(s.At, "define-macros HANDLER (MACRO, ...);", "", "define-macros takes handlers and macros")
		return
	}
	for _, h := range s.Args[0].Values {
		stage, ok := handlers()[h.Text]
		if !ok {
			r.diags.Errorf(h.At, "connect, helo, mail (envfrom), rcpt (envrcpt), data (header, body) or dot (eom)", "", "there is no handler %s", syntax.ShownWord(h.Text))
			continue
		}
		for _, v := range s.Args[1].Values {
			m, ok := definable()[v.Text]
			switch {
			case !ok:
				r.diags.Errorf(v.At, strings.Join(definableNames(), ", "), "", "there is no macro %s", syntax.ShownWord(v.Text))
			case m == pmilter.MacroMailTAID && stage < pmilter.StageMail:
				r.wrong(v.At, "taid has no value before the handler mail")
			case m == pmilter.MacroDotMsgID && stage != pmilter.StageDot:
				r.wrong(v.At, "msgid has a value in the handler dot alone")
			default:
				r.cfg.define(stage, v.Text)
			}
		}
	}
}

func definableNames() []string {
	var names []string
	for n := range definable() {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (r *reader) authMacros(s *mailutils.Stmt) {
	on := false
	if boolean(func(*reader) *bool { return &on })(r, s); on {
		r.cfg.define(pmilter.StageMail, "auth_type", "auth_authen", "auth_author")
	}
}

// define lets filters see macros from a stage on.
func (c *Config) define(stage pmilter.Stage, names ...string) {
	for _, n := range names {
		if !slices.Contains(c.Macros[stage], n) {
			c.Macros[stage] = append(c.Macros[stage], n)
		}
	}
}

// own are the macros that the server is always asked for: those that filters get without
// define-macros are made of them.
func own() [pmilter.Stages][]pmilter.Macro {
	return [pmilter.Stages][]pmilter.Macro{
		pmilter.StageConnect: {
			pmilter.MacroSeID, pmilter.MacroSrvHostname, pmilter.MacroClientResolve, pmilter.MacroClientPtr, pmilter.MacroVersion,
			pmilter.MacroDaemonName, pmilter.MacroDaemonAddr, pmilter.MacroDaemonPort,
		},
		pmilter.StageHelo: {pmilter.MacroProtocol},
		pmilter.StageMail: {pmilter.MacroProtocol, pmilter.MacroMailTAID},
		pmilter.StageDot:  {pmilter.MacroDotMsgID},
	}
}

// wanted are the macros that the server is asked for at a stage. Those that it sends at connect
// anyway stay the same: asked for later, too, they would end with each transaction.
func (c *Config) wanted(stage pmilter.Stage) []pmilter.Macro {
	list, always := own()[stage], own()[pmilter.StageConnect]
	for _, n := range c.Macros[stage] {
		if m := definable()[n]; m != pmilter.MacroEnd && !slices.Contains(list, m) && !slices.Contains(always, m) {
			list = append(list, m)
		}
	}
	return list
}

// symbol is the value that the server has sent, "" for none.
func (s *session) symbol(m pmilter.Macro) string {
	value, _, _ := s.p.Macro(m) // one that was not asked for has none
	return value
}

// macro is the value of a macro for filters, by Sendmail's name for it; "" if it has none now.
func (s *session) macro(name string) string {
	switch name {
	case "i":
		return s.symbol(pmilter.MacroSeID)
	case "j", "{if_name}":
		return s.symbol(pmilter.MacroSrvHostname)
	case "v":
		return s.symbol(pmilter.MacroVersion)
	case "r":
		return s.symbol(pmilter.MacroProtocol)
	case "s":
		return s.helo
	case "{daemon_name}":
		return s.symbol(pmilter.MacroDaemonName)
	case "{daemon_addr}", "{if_addr}":
		return s.symbol(pmilter.MacroDaemonAddr)
	case "{daemon_port}":
		return s.symbol(pmilter.MacroDaemonPort)
	case "{multiplexer}":
		return Program
	case "{mult_version}":
		return s.m.o.Version
	}
	if v, ok := s.clientMacro(name); ok {
		return v
	}
	m, ok := s.set.symbols[name]
	switch {
	case ok && m != pmilter.MacroEnd:
		return s.symbol(m)
	case s.tx == nil:
		return ""
	case ok && s.tx.counted:
		return strconv.Itoa(s.tx.hops)
	}
	return s.tx.macro(name, s)
}

// clientMacro are the macros of the client.
func (s *session) clientMacro(name string) (string, bool) {
	c := s.p.Client()
	switch name {
	case "_":
		host := c.Name
		if host == "" {
			host = s.helo
		}
		return strings.TrimLeft(host+" ["+c.Addr+"]", " "), true
	case "{client_addr}":
		return c.Addr, true
	case "{client_port}":
		if c.Port == 0 {
			return "", true
		}
		return strconv.Itoa(int(c.Port)), true
	case "{client_name}":
		if c.Name == "" {
			return "unknown", true
		}
		return c.Name, true
	case "{client_ptr}":
		return s.symbol(pmilter.MacroClientPtr), true
	case "{client_resolve}":
		return s.symbol(pmilter.MacroClientResolve), true
	}
	return "", false
}

// symbols are the macros of define-macros by the names that filters have for them.
func (c *Config) symbols() map[string]pmilter.Macro {
	byName, known := map[string]pmilter.Macro{}, definable()
	for _, names := range c.Macros {
		for _, n := range names {
			if len(n) > 1 {
				byName["{"+n+"}"] = known[n]
			} else {
				byName[n] = known[n]
			}
		}
	}
	for sendmails, n := range sendmails() {
		if m, ok := byName["{"+n+"}"]; ok {
			byName[sendmails] = m
		}
	}
	return byName
}

// macro are the macros of a transaction.
func (tx *transaction) macro(name string, s *session) string {
	switch name {
	case "f", "{mail_addr}":
		return tx.from
	case "{mail_host}":
		return host(tx.from)
	case "{mail_mailer}", "{rcpt_mailer}":
		return "smtp"
	case "{rcpt_addr}":
		return tx.asked
	case "{rcpt_host}":
		return host(tx.asked)
	case "{nrcpts}":
		return strconv.Itoa(len(tx.rcpts))
	case "{nbadrcpts}":
		return strconv.Itoa(tx.bad)
	case "{ntries}":
		return "1"
	case "{msg_id}":
		return s.symbol(pmilter.MacroDotMsgID)
	}
	return ""
}

// host is what follows the @ of an address.
func host(addr string) string { return addr[strings.LastIndexByte(addr, '@')+1:] }
