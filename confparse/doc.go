// Package confparse reads meta1's configuration language (README 3.2): option tables,
// values, checks, dump. A module declares each option once, as a row of its [Table];
// everything else is made from that row. Package syntax has the grammar, package
// manual what people read of the tables.
//
// [Load] reads a file and what it includes, fills the fields the rows point to,
// applies defaults, checks limits, and reports every mistake it finds, each with
// its place. A configuration that Load refused must not be used: some of its
// fields are filled, some are not.
//
// What one configuration may cost is bounded: [MaxBytes] of text in all files,
// [syntax.MaxNodes] entries and values, [syntax.MaxDepth] nested sections,
// [syntax.MaxDiagnostics] reports.
//
// The package keeps no state of its own, writes no file and logs nothing.
package confparse
