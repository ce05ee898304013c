package sched

import (
	"slices"
	"time"
)

// deliveryState says whether a delivery moves.
type deliveryState uint8

const (
	deliveryMoves   deliveryState = iota
	deliveryHangs                 // there was no progress for Config.HangAfter
	deliveryGivenUp               // the same; Tick has returned it
	deliveryEnded
)

// hangs reports whether a delivery in the state counts less against its sender.
func (s deliveryState) hangs() bool { return s == deliveryHangs || s == deliveryGivenUp }

// setState is the only place that changes the state of a delivery, and the lists and
// counts that follow from it.
func (s *Scheduler) setState(d *Delivery, to deliveryState) {
	from := d.state
	d.state = to
	d.elem.Remove()
	d.own.Remove()
	if d.toNew && from.hangs() != to.hangs() {
		n := 1
		if from.hangs() {
			n = -1
		}
		s.recount(d.sender, func() { d.sender.hanging += n })
	}
	if from == deliveryGivenUp {
		s.givenUp--
		d.sender.givenUp--
	}
	switch to {
	case deliveryMoves:
		s.moving.PushBack(&d.elem)
	case deliveryHangs:
		s.hanging.PushBack(&d.elem)
		if d.toNew {
			d.sender.hung.PushBack(&d.own)
		}
	case deliveryGivenUp:
		s.givenUp++
		d.sender.givenUp++
	}
}

// Progress notes that a delivery has moved: its host has answered, or taken content. One
// call a second is enough.
func (s *Scheduler) Progress(now time.Time, d *Delivery) {
	if d.state == deliveryMoves || d.state == deliveryHangs {
		d.moved = now
		s.setState(d, deliveryMoves)
	}
}

// Tick does what time alone makes due. It returns deliveries that the caller is to give
// up because they hang and mail waits for slots; they end by Done, as all do.
func (s *Scheduler) Tick(now time.Time) (giveUp []*Delivery) {
	for h := s.alarms.First(); h != nil && !now.Before(h.alarm); h = s.alarms.First() {
		s.strike(now, h)
	}
	for _, p := range slices.Clone(s.provAlarms.All()) { // a rate that grows may allow more before the alarm
		s.offer(now, p)
	}
	for d := s.moving.Front(); d != nil && s.cfg.HangAfter > 0 && now.Sub(d.moved) >= s.cfg.HangAfter; d = s.moving.Front() {
		s.setState(d, deliveryHangs)
	}
	s.relax(now)
	if s.cfg.GiveUpAfter > 0 && !now.Before(s.lookAt) {
		s.lookAt = now.Add(time.Second)
		giveUp = s.giveUp(now)
	}
	return giveUp
}

// giveUp chooses deliveries that hang for so long that others may have their slots, the
// longest first: as many as mail waits for if slots are lacking for all, or as wait of
// the sender's own mail.
func (s *Scheduler) giveUp(now time.Time) (all []*Delivery) {
	take := func(d *Delivery, need int) bool {
		if need <= 0 || now.Sub(d.moved) < s.cfg.GiveUpAfter {
			return false
		}
		s.setState(d, deliveryGivenUp)
		all = append(all, d)
		return true
	}
	full := s.slots.free() == 0
	for d := range s.hanging.All {
		if (d.toNew || full) && !take(d, s.lacking()-s.givenUp) {
			break
		}
	}
	for _, f := range s.limited.All() {
		for d := range f.hung.All {
			if !take(d, f.limited.Len()-f.givenUp) {
				break
			}
		}
	}
	return all
}

// lacking returns how many ready queues and hosts wait because no slot is left for
// anyone, or for any new host.
func (s *Scheduler) lacking() (n int) {
	if s.slots.freeForNew() == 0 {
		n += s.limitedQueues + s.blocked[newHosts].Len()
	}
	if s.slots.free() == 0 {
		n += s.openQueues + s.blocked[servingHosts].Len()
	}
	return n
}

// NextAlarm returns when Tick is to be called, zero if nothing will be due.
func (s *Scheduler) NextAlarm() (at time.Time) {
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if h := s.alarms.First(); h != nil {
		sooner(h.alarm)
	}
	if p := s.provAlarms.First(); p != nil {
		sooner(p.alarm)
	}
	if d := s.moving.Front(); d != nil && s.cfg.HangAfter > 0 {
		sooner(d.moved.Add(s.cfg.HangAfter))
	}
	if d := s.hanging.Front(); d != nil && s.cfg.GiveUpAfter > 0 && (s.limitedQueues > 0 || s.lacking() > 0) {
		if due := d.moved.Add(s.cfg.GiveUpAfter); due.After(s.lookAt) {
			sooner(due)
		} else {
			sooner(s.lookAt)
		}
	}
	return at
}
