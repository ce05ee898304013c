package mta

import (
	"fmt"
	"os"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/settings"
	"meta1/resolver"
	"meta1/server/auth"
)

// passwordMaps reads the entries of the maps with passwords. Those that cannot be read are
// errors; it warns of passwords in the clear, of files that everybody may read, and of
// entries with which an account cannot use a mechanism that is offered. No message has
// anything of a value.
func passwordMaps(c *Config, result *confparse.Result) (errs confparse.Errors, warnings []confparse.Diagnostic) {
	for _, s := range c.Servers {
		a := &s.Server.Auth
		if !s.Server.AuthPresent || a.PasswordMap == "" {
			continue
		}
		option := s.Of.Section + "/auth/password_map"
		for _, file := range c.MapFiles(resolver.MapRef{Name: a.PasswordMap}) {
			e, w := passwordFile(result, option, file, a.Offers())
			errs, warnings = append(errs, e...), append(warnings, w...)
		}
	}
	return errs, warnings
}

// passwordFile reads one of them.
func passwordFile(result *confparse.Result, option string, m resolver.MapConfig, offered []string) (errs confparse.Errors, warnings []confparse.Diagnostic) {
	entries := 0
	told := map[string]bool{} // once for each file is enough
	warn := func(e maps.Entry, what, format string, args ...any) {
		if told[what] {
			return
		}
		told[what] = true
		d := inMap(result, option, m.File, e.Line, fmt.Sprintf("%q: ", e.Key)+fmt.Sprintf(format, args...))
		d.Severity = confparse.SeverityWarning
		warnings = append(warnings, d)
	}
	info, err := os.Stat(m.File)
	if err != nil || info.Size() > settings.MapFileMax {
		return nil, nil // that it is missing is told elsewhere
	}
	_ = maps.EachEntry(m.File, m.Type, func(e maps.Entry) error {
		entries++
		secret, err := auth.ParseSecret(e.Value)
		switch {
		case err != nil && len(errs) == maxEntryErrors:
			errs = append(errs, result.Diagnose(confparse.SeverityError, option, "map %s has more wrong entries", m.File))
			return errEnough
		case err != nil:
			errs = append(errs, inMap(result, option, m.File, e.Line, fmt.Sprintf("%q: %v", e.Key, err)))
			return nil
		case secret.HasPlain():
			warn(e, "{PLAIN}", "the password stands there in the clear; only CRAM-MD5 needs that")
		}
		for _, mechanism := range offered {
			if !secret.Serves(mechanism) && secret.HasPassword() {
				warn(e, mechanism, "%s is offered and this entry has no form for it: clients that choose it fail (option mechanisms)", mechanism)
			}
		}
		return nil
	})
	if mode := info.Mode().Perm(); entries > 0 && mode&0o007 != 0 {
		warnings = append(warnings, result.Diagnose(confparse.SeverityWarning, option, "everybody may read the passwords in %s (mode %04o)", m.File, mode))
	}
	return errs, warnings
}
