package mta

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/msg"
	"meta1/resolver"
	"meta1/resolver/access"
)

// maxNamesFile bounds the map files in which names are checked, in bytes: larger ones
// would make the start slow.
const maxNamesFile = 64 << 20

// A nameTag is a tag of the access map or of QMGR's configuration map whose right
// hand side names a section of the configuration (README 3.8, 3.10.1, 3.11.1).
type nameTag struct {
	tag    string
	option string
	value  func(*msg.Conf) string
	section,
	where string
	names []string
}

// nameTags are the tags of one map, with the names that exist.
func (c *Config) nameTags(conf bool) []nameTag {
	feature := func(r *msg.Conf) string { return r.SessionFeature }
	var smtps, smtpc, limits, sources []string
	for _, s := range c.Servers {
		for _, f := range s.Server.SessionFeatures {
			smtps = append(smtps, f.Name)
		}
	}
	for _, f := range c.Client.SessionFeatures {
		smtpc = append(smtpc, f.Name)
	}
	for _, l := range c.Queue.SMTPC.ConnectionLimits {
		limits = append(limits, l.Name)
	}
	for _, s := range c.Queue.SMTPC.Sources {
		sources = append(sources, s.Name)
	}
	ofServer := func(tag string) nameTag {
		return nameTag{tag, "session_feature", feature, "session_features", "smtps", smtps}
	}
	ofClient := func(tag string) nameTag {
		return nameTag{tag, "session_feature", feature, "session_features", "smtpc", smtpc}
	}
	ofSource := func(tag string) nameTag {
		return nameTag{tag, "source", func(r *msg.Conf) string { return r.Source }, "source", "qmgr.smtpc", sources}
	}
	if !conf {
		return []nameTag{ofServer("smtps_session_conf:"), ofServer("smtps_se_conf:"), ofClient("smtpc_session_conf:"), ofClient("smtpc_rcpt_conf:")}
	}
	return []nameTag{
		ofClient("smtpc_session_conf:"), ofSource("smtpc_conf_cltaddr:"), ofSource("smtpc_conf_mail:"),
		{
			"smtpc_conf_rcpt_domain:", "connection_limits", func(r *msg.Conf) string { return r.ConnectionLimits },
			"connection_limits", "qmgr.smtpc", limits,
		},
	}
}

// mapNames checks that the sections exist that the access map and QMGR's
// configuration map name. Maps that cannot be read are not its concern.
func (c *Config) mapNames(result *confparse.Result) confparse.Errors {
	a := c.Resolver.Access
	var errs confparse.Errors
	if a.Present || a.Name != "" {
		m, option := resolver.MapConfig{File: a.File}, "smar/access_map/file"
		if a.Name != "" {
			option = "smar/access_map/name"
			i := slices.IndexFunc(c.Resolver.Maps, func(m resolver.MapConfig) bool { return m.Name == a.Name })
			if i >= 0 {
				m = c.Resolver.Maps[i]
			}
		}
		errs = namesIn(errs, result, option, m, c.nameTags(false))
	}
	return namesIn(errs, result, "qmgr/conf", resolver.MapConfig{File: c.Queue.Conf}, c.nameTags(true))
}

// namesIn checks one map, which option names.
func namesIn(errs confparse.Errors, result *confparse.Result, option string, m resolver.MapConfig, tags []nameTag) confparse.Errors {
	if info, err := os.Stat(m.File); err != nil || info.Size() > maxNamesFile {
		return errs
	}
	_ = eachEntry(m, func(key, value string, line int) {
		for i := range tags {
			t := &tags[i]
			if !hasTag(key, t.tag) {
				continue
			}
			if err := t.check(value); err != nil {
				errs = append(errs, inMap(result, option, m.File, line, fmt.Sprintf("%s: %v", strconv.Quote(key), err)))
			}
		}
	})
	return errs
}

func hasTag(key, tag string) bool {
	return len(key) >= len(tag) && strings.EqualFold(key[:len(tag)], tag) || strings.EqualFold(key+":", tag)
}

// check checks a right hand side.
func (t *nameTag) check(value string) error {
	conf, err := access.ParseConf(value)
	if err != nil {
		return err
	}
	if name := t.value(&conf); name != "" && !slices.Contains(t.names, name) {
		return fmt.Errorf("%s %s: there is no section %s %s in %s", t.option, strconv.Quote(name), t.section, strconv.Quote(name), t.where)
	}
	return nil
}

// inMap is a diagnostic about an entry: of a text file at its line, else at the
// option that names the map.
func inMap(result *confparse.Result, option, file string, line int, message string) confparse.Diagnostic {
	if line > 0 {
		return confparse.Diagnostic{Pos: confparse.Pos{File: file, Line: line, Col: 1}, Severity: confparse.SeverityError, Message: message}
	}
	return result.Diagnose(confparse.SeverityError, option, "map %s, entry %s", file, message)
}

// eachEntry calls f for the entries of a map from a file. line is 0 if the file has
// none.
func eachEntry(m resolver.MapConfig, f func(key, value string, line int)) error {
	each := func(key, value []byte) error { f(string(key), string(value), 0); return nil }
	switch {
	case m.Type == "hash" || m.Type == "" && strings.HasSuffix(m.File, ".db"):
		h, err := maps.OpenHash(m.File)
		if err != nil {
			return err
		}
		return h.Each(each)
	case m.Type == "cdb" || m.Type == "" && strings.HasSuffix(m.File, ".cdb"):
		db, err := maps.OpenCDB(m.File, m.CaseSensitive)
		if err != nil {
			return err
		}
		return db.Each(each)
	case m.Type == "text" || m.Type == "":
		text, err := os.Open(m.File)
		if err != nil {
			return err
		}
		defer text.Close()
		return maps.ReadSource(text, m.File, func(e maps.Entry) error { f(e.Key, e.Value, e.Line); return nil })
	}
	return nil
}
