// Package control is the control socket of a running meta1: its API, the server side,
// and the client that mailq, ctl and healthcheck use.
//
// It speaks HTTP with JSON bodies. The table of its operations is in routes.go: what serves them, who
// may use them (package mta/access), and docs/openapi.json come from it. The same API is served
// over the control socket and, if that is configured, over TCP.
//
// An error is an object with the member error and a status of 400 or above.
package control
