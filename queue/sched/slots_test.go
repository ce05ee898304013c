package sched

import (
	"testing"

	"pgregory.net/rapid"
)

// TestSlotsLeaveRoom fills the slots with deliveries that never end, of any number of
// hosts and senders, some of which hang.
func TestSlotsLeaveRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := slots{total: rapid.IntRange(1, 2000).Draw(t, "slots")}
		serving, fresh, senders, hanging := map[int]int{}, map[int]int{}, map[int]int{}, map[int]int{}
		for range 3 * s.total {
			host, from := rapid.IntRange(0, 5).Draw(t, "host"), rapid.IntRange(0, 2).Draw(t, "sender")
			if rapid.Bool().Draw(t, "new") {
				if s.forHost(fresh[host], true) && s.forSender(s.share(senders[from], hanging[from])) > 0 {
					fresh[host]++
					senders[from]++
					s.toNew++
					s.used++
				} else if hanging[from] < senders[from] {
					hanging[from]++
				}
			} else if s.forHost(serving[host], false) {
				serving[host]++
				s.used++
			}
			if s.used > s.total || s.toNew > s.total-s.total/4 {
				t.Fatalf("%+v", s)
			}
		}
		if s.free() > 0 && !s.forHost(0, false) {
			t.Error("a serving host with nothing in progress finds no slot")
		}
		if s.total >= 100 && s.used == s.total {
			t.Errorf("six hosts of each kind took all of %d slots", s.total)
		}
		if s.total >= 100 && (!s.forHost(0, true) || s.forSender(0) == 0) {
			t.Error("six new hosts and three senders took all slots for new hosts")
		}
	})
}

func TestShareOfOneSender(t *testing.T) {
	s := slots{total: 1000}
	start := func() (n int) {
		for s.forSender(s.share(s.toNew, s.toNew-n)) > 0 { // all earlier ones hang
			n++
			s.toNew++
			s.used++
		}
		return n
	}
	// Half of what is left, then, as they hang, up to an eighth of the slots.
	for _, want := range []int{375, 125, 63, 31, 16, 8, 4, 2, 1, 0} {
		if n := start(); n != want {
			t.Errorf("one sender starts %d more deliveries to new hosts, want %d", n, want)
		}
	}
	if free := s.freeForNew(); free != 125 {
		t.Errorf("%d are left for others", free)
	}
	s = slots{total: 1000}
	for s.forHost(s.used, false) {
		s.used++
	}
	if s.used != 750 {
		t.Errorf("one serving host takes %d of 1000 slots", s.used)
	}
	if s = (slots{total: 1}); !s.forHost(0, true) || s.forSender(0) != 1 {
		t.Error("one slot is for everyone")
	}
}
