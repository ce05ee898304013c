//go:build !race

package client

// raceDetector: the tests run with the race detector, which makes sync.Pool forget.
const raceDetector = false
