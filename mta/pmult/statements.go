package pmult

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"meta1/confparse/mailutils"
	"meta1/confparse/syntax"
	"meta1/mta/logfmt"
	"meta1/server/milter"
)

// statement is a row of the table of all statements.
type statement struct {
	name  string
	value string // what it takes, for the summary
	doc   string // what it does, with its default
	own   bool   // pmult's manual does not have it
	block bool
	set   func(r *reader, s *mailutils.Stmt)
	sub   []statement
}

// statements is the table: what mailfromd's manual lists in chapter "pmult", and some of ours.
func statements() []statement {
	return []statement{
		{name: "listen", value: "URL", doc: "Where to listen for the SMTP server: inet://ADDRESS:PORT, unix:///PATH. Must be set.", set: urlOf(func(c *Config) *Address { return &c.Listen })},
		{name: "pidfile", value: "FILE", doc: "File for the process id. Default: none.", set: (*reader).pidFile},
		{name: "max-threads-soft", value: "N", doc: "Has no effect: there are no threads to be kept.", set: (*reader).threadsSoft},
		{name: "max-threads-hard", value: "N", doc: "Most callbacks that wait for filters at a time; others wait for their turn. Default: no limit.", set: number(1, 1_000_000, func(r *reader) *int { return &r.cfg.Threads })},
		{name: "max-pmilter-fd", value: "N", doc: "Most connections of SMTP servers at a time. A server needs one, for all its sessions. Default: 10.", set: number(1, 256, func(r *reader) *int { return &r.cfg.Servers })},
		{name: "define-macros", value: "HANDLER (MACROS)", doc: "Macros that filters may see from this handler on, or a list of handlers: connect, helo, mail, rcpt, data, dot.", set: (*reader).defineMacros},
		{name: "auth-macros", value: "BOOL", doc: "yes: the same as define-macros mail (auth_type, auth_authen, auth_author). Default: no.", set: (*reader).authMacros},
		{name: "pmilter-debug", value: "LEVEL", doc: "0 to 100: from 1 on sessions of the SMTP server are logged, from 2 on its commands. Default: 0.", set: number(0, 100, func(r *reader) *int { return &r.cfg.PmilterDebug })},
		{name: "debug", value: "SPEC", doc: "The same as the statement level of the block debug.", set: (*reader).debug},
		{name: "debug", block: true, doc: "Additional lines of the log.", sub: []statement{
			{name: "level", value: "SPEC", doc: "Levels of the category pmult, such as pmult.trace1. Default: none.", set: (*reader).debug},
			{name: "line-info", value: "BOOL", doc: "Has no effect: log lines name no places in the source.", set: noEffect("log lines name no places in the source")},
		}},
		{name: "logging", block: true, doc: "The log.", sub: []statement{
			{name: "syslog", value: "BOOL", doc: "yes: syslog, no: standard error. Default: yes.", set: boolean(func(r *reader) *bool { return &r.cfg.Log.Syslog })},
			{name: "facility", value: "FACILITY", doc: "Facility of syslog. Default: mail.", set: (*reader).facility},
			{name: "tag", value: "TEXT", doc: "What stands before each line in syslog. Default: pmult.", set: (*reader).tag},
			{name: "severity", value: "SEVERITY", doc: "Least severity that is logged: debug, info, notice, warning, error, crit, alert, emerg. Default: info.", set: (*reader).severity},
			{name: "print-severity", value: "BOOL", doc: "Has no effect: each line has its severity.", set: (*reader).printSeverity},
			{name: "session-id", value: "BOOL", doc: "Whether lines have the session's id. Default: yes.", set: boolean(func(r *reader) *bool { return &r.cfg.Log.SessionID })},
		}},
		{name: "client", value: "[NAME]", block: true, doc: "A filter. They are asked in the order of the file. The name is for the log.", set: (*reader).client, sub: []statement{
			{name: "type", value: "milter", doc: "The protocol. There is only this one.", set: (*reader).clientType},
			{name: "url", value: "URL", doc: "Where the filter listens. Must be set.", set: (*reader).clientURL},
			{name: "connect-timeout", value: "INTERVAL", doc: "For connecting and negotiating. Default: 300.", set: interval(func(t *milter.Timeouts) []*time.Duration { return []*time.Duration{&t.Connect} })},
			{name: "write-timeout", value: "INTERVAL", doc: "For sending to the filter. Default: 10.", set: interval(func(t *milter.Timeouts) []*time.Duration { return []*time.Duration{&t.Write} })},
			{name: "read-timeout", value: "INTERVAL", doc: "For a reply of the filter. Default: 10.", set: interval(func(t *milter.Timeouts) []*time.Duration { return []*time.Duration{&t.Command, &t.Content} })},
			{name: "eom-timeout", value: "INTERVAL", doc: "For the reply to the end of a message. Default: 300.", set: interval(func(t *milter.Timeouts) []*time.Duration { return []*time.Duration{&t.End} })},
			{name: "log-level", value: "LEVELS", doc: "What is logged of this filter: proto, debug, info, warn, err, fatal, with ! (not), < (up to) or > (from). Default: all.", set: (*reader).logLevel},
			{name: "on-failure", value: "WORD", own: true, doc: "If the filter fails: accept goes on without it, tempfail and reject refuse mail, abort ends the session, quarantine holds the message. Default: accept.", set: (*reader).onFailure},
			{name: "connections-kept", value: "N", own: true, doc: "Idle connections that are kept for the next session, for a minute. Only for filters that know how (mailfromd does). Default: 0.", set: number(0, 1000, func(r *reader) *int { return &r.of.Kept })},
		}},
		{name: "user", value: "NAME", own: true, doc: "Account whose rights are taken when all sockets are bound, as mailfromd has it. Default: none.", set: (*reader).user},
		{name: "group", value: "NAME", own: true, doc: "Group whose rights are kept beside, as mailfromd has it. May be repeated.", set: (*reader).group},
		{name: "metrics", value: "URL", own: true, doc: "Where /metrics is served for Prometheus. Default: nowhere.", set: urlOf(func(c *Config) *Address { return &c.Metrics })},
	}
}

