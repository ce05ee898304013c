package smtp

import "encoding/binary"

// Has8Bit reports whether b has a byte beyond ASCII (RFC 6152 section 1).
func Has8Bit(b []byte) bool {
	const beyond = 0x8080808080808080
	for ; len(b) >= 32; b = b[32:] { // four reads at once wait less for memory that was not touched for a while
		if (binary.LittleEndian.Uint64(b)|binary.LittleEndian.Uint64(b[8:])|binary.LittleEndian.Uint64(b[16:])|binary.LittleEndian.Uint64(b[24:]))&beyond != 0 {
			return true
		}
	}
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&beyond != 0 {
			return true
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
