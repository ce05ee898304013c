package msg

import "testing"

// TestStageOf: each recipient has its own stage; one that is not told has that of the
// whole attempt.
func TestStageOf(t *testing.T) {
	a := DeliverA{Stage: DeliverDone, Stages: []DeliverStage{DeliverRcpt}}
	if got := a.StageOf(0); got != DeliverRcpt {
		t.Errorf("stage %v", got)
	}
	if got := a.StageOf(1); got != DeliverDone {
		t.Errorf("stage %v without one of its own", got)
	}
}

// TestStageNames: each stage has a name in the log and one in notifications.
func TestStageNames(t *testing.T) {
	for s := DeliverConnect; s <= DeliverDone; s++ {
		if s.String() == "" || s.Step() == "" {
			t.Errorf("stage %d has no name", s)
		}
	}
	if s := DeliverRcpt.Step(); s != "RCPT" {
		t.Errorf("a recipient is refused during %s", s)
	}
}
