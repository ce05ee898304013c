package confparse

// Type is the type of an option's value, with the words of the option list
// (meta1 config options, column type). Into says which Go type it is stored as.
type Type string

// The types. Sizes are stored in bytes and times as time.Duration, whatever the
// unit of a bare number is.
const (
	Int     Type = "int"    // *int, *int64, *uint8; with a size unit *int64 in bytes
	Size    Type = "size"   // *int64, in bytes
	Time    Type = "time"   // *time.Duration
	Bool    Type = "bool"   // *bool
	String  Type = "string" // *string
	Enum    Type = "enum"   // *string; one of Words, stored as written there
	List    Type = "list"   // *[]string
	Flags   Type = "flags"  // *[]string: words of Words, each may be negated (README 8.1.1)
	IP      Type = "ip"     // *netip.Addr
	IPList  Type = "list of ip"
	File    Type = "file"               // *string: relative to the configuration file's folder (README 3.6, case 1)
	Dir     Type = "dir"                // *string: relative to the main queue directory (README 3.6, case 2)
	Path    Type = "path"               // *string: a socket or program; relative to the main queue directory
	Address Type = "address"            // *string: an RFC 5321 address, angle brackets optional
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
	Real Effect = "real" // changes behaviour
	Host Effect = "host" // belongs to MeTA1's many-process form; parsed, checked, no effect here
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
	// Min and Max bound the value, in the syntax of the configuration file; "" for none.
	Min, Max string
	// Doc is one sentence (or a few) for the manual: what it does, and where the
	// default comes from if the README states none.
	Doc string
	// Readme is the section of MeTA1's README, or "own" for an option of ours.
	Readme string
	// Effect; "" means Real.
	Effect Effect
	// Reload: a change takes effect at a reload. Otherwise it needs a restart.
	Reload bool
	// Required: the section must give it.
	Required bool
	// Into points to the field that takes the value. Its Go type must fit Type.
	Into any
	// Sub is the table of a KindSection that stands at most once. It is read also
	// when the section is absent, for its defaults. Present, if not nil, is set when
	// the section is there.
	Sub     *Table
	Present *bool
	// New makes the table of one more instance of a repeatable section. name is ""
	// for a section without a name. Named says that a name is required. It is also
	// called with a throw-away name to list the section's options, so the new
	// element must be added to the configuration in Table.Done.
	New   func(name string) *Table
	Named bool
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
}
