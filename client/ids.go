package client

const upperHex = "0123456789ABCDEF"

// newID makes an identifier of a session (da_se) or a transaction (da_ta) of the
// client (README 10.3): "C", the process, a counter and the index of the thread, in
// hexadecimal. It is unique within one run of meta1 until the counter wraps round.
func (h *hall) newID(thread uint32) string {
	var b [19]byte
	b[0] = 'C'
	putHex(b[1:3], uint32(h.process))
	putHex(b[3:11], h.counter.Add(1))
	putHex(b[11:19], thread)
	return string(b[:])
}

func putHex(b []byte, n uint32) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = upperHex[n&15]
		n >>= 4
	}
}
