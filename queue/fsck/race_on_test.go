//go:build race

package fsck

const (
	raceEnabled = true
	// damageStride and crashStride: only each of so many cases is tried.
	damageStride = 13
	crashStride  = 101
	// recordSeeds is how often records are changed at random; of the findings one in
	// findingStride is tried.
	recordSeeds   = 4
	findingStride = 7
)
