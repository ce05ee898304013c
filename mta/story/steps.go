package story

import (
	"fmt"
	"strings"

	"meta1/mta/control"
	"meta1/mta/msg"
)

// fate is what becomes of a recipient.
func fate(m *control.Message, r *control.MessageRcpt) control.Fate {
	switch o := r.Outcome; {
	case r.Queue != nil:
		return control.FateWaits
	case o.Event == "delivered" || o.Event == "replaced":
		return control.FateDone
	case !o.Ended && m.Unasked:
		return control.FateWaits
	default:
		return control.FateFailed
	}
}

// steps is the story of one recipient, in the order in which it is told.
func steps(m *control.Message, r *control.MessageRcpt) []control.Step {
	all := attempts(m, r)
	switch o := r.Outcome; {
	case r.Queue != nil:
		all = append(all, waiting(r)...)
	case o != nil:
		text := o.Event
		if o.Reply != "" {
			text += ": " + o.Reply
		}
		all = append(all, control.Step{Time: o.Time, Text: text})
	}
	return all
}

// attempts are what the log has of attempts to deliver to a recipient.
func attempts(m *control.Message, r *control.MessageRcpt) []control.Step {
	all := []control.Step{}
	if m.Log == nil {
		return all
	}
	for _, a := range m.Log.Attempts {
		if !strings.EqualFold(bare(a.Rcpt), r.Rcpt) {
			continue
		}
		text := a.Relay
		if a.Stage != "" {
			text += " at " + a.Stage
		}
		text += ": " + a.Reply
		if a.TLS != "" {
			text += " (TLS: " + a.TLS + ")"
		}
		all = append(all, control.Step{Time: a.Time, Text: text})
	}
	return all
}

// waiting says why a recipient is in the queue, and until when.
func waiting(r *control.MessageRcpt) []control.Step {
	q := r.Queue
	all := []control.Step{{Text: fmt.Sprintf("in the queue: %s, %d attempts", q.State, q.Attempts)}}
	if q.Dest != "" {
		all = append(all, control.Step{Text: "goes to " + q.Dest})
	}
	if q.Reason != "" {
		all = append(all, control.Step{Text: "waits because: " + q.Reason})
	}
	for i := range r.Hosts {
		h := &r.Hosts[i]
		step := control.Step{Text: "host " + h.Host + " is " + string(h.State)}
		if h.Reason != "" {
			step.Text += ": " + h.Reason
		}
		if h.State == msg.HostClosed && !h.Until.IsZero() {
			step.Text, step.At = step.Text+"; it is tried again", h.Until
		}
		all = append(all, step)
	}
	if q.State == msg.StateDeferred && !q.NextTry.IsZero() {
		all = append(all, control.Step{Text: "is tried next", At: q.NextTry})
	}
	return all
}
