package sched

// Share divides a number of places at which deliveries run, so that no host and no
// sender takes them all, whatever hangs. A host is new until it has served a delivery,
// and again from when it fails as a whole until it serves one. The rules:
//
//   - New hosts together have at most three quarters of the places. So mail for hosts
//     that serve finds a place, however many others hang.
//   - Of what new hosts have left of their part, one new host may take a fiftieth, and
//     one sender may take at new hosts as much as he leaves to others. So a list of
//     dead addresses takes half of their part, a second one half of the rest.
//   - A host that serves may take three times as much as is left free.
//   - Who has no delivery under way may start one as long as there is any place for
//     his kind.
type Share struct {
	Places int // in all, at least 1
	Used   int // deliveries that run
	New    int // of these, to hosts that were new when they began
}

// newPart is the part of the places that new hosts leave to others.
const newPart = 4

// freeForNew is how many more deliveries to new hosts may begin.
func (s *Share) freeForNew() int {
	return min(s.Places-s.Places/newPart-s.New, s.Places-s.Used)
}

// Host tells whether a delivery to a host may begin that has used places already.
func (s *Share) Host(used int, isNew bool) bool {
	free := s.Places - s.Used
	if isNew {
		free = s.freeForNew()
		return free > 0 && (used == 0 || used*50 < free)
	}
	return free > 0 && (used == 0 || used < 3*free)
}

// Sender is how many more deliveries of a sender to new hosts may begin who has used
// places there already.
func (s *Share) Sender(used int) int {
	return max((s.freeForNew()-used+1)/2, 0)
}
