package server

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"meta1/mta/smtp"
	"meta1/server/crowd"
	"meta1/server/wire"
)

// Who may have a session, and who makes room when they grow scarce (package crowd).

// sweepEvery is how often idle clients are looked for under stress.
const sweepEvery = time.Second

// fewFruitless is the number of commands without effect since the last accepted message up
// to which others are taken for progress: RSET and MAIL in turn are none for long.
const fewFruitless = 10

var (
	replyRoom   = smtp.NewReply(421, "4.3.2", "Too many sessions, closing this idle one")
	replyExiled = smtp.NewReply(421, "4.7.0", "Too busy for idle connections, try again in some minutes")
	replyShare  = smtp.NewReply(421, "4.7.0", "Too many sessions of your address, try again later")
)

// limits are those of the crowd.
func (c *Config) crowdLimits() crowd.Limits {
	return crowd.Limits{
		Max: c.ThreadsMax, Share: float64(c.AddressShare) / 100,
		Idle: c.IOTimeout, IdleStressed: min(c.StressTimeout, c.IOTimeout),
	}
}

// clock is the time since the server was made, which setting the clock does not change.
func (s *Server) clock() time.Duration { return time.Since(s.made) }

// add notes a session; others may have to make room for it. addr is the address of its
// client, zero if that is not known yet. The reply is zero if the session may go on, else
// reason says why not, for the metrics.
func (s *Server) add(c *session, addr netip.Addr) (r smtp.Reply, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return s.replyStopping(), refusedStopping
	}
	now := s.clock()
	c.wire.Guest.Progress(now)
	why, leave := s.crowd.Arrive(&c.wire.Guest, addr, now)
	s.dismissLocked(leave)
	if why != crowd.None {
		return s.crowdReply(why), why.String()
	}
	s.sessions[&c.wire.Guest] = c
	s.peak = max(s.peak, len(s.sessions))
	s.metrics.sessions.Inc()
	if s.crowd.Stressed() {
		select {
		case s.stress <- struct{}{}:
		default: // it is known
		}
	}
	return smtp.Reply{}, ""
}

// identify counts a session for the address that is behind a proxy. The reply is zero if
// it may go on, else reason says why not, for the metrics.
func (s *Server) identify(c *session, addr netip.Addr) (r smtp.Reply, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	why := s.crowd.Identify(&c.wire.Guest, addr, s.clock())
	return s.crowdReply(why), why.String()
}

// replyStopping is what a client is told while the server stops.
func (s *Server) replyStopping() smtp.Reply {
	return smtp.NewReply(421, "4.3.2", s.deps.Hostname+" is going down")
}

// crowdReply is what a client is told that is not let in.
func (s *Server) crowdReply(why crowd.Reason) smtp.Reply {
	switch why {
	case crowd.None:
		return smtp.Reply{}
	case crowd.Share:
		return replyShare
	case crowd.Exiled:
		return replyExiled
	default:
		return smtp.NewReply(421, "4.3.2", s.deps.Hostname+" has too many connections, try again later")
	}
}

// dismissLocked ends the sessions of guests that have to go.
func (s *Server) dismissLocked(leave []*crowd.Guest) {
	for _, g := range leave {
		reason, _ := g.Dismissed()
		s.metrics.dismissed.WithLabelValues(reason.String()).Inc()
		s.sessions[g].wire.Dismiss()
	}
}

func (s *Server) remove(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, &c.wire.Guest)
	s.crowd.Depart(&c.wire.Guest)
	s.metrics.sessions.Dec()
	if s.stopping && len(s.sessions) == 0 {
		close(s.idle)
	}
}

// watchStress looks for idle clients while there is stress, and does nothing else.
func (s *Server) watchStress(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.stress:
			if !s.endure(ctx) {
				return nil
			}
		}
	}
}

// endure sees one time of stress to its end. It reports false if ctx ended before.
func (s *Server) endure(ctx context.Context) bool {
	began, dismissed := s.clock(), 0
	defer s.metrics.stress.Set(0)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		s.mu.Lock()
		leave := s.crowd.Sweep(s.clock())
		s.dismissLocked(leave)
		stressed, open := s.crowd.Stressed(), s.crowd.Len()
		s.mu.Unlock()
		dismissed += len(leave)
		if !stressed {
			if !first {
				s.log.LogAttrs(ctx, slog.LevelInfo, "stress is over", slog.Int("sessions", open), slog.Int("sessions_max", s.current().cfg.ThreadsMax),
					slog.Duration("elapsed", (s.clock()-began).Round(time.Second)), slog.Int("idle_ended", dismissed))
			}
			return true
		}
		if first {
			s.metrics.stress.Set(1)
			s.log.LogAttrs(ctx, slog.LevelWarn, "stress begins", slog.Int("sessions", open), slog.Int("sessions_max", s.current().cfg.ThreadsMax))
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// progress notes that the client has made a step toward a message.
func (c *session) progress() {
	if c.count.nops > fewFruitless || c.tx != nil && time.Since(c.tx.env.Arrival) > c.srv.cfg.IOTimeout {
		return
	}
	c.wire.Guest.Progress(c.srv.clock())
}

// madeRoom says in the log why the session ends, and how long the client had been idle.
func (c *session) madeRoom(err error) []slog.Attr {
	if !errors.Is(err, wire.ErrRoom) {
		return nil
	}
	reason, idle := c.wire.Guest.Dismissed()
	return []slog.Attr{slog.String("cause", reason.String()), slog.Duration("idle", idle.Round(time.Millisecond))}
}
