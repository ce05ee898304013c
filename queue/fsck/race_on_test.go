//go:build race

package fsck

const (
	raceEnabled = true
	// damageStride and crashStride: only each of so many cases is tried.
	damageStride = 13
	crashStride  = 101
)
