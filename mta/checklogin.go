package mta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	clientauth "meta1/client/auth"
	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/settings"
	"meta1/resolver"
)

// readToken reads a file with a token that the configuration names, with root's help where it
// is needed.
func (m *mta) readToken(path string) ([]byte, error) { return m.tlsFiles.token(path) }

func (f *tlsFiles) token(path string) ([]byte, error) {
	content, _, err := f.Read(path, "")
	return content, err
}

// loginMaps reads the entries of the maps with accounts at other hosts, and the files with
// tokens. Entries that cannot be read are errors; it warns of files that everybody may read, and
// of tokens that cannot be read now: whoever renews them may not have begun yet. No message has
// anything of a value.
func loginMaps(c *Config, result *confparse.Result, files *tlsFiles) (errs confparse.Errors, warnings []confparse.Diagnostic) {
	warn := func(option, format string, args ...any) {
		warnings = append(warnings, result.Diagnose(confparse.SeverityWarning, option, format, args...))
	}
	told := map[string]bool{}                 // files of which it is told that everybody may read them
	ours := &tlsFiles{account: files.account} // without root's help, for what the configuration does not name
	for _, s := range c.Logins() {
		token := func(option, path string, by *tlsFiles) {
			content, err := by.token(path)
			if err == nil {
				_, err = clientauth.ParseToken(content)
			}
			switch {
			case err != nil:
				warn(option, "the token in %s cannot be used: %v", path, err)
			default:
				if info, err := os.Stat(path); err == nil && info.Mode()&0o007 != 0 {
					warn(option, "everybody may read the token in %s (mode %04o)", path, info.Mode().Perm())
				}
			}
		}
		if s.Auth.TokenFile != "" {
			token(s.Path+"/token_file", s.Auth.TokenFile, files)
		}
		option := s.Path + "/password_map"
		for _, m := range c.MapFiles(resolver.MapRef{Name: s.Auth.PasswordMap}) {
			info, err := os.Stat(m.File)
			if err != nil || info.Size() > settings.MapFileMax {
				continue // that it is missing is told elsewhere
			}
			entries := 0
			tokens := map[string]bool{} // once is enough
			err = maps.EachEntry(m.File, m.Type, func(e maps.Entry) error {
				entries++
				l, err := clientauth.ParseEntry(e.Value, s.Auth.TokenFile)
				switch {
				case err != nil && len(errs) >= maxEntryErrors:
					errs = append(errs, result.Diagnose(confparse.SeverityError, option, "map %s has more wrong entries", m.File))
					return errEnough
				case err != nil:
					errs = append(errs, inMap(result, option, m.File, e.Line, fmt.Sprintf("%q: %v", e.Key, err)))
				case l.TokenFile != "" && !l.Configured && !tokens[l.TokenFile] && len(tokens) < maxEntryErrors:
					tokens[l.TokenFile] = true
					token(option, l.TokenFile, ours)
				}
				return nil
			})
			if mode := info.Mode().Perm(); entries > 0 && mode&0o007 != 0 && !told[m.File] {
				told[m.File] = true
				warn(option, "everybody may read the passwords in %s (mode %04o)", m.File, mode)
			}
			if errors.Is(err, fs.ErrPermission) {
				errs = append(errs, result.Diagnose(confparse.SeverityError, option, "map %s cannot be read", m.File))
			}
		}
	}
	return errs, warnings
}
