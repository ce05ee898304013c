package confparse

import (
	"fmt"
	"strconv"
	"strings"

	"meta1/confparse/syntax"
)

// Result is what is known of a configuration besides the values themselves.
type Result struct {
	// File is the absolute path of the configuration file, Files those of all files
	// that were read, in order, the first among them.
	File  string
	Files []string
	// Warnings are remarks on a valid configuration.
	Warnings []Diagnostic
	// NoEffect are the paths of what a file sets and that changes nothing: rows that
	// are Host, outside of service sections, and None. NotYet are those of rows that are
	// NotYet. Each has a warning, too.
	NoEffect, NotYet []string
	// Root is the global section; nil if the file's structure could not be read.
	Root *Section

	dir string
}

// Section is one section as it was read: the global one, or one that a file has,
// or the defaults of one that no file has.
type Section struct {
	Keyword string // "" for the global section
	Name    string // "" for none
	Table   *Table
	// Present: a file has the section.
	Present bool
	// Service: the section's keyword is none of the tables' (README 3.7).
	Service bool
	// Settings are the section's options and flags that have a value, in the order of
	// the table.
	Settings []*Setting
	// Subs are its sections, in the order of the table, then of the file.
	Subs []*Section

	row    *Option
	parent *Section
	at     syntax.Span
}

// Setting is the value of one option or flag.
type Setting struct {
	Option *Option
	// Value is an int64, time.Duration, bool, string, []string, netip.Addr or
	// []netip.Addr, in the unit of storage.
	Value any
	// IsSet: a file gives it; otherwise it is the default.
	IsSet bool

	at     syntax.Span
	failed bool
}

// Origin says where the value comes from; the zero Pos is the default.
func (s *Setting) Origin() Pos { return s.at.Pos() }

// Text gives the value in the syntax of the configuration file.
func (s *Setting) Text() string { return s.Option.format(s.Value) }

// Title is the section as it is written: keyword and name.
func (s *Section) Title() string {
	if s.Name == "" {
		return s.Keyword
	}
	return s.Keyword + " " + quote(s.Name)
}

// Path is where the section stands: its titles from the outermost one, with
// slashes between; "" for the global section.
func (s *Section) Path() string {
	if s.parent == nil {
		return ""
	}
	return joinPath(s.parent.Path(), s.Title())
}

// Pos is where the section begins.
func (s *Section) Pos() Pos { return s.at.Pos() }

func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// Setting finds the option or flag of that name, in any case; nil if it has no value.
func (s *Section) Setting(name string) *Setting {
	for _, k := range [...]Kind{KindOption, KindFlag} {
		for _, v := range s.Settings {
			if v.Option.kind() == k && strings.EqualFold(v.Option.Name, name) {
				return v
			}
		}
	}
	return nil
}

// sub finds a section by "keyword", "keyword name" or "keyword#n", n from 1.
func (s *Section) sub(title string) *Section {
	keyword, number, counted := strings.Cut(title, "#")
	n, _ := strconv.Atoi(number)
	for _, c := range s.Subs {
		switch {
		case counted && strings.EqualFold(c.Keyword, keyword):
			if n--; n == 0 {
				return c
			}
		case !counted && (strings.EqualFold(c.Title(), title) || strings.EqualFold(c.Keyword, title) ||
			strings.EqualFold(c.Keyword+" "+c.Name, title)):
			return c
		}
	}
	return nil
}

// locate follows a path such as "access_map/file" or "map local/type" as far as it
// leads.
func (s *Section) locate(path string) (*Section, *Setting) {
	for {
		head, rest, more := strings.Cut(path, "/")
		if !more {
			if v := s.Setting(head); v != nil {
				return s, v
			}
		}
		c := s.sub(head)
		if c == nil {
			return s, nil
		}
		if !more {
			return c, nil
		}
		s, path = c, rest
	}
}

// Origin says where the option, flag or section at a path was set: "hostname",
// "qmgr/DEFEDB/cache_size", "smtps MTA/access", "dnsbl#2/tag". isSet is false, and
// the Pos zero, for a default.
func (r *Result) Origin(path string) (pos Pos, isSet bool) {
	if r.Root == nil {
		return Pos{}, false
	}
	return r.Root.origin(path)
}

func (s *Section) origin(path string) (Pos, bool) {
	sec, v := s.locate(path)
	switch {
	case v != nil:
		return v.Origin(), v.IsSet
	case sec != s && sec.Present && strings.EqualFold(sec.Title(), path[strings.LastIndexByte(path, '/')+1:]):
		return sec.Pos(), true
	}
	return Pos{}, false
}

