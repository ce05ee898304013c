// Package confparse reads meta1's configuration language (README 3.2): lexer,
// parser, option tables, checks, dump and documentation. A module declares each
// option once, as a row of its [Table]; everything else is made from that row.
//
// [Load] reads a file and what it includes, fills the fields the rows point to,
// applies defaults, checks limits, and reports every mistake it finds, each with
// its place. A configuration that Load refused must not be used: some of its
// fields are filled, some are not.
//
// What one configuration may cost is bounded: [MaxBytes] of text in all files,
// maxNodes entries and values, maxDepth nested sections, maxDiagnostics reports.
//
// The package keeps no state of its own, writes no file and logs nothing.
package confparse
