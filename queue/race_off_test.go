//go:build !race

package queue

// crashStride 1: a crash before every write.
const crashStride = 1

// hugeRcpts is the size of the huge message; see TestHugeMessageHoldsNobodyUp.
const hugeRcpts = 100_000

// startMessages is the size of the queue in TestStartWithManyDeferred.
const startMessages = 10_000

// restartStride 1: TestModulesRestart restarts a module at each step.
const restartStride = 1

// simMessages is the size of a short simulation.
const simMessages = 400

// faultStride: TestFaultAtAnyCall has each so manieth call fail in each of four ways.
const faultStride = 24

// raceDetector: the tests run with the race detector, which makes sync.Pool forget.
const raceDetector = false
