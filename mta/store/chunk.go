package store

import (
	"encoding/binary"
	"hash/crc32"
)

// Pebble's logs and its manifest are made of blocks, a block of chunks. The header
// of a chunk, little endian: checksum 4, length 2, encoding 1; in a log then the
// number of the log 4, and in one of the present format how far the log was synced
// when the chunk was written 8.
const (
	// BlockLen is the length of a block. A chunk never crosses its end.
	BlockLen = 32 << 10

	// ChunkMin is the least length of a chunk of a log, HeaderMax the most that its
	// header takes.
	ChunkMin  = numberedHeader
	HeaderMax = syncedHeader

	plainHeader    = 7
	numberedHeader = 11
	syncedHeader   = 19

	firstPlain    = 1
	firstNumbered = 5
	firstSynced   = 9
	lastSynced    = 12
)

// Part says which part of a record a chunk holds.
type Part uint8

// The parts of a record.
const (
	Full Part = iota
	First
	Middle
	Last
)

// Chunk is one chunk of a log or of the manifest.
type Chunk struct {
	Part    Part
	Len     int // with the header
	Payload []byte
	Synced  uint64 // how far the log was synced when it was written; 0 in older formats
	present bool   // it has the present format of a log
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// LogChunk reads the chunk at the beginning of b, of the log with that number. ok is
// false if there is no valid one.
func LogChunk(b []byte, number uint32) (c Chunk, ok bool) {
	if len(b) < numberedHeader || b[6] < firstNumbered || b[6] > lastSynced || binary.LittleEndian.Uint32(b[7:]) != number {
		return Chunk{}, false
	}
	if b[6] < firstSynced {
		return readChunk(b, numberedHeader, firstNumbered)
	}
	if c, ok = readChunk(b, syncedHeader, firstSynced); ok {
		c.Synced, c.present = binary.LittleEndian.Uint64(b[11:]), true
	}
	return c, ok
}

// manifestChunk reads the chunk at the beginning of b, of a manifest.
func manifestChunk(b []byte) (c Chunk, ok bool) {
	if len(b) < plainHeader || b[6] < firstPlain || b[6] >= firstNumbered {
		return Chunk{}, false
	}
	return readChunk(b, plainHeader, firstPlain)
}

func readChunk(b []byte, header int, first byte) (c Chunk, ok bool) {
	n := header + int(binary.LittleEndian.Uint16(b[4:]))
	if len(b) < header || n > len(b) || binary.LittleEndian.Uint32(b) != Mask(crc32.Checksum(b[6:n], castagnoli)) {
		return Chunk{}, false
	}
	return Chunk{Part: Part(b[6] - first), Len: n, Payload: b[header:n]}, true
}

// Mask is the form in which Pebble stores a CRC-32C, as LevelDB did.
func Mask(sum uint32) uint32 { return (sum>>15 | sum<<17) + 0xa282ead8 }
