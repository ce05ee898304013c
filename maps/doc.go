// Package maps looks keys up in tables of every kind that README 3.9.1 names,
// behind one interface, and holds the lookup orders of README 3.12.1.
//
// A Map is read-only and safe for use by many goroutines at once. Maps that come
// from a file are read completely when they are opened, so that a file which is
// rewritten later never shows half of its content: a reload opens a new Map and
// drops the old one.
package maps
