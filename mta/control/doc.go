// Package control is the control socket of a running meta1: its API, the server side,
// and the client that mailq, ctl and healthcheck use.
//
// It speaks HTTP with JSON bodies over a Unix socket, whose permissions are its
// access control:
//
//	GET  /status              Status: modules, sockets, what each module tells
//	GET  /queue?after=&max=   Page: recipients in the queue, in order
//	POST /queue               Operation; Operated: hold, release, flush, requeue, remove, expire
//	POST /fsck                FsckQuestion; FsckAnswer: checks a part of the databases
//	GET  /healthz             Health: status 200, or 503 with the reasons
//	POST /reload              ReloadReport: maps and log levels are read anew
//
// An error is an object with the member error and a status of 400 or above.
package control
