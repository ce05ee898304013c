// Package pace bounds how many messages go to one provider within a time, and lowers that bound
// while the provider asks for it. It is pure: time is passed in.
//
// The bound holds for every window of Limits.Per, however it is laid: messages are spread over
// the time (the generic cell rate algorithm), but for a burst of a twentieth of the rate, by
// which the steady rate is lower.
//
// Slow halves the rate: the configured one, or, without one, what went out within the last
// Limits.Per. The rate grows back in a straight line, by half of the whole rate within
// Limits.Recovery, and is never below Limits.Min nor above the whole rate. So a burst of replies
// that tell of one limit halves the rate once (see Slow), and one that is repeated halves it again,
// as TCP does with lost packets.
package pace

import (
	"math"
	"time"
)

// Limits are those of one provider. Per and Recovery must be set.
type Limits struct {
	Rate     int           // messages within Per; 0: no limit until Slow is called
	Per      time.Duration // at least a second
	Min      int           // Slow goes down to this; 0: a thirty-second of the whole rate, at least one message
	Recovery time.Duration // in which half of the whole rate comes back
}

const (
	// burstPart: a twentieth of the rate may go out at once.
	burstPart = 20
	// grain is how late a caller may look, at worst: what may go out within it may go at once.
	grain = 250 * time.Millisecond
	// minPart is the part of the whole rate to which Slow goes down by default.
	minPart = 32
	// holdOff is how long after one halving there is no other.
	holdOff = time.Minute
)

// Pace is the rate of one provider. The zero Pace has no limits; use New.
type Pace struct {
	limits Limits
	tat    time.Time // when the next message would be due in a steady stream (theoretical arrival time)

	// While the rate is lowered: it was low at halved, whole is what it grows back to.
	halved     time.Time
	low, whole float64
	reason     string

	// What went out in the present window and in the one before, where there is no rate.
	window    time.Time
	now, last int
}

// New makes the pace of a provider of which nothing is known.
func New(l Limits) *Pace { return &Pace{limits: l} }

// SetLimits gives new limits. A lowered rate stays lowered, within the new ones.
func (p *Pace) SetLimits(now time.Time, l Limits) {
	p.limits = l
	if l.Rate > 0 && p.whole > 0 {
		p.low = min(p.low, float64(l.Rate))
		p.whole = float64(l.Rate)
	}
	if rate := p.Rate(now); rate > 0 { // a lower rate may have put the next message far off
		gap, burst := p.cell(rate)
		if latest := now.Add(time.Duration(burst * float64(gap))); p.tat.After(latest) {
			p.tat = latest
		}
	}
}

// Rate returns the messages that may go out within Limits.Per now; 0 for no limit.
func (p *Pace) Rate(now time.Time) float64 {
	if p.Slowed(now) {
		grown := now.Sub(p.halved).Seconds() / p.limits.Recovery.Seconds() * p.whole / 2
		return min(p.low+grown, p.whole)
	}
	return float64(p.limits.Rate)
}

// Slowed reports whether the rate is lowered.
func (p *Pace) Slowed(now time.Time) bool { return p.whole > 0 && now.Before(p.Until()) }

// Until returns when a lowered rate is whole again, if there is no other Slow.
func (p *Pace) Until() time.Time {
	if p.whole == 0 {
		return time.Time{}
	}
	half := p.limits.Recovery.Seconds()
	return p.halved.Add(time.Duration((p.whole - p.low) / (p.whole / 2) * half * float64(time.Second)))
}

// Reason returns the reply that lowered the rate last, "" if it is whole.
func (p *Pace) Reason(now time.Time) string {
	if !p.Slowed(now) {
		return ""
	}
	return p.reason
}

// Limits returns the limits.
func (p *Pace) Limits() Limits { return p.limits }

// cell is the time between two messages in a steady stream, and how many may go at once.
func (p *Pace) cell(rate float64) (gap time.Duration, burst float64) {
	per := p.limits.Per.Seconds()
	burst = 1 + math.Floor(max(rate/burstPart, rate*grain.Seconds()/per))
	burst = min(burst, max(math.Floor(rate/2), 1))
	return time.Duration(per / max(rate-burst+1, min(rate, 1)) * float64(time.Second)), burst
}

// Free returns how many messages may go out now.
func (p *Pace) Free(now time.Time) int {
	rate := p.Rate(now)
	if rate == 0 {
		return math.MaxInt
	}
	gap, burst := p.cell(rate)
	room := now.Add(time.Duration((burst - 1) * float64(gap))).Sub(p.due(now))
	if room < 0 {
		return 0
	}
	return min(int(room/gap)+1, int(burst))
}

// due is when the next message is due in a steady stream.
func (p *Pace) due(now time.Time) time.Time {
	if p.tat.Before(now) {
		return now
	}
	return p.tat
}

// Next returns when another message may go out, zero if that is now.
func (p *Pace) Next(now time.Time) time.Time {
	rate := p.Rate(now)
	if rate == 0 || p.Free(now) > 0 {
		return time.Time{}
	}
	gap, burst := p.cell(rate)
	return p.due(now).Add(-time.Duration((burst - 1) * float64(gap)))
}

// Start counts a message that goes out, one of those that Free allows.
func (p *Pace) Start(now time.Time) {
	p.turn(now)
	p.now++
	rate := p.Rate(now)
	if rate == 0 {
		return
	}
	gap, _ := p.cell(rate)
	p.tat = p.due(now).Add(gap)
}

// Undo takes back one Start: the message did not go out after all.
func (p *Pace) Undo(now time.Time) {
	p.now = max(p.now-1, 0)
	if rate := p.Rate(now); rate > 0 {
		gap, _ := p.cell(rate)
		p.tat = p.tat.Add(-gap)
	}
}

// turn begins a new window of what went out.
func (p *Pace) turn(now time.Time) {
	switch since := now.Sub(p.window); {
	case since >= 2*p.limits.Per:
		p.last, p.now, p.window = 0, 0, now
	case since >= p.limits.Per:
		p.last, p.now, p.window = p.now, 0, p.window.Add(p.limits.Per)
	}
}

// Slow halves the rate because of a reply to a message that went out at start. It does nothing, and
// returns false, if the rate was halved since, or within the last minute: such a reply tells
// nothing new.
func (p *Pace) Slow(now, start time.Time, reason string) bool {
	if p.whole > 0 && (!start.After(p.halved) || now.Sub(p.halved) < holdOff) {
		return false
	}
	rate := p.Rate(now)
	if !p.Slowed(now) {
		p.whole = float64(p.limits.Rate)
		if p.limits.Rate == 0 {
			p.turn(now)
			p.whole = float64(max(p.now, p.last, 2))
			rate = p.whole
		}
	}
	least := float64(p.limits.Min)
	if p.limits.Min == 0 {
		least = p.whole / minPart
	}
	p.low = min(max(rate/2, least, 1), p.whole)
	p.halved, p.reason = now, reason
	return true
}
