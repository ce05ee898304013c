// Package syntax reads the text of meta1's configuration language (README 3.2) into a
// tree of entries, lays text out anew, and says of every mistake where it stands. It
// knows no option: what names mean is the concern of package confparse.
//
// It goes on after a mistake, so that all of them are found. What it may cost is
// bounded: [MaxBytes], [MaxNodes], [MaxDepth], [MaxDiagnostics].
package syntax
