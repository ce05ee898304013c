//go:build !race

package fsck

const (
	raceEnabled = false
	// damageStride and crashStride: only each of so many cases is tried.
	damageStride = 1
	crashStride  = 19
)
