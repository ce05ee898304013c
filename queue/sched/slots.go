package sched

// slots divides the slots for deliveries, so that no host and no sender takes all of
// them, whatever hangs. The rules are in the package comment.
type slots struct {
	total int // at least 1
	used  int // deliveries in progress
	toNew int // of these, to hosts that were new when they began
}

const (
	// servingPart: a quarter of the slots is kept for serving hosts.
	servingPart = 4
	// hangingPart: deliveries of a sender that hang count for as much as an eighth of the
	// slots against its share. So it leaves as much to other senders.
	hangingPart = 8
	// hostPart: one new host may take a fiftieth of what is left for new hosts.
	hostPart = 50
	// servingRatio: a serving host may take three times what it leaves free.
	servingRatio = 3
)

// free returns how many more deliveries may begin.
func (s *slots) free() int { return max(s.total-s.used, 0) } // used may be more since total was lowered

// freeForNew returns how many more deliveries to new hosts may begin.
func (s *slots) freeForNew() int {
	return max(min(s.total-s.total/servingPart-s.toNew, s.free()), 0)
}

// forHost reports whether a delivery may begin to a host that uses some slots already.
func (s *slots) forHost(used int, isNew bool) bool {
	if isNew {
		free := s.freeForNew()
		return free > 0 && (used == 0 || used*hostPart < free)
	}
	return s.free() > 0 && (used == 0 || used < servingRatio*s.free())
}

// share returns how many of a sender's deliveries to new hosts count against its share,
// of which some hang.
func (s *slots) share(toNew, hanging int) int {
	return toNew - max(hanging-s.total/hangingPart, 0)
}

// forSender returns how many more deliveries to new hosts may begin for a sender with a
// share.
func (s *slots) forSender(share int) int { return max((s.freeForNew()-share+1)/2, 0) }