// Summary is all statements with what they do, in the form of a configuration: the answer to
// --config-help.
func Summary() string {
	var b strings.Builder
	summary(&b, statements(), "")
	return b.String()
}

func summary(b *strings.Builder, list []statement, indent string) {
	for i := range list {
		s := &list[i]
		doc := s.doc
		if s.own {
			doc += " (Of meta1, not of mailfromd's pmult.)"
		}
		fmt.Fprintf(b, "%s# %s\n%s%s", indent, doc, indent, s.name)
		if s.value != "" {
			b.WriteString(" <" + strings.Trim(s.value, "[]") + ">")
		}
		if s.block {
			b.WriteString(" {\n")
			summary(b, s.sub, indent+"  ")
			b.WriteString(indent + "}\n")
			continue
		}
		b.WriteString(";\n")
	}
}

// reader gives statements their meaning.
type reader struct {
	cfg   *Config
	diags *syntax.Diags
	of    *Client // whose block is read
	named []syntax.Span
}

func (r *reader) wrong(at syntax.Span, format string, args ...any) {
	r.diags.Errorf(at, "", "", format, args...)
}

func (r *reader) warn(at syntax.Span, format string, args ...any) {
	r.diags.Report(syntax.NewDiagnostic(syntax.SeverityWarning, at, fmt.Sprintf(format, args...)))
}

// read reads the statements of a block, "" for the file.
func (r *reader) read(list []*mailutils.Stmt, table []statement, block string) {
	for _, s := range list {
		var row *statement
		other := false
		for i := range table {
			if table[i].name == s.Keyword {
				if table[i].block == s.Block {
					row = &table[i]
				} else {
					other = true
				}
			}
		}
		switch {
		case row == nil && other && s.Block:
			r.wrong(s.At, "%s is not a block", s.Keyword)
		case row == nil && other:
			r.wrong(s.At, "%s is a block: %s { ... }", s.Keyword, s.Keyword)
		case row == nil:
			r.unknown(s, table, block)
		default:
			if row.set != nil {
				row.set(r, s)
			}
			if row.block {
				r.read(s.Body, row.sub, row.name)
				r.of = nil
			}
		}
	}
}

// unknown tells of a statement that is not in the table.
func (r *reader) unknown(s *mailutils.Stmt, table []statement, block string) {
	var names []string
	for i := range table {
		names = append(names, table[i].name)
	}
	where := "pmult has no statement %s"
	if block != "" {
		where = "the block " + block + " has no statement %s"
	}
	hint := ""
	if block == "" {
		hint = "statements of mailfromd's other programs belong in a block program NAME { ... }"
	}
	r.diags.Errorf(s.At, strings.Join(slices.Compact(names), ", "), hint, where, syntax.ShownWord(s.Keyword))
}

