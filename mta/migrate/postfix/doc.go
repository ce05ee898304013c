// Package postfix reads Postfix's configuration as Postfix itself does: main.cf, master.cf, the
// expansion of $name in values, lists, and the text of lookup tables. It changes nothing, asks nobody,
// and knows nothing of meta1; package migrate translates what is read here.
//
// All of it is bounded: the size of files, lines, values and tables, the depth of expansion and of
// included files.
package postfix
