package supervise

import (
	"errors"
	"time"
)

// Outcome is the kind of an end, which decides whether what ended is started
// again (README 4.1).
type Outcome uint8

const (
	// OK is an end without an error.
	OK Outcome = iota
	// Soft is a failure that may pass by itself (EX_TEMPFAIL).
	Soft
	// Hard is a failure that probably stays (EX_UNAVAILABLE), and a panic.
	Hard
	// Fatal is a failure that stays (EX_USAGE, EX_CONFIG): no restart.
	Fatal
)

// String is the word of README 4.1.
func (o Outcome) String() string { return [...]string{"ok", "soft", "hard", "fatal"}[o] }

// endError is an error that knows its outcome.
type endError struct {
	outcome Outcome
	err     error
}

func (e *endError) Error() string { return e.err.Error() }
func (e *endError) Unwrap() error { return e.err }

// Mark gives an error an outcome; the text of the error stays. Mark(o, nil) is nil.
func Mark(o Outcome, err error) error {
	if err == nil {
		return nil
	}
	return &endError{o, err}
}

// OutcomeOf is the outcome of an end with that error: OK for nil, what Mark set, and
// Hard for all other errors.
func OutcomeOf(err error) Outcome {
	var e *endError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.outcome
	default:
		return Hard
	}
}

// OutcomeOfExit is the outcome of a process that ended with the exit status
// (sysexits.h); a negative status means that a signal ended it.
func OutcomeOfExit(status int) Outcome {
	switch status {
	case 0:
		return OK
	case 71, 74, 75: // EX_OSERR, EX_IOERR, EX_TEMPFAIL
		return Soft
	case 64, 67, 77, 78, 126, 127: // EX_USAGE, EX_NOUSER, EX_NOPERM, EX_CONFIG; the shell's
		return Fatal
	default:
		return Hard
	}
}

// Limit is how many ends of one kind are followed by a restart: Max in any time
// span of Per. Max 0 means no limit.
type Limit struct {
	Max int
	Per time.Duration
}

// Policy says when something that ended is started again.
type Policy struct {
	OK, Soft, Hard Limit
	// Pause before the restart after a first failure; it grows fourfold with each
	// further one within the limit's time, up to PauseMax.
	Pause, PauseMax time.Duration
}

// DefaultPolicy is the policy of the modules. README 4.1 gives no numbers.
func DefaultPolicy() Policy {
	return Policy{
		OK:    Limit{Max: 60, Per: time.Minute},
		Soft:  Limit{Max: 20, Per: time.Hour},
		Hard:  Limit{Max: 5, Per: 10 * time.Minute},
		Pause: 100 * time.Millisecond, PauseMax: 30 * time.Second,
	}
}

// WithMax is the policy with another number of failures (option failure_max,
// README 3.7); 0 takes the limits away.
func (p Policy) WithMax(failures int) Policy {
	p.OK.Max, p.Soft.Max, p.Hard.Max = failures, failures, failures
	return p
}

func (p Policy) limit(o Outcome) Limit { return [...]Limit{p.OK, p.Soft, p.Hard, {}}[o] }

// History holds the recent ends of one unit. The zero History is empty.
type History struct {
	ends [Fatal + 1][]time.Time // by outcome, oldest first
}

// historyMax bounds how many ends of a kind are remembered.
const historyMax = 1000

// Next notes an end at the time now and says whether and after which pause the
// unit is to be started again.
func (h *History) Next(p Policy, o Outcome, now time.Time) (pause time.Duration, restart bool) {
	if o == Fatal {
		return 0, false
	}
	limit := p.limit(o)
	ends := h.ends[o]
	for len(ends) > 0 && (now.Sub(ends[0]) >= limit.Per || len(ends) >= historyMax) {
		ends = ends[1:]
	}
	h.ends[o] = append(ends, now)
	if limit.Max > 0 && len(ends) >= limit.Max {
		return 0, false
	}
	if o == OK {
		return 0, true
	}
	return p.pause(len(ends)), true
}

// pause is the time to wait after a failure that followed n earlier ones.
func (p Policy) pause(n int) time.Duration {
	pause := p.Pause
	for ; n > 0 && pause < p.PauseMax; n-- {
		pause *= 4
	}
	return min(pause, p.PauseMax)
}
