// Package mta composes one MTA: it reads the configuration, binds all sockets,
// drops root's privileges, builds the four modules and joins their ports, starts
// the services, and supervises all of them. It does the work of MeTA1's MCP
// (README 3.7, 4.1).
//
// The order of a start, which MTA.Run follows, is:
//
//	read and check the configuration      nothing is touched before it is right
//	bind the sockets of TCP               all of them or none
//	make the main queue directory         only if it is missing; taken back after an error
//	lock it, open the log file            with the rights of the account that serves
//	bind the sockets of Unix              so, too; root those in folders of its own
//	start the monitor                     with services of other accounts, keys of root's, or Landlock
//	drop the privileges                   for all threads, and for good
//	start services, smar, smtpc, qmgr, smtps, each when those before it serve
//
// As root nothing is opened below a folder that the account may write: a link there could
// lead anywhere.
//
// The stop goes the other way round: listeners, sessions, deliveries, journal. An upgrade (upgrade.go) is a stop that can be
// taken back, while a second process goes through the start (takeover.go) up to the lock and waits for it.
//
// The package keeps no state: several MTAs can run in one process.
package mta
