// Package resolver is SMAR: it says where mail goes and whether it may come in
// (README 3.9, 3.12). It owns the maps, the DNS cache and the greylisting store,
// and answers four ports:
//
//	Check   server -> resolver   the verdict of one stage of the SMTP dialogue
//	Route   queue -> resolver    the hops of a recipient, or what it expands to
//	Lookup  server -> resolver   an entry of a declared map, such as an account
//	Status  mta -> resolver      a snapshot
//
// What can be answered from memory is answered at once by a few workers. A question
// that needs DNS or a socket map gets a goroutine of its own, so that a slow server
// never holds up other questions. Every answer carries its reasons (msg.Trace).
//
// All maps of one moment form a set that never changes, and so does a Resolver, which has all that one
// configuration says. A reload makes another one with another set (Prepare) and puts it in the place of the old
// (Commit); questions in progress finish with the old one. What both have in common is in their hall.
package resolver
