//go:build !race

package queue

// crashStride 1: a crash before every write.
const crashStride = 1