// value is the one value of a statement.
func (r *reader) value(s *mailutils.Stmt) (v mailutils.Value, ok bool) {
	if len(s.Args) != 1 || len(s.Args[0].Values) != 1 {
		r.wrong(s.At, "%s takes one value", s.Keyword)
		return v, false
	}
	return s.Args[0].Values[0], true
}

// words are all values of a statement, with strings taken apart at blanks and commas.
func words(s *mailutils.Stmt) (list []string) {
	for _, a := range s.Args {
		for _, v := range a.Values {
			list = append(list, strings.FieldsFunc(v.Text, func(c rune) bool { return c == ' ' || c == '\t' || c == '\n' || c == ',' })...)
		}
	}
	return list
}

// text takes any text but an empty one, and none with a control character.
func (r *reader) text(s *mailutils.Stmt, into *string) {
	v, ok := r.value(s)
	switch {
	case !ok:
	case v.Text == "" || strings.ContainsFunc(v.Text, syntax.IsControl):
		r.wrong(v.At, "%s cannot be %s", s.Keyword, syntax.ShownWord(v.Text))
	default:
		*into = v.Text
	}
}

func (r *reader) pidFile(s *mailutils.Stmt) { r.text(s, &r.cfg.PidFile) }
func (r *reader) tag(s *mailutils.Stmt)     { r.text(s, &r.cfg.Log.Tag) }
func (r *reader) user(s *mailutils.Stmt)    { r.text(s, &r.cfg.User) }

func (r *reader) group(s *mailutils.Stmt) {
	var name string
	if r.text(s, &name); name != "" {
		r.cfg.Groups = append(r.cfg.Groups, name)
	}
}

func urlOf(into func(c *Config) *Address) func(*reader, *mailutils.Stmt) {
	return func(r *reader, s *mailutils.Stmt) { r.url(s, into(r.cfg)) }
}

func (r *reader) url(s *mailutils.Stmt, into *Address) {
	v, ok := r.value(s)
	if !ok {
		return
	}
	a, err := parseURL(v.Text)
	if err != nil {
		r.wrong(v.At, "%s: %v", syntax.ShownWord(v.Text), err)
		return
	}
	*into = a
}

func number(least, most int, into func(r *reader) *int) func(*reader, *mailutils.Stmt) {
	return func(r *reader, s *mailutils.Stmt) {
		v, ok := r.value(s)
		if !ok {
			return
		}
		n, err := strconv.Atoi(v.Text)
		if err != nil || n < least || n > most {
			r.wrong(v.At, "%s takes a number from %d to %d", s.Keyword, least, most)
			return
		}
		*into(r) = n
	}
}

func boolean(into func(r *reader) *bool) func(*reader, *mailutils.Stmt) {
	return func(r *reader, s *mailutils.Stmt) {
		v, ok := r.value(s)
		if !ok {
			return
		}
		b, err := parseBool(v.Text)
		if err != nil {
			r.wrong(v.At, "%s: %v", s.Keyword, err)
			return
		}
		*into(r) = b
	}
}

// noEffect takes a statement that changes nothing here, and says so.
func noEffect(why string) func(*reader, *mailutils.Stmt) {
	return func(r *reader, s *mailutils.Stmt) {
		if _, ok := r.value(s); ok {
			r.warn(s.At, "%s has no effect: %s", s.Keyword, why)
		}
	}
}

func (r *reader) threadsSoft(s *mailutils.Stmt) {
	var n int
	number(1, math.MaxInt32, func(*reader) *int { return &n })(r, s)
	if n > 0 {
		r.warn(s.At, "%s has no effect: there are no threads to be kept", s.Keyword)
	}
}

func (r *reader) printSeverity(s *mailutils.Stmt) {
	on := true
	if boolean(func(*reader) *bool { return &on })(r, s); !on {
		r.warn(s.At, "%s has no effect: each line has its severity", s.Keyword)
	}
}

func (r *reader) facility(s *mailutils.Stmt) {
	v, ok := r.value(s)
	if !ok {
		return
	}
	name := strings.ToLower(v.Text)
	if !slices.Contains(logfmt.Facilities(), name) {
		r.diags.Errorf(v.At, strings.Join(logfmt.Facilities(), ", "), "", "%s is not a facility of syslog", syntax.ShownWord(v.Text))
		return
	}
	r.cfg.Log.Facility = name
}

