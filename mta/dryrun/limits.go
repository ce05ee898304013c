package dryrun

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/explain"
	"meta1/mta/msg"
	"meta1/mta/settings"
	"meta1/queue/conf"
	"meta1/resolver"
)

// limits adds the limits of connections to a hop, the source addresses, and what the map of
// QMGR demands of its sessions. The order is that of README 3.8.1: an entry for the address or
// its net, connection_limits for the domain, the entry without address, the option.
func (e *explainer) limits(h *explain.Hop, hop msg.Hop, q *msg.RouteQ, rules *conf.Rules) {
	c := &e.conf.Queue.SMTPC
	ip := hop.Addr.Addr()
	named := rules.ConnectionLimits(rules.LimitsOf(q.Rcpt.LowerDomain()))
	add := func(name, where string, value int) {
		h.Limits = append(h.Limits, explain.Option{Option: name, Value: strconv.Itoa(value), Where: where})
	}
	both := func(entries conf.IPTable, tag, option string, ofDomain, otherwise int) {
		if n, ok := entries.Of(ip); ok && ip.IsValid() {
			add(option, e.conf.Queue.Conf+", entry "+tag+": for the address or its net", n)
			return
		}
		if named != nil && (!ip.IsValid() || !rules.Ruled(ip)) && ofDomain > 0 {
			add(option, "connection_limits "+named.Name, ofDomain)
			return
		}
		if n := entries.Default(otherwise); n != otherwise {
			add(option, e.conf.Queue.Conf+", entry "+tag+": without address", n)
			return
		}
		o := e.option("qmgr/smtpc/" + option)
		add(option, o.Where, otherwise)
	}
	var initial, most int
	if named != nil {
		initial, most = named.Initial, named.Max
	}
	both(rules.Initial, "oci", "initial_connections", initial, c.Initial)
	both(rules.Max, "ocm", "connections_max", most, c.Max)
	for _, a := range rules.SourcesOf(&msg.Envelope{Mail: msg.Mail{From: q.Sender}}) {
		h.Source = append(h.Source, a.String())
	}
	if session, key := rules.SessionOf(hop); session != nil {
		where := e.conf.Queue.Conf + ", entry smtpc_session_conf:" + key
		if session.TLS != nil {
			h.TLS = "as smtpc_session_conf:" + key + " demands: " + demands(session.TLS)
		}
		if session.SessionFeature != "" {
			h.Limits = append(h.Limits, explain.Option{Option: "session_features", Value: session.SessionFeature, Where: where})
		}
		if p := rules.Provider(session.Provider); p != nil {
			h.Limits = append(h.Limits, explain.Option{Option: "provider", Value: p.Name, Where: where})
			section := "section provider " + p.Name
			for _, l := range []struct {
				option string
				value  int
			}{{"connections_max", p.Max}, {"rate_max", p.Rate}, {"transactions_per_session_max", p.TransactionsMax}} {
				if l.value > 0 {
					add(l.option+" of the provider", section, l.value)
				}
			}
		}
	}
}

// demands are TLS requirements in words.
func demands(r *msg.TLSRequirements) string {
	return strings.Trim(fmt.Sprintf("%+v", *r), "{}")
}

// addOrigins adds to a report the options behind replies, and the lines of entries.
func (e *explainer) addOrigins(r *explain.Report, section string) {
	for _, s := range r.Stages {
		e.entryLines(s.Checks)
		if s.Verdict == explain.Accepted {
			continue
		}
		for _, known := range explain.FindReplies(s.Reply) {
			if normalCode(known.Code, s.Reply) {
				s.Why, s.Options = known.Why, e.optionsOf(known.Options, section)
				break
			}
		}
	}
	for i := range r.Recipients {
		for j := range r.Recipients[i].Routes {
			e.entryLines(r.Recipients[i].Routes[j].Checks)
		}
	}
}

func normalCode(code int, reply string) bool { return strings.HasPrefix(reply, strconv.Itoa(code)) }

// optionsOf gives options with their values; smtps/ stands for the section.
func (e *explainer) optionsOf(paths []string, section string) []explain.Option {
	options := make([]explain.Option, 0, len(paths))
	for _, p := range paths {
		if rest, ok := strings.CutPrefix(p, "smtps/"); ok {
			p = section + "/" + rest
		}
		options = append(options, e.option(p))
	}
	return options
}

// option finds an option by its path.
func (e *explainer) option(path string) explain.Option {
	o := explain.Option{Option: path, Where: "default"}
	for _, v := range e.values() {
		p := v.Name
		if v.Section != "" {
			p = v.Section + "/" + v.Name
		}
		if strings.EqualFold(p, path) {
			o.Value, o.Where = fmt.Sprint(v.Value), withoutColumn(v.Origin)
			return o
		}
	}
	if pos, set := e.result.Origin(path); set { // a section
		o.Value, o.Where = "a section", fmt.Sprintf("%s:%d", pos.File, pos.Line)
		return o
	}
	o.Value, o.Where = "", "not set"
	return o
}

// values are all options and flags of the configuration.
func (e *explainer) values() []confparse.Shown {
	e.once.Do(func() { e.shown = e.result.Values(true) })
	return e.shown
}

// withoutColumn is file:line of file:line:column.
func withoutColumn(origin string) string {
	if strings.Count(origin, ":") < 2 {
		return origin
	}
	return origin[:strings.LastIndexByte(origin, ':')]
}

// atLine is a map's name that has a line already.
var atLine = regexp.MustCompile(`:\d+$`)

// entryLines finds the lines of the entries that checks have found, in maps that are text.
func (e *explainer) entryLines(checks []explain.Check) {
	for i := range checks {
		c := &checks[i]
		if c.Map == "" || c.Value == "" || atLine.MatchString(c.Map) {
			continue
		}
		refs := []resolver.MapRef{{Name: c.Map}}
		if strings.ContainsRune(c.Map, '/') {
			refs = []resolver.MapRef{{File: c.Map}}
		}
		for _, ref := range refs {
			for _, file := range e.conf.MapFiles(ref) {
				if line := lineOf(file, c.Key); line > 0 {
					c.Where = fmt.Sprintf("%s:%d", file.File, line)
				}
			}
		}
	}
}

// lineOf is the line of a key in a map of text, 0 if it cannot be told.
func lineOf(m resolver.MapConfig, key string) (line int) {
	if info, err := os.Stat(m.File); m.Type != "text" || err != nil || info.Size() > settings.MapFileMax {
		return 0
	}
	_ = maps.EachEntry(m.File, m.Type, func(e maps.Entry) error {
		if e.Key == key || !m.CaseSensitive && strings.EqualFold(e.Key, key) || strings.TrimSuffix(e.Key, ":") == key {
			line = e.Line
			return errEnough
		}
		return nil
	})
	return line
}

// errEnough ends the reading of a map.
var errEnough = errors.New("enough")
