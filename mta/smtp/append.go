package smtp

import "strconv"

// Append adds the printed form of the code to b.
func (e EnhancedCode) Append(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(e[0]), 10)
	b = strconv.AppendUint(append(b, '.'), uint64(e[1]), 10)
	return strconv.AppendUint(append(b, '.'), uint64(e[2]), 10)
}
