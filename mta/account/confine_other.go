//go:build unix && !linux

package account

import "errors"

// emptyBoundingSet and noNewPrivileges have nothing to do: only Linux has these.
func emptyBoundingSet() error { return nil }
func noNewPrivileges() error  { return nil }

// LandlockPossible says why the option landlock cannot be obeyed.
func LandlockPossible() error {
	return errors.New("landlock is set, but only Linux has Landlock")
}

func LandlockTo([]string) error { return LandlockPossible() }
