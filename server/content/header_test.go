package content

import (
	"slices"
	"strings"
	"testing"
)

func TestHeaderScan(t *testing.T) {
	long := strings.Repeat("x", 3000)
	tests := []struct {
		name, in, msgid string
		hops            int
	}{
		{"none", "\r\nReceived: a\r\n", "", 0},
		{"simple", "Received: a\r\nMESSAGE-ID: <1@b> \r\nreceived:b\r\n\r\nReceived: c\r\n", "<1@b>", 2},
		{"folded id", "Message-Id:\r\n <1@b>\r\nX: y\r\n\r\n", "<1@b>", 0},
		{"folded after value", "Message-Id: <1@b>\r\n <2@b>\r\n\r\n", "<1@b>", 0},
		{"second id", "Message-Id: <1@b>\r\nMessage-Id: <2@b>\r\n\r\n", "<1@b>", 0},
		{"folded received", "Received: a\r\n\tReceived: b\r\n\r\n", "", 1},
		{"similar", "Received-SPF: a\r\nX-Received: a\r\nMessage-Ids: x\r\n\r\n", "", 0},
		{"no end", "Received: a\r\nReceived: b\r\n", "", 2},
		{"unfinished line", "Received: a\r\nReceived: b", "", 1},
		{"long line", "X: " + long + "\r\nReceived: a\r\n\r\n", "", 1},
		{"long id", "Message-Id: " + long + "\r\n\r\n", long[:msgidMax], 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 7, 100, len(tt.in)} {
				var h headerScan
				for chunk := range slices.Chunk([]byte(tt.in), size) {
					h.feed(chunk)
				}
				if h.hops != tt.hops || h.msgid != tt.msgid {
					t.Errorf("in pieces of %d: %d hops, %q", size, h.hops, h.msgid)
				}
				if len(h.partial) > headerLineMax {
					t.Errorf("kept %d bytes", len(h.partial))
				}
			}
		})
	}
}
