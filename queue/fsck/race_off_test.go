//go:build !race

package fsck

const (
	raceEnabled = false
	// damageStride and crashStride: only each of so many cases is tried.
	damageStride = 1
	crashStride  = 19
	// recordSeeds is how often records are changed at random; of the findings one in
	// findingStride is tried.
	recordSeeds   = 40
	findingStride = 1
)
