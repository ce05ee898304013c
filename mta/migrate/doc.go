// Package migrate translates the configuration of Postfix, which package postfix reads, to one of
// meta1: a configuration file, its maps, and a report that has every parameter that is set in exactly
// one group. It writes nothing but what Write is told to, asks no running program, and has no state.
//
// Rows says what becomes of each parameter; the tables of docs/from-postfix.md are made of it. What a
// parameter becomes in one configuration may be worse than its row promises, never better, and the
// report says so.
package migrate
