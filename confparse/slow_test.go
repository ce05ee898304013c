//go:build !race

package confparse

// slowdown is how much slower the tests may be than what is promised.
const slowdown = 1
