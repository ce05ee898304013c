// Package confparse reads meta1's configuration language (README 3.2): lexer,
// parser, option tables, checks, dump and documentation. A module declares each
// option once, as a row of its table; everything else is made from that row.
package confparse
