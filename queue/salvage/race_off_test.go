//go:build !race

package salvage

// placesMany is about how many bytes of a file are damaged, each on its own.
const placesMany = 30
