package queue

import (
	"testing"
	"time"

	"meta1/queue/defedb"
)

// TestALoadBringsNoOldState: a recipient that ended or was deferred anew while a load
// was reading it is not brought back as it was before.
func TestALoadBringsNoOldState(t *testing.T) {
	for name, code := range map[string]int{"ended": 250, "deferred anew": 451} {
		t.Run(name, func(t *testing.T) {
			m := newModel(defaults(t))
			m.addDest(1)
			m.arrive("s", 1, 0)
			m.end(0, 451, false)
			old := m.deferred[0]
			m.pass(time.Hour)
			m.comeBack(1)
			m.l.loading = true
			m.end(0, code, false)
			g := &loadedTA{ta: old.TA, env: m.all[old.TA].env, left: 1, states: []defedb.State{old}}
			if _, rcpts := m.l.adopt(g); len(rcpts) != 0 {
				t.Fatalf("brought with the state %+v", rcpts[0].state)
			}
			m.l.loading = false
			m.l.settleQuiet()
			if len(m.l.gone)+len(m.l.tas)+m.l.entries != 0 {
				t.Errorf("left behind: %v, %d transactions, %d entries", m.l.gone, len(m.l.tas), m.l.entries)
			}
		})
	}
}
