package pmilter

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"meta1/mta/smtp"
	wire "meta1/pmilter"
)

// Content is a message as the policy milter gets it.
type Content struct {
	// Message reads header and body from the beginning, without what this server has put on
	// top.
	Message func() io.Reader
	// Replace takes the next piece of a new message; the first call begins it. An error of it
	// is one of the caller's.
	Replace func(p []byte) error
	Macros  Macros
}

// Changes are all changes that the policy milter wants of one message.
type Changes struct {
	List     []wire.Change // of the envelope and the header
	Replaced bool          // a new message went to Content.Replace
	Replies  []smtp.Reply  // one for each accepted recipient; nil: none were set
	Hold     string        // why the message is to be held; "": it is not
}

// replaceMax bounds how long a new message may take in all.
const replaceMax = 15 * time.Minute

var (
	errEmpty   = errors.New("a chunk of a new message is empty")
	errEndless = errors.New("a new message does not end")
)

// contentError is a failure of the caller's content, not one of the policy milter.
type contentError struct{ err error }

func (e *contentError) Error() string { return "content: " + e.err.Error() }

// Message gives the content to the policy milter and returns what it decides. Changes are to be
// made if the verdict is Continue or Accept, and not otherwise. One that has accepted the
// message or has failed is not asked. The error is one of the caller's own content.
func (s *Session) Message(m *Content) (Changes, Verdict, error) {
	switch s.state {
	case inMessage:
	case failed:
		return Changes{}, s.refusal("eom"), nil
	default:
		return Changes{}, Verdict{}, nil
	}
	changes, v, err := s.transfer(m)
	if own := (*contentError)(nil); errors.As(err, &own) {
		s.Abort()
		return Changes{}, Verdict{}, own.err
	}
	if err != nil {
		return Changes{}, s.fail("eom", err), nil
	}
	if s.state == inMessage || s.state == messageDone {
		s.state = inSession
	}
	if v.Action != Continue && v.Action != Accept {
		return Changes{}, v, nil
	}
	return changes, v, nil
}

// transfer sends the message and its end, and reads what the policy milter wants.
func (s *Session) transfer(m *Content) (changes Changes, v Verdict, err error) {
	if s.c.agreed.Cap&wire.CapMsg != 0 {
		if v, done, err := s.send(m); err != nil || done {
			return changes, v, err
		}
	}
	if s.c.agreed.Cap&wire.CapEOM == 0 {
		return changes, Verdict{}, nil
	}
	k := wire.Command{Type: wire.FrameEOM, Index: uint32(len(s.places)), Macros: s.c.values(wire.FrameEOM, m.Macros)}
	t, err := s.c.ask(s.ctx, s.box, &k)
	if err != nil {
		return changes, v, err
	}
	if v = s.took(&k, t); v.Action != Continue && v.Action != Accept {
		return changes, v, nil
	}
	if t.Code.Plain() == wire.Replace {
		if s.c.agreed.Fct&wire.FctReplace == 0 {
			return changes, v, fmt.Errorf("%w: a new message, which was not agreed on", errAsked)
		}
		if v, err = s.replace(m); err != nil || v.Action != Continue {
			return changes, v, err
		}
		changes.Replaced = true
	}
	s.sort(&changes, t.changes)
	return changes, v, nil
}

// send sends the message in chunks. done says that the verdict is that of the message.
func (s *Session) send(m *Content) (v Verdict, done bool, err error) {
	r := m.Message()
	buf := make([]byte, wire.ChunkSize-1)
	for {
		n, end := io.ReadFull(r, buf)
		if n > 0 {
			k := wire.Command{Type: wire.FrameMsg, Chunk: buf[:n]}
			t, err := s.c.ask(s.ctx, s.box, &k)
			if err != nil {
				return v, false, err
			}
			if s.c.agreed.Cap&wire.CapMsgCode != 0 && t.Code.Plain() != wire.Continue {
				return s.took(&k, t), true, nil
			}
		}
		switch {
		case errors.Is(end, io.EOF), errors.Is(end, io.ErrUnexpectedEOF):
			return v, false, nil
		case end != nil:
			return v, false, &contentError{end}
		}
	}
}

// replace takes a new message. The verdict is Continue if it is complete.
func (s *Session) replace(m *Content) (v Verdict, err error) {
	defer func() {
		if s.box != nil {
			s.c.tell(s.box, wire.Command{Type: wire.FrameRplcStatus, Done: err == nil && v.Action == Continue})
		}
	}()
	limit := time.Now().Add(max(replaceMax, s.f.cfg.Timeout))
	for {
		k := wire.Command{Type: wire.FrameNext}
		t, err := s.c.ask(s.ctx, s.box, &k)
		if err != nil {
			return v, err
		}
		var chunk []byte
		for i := range t.changes {
			chunk = t.changes[i].Chunk
		}
		switch {
		case t.Code != wire.Continue && t.Code != wire.OK:
			return s.took(&k, t), nil
		case len(chunk) == 0 && t.Code == wire.Continue:
			return v, errEmpty
		case time.Now().After(limit):
			return v, errEndless
		}
		if err := m.Replace(chunk); err != nil {
			return v, &contentError{err}
		}
		if t.Code == wire.OK {
			return v, nil
		}
	}
}

// sort puts the changes where the caller expects them. The last replies and the last hold
// count.
func (s *Session) sort(changes *Changes, list []wire.Change) {
	for _, ch := range list {
		switch ch.Type {
		case wire.FrameReplies:
			if len(ch.Replies) != len(s.places) {
				s.f.deps.Log.LogAttrs(s.ctx, slog.LevelWarn, "policy milter wants an impossible change", slog.String("change", "replies"),
					slog.Int("replies", len(ch.Replies)), slog.Int("rcpts", len(s.places)))
				continue
			}
			changes.Replies = nil
			for _, r := range ch.Replies {
				if r.Code == int(wire.OK) {
					changes.Replies = append(changes.Replies, smtp.Reply{})
				} else {
					changes.Replies = append(changes.Replies, DefaultReply(r.Code, "Recipient refuses the message"))
				}
			}
		case wire.FrameHold:
			if changes.Hold = printable(ch.Reason); changes.Hold == "" {
				changes.Hold = "no reason given"
			}
			s.f.count("quarantine")
		default:
			changes.List = append(changes.List, ch)
		}
	}
}
