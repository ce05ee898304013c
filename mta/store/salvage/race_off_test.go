//go:build !race

package salvage

const (
	// placesMany is about how many bytes of a file are damaged, each on its own.
	placesMany = 30
	// edgeStride: of the first and last bytes only each of so many.
	edgeStride = 1
)
