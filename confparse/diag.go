package confparse

import "meta1/confparse/syntax"

// What is said of a configuration has its place in the text: see package syntax.
type (
	// Pos is a place in a configuration file; the zero Pos stands for "default".
	Pos = syntax.Pos
	// Severity tells a mistake from a remark.
	Severity = syntax.Severity
	// Diagnostic is one mistake in a configuration, or one remark on it.
	Diagnostic = syntax.Diagnostic
	// Errors is the error of [Load]: every mistake of the configuration, by file and
	// line. It is never empty when returned as an error.
	Errors = syntax.Errors
)

// The severities.
const (
	SeverityError   = syntax.SeverityError
	SeverityWarning = syntax.SeverityWarning
)

// MaxBytes bounds the text of one configuration, all included files together.
const MaxBytes = syntax.MaxBytes

// Format gives the text of a configuration file in the canonical layout, see
// [syntax.Format].
func Format(name string, text []byte) ([]byte, error) { return syntax.Format(name, text) }
