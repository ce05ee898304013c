package explain

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// recorder writes down what is decided while one command is answered.
type recorder struct {
	mu    sync.Mutex // guards stage and what it points to
	stage *Stage
}

// begin makes the stage of the next command.
func (r *recorder) begin(stage, command string) *Stage {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stage = &Stage{Stage: stage, Command: command, Checks: []Check{}}
	return r.stage
}

// end takes the reply to it.
func (r *recorder) end(reply smtp.Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stage
	s.Reply, s.Verdict = reply.String(), verdictOf(reply)
	if s.discard && s.Verdict == Accepted {
		s.Verdict = Discarded
	}
}

// verdict notes the reasons of SMAR.
func (r *recorder) verdict(stage msg.Stage, v *msg.Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, step := range v.Trace {
		c := checkOf(step)
		c.Stage, c.Decides = stage.String(), v.DecidedBy == i+1
		r.stage.Checks = append(r.stage.Checks, c)
	}
	r.stage.discard = r.stage.discard || v.Action == msg.Discard
}

// add notes a step of the server's own, unless SMAR has told it already.
func (r *recorder) add(c Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, old := range r.stage.Checks {
		if old.Decides && old.Check == c.Check && old.Key == c.Key && old.Map == c.Map {
			return
		}
	}
	for i := range r.stage.Checks {
		r.stage.Checks[i].Decides = r.stage.Checks[i].Decides && !c.Decides // the server decides last
	}
	r.stage.Checks = append(r.stage.Checks, c)
}

func (r *recorder) note(n Note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stage.Notes = append(r.stage.Notes, n)
}

// sessionLog takes the log of the session: what the server has decided without SMAR stands
// in it as fields.
type sessionLog struct{ *recorder }

func (l sessionLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l sessionLog) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l sessionLog) WithGroup(string) slog.Handler                    { return l }

// noteNames are the fields that say more than the reply.
const noteNames = " violation reason error session_feature mech cause relay "

// Handle implements slog.Handler.
func (l sessionLog) Handle(_ context.Context, rec slog.Record) error {
	var c Check
	var notes []Note
	var result, domain, reason string // of SPF
	rec.Attrs(func(a slog.Attr) bool {
		value := a.Value.String()
		switch a.Key {
		case "check":
			c.Check = value
		case "map":
			c.Map = value
		case "key":
			c.Key = value
		case "value":
			c.Value = value
		case "effect":
			c.Effect = value
		case "spf":
			result = value
		case "spf_domain":
			domain = value
		case "spf_reason":
			reason = value
		case "stat":
			if strings.Trim(value, "0123456789") != "" {
				notes = append(notes, Note{a.Key, value})
			}
		default:
			if strings.Contains(noteNames, " "+a.Key+" ") {
				notes = append(notes, Note{a.Key, value})
			}
		}
		return true
	})
	switch rec.Message {
	case "mail": // what was found about the sender, and refuses nothing
		if result != "" {
			l.add(Check{Check: "spf", Key: domain, Value: result, Effect: reason})
		}
	case "refused", "to be discarded":
		c.Decides = true
		fallthrough
	case "may relay":
		if c.Check != "" {
			l.add(c)
		}
	}
	for _, n := range notes {
		l.note(n)
	}
	return nil
}
