// Package mailutils reads configurations in the language of GNU Mailutils, in which
// mailfromd and pmult are configured (Mailutils manual, "Configuration File Syntax" and the
// sections behind it).
//
//	keyword value value ...;
//	keyword (value, value, ...);
//	keyword [tag] { statements }
//	include FILE;            # or a folder, with a file named as the program
//	program NAME { ... }     # read behind all else, if the program has that name
//
// A value is a word of letters, digits and _ - . / @ * : , a string in double quotes (adjacent
// ones are joined), a here-document or a list in parentheses. Comments begin with # or // and
// end with the line, or stand between /* and */.
//
// The package knows no statement but include and program: its caller gives every other one its
// meaning. Everything is bounded: see syntax.MaxBytes, syntax.MaxDepth and syntax.MaxNodes.
package mailutils
