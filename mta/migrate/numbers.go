package migrate

import (
	"fmt"
	"strconv"
	"strings"

	"meta1/mta/migrate/postfix"
)

// conversion makes a value of an option of one of Postfix; note is what differs.
type conversion func(value string) (out, note string, err error)

// simple is a parameter that is one option.
type simple struct {
	name, option string
	conv         conversion
}

// convert sets an option if a parameter is set.
func (m *migrator) convert(s *postfix.Service, name string, conf *section, option string, conv conversion) {
	if !m.isSet(s, name) {
		return
	}
	out, note, err := conv(m.value(s, name))
	switch {
	case err != nil:
		m.note(s, name, NotCarried, reason(err)+".")
	case out == "":
		m.mark(s, name, Different, "", note)
	default:
		conf.set(option, out, m.why(s, name))
		m.mark(s, name, Carried, option, "")
		if note != "" {
			m.note(s, name, Different, note)
		}
	}
}

// seconds reads a time of Postfix: a number with s, m, h, d or w; without it seconds.
func seconds(value string) (out, note string, err error) { return times(value, 's') }

func hours(value string) (out, note string, err error) { return times(value, 'h') }

func days(value string) (out, note string, err error) { return times(value, 'd') }

func times(value string, unit byte) (out, note string, err error) {
	digits := value
	if value != "" && strings.IndexByte("smhdw", value[len(value)-1]) >= 0 {
		digits, unit = value[:len(value)-1], value[len(value)-1]
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return "", "", fmt.Errorf("%.30q is not a time", value)
	}
	return strconv.FormatUint(n, 10) + string(unit), "", nil
}

// atLeastSecond is for limits that may not be 0.
func atLeastSecond(value string) (out, note string, err error) {
	if out, note, err = seconds(value); err == nil && strings.HasPrefix(out, "0") {
		return "1s", "0 is less than the least value, 1 s.", nil
	}
	return out, note, err
}

func number(value string) (out, note string, err error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return "", "", fmt.Errorf("%.30q is not a number", value)
	}
	return strconv.FormatUint(n, 10), "", nil
}

// limit is a number of which 0 means no limit, which is large in meta1.
func limit(large int) conversion {
	return func(value string) (out, note string, err error) {
		if out, note, err = number(value); err == nil && out == "0" {
			return strconv.Itoa(large), "0, which is no limit, became " + strconv.Itoa(large) + ".", nil
		}
		return out, note, err
	}
}

// bounded is a number with a least and a largest value.
func bounded(least, largest int) conversion {
	return func(value string) (out, note string, err error) {
		if out, note, err = number(value); err != nil {
			return out, note, err
		}
		n, _ := strconv.Atoi(out)
		if m := min(max(n, least), largest); m != n {
			return strconv.Itoa(m), fmt.Sprintf("%d became %d: the option takes %d to %d.", n, m, least, largest), nil
		}
		return out, note, err
	}
}

// inBytes is a size in bytes.
func inBytes(value string) (out, note string, err error) {
	if out, note, err = number(value); err == nil {
		out += "B"
	}
	return out, note, err
}

// serverOptions are the simple options of a server, and of the parts that all share.
func (m *migrator) serverOptions(v *server) {
	for _, o := range []simple{
		{name: "message_size_limit", option: "message_size_max", conv: inBytes},
		{name: "smtpd_recipient_limit", option: "recipients_per_transaction_max", conv: bounded(1, 1000000)},
		{name: "smtpd_hard_error_limit", option: "bad_commands_per_session_max", conv: number},
		{name: "smtpd_junk_command_limit", option: "nop_commands_between_transactions_max", conv: number},
		{name: "smtpd_timeout", option: "IO_timeout", conv: atLeastSecond},
		{name: "smtpd_min_data_rate", option: "data_rate_min", conv: inBytes},
		{name: "hopcount_limit", option: "hops_max", conv: number},
	} {
		m.convert(v.s, o.name, v.conf, o.option, o.conv)
	}
	if m.value(v.s, "message_size_limit") == "0" {
		m.done(v.s, "message_size_limit", "message_size_max")
	}
	m.greeting(v)
	for _, n := range []string{"smtpd_authorized_xclient_hosts", "smtpd_authorized_xforward_hosts"} {
		m.trustedHosts(v, n, strings.TrimPrefix(n, "smtpd_"))
	}
	if n, err := strconv.Atoi(v.s.MaxProc); err == nil && n > 1 && v.screen == nil {
		v.conf.set("threads_max", strconv.Itoa(n), fmt.Sprintf("master.cf:%d maxproc", v.s.Line))
	}
	if p := m.value(v.s, "smtpd_upstream_proxy_protocol"); p != "" {
		v.conf.sub("proxy", "").set("networks", list("127.0.0.1"), m.why(v.s, "smtpd_upstream_proxy_protocol"))
		m.mark(v.s, "smtpd_upstream_proxy_protocol", Different, "smtps proxy", "The proxy's address was taken to be 127.0.0.1: write it into networks.")
		m.convert(v.s, "smtpd_upstream_proxy_timeout", v.conf.sub("proxy", ""), "header_timeout", bounded1m)
		m.todo("Write the address of the proxy into networks of section proxy of smtps %s.", v.name)
	}
}

func bounded1m(value string) (out, note string, err error) { return atLeastSecond(value) }

// greeting translates smtpd_banner, of which the host name in front is meta1's own.
func (m *migrator) greeting(v *server) {
	if !m.isSet(v.s, "smtpd_banner") {
		return
	}
	banner := m.value(v.s, "smtpd_banner")
	if set, _ := m.c.Set(v.s, "smtpd_banner"); strings.Contains(set.Value, "mail_name") || strings.Contains(set.Value, "mail_version") {
		m.mark(v.s, "smtpd_banner", Different, "smtps greeting", "It says that this is "+m.value(v.s, "mail_name")+": meta1's own greeting was kept.")
		return
	}
	rest, ok := strings.CutPrefix(banner, m.value(v.s, "myhostname"))
	switch {
	case checkText(rest) != nil:
		m.note(v.s, "smtpd_banner", NotCarried, "It has characters that cannot stand in a reply.")
	case !ok:
		m.mark(v.s, "smtpd_banner", Different, "smtps greeting", "The greeting begins with hostname in any case.")
		rest = banner
		fallthrough
	default:
		if rest = strings.TrimSpace(rest); rest != "" {
			v.conf.set("greeting", text(rest), m.why(v.s, "smtpd_banner"))
		}
		m.done(v.s, "smtpd_banner", "smtps greeting")
	}
}

// trustedHosts translates lists of clients.
func (m *migrator) trustedHosts(v *server, name, option string) {
	var hosts []string
	for _, e := range m.list(v.s, name) {
		p, err := postfix.ParseNet(e)
		if err != nil {
			m.note(v.s, name, NotCarried, "Element "+short(e)+" is no address and no network: write those that it means.")
			continue
		}
		if p.IsSingleIP() {
			hosts = append(hosts, p.Addr().String())
		} else {
			hosts = append(hosts, p.String())
		}
	}
	if len(hosts) > 0 {
		v.conf.set(option, list(hosts...), m.why(v.s, name))
	}
	m.done(v.s, name, "smtps "+option)
}