// Diagnose makes a diagnostic about the value at a path of Origin's kind, for checks
// that are made after Load: that files exist, that accounts may read them.
func (r *Result) Diagnose(sev Severity, path, format string, args ...any) Diagnostic {
	if r.Root == nil {
		return Diagnostic{Pos: Pos{File: r.File}, Severity: sev, Message: fmt.Sprintf(format, args...)}
	}
	return r.Root.diagnose(sev, path, fmt.Sprintf(format, args...))
}

// Diagnose is [Result.Diagnose] for a path below s. It is the way to a section that
// has no name of its own.
func (s *Section) Diagnose(sev Severity, path, format string, args ...any) Diagnostic {
	return s.diagnose(sev, path, fmt.Sprintf(format, args...))
}

// diagnose places a message at an option, or else at the section it would be in.
func (s *Section) diagnose(sev Severity, path, message string) Diagnostic {
	sec, v := s, (*Setting)(nil)
	if path != "" {
		sec, v = s.locate(path)
	}
	if v != nil && v.IsSet {
		return syntax.NewDiagnostic(sev, v.at, message)
	}
	for !sec.Present && sec.parent != nil {
		sec = sec.parent
	}
	if sec.parent == nil { // the file as a whole
		return Diagnostic{Pos: Pos{File: sec.at.Src.Name}, Severity: sev, Message: message}
	}
	return syntax.NewDiagnostic(sev, sec.at, message)
}

// HideSecrets puts *** in the place of every secret that Show and Values would show.
// What a table's fields hold stays.
func (r *Result) HideSecrets() {
	r.Each(func(_ *Section, v *Setting) {
		if v.Option.Secret && v.Value != "" {
			v.Value = "***"
		}
	})
}

// Each calls f for every setting, section by section.
func (r *Result) Each(f func(*Section, *Setting)) {
	if r.Root != nil {
		r.Root.each(f)
	}
}

func (s *Section) each(f func(*Section, *Setting)) {
	for _, v := range s.Settings {
		f(s, v)
	}
	for _, c := range s.Subs {
		c.each(f)
	}
}

// Report takes what a Table's Check finds. Its paths are relative to the checked
// section: an option's or flag's name, or one below a section as in
// [Result.Origin].
type Report struct {
	sec   *Section
	diags *syntax.Diags
	dir   string
}

// Errorf reports a mistake in the named option, or in the section if option is "".
// It says nothing about an option that was found wrong already.
func (r *Report) Errorf(option, format string, args ...any) {
	if _, v := r.sec.locate(option); option != "" && v != nil && v.failed {
		return
	}
	r.diags.Report(r.sec.diagnose(SeverityError, option, fmt.Sprintf(format, args...)))
}

// ErrorIn reports a mistake in the bytes from to to of the text of an option that is a
// boolean expression. suggestion is what was perhaps meant, or "".
func (r *Report) ErrorIn(option string, from, to int, message, suggestion string) {
	r.diags.Report(r.part(SeverityError, option, from, to, message, suggestion))
}

// WarnIn is ErrorIn for a remark that does not make the configuration invalid.
func (r *Report) WarnIn(option string, from, to int, message, suggestion string) {
	r.diags.Report(r.part(SeverityWarning, option, from, to, message, suggestion))
}

func (r *Report) part(sev Severity, option string, from, to int, message, suggestion string) Diagnostic {
	d := r.sec.diagnose(sev, option, message)
	if _, v := r.sec.locate(option); v != nil && v.IsSet {
		d = syntax.NewDiagnostic(sev, v.at.Part(from, to), message)
	}
	d.Suggestion = suggestion
	return d
}

// Warnf reports a remark that does not make the configuration invalid.
func (r *Report) Warnf(option, format string, args ...any) {
	r.diags.Report(r.sec.diagnose(SeverityWarning, option, fmt.Sprintf(format, args...)))
}

// Origin says where an option of the section was set; isSet is false, and the Pos
// zero, if it has its default.
func (r *Report) Origin(option string) (pos Pos, isSet bool) { return r.sec.origin(option) }

// Pos is where the checked section begins.
func (r *Report) Pos() Pos { return r.sec.Pos() }

// Name is the name of the checked section; "" for none.
func (r *Report) Name() string { return r.sec.Name }

// Dir is the folder of the configuration file, absolute (README 3.6, case 1).
func (r *Report) Dir() string { return r.dir }
