package limits

import "testing"

// TestOpenFiles: what is allowed already is not lowered, and what is said to be
// allowed is.
func TestOpenFiles(t *testing.T) {
	if got := OpenFiles(1); got < 16 {
		t.Errorf("the limit became %d", got)
	}
	now := OpenFiles(1)
	if got := OpenFiles(now); got != now {
		t.Errorf("the limit of %d became %d", now, got)
	}
}
