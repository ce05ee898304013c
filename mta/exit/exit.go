// Package exit gives errors the exit status by which the program tells of them (sysexits.h).
package exit

import (
	"errors"

	"meta1/confparse"
)

// Exit statuses of sysexits.h.
const (
	OK          = 0
	Usage       = 64 // wrong command line
	DataErr     = 65 // wrong input
	NoUser      = 67 // no such recipient
	Unavailable = 69 // something needed is not there: a port is taken
	Software    = 70 // a failure of the program
	OSErr       = 71 // a failure of the system
	CantCreate  = 73 // a file cannot be made
	IOErr       = 74 // a file cannot be read or written
	TempFail    = 75 // may work later
	NoPerm      = 77 // not permitted
	Config      = 78 // wrong configuration
)

// Error is an error with the exit status that tells of it.
type Error struct {
	Status int
	Err    error
}

// Error is the text of the cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// With gives an error an exit status; nil stays nil.
func With(status int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{status, err}
}

// Status is the exit status for an error: the one that With gave it, Config for what is wrong in a configuration, Software for
// any other.
func Status(err error) int {
	var e *Error
	var conf confparse.Errors
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Status
	case errors.As(err, &conf):
		return Config
	default:
		return Software
	}
}