func (r *reader) severity(s *mailutils.Stmt) {
	v, ok := r.value(s)
	if !ok {
		return
	}
	level, known := severity(v.Text)
	if !known {
		r.diags.Errorf(v.At, "debug, info, notice, warning, error, crit, alert or emerg", "", "%s is not a severity", syntax.ShownWord(v.Text))
		return
	}
	r.cfg.Log.Level = level
}

func (r *reader) debug(s *mailutils.Stmt) {
	v, ok := r.value(s)
	if !ok {
		return
	}
	d, others, err := parseDebug(v.Text)
	if err != nil {
		r.wrong(v.At, "%v", err)
		return
	}
	for _, c := range others {
		r.warn(v.At, "the debug category %s has no effect: only pmult is known", syntax.ShownWord(c))
	}
	r.cfg.Debug = d
}

// client begins the block of a client.
func (r *reader) client(s *mailutils.Stmt) {
	c := defaultClient()
	if c.Name = s.Tag(); c.Name == "" {
		c.Name = fmt.Sprintf("client%d", len(r.cfg.Clients)+1)
	}
	for i := range r.cfg.Clients {
		if r.cfg.Clients[i].Name == c.Name {
			r.wrong(s.At, "there are two clients with the name %s", syntax.ShownWord(c.Name))
		}
	}
	if strings.ContainsFunc(c.Name, syntax.IsControl) {
		r.wrong(s.At, "a client cannot have the name %s", syntax.ShownWord(c.Name))
	}
	if len(r.cfg.Clients) == clientsMax {
		r.wrong(s.At, "there are more than %d clients", clientsMax)
	}
	r.cfg.Clients = append(r.cfg.Clients, c)
	r.named = append(r.named, s.At)
	r.of = &r.cfg.Clients[len(r.cfg.Clients)-1]
}

// clientsMax bounds the clients.
const clientsMax = 100

func (r *reader) clientType(s *mailutils.Stmt) {
	if v, ok := r.value(s); ok && v.Text != "milter" {
		r.wrong(v.At, "the type of a client is milter, not %s", syntax.ShownWord(v.Text))
	}
}

func (r *reader) clientURL(s *mailutils.Stmt) { r.url(s, &r.of.Address) }

func interval(into func(t *milter.Timeouts) []*time.Duration) func(*reader, *mailutils.Stmt) {
	return func(r *reader, s *mailutils.Stmt) {
		d, err := parseInterval(strings.Join(words(s), " "))
		if err != nil {
			r.wrong(s.At, "%s: %v", s.Keyword, err)
			return
		}
		for _, t := range into(&r.of.Timeouts) {
			*t = d
		}
	}
}

func (r *reader) logLevel(s *mailutils.Stmt) {
	levels, err := parseLevels(words(s))
	if err != nil {
		r.wrong(s.At, "%v", err)
		return
	}
	r.of.Levels = levels
}

func (r *reader) onFailure(s *mailutils.Stmt) {
	v, ok := r.value(s)
	if !ok {
		return
	}
	how, known := map[string]milter.Failure{
		"accept": milter.Reconnect, "tempfail": milter.Tempfail, "reject": milter.Reject,
		"abort": milter.AbortSession, "quarantine": milter.Quarantine,
	}[v.Text]
	if !known {
		r.diags.Errorf(v.At, "accept, tempfail, reject, abort or quarantine", "", "on-failure cannot be %s", syntax.ShownWord(v.Text))
		return
	}
	r.of.Failure = how
}

// whole looks at the configuration as a whole.
func (r *reader) whole(file string) {
	if r.cfg.Listen.Network == "" {
		r.diags.Report(syntax.Diagnostic{Pos: syntax.Pos{File: file}, Severity: syntax.SeverityError, Message: "the statement listen is missing", Expected: "listen inet://127.0.0.1:3333;"})
	}
	if len(r.cfg.Clients) == 0 {
		r.diags.Report(syntax.Diagnostic{Pos: syntax.Pos{File: file}, Severity: syntax.SeverityWarning, Message: "there is no client: all mail is accepted"})
	}
	for i := range r.cfg.Clients {
		c := &r.cfg.Clients[i]
		if c.Address.Network == "" {
			r.wrong(r.named[i], "the client %s has no url", syntax.ShownWord(c.Name))
		}
		c.Timeouts.Progress = max(progressMax, c.Timeouts.End)
	}
}
