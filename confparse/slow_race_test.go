//go:build race

package confparse

const slowdown = 20 // the race detector's price
