package mta

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/settings"
	"meta1/resolver"
	"meta1/resolver/access"
	"meta1/resolver/alias"
	"meta1/resolver/mailertable"
)

// maxEntryErrors bounds the mistakes that are told of the entries of one map.
const maxEntryErrors = 20

// errEnough ends the reading of a map.
var errEnough = errors.New("enough")

// mapEntries reads the entries of the maps that smar uses and finds those that cannot be
// used or can have no effect: a mistyped rule would vanish silently, or fail at the
// first mail. Of a map it tells at most maxEntryErrors mistakes. Maps that are no files
// of keys, that cannot be read or that are larger than settings.MapFileMax are not its concern.
func mapEntries(c *Config, result *confparse.Result) confparse.Errors {
	var lists []string
	for _, l := range c.Resolver.DNSBLs {
		lists = append(lists, l.Tag)
	}
	tags := access.Tags(lists...)
	var errs confparse.Errors
	for _, m := range []struct {
		section string
		ref     resolver.MapRef
		check   func(key, value string) error
	}{
		{"access_map", c.Resolver.Access, func(key, value string) error { return access.CheckEntry(tags, key, value) }},
		{"aliases", c.Resolver.Aliases.MapRef, alias.CheckEntry},
		{"mailertable", resolver.MapRef{Name: c.Resolver.Mailertable.Name}, mailertable.CheckEntry}, // as a file it is read at the start
	} {
		option := "smar/" + m.section + "/file"
		if m.ref.Name != "" {
			option = "smar/" + m.section + "/name"
		}
		for _, file := range c.MapFiles(m.ref) {
			errs = append(errs, entriesOf(result, option, file, m.check)...)
		}
	}
	return errs
}

// entriesOf checks one map, which option names.
func entriesOf(result *confparse.Result, option string, m resolver.MapConfig, check func(key, value string) error) (errs confparse.Errors) {
	if info, err := os.Stat(m.File); err != nil || info.Size() > settings.MapFileMax {
		return nil
	}
	_ = maps.EachEntry(m.File, m.Type, func(e maps.Entry) error {
		err := check(e.Key, e.Value)
		if err == nil {
			return nil
		}
		if len(errs) == maxEntryErrors {
			errs = append(errs, result.Diagnose(confparse.SeverityError, option, "map %s has more wrong entries", m.File))
		}
		if len(errs) > maxEntryErrors {
			return errEnough
		}
		errs = append(errs, inMap(result, option, m.File, e.Line, fmt.Sprintf("%q: %v", e.Key, oneLine(err))))
		return nil
	})
	return errs
}

// oneLine is the text of an error that may be joined of several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
