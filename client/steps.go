package client

import (
	"log/slog"
	"time"
)

// steps are the times of flag timing (README 8.6, item 3.2). They are taken only if
// the flag is set; last is zero otherwise.
type steps struct {
	last                                                       time.Time
	connect, ehlo, starttls, auth, mail, rcpts, data, msg, eom time.Duration
}

// begin starts the clock.
func (s *steps) begin() { s.last = time.Now() }

// mark adds the time since the last mark to d.
func (s *steps) mark(d *time.Duration) {
	if s.last.IsZero() {
		return
	}
	now := time.Now()
	*d += now.Sub(s.last)
	s.last = now
}

// attrs adds the steps to a log line, in microseconds.
func (s *steps) attrs(a []slog.Attr) []slog.Attr {
	for _, t := range []struct {
		name string
		d    time.Duration
	}{
		{"t_connect", s.connect},
		{"t_ehlo", s.ehlo},
		{"t_starttls", s.starttls},
		{"t_auth", s.auth},
		{"t_mail", s.mail},
		{"t_rcpts", s.rcpts},
		{"t_data", s.data},
		{"t_msg", s.msg},
		{"t_eom", s.eom},
	} {
		if t.d > 0 {
			a = append(a, slog.Int64(t.name, t.d.Microseconds()))
		}
	}
	return a
}
