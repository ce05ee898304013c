package pmilter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FrameType says what a frame is.
type FrameType uint8

// Frames of the server. Session 0 is the connection itself.
const (
	FrameOffer      FrameType = 0x01
	FrameConnect    FrameType = 0x10
	FrameHelo       FrameType = 0x11
	FrameMail       FrameType = 0x12
	FrameRcpt       FrameType = 0x13
	FrameData       FrameType = 0x14
	FrameUnknown    FrameType = 0x15
	FrameMsg        FrameType = 0x16
	FrameEOM        FrameType = 0x17
	FrameNext       FrameType = 0x18 // the next chunk of the replacement is wanted
	FrameRplcStatus FrameType = 0x20 // has no answer, as the following
	FrameAbort      FrameType = 0x21
	FrameClose      FrameType = 0x22
)

// Frames of the policy milter.
const (
	FrameAgree       FrameType = 0x81
	FrameRefuse      FrameType = 0x82
	FrameAnswer      FrameType = 0x90
	FrameChunk       FrameType = 0x91 // behind FrameNext, before its answer
	FrameMailReplace FrameType = 0x92 // this and the following: behind FrameEOM, before its answer
	FrameRcptAdd     FrameType = 0x93
	FrameRcptDel     FrameType = 0x94
	FrameHeader      FrameType = 0x95
	FrameReplies     FrameType = 0x96
	FrameHold        FrameType = 0x97
)

// frameFirst is what is read at once of a frame, whatever length it claims.
const frameFirst = 4 << 10

// frameHead is what each frame has besides its data and its length: type and session.
const frameHead = 5

// Errors of the codec.
var (
	// ErrFrame is a frame with an impossible length.
	ErrFrame = errors.New("a frame with an impossible length")
	// ErrShort is a frame that ends before what it must have.
	ErrShort = errors.New("a frame that is cut short")
	// ErrWire is a frame with a value that is out of its bounds.
	ErrWire = errors.New("a frame with an impossible value")
)

// Frame is one message of either side.
type Frame struct {
	Type    FrameType
	Session uint32
	Data    []byte // of ReadFrame: valid until the buffer is used again
}

// ReadFrame reads one frame by way of buf, whose memory grows with what comes. The error is
// that of r, io.ErrUnexpectedEOF within a frame, or ErrFrame.
func ReadFrame(r *bufio.Reader, buf *bytes.Buffer) (Frame, error) {
	var head [4 + frameHead]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return Frame{}, err
	}
	if _, err := io.ReadFull(r, head[1:4]); err != nil {
		return Frame{}, within(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < frameHead || n > FrameMax {
		return Frame{}, fmt.Errorf("%w: %d bytes", ErrFrame, n)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return Frame{}, within(err)
	}
	n -= frameHead
	buf.Reset()
	buf.Grow(min(int(n), frameFirst))
	if _, err := io.CopyN(buf, r, int64(n)); err != nil {
		return Frame{}, within(err)
	}
	return Frame{Type: FrameType(head[4]), Session: binary.BigEndian.Uint32(head[5:]), Data: buf.Bytes()}, nil
}

func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendFrame adds a frame to b. Data beyond FrameMax is an error of the caller: the frame is
// added, and the other side refuses it.
func AppendFrame(b []byte, f Frame) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Data)+frameHead))
	b = append(b, byte(f.Type))
	b = binary.BigEndian.AppendUint32(b, f.Session)
	return append(b, f.Data...)
}

// appendText adds a text with its length; what is beyond TextMax is cut.
func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), TextMax)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// appendTexts adds a list of texts.
func appendTexts(b []byte, list []string) []byte {
	list = list[:min(len(list), ArgsMax)]
	b = append(b, byte(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

// reader takes values off the front of a frame. After an error it gives zero values.
type reader struct {
	data []byte
	err  error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.data) < n {
		r.err, r.data = ErrShort, nil
	}
	if r.err != nil {
		return nil
	}
	p := r.data[:n]
	r.data = r.data[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) short() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) number() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) text() string { return string(r.take(int(r.short()))) }

func (r *reader) texts() []string {
	n := int(r.byte())
	if n > ArgsMax {
		r.fail("%d parameters", n)
		return nil
	}
	var list []string
	for range n {
		s := r.text()
		if r.err != nil {
			return nil
		}
		list = append(list, s)
	}
	return list
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrWire}, args...)...)
	}
	r.data = nil
}
