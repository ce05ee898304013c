package msg

import (
	"testing"

	"meta1/mta/smtp"
)

func TestKept(t *testing.T) {
	for from, want := range map[string]string{"550 5.7.1": "450 4.7.1 x", "554 ": "454 x", "452 4.3.1": "452 4.3.1 x", "250 2.0.0": "250 2.0.0 x", "550 4.1.1": "450 4.1.1 x"} {
		code := int(from[0]-'0')*100 + int(from[1]-'0')*10 + int(from[2]-'0')
		if got := Kept(smtp.NewReply(code, from[4:], "x")).String(); got != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
	}
	var h Handover
	if h.Via() != "" {
		t.Error("on from the start")
	}
	h.Set("x")
	if h.Via() != "x" {
		t.Error(h.Via())
	}
}
