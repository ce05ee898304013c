package mta

import (
	"errors"

	"meta1/confparse"
)

// Exit statuses of sysexits.h.
const (
	ExOK          = 0
	ExUsage       = 64 // wrong command line
	ExDataErr     = 65 // wrong input
	ExNoUser      = 67 // no such recipient
	ExUnavailable = 69 // something needed is not there: a port is taken
	ExSoftware    = 70 // a failure of the program
	ExOSErr       = 71 // a failure of the system
	ExCantCreate  = 73 // a file cannot be made
	ExIOErr       = 74 // a file cannot be read or written
	ExTempFail    = 75 // may work later
	ExNoPerm      = 77 // not permitted
	ExConfig      = 78 // wrong configuration
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

// exit gives an error an exit status; nil stays nil.
func exit(status int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{status, err}
}

// ExitStatus is the exit status for an error of this package.
func ExitStatus(err error) int {
	var e *Error
	var conf confparse.Errors
	switch {
	case err == nil:
		return ExOK
	case errors.As(err, &e):
		return e.Status
	case errors.As(err, &conf):
		return ExConfig
	default:
		return ExSoftware
	}
}
