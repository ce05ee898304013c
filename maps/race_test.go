//go:build race

package maps

// raceEnabled: times mean nothing under the race detector.
const raceEnabled = true
