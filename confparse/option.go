package confparse

import "strings"

// Type is the type of an option's value, with the words of the option list
// (meta1 config options, column type). Into says which Go type it is stored as.
type Type string

// The types. Sizes are stored in bytes and times as time.Duration, whatever the
// unit of a bare number is.
const (
	Int     Type = "int"                // any integer; with a size unit *int64 in bytes
	Size    Type = "size"               // *int64, in bytes
	Time    Type = "time"               // *time.Duration
	Bool    Type = "bool"               // *bool
	String  Type = "string"             // *string
	Enum    Type = "enum"               // *string; one of Words, stored as written there
	List    Type = "list"               // *[]string
	Flags   Type = "flags"              // *[]string: words of Words; a negated one (README 8.1.1) as "no_" and the word, see HasFlag
	IP      Type = "ip"                 // *netip.Addr
	IPList  Type = "list of ip"         // *[]netip.Addr
	File    Type = "file"               // *string: relative to the configuration file's folder (README 3.6, case 1)
	Dir     Type = "dir"                // *string: relative to the main queue directory (README 3.6, case 2)
	Path    Type = "path"               // *string: a socket or program; relative to the main queue directory
	Address Type = "address"            // *string: an RFC 5321 address, angle brackets optional; stored without
	MapName Type = "map name"           // *string: the name of a declared map
	Expr    Type = "boolean expression" // *string: the raw text behind == (README 8.5.1)
)

// Kind says what stands behind a name.
type Kind string

// The kinds of a row.
const (
	KindOption  Kind = "option"
	KindSection Kind = "section"
	KindFlag    Kind = "flag" // a word of the section's flags = { } option; Into is *bool
)

// Effect says whether an option changes what meta1 does.
type Effect string

// The effects.
const (
	Real   Effect = "real"    // changes behaviour
	Host   Effect = "host"    // belongs to MeTA1's many-process form; parsed, checked, no effect but in service sections
	None   Effect = "none"    // parsed and checked, changes nothing: what it is about does not exist here
	NotYet Effect = "not yet" // parsed and checked, not obeyed yet
)

// Option is one row of a module's table: everything that is known of one option.
// Parser, checks, defaults, dump and manual are made from it alone.
type Option struct {
	Name string
	Kind Kind // "" means KindOption
	Type Type
	// Words are the values of an Enum or of Flags.
	Words []string
	// Unit of a bare number: "s", "ms", "B", "KB", "entries", ...; "" for none.
	Unit string
	// Default in the syntax of the configuration file; "" leaves the field as it is.
	Default string
	// DefaultWords say what holds if no file gives a value, for a default that is not
	// one value: "host's own FQDN". For lists and manuals only.
	DefaultWords string
	// Min and Max bound the value, in the syntax of the configuration file; "" for none.
	Min, Max string
	// Doc is one sentence (or a few) for the manual: what it does, and where the
	// default comes from if the README states none.
	Doc string
	// Readme is the section of MeTA1's README, or "own" for an option of ours.
	Readme string
	// Effect; "" means Real. What stands in a section that is NotYet is NotYet, too.
	Effect Effect
	// Reload says when a change takes effect; "" means Restart, see [Table.Declare]. Why is the reason
	// for Restart, a clause for manuals and for ctl reload: "the account is taken at the start".
	Reload Reload
	Why    string
	// Secret: a password or a key; String. No diagnostic shows its line, and
	// [Result.HideSecrets] hides its value.
	Secret bool
	// Required: the section must give it.
	Required bool
	// Into points to the field that takes the value. Its Go type must fit Type.
	Into any
	// Sub is the table of a KindSection that stands at most once. It is read also
	// when the section is absent, for its defaults; Required, Check and Done do not
	// count then. Present, if not nil, is set when the section is there.
	Sub     *Table
	Present *bool
	// New makes the table of one more instance of a repeatable section. name is ""
	// for a section without a name. Named says that a name is required. It is also
	// called with a throw-away name to list the section's options, so the new
	// element must be added to the configuration in Table.Done. Words, if any, are
	// the names that are allowed. Two instances of one name are a mistake, unless
	// Words or Repeat say that the name is none of its own (check mail, README 8.5.1).
	New    func(name string) *Table
	Named  bool
	Repeat bool
}

// Table is the option table of one section.
type Table struct {
	Options []Option
	// Check makes the cross-checks of the section after all its values are read.
	// Nil for none.
	Check func(r *Report)
	// Done is called when an instance of a repeatable section was read and
	// checked; it adds the instance to the configuration. Nil for none.
	Done func()
	// Any makes the table of a section whose keyword no row declares, or nil if it is
	// not to be. With it every unknown keyword is a service section (README 3.3, 3.7);
	// name is "" for a section without a name. It is called with throw-away names to
	// list the options. Host rows have an effect there.
	Any func(keyword, name string) *Table
}

// Merge makes one table of several: the rows of all in order, and their Check and
// Done one after the other. Of two rows with one name the first counts. A nil
// table is passed over.
func Merge(tables ...*Table) *Table {
	m := &Table{}
	var checks []func(*Report)
	var dones []func()
	for _, t := range tables {
		if t == nil {
			continue
		}
		for _, o := range t.Options {
			if m.find(o.kind(), o.Name) == nil {
				m.Options = append(m.Options, o)
			}
		}
		if t.Check != nil {
			checks = append(checks, t.Check)
		}
		if t.Done != nil {
			dones = append(dones, t.Done)
		}
		if m.Any == nil {
			m.Any = t.Any
		}
	}
	if len(checks) > 0 {
		m.Check = func(r *Report) {
			for _, check := range checks {
				check(r)
			}
		}
	}
	if len(dones) > 0 {
		m.Done = func() {
			for _, done := range dones {
				done()
			}
		}
	}
	return m
}

func (o *Option) kind() Kind {
	if o.Kind == "" {
		return KindOption
	}
	return o.Kind
}

// find gives the row of that kind and name, in any case, or nil.
func (t *Table) find(k Kind, name string) *Option {
	for i := range t.Options {
		if o := &t.Options[i]; o.kind() == k && strings.EqualFold(o.Name, name) {
			return o
		}
	}
	return nil
}

// names lists the rows of a kind.
func (t *Table) names(k Kind) []string {
	var names []string
	for i := range t.Options {
		if t.Options[i].kind() == k {
			names = append(names, t.Options[i].Name)
		}
	}
	return names
}
