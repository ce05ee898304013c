package budget

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"meta1/mta/smtp"
)

// TestBudget: whatever is granted, accepted, loaded and left, the parts keep to their bounds,
// and deferred mail always has its quarter.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := New(rapid.IntRange(16, 200).Draw(t, "max"))
		now := time.Unix(0, 0)
		granted := map[int]bool{}
		fresh, deferred, next := 0, 0, 0
		for range 200 {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				next++
				if b.Grant(smtp.ID{Counter: uint64(next)}, now) {
					granted[next] = true
				}
			case 1:
				for ta := range granted {
					b.Accept(smtp.ID{Counter: uint64(ta)}, 1)
					fresh++
					delete(granted, ta)
					break
				}
			case 2:
				n := b.Room(now)
				b.Load(n)
				deferred += n
			case 3:
				if fresh > 0 {
					b.Leave(true)
					fresh--
				}
			case 4:
				if deferred > 0 {
					b.Leave(false)
					deferred--
				}
			default:
				now = now.Add(GrantLife)
				clear(granted) // they have lived too long
			}
			total, d, open, _ := b.Used()
			if total != fresh+deferred || d != deferred {
				t.Fatalf("%d recipients, %d of them deferred; want %d and %d", total, d, fresh+deferred, deferred)
			}
			if fresh+open > b.Max()-b.Max()/4 || deferred > b.Max()-b.Max()/4 || total > b.Max() {
				t.Fatalf("%d fresh, %d granted, %d deferred of %d", fresh, open, deferred, b.Max())
			}
			if room := b.Room(now); room < b.Max()/4-deferred {
				t.Fatalf("room for %d more deferred recipients beside %d of %d", room, deferred, b.Max())
			}
		}
	})
}
