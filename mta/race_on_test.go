//go:build race

package mta

// raceEnabled: the race detector watches.
const raceEnabled = true
