package server

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"meta1/confparse"
	"meta1/mta/msg"
)

// class is a section session_features: what a session of it has otherwise than the others
// (README 3.10, item 25).
type class struct {
	name    string
	denied  extensionSet // not offered and not known
	granted extensionSet // offered although the flags of section smtps do not say so
}

// features are the words of the flags of session_features: the keywords of EHLO, but for
// those that are no more than words of that reply.
func features() map[string]extension {
	words := map[string]extension{}
	for e, row := range extensionTable() {
		if e := extension(e); e != extHelp && e != extEnhanced {
			words[strings.ToLower(row.keyword)] = e
		}
	}
	return words
}

// featureWords are features' words: that of the README first.
func featureWords() []string {
	words := features()
	delete(words, strings.ToLower(verbStartTLS))
	return append([]string{strings.ToLower(verbStartTLS)}, slices.Sorted(maps.Keys(words))...)
}

// classes are the sections session_features by their names.
func (c *Config) classes() map[string]*class {
	all := map[string]*class{}
	for i := range c.SessionFeatures {
		f := &c.SessionFeatures[i]
		k := &class{name: f.Name}
		for word, e := range features() {
			if !confparse.HasFlag(f.Flags, word, true) {
				k.denied |= 1 << e
			}
			if confparse.HasFlag(f.Flags, word, false) {
				k.granted |= 1 << e
			}
		}
		all[f.Name] = k
	}
	return all
}

// denies reports whether the class of the session turns an extension off.
func (p *policy) denies(e extension) bool { return p.class != nil && p.class.denied.has(e) }

// choose makes the session one of the class that the access map names for this client (README
// 3.10.1). One that this section does not have changes nothing: the map may be that of
// several servers.
func (c *session) choose(v *msg.Verdict) {
	if v.SessionConf == nil || v.SessionConf.SessionFeature == "" {
		return
	}
	name := v.SessionConf.SessionFeature
	k := c.srv.classes[name]
	if k == nil {
		c.emit(slog.LevelWarn, "no such session_features", slog.String("session_feature", name))
		return
	}
	c.policy.class = k
}

// newSessionFeatures makes the table of one section session_features.
func (c *Config) newSessionFeatures(name string) *confparse.Table {
	f := &SessionFeatures{Name: name}
	return &confparse.Table{
		Done: func() { c.SessionFeatures = append(c.SessionFeatures, *f) },
		Options: []confparse.Option{{
			Name: "flags", Type: confparse.Flags, Words: featureWords(), Readme: "3.10", Into: &f.Flags,
			Doc: "Extensions by their keywords in the reply to EHLO: one with a negation is not offered, and its commands and parameters are unknown. One without is offered even if the flags of section smtps do not say so. Those that are not named stay as they are. Without pipelining a client that does not wait for each reply is sent away with 554, as one without EHLO is.",
		}},
	}
}

// checkLookups warns of flags that need another one.
func (c *Config) checkLookups(r *confparse.Report) {
	for _, flag := range []struct {
		name string
		set  bool
	}{{"lookup_session_conf", c.Flags.LookupSessionConf}, {"rcpt_conf", c.Flags.RcptConf}} {
		if flag.set && !c.Flags.Access {
			r.Warnf(flag.name, "the flag %s has no effect without the flag access", flag.name)
		}
	}
	if len(c.SessionFeatures) > 0 && !c.Flags.LookupSessionConf {
		r.Warnf(fmt.Sprintf("session_features %s", c.SessionFeatures[0].Name), "session_features has no effect without the flag lookup_session_conf")
	}
}
