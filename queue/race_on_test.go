//go:build race

package queue

// crashStride: the race detector makes the crash test ten times slower, so it looks
// at a part of the crashes; the plain run looks at all.
const crashStride = 23

// hugeRcpts is the size of the huge message; see TestHugeMessageHoldsNobodyUp.
const hugeRcpts = 8_000

// startMessages is the size of the queue in TestStartWithManyDeferred.
const startMessages = 1_500

// restartStride: TestModulesRestart restarts a module at each so manieth step.
const restartStride = 3

// simMessages is the size of a short simulation.
const simMessages = 60

// faultStride: TestFaultAtAnyCall has each so manieth call fail in each of four ways.
const faultStride = 192

// raceDetector: the tests run with the race detector, which makes sync.Pool forget.
const raceDetector = true
