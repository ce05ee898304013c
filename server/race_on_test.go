//go:build race

package server

// raceDetector: the tests run with the race detector, which makes sync.Pool forget.
const raceDetector = true
