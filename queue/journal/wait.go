package journal

import (
	"time"

	"meta1/mta/smtp"
)

const (
	// hurry is how long a step waits, at least: those that come meanwhile share its sync. A slow
	// disk waits for a few of its syncs' time.
	hurry = 2 * time.Millisecond
	// waitingMax is how many steps wait for company. It bounds, with Config.Delay, what is delivered
	// twice after a kill.
	waitingMax = 16
)

// Save has steps written, in the order of the calls, each as a whole or not at all. patient
// says that nothing goes on when they are durable, as at the end of a delivery: then they wait
// for the next transaction and share its sync, if one is expected within Config.Delay. Save never blocks:
// what may wait is bounded by what the active queue holds.
func (j *Journal[S]) Save(patient bool, steps ...S) {
	if len(steps) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	first := len(j.saves)+len(j.spilled) == 0
	j.saves = append(j.saves, steps...)
	j.wakeLocked(first, patient && len(j.saves) < waitingMax)
}

// Spilled has the store give up its copy of a message's content, which has become a file,
// durably.
func (j *Journal[S]) Spilled(ta smtp.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := len(j.saves)+len(j.spilled) == 0
	j.spilled = append(j.spilled, ta)
	j.wakeLocked(first, false)
}

// wakeLocked sets the timer. No goroutine is woken for what the next transaction takes along.
func (j *Journal[S]) wakeLocked(first, patient bool) {
	switch {
	case !patient && (first || !j.hurried):
		j.hurried = true
		j.due.Reset(min(j.hurry, j.cfg.Delay())) // which may be less since they were learned
	case first:
		j.hurried = false
		j.due.Reset(min(j.patient, j.cfg.Delay()))
	}
}

// take is all that waits.
func (j *Journal[S]) take() (saves []S, spilled []smtp.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.due.Stop()
	saves, spilled = j.saves, j.spilled
	j.saves, j.spilled, j.spare = j.spare[:0], nil, nil
	return saves, spilled
}

// gapMax bounds what a time without mail counts, so that company is soon expected again.
func gapMax(delay time.Duration) time.Duration { return 4 * delay }

// learn takes note of a commit.
func (j *Journal[S]) learn(start time.Time, d *Done[S]) {
	j.lastSync = d.Took
	if n := len(d.Mail); n > 0 {
		gap := gapMax(j.cfg.Delay())
		if !j.lastMail.IsZero() {
			gap = min(gap, start.Sub(j.lastMail))
		}
		j.gap = (3*j.gap + gap) / 4
		j.lastBatch, j.lastMail = n, start
	}
	j.expect()
}

// expect says how long steps wait from now on. While mail comes so seldom that none is expected in time,
// nothing waits for it.
func (j *Journal[S]) expect() {
	delay := j.cfg.Delay()
	soon := min(max(hurry, 4*j.lastSync), delay)
	late := soon
	if j.gap <= delay {
		late = min(max(soon, 2*j.gap), delay)
	}
	j.mu.Lock()
	j.hurry, j.patient = soon, late
	j.mu.Unlock()
}
