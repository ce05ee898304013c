// Package content sends the content of a message over a connection: with its dots doubled and the
// final dot behind it (RFC 5321 section 4.5.2), or as one chunk of BDAT (RFC 3030). A small one goes
// out in one write, a larger one in parts, from where it lies.
//
// The final dot, or the last part of a chunk, is the moment from which the host has the message. It
// leaves only if the host has not spoken before, and if somebody still waits for the answer.
package content

import (
	"errors"
	"io"
	"strconv"
	"time"

	"meta1/client/wire"
	"meta1/mta/msg"
)

// ErrRead says that the content could not be read, or is shorter than it should be.
var ErrRead = errors.New("content cannot be read")

const (
	// SmallMax is the largest content, in bytes, that is copied behind its dot into one buffer;
	// a larger one is sent from where it lies.
	SmallMax = 16 << 10
	// chunkMax is how much of large content is sent under one timeout.
	chunkMax = 256 << 10
	// readMax is how much of content in a file is read at once.
	readMax = 64 << 10
	// partsMax is how many pieces are given to the system in one write.
	partsMax = 1024
	// dataRateMin, in bytes per second, bounds the time for all the content, beside that for each
	// part (Postfix: smtp_min_data_rate).
	dataRateMin = 500
)

// Content is a message as it is sent.
type Content struct {
	Body   []byte    // the content, if Reader is nil
	Reader io.Reader // gives Size bytes
	Size   int64     // of Body, or what Reader gives, in bytes
	NoDots bool      // no line is known to begin with a dot
}

// Sender says how content goes.
type Sender struct {
	Conn *wire.Conn
	// BDAT has the content go as one chunk, which is the last, behind its command.
	BDAT bool
	// Quit has QUIT follow in the same write as the final dot.
	Quit bool
	// Block is the time for each part; all the content has that much and what the slowest host that
	// is borne with needs.
	Block time.Duration
	// Progress is told of each part of large content that the system has taken, but the last, and asked once, directly before
	// the last part leaves, whether somebody still waits for the answer.
	Progress *msg.Progress

	// Tried says, after Send, that the last part was given to the system, perhaps in vain.
	Tried bool

	dots dots
	end  time.Time // of the time for all content
	tail []byte    // what follows the final dot: QUIT, or nothing
}

var quit = []byte("QUIT\r\n")

// Send sends the content and the final dot. The reply to 354, if that is to be had, was read. The error is [ErrRead],
// [wire.ErrEarly] if the host has spoken meanwhile, [msg.ErrGaveWay] if nobody waits any more, which ends the connection, or one
// of the connection. A Sender sends once.
func (s *Sender) Send(m Content) error {
	c, body := s.Conn, m.Body
	s.dots = dots{none: m.NoDots}
	if s.Quit {
		s.tail = quit
	}
	if s.BDAT {
		c.Out = append(strconv.AppendInt(append(c.Out, "BDAT "...), m.Size, 10), " LAST\r\n"...)
	}
	if m.Reader == nil && len(body) <= SmallMax {
		if s.BDAT {
			c.Out = append(c.Out, body...)
		} else {
			c.Out = append(s.dots.appendTo(c.Out, body), s.dots.end()...)
		}
		c.Out = append(c.Out, s.tail...)
		// The 354 was read a moment ago: looking at the socket again would tell no more.
		if err := s.mayFinish(c.Pending()); err != nil {
			return err
		}
		return c.Flush(s.Block)
	}
	s.end = time.Now().Add(s.Block + time.Duration(m.Size/dataRateMin)*time.Second)
	if s.BDAT {
		if err := c.Flush(s.Block); err != nil {
			return err
		}
	}
	if m.Reader == nil {
		return s.memory(body)
	}
	return s.stream(m.Reader, m.Size)
}

// memory sends content that is in memory.
func (s *Sender) memory(body []byte) error {
	for len(body) > chunkMax {
		if err := s.send(body[:chunkMax], false); err != nil {
			return err
		}
		body = body[chunkMax:]
	}
	return s.send(body, true)
}

// stream sends content of a known size from a reader.
func (s *Sender) stream(r io.Reader, size int64) error {
	chunk := make([]byte, min(size, readMax))
	for size > 0 {
		p := chunk[:min(size, readMax)]
		if _, err := io.ReadFull(r, p); err != nil {
			return ErrRead
		}
		size -= int64(len(p))
		if err := s.send(p, size == 0); err != nil {
			return err
		}
	}
	return nil
}

// send sends one part of the content; behind the last one goes the final dot.
func (s *Sender) send(p []byte, last bool) error {
	if s.BDAT {
		return s.sendPlain(p, last)
	}
	c := s.Conn
	for {
		n, double := s.dots.cut(p)
		if n > 0 {
			c.Parts = append(c.Parts, p[:n])
		}
		if !double {
			break
		}
		c.Parts = append(c.Parts, oneDot)
		p = p[n:]
		if len(c.Parts) >= partsMax {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	if err := s.flush(); err != nil || !last {
		return err
	}
	c.Parts = append(c.Parts, s.dots.end())
	if s.tail != nil {
		c.Parts = append(c.Parts, s.tail)
	}
	return s.flushDot()
}

// sendPlain sends one part of a chunk. With its last octet the host has the whole message,
// so that the last part is what the final dot is elsewhere.
func (s *Sender) sendPlain(p []byte, last bool) error {
	c := s.Conn
	c.Parts = append(c.Parts, p)
	if !last {
		return s.flush()
	}
	if s.tail != nil {
		c.Parts = append(c.Parts, s.tail)
	}
	return s.flushDot()
}

// flushDot writes the final dot. It goes out alone, so that whatever the peer has said
// before it is known to be no reply to it.
func (s *Sender) flushDot() error {
	if err := s.mayFinish(s.Conn.Heard()); err != nil {
		return err
	}
	return s.Conn.FlushParts(min(s.Block, time.Until(s.end)))
}

// mayFinish is asked before the final dot is sent. It fails if the peer has spoken already, or
// if nobody waits for the answer any more: the dot would deliver the message a second time.
func (s *Sender) mayFinish(spoken bool) error {
	switch {
	case spoken:
		return wire.ErrEarly
	case !s.Progress.Finish():
		s.Conn.Abort()
		return msg.ErrGaveWay
	}
	s.Tried = true
	return nil
}

// flush writes what is collected, within the time for one part and that for all, unless
// the peer has spoken meanwhile.
func (s *Sender) flush() error {
	if s.Conn.Heard() {
		return wire.ErrEarly
	}
	err := s.Conn.FlushParts(min(s.Block, time.Until(s.end)))
	if err == nil {
		s.Progress.Reach(msg.DeliverData)
	}
	return err
}
