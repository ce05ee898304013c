package mta

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/settings"
	"meta1/queue/conf"
	"meta1/resolver"
	"meta1/resolver/access"
)

// A nameTag is a tag of a map whose right hand side names a section session_features
// (README 3.10.1, 3.11.1).
type nameTag struct {
	tag   string
	where string // the section that has the session_features
	names []string
	idle  string // why the entries have no effect, "" if they have
}

// accessTags are those of the access map.
func accessTags(c *Config) []nameTag {
	var names []string
	noSessionConf, noServerRcptConf := "without flag lookup_session_conf of smtps", "without flag rcpt_conf of smtps"
	for _, s := range c.Servers {
		for _, f := range s.Server.SessionFeatures {
			names = append(names, f.Name)
		}
		if s.Server.Flags.LookupSessionConf {
			noSessionConf = ""
		}
		if s.Server.Flags.RcptConf {
			noServerRcptConf = ""
		}
	}
	noRcptConf := ""
	if !c.Queue.SMTPC.LookupRcptConf {
		noRcptConf = "without flag lookup_rcpt_conf of qmgr.smtpc"
	}
	return []nameTag{
		{"smtpc_session_conf:", "smtpc", c.ClientFeatures(), "in the access map: QMGR looks them up in its own (option conf of qmgr)"},
		{"smtpc_rcpt_conf:", "smtpc", c.ClientFeatures(), noRcptConf},
		{"smtps_session_conf:", "smtps", names, noSessionConf},
		{"smtps_se_conf:", "smtps", names, noSessionConf},
		{"smtps_rcpt_conf:", "smtps", names, noServerRcptConf},
	}
}

// mapNames checks that the sections exist that the access map and QMGR's
// configuration map name. Maps that cannot be read are not its concern.
func mapNames(c *Config, result *confparse.Result) confparse.Errors {
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
		errs = namesIn(errs, result, option, m, accessTags(c))
	}
	return append(errs, confMap(c, result)...)
}

// confMap reads QMGR's configuration map as QMGR will. That it is missing is not its
// concern.
func confMap(c *Config, result *confparse.Result) confparse.Errors {
	names := c.Queue.Names(c.ClientFeatures())
	if _, err := os.Stat(c.Queue.Conf); c.Queue.Conf == "" || err != nil {
		return nil
	}
	table, err := conf.Open(c.Queue.Conf, names)
	if err == nil {
		if table.Sessions() > 0 && !c.Queue.LooksSessionsUp(names.Features) {
			result.Warnings = append(result.Warnings, result.Diagnose(confparse.SeverityWarning, "qmgr/conf",
				"configuration map %s: entries smtpc_session_conf: have no effect without flag lookup_session_conf of qmgr.smtpc", c.Queue.Conf))
		}
		return nil
	}
	all := []error{err}
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		all = many.Unwrap()
	}
	var errs confparse.Errors
	for _, e := range all {
		if line := (*maps.LineError)(nil); errors.As(e, &line) {
			errs = append(errs, confparse.Diagnostic{
				Pos: confparse.Pos{File: line.File, Line: line.Line, Col: 1}, Severity: confparse.SeverityError, Message: line.Err.Error(),
			})
			continue
		}
		errs = append(errs, result.Diagnose(confparse.SeverityError, "qmgr/conf", "configuration map %s: %v", c.Queue.Conf, e))
	}
	return errs
}

// namesIn checks one map, which option names.
func namesIn(errs confparse.Errors, result *confparse.Result, option string, m resolver.MapConfig, tags []nameTag) confparse.Errors {
	if info, err := os.Stat(m.File); err != nil || info.Size() > settings.MapFileMax {
		return errs
	}
	if m.Type == "" {
		m.Type = maps.TypeOf(m.File)
	}
	if !slices.Contains([]string{"hash", "cdb", "text"}, m.Type) {
		return errs
	}
	_ = maps.EachEntry(m.File, m.Type, func(e maps.Entry) error {
		key, value, line := e.Key, e.Value, e.Line
		for i := range tags {
			t := &tags[i]
			if !hasTag(key, t.tag) {
				continue
			}
			if t.idle != "" {
				d := inMap(result, option, m.File, line, fmt.Sprintf("entries %s have no effect %s", t.tag, t.idle))
				d.Severity = confparse.SeverityWarning
				result.Warnings = append(result.Warnings, d)
				t.idle = "" // once is enough
			}
			if err := t.check(value); err != nil {
				errs = append(errs, inMap(result, option, m.File, line, fmt.Sprintf("%s: %v", strconv.Quote(key), err)))
			}
		}
		return nil
	})
	return errs
}

func hasTag(key, tag string) bool {
	return len(key) >= len(tag) && strings.EqualFold(key[:len(tag)], tag) || strings.EqualFold(key+":", tag)
}

// check checks a right hand side, if it is a structured one.
func (t *nameTag) check(value string) error {
	if other, err := access.Parse(value); err == nil && other.Word != access.Other {
		return nil
	}
	rhs, err := msg.ParseConf(value)
	if err != nil {
		return err
	}
	if name := rhs.SessionFeature; name != "" && !slices.Contains(t.names, name) {
		return fmt.Errorf("session_feature %s: there is no section session_features %s in %s", strconv.Quote(name), strconv.Quote(name), t.where)
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
