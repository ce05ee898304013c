package milter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The commands of the MTA (mfdef.h, SMFIC_*).
const (
	cmdAbort    = 'A'
	cmdBody     = 'B'
	cmdConnect  = 'C'
	cmdMacros   = 'D'
	cmdEOM      = 'E'
	cmdHelo     = 'H'
	cmdNextSMTP = 'K' // quit, and a new session follows on the same connection
	cmdHeader   = 'L'
	cmdMail     = 'M'
	cmdEOH      = 'N'
	cmdOptions  = 'O'
	cmdQuit     = 'Q'
	cmdRcpt     = 'R'
	cmdData     = 'T'
	cmdUnknown  = 'U'
)

// The replies of a filter (mfdef.h, SMFIR_*).
const (
	repAddRcpt      = '+'
	repDelRcpt      = '-'
	repAddRcptArgs  = '2'
	repShutdown     = '4'
	repAccept       = 'a'
	repBody         = 'b'
	repContinue     = 'c'
	repDiscard      = 'd'
	repChangeFrom   = 'e'
	repConnFail     = 'f'
	repAddHeader    = 'h'
	repInsertHeader = 'i'
	repChangeHeader = 'm'
	repProgress     = 'p'
	repQuarantine   = 'q'
	repReject       = 'r'
	repSkip         = 's'
	repTempfail     = 't'
	repReplyCode    = 'y'
)

// What a filter may do (mfapi.h, SMFIF_*).
const (
	actAddHeaders = 1 << iota
	actChangeBody
	actAddRcpt
	actDelRcpt
	actChangeHeaders
	actQuarantine
	actChangeFrom
	actAddRcptArgs
	actSymbols
)

// What the two ends do of the protocol (mfdef.h, SMFIP_*).
const (
	noConnect = 1 << iota
	noHelo
	noMail
	noRcpt
	noBody
	noHeaders
	noEOH
	noReplyHeader
	noUnknown
	noData
	canSkip
	rejectedRcpts
	noReplyConnect
	noReplyHelo
	noReplyMail
	noReplyRcpt
	noReplyData
	noReplyUnknown
	noReplyEOH
	noReplyBody
	leadingSpace
)

// Versions and the sets of flags that belong to them. A filter of an older version gets
// what it knows.
const (
	versionMin = 2
	versionMax = 6

	actionsV2  = 0x3f
	actionsV6  = 0x1ff
	protocolV2 = 0x7f
	protocolV6 = 0x1fffff
)

const (
	// packetMax bounds a reply of a filter. libmilter itself sends 64 KB at most.
	packetMax = 1 << 20
	// dataMax bounds what libmilter takes in one command (MILTER_MAX_DATA_SIZE), without the
	// letter of the command.
	dataMax = 65535
	// pieceFirst is what is read at once of a reply, whatever length it claims.
	pieceFirst = 4 << 10
)

var (
	errLength = errors.New("a reply with an impossible length")
	errShort  = errors.New("a reply that is cut short")
)

// packet is one message of a filter.
type packet struct {
	kind byte
	data []byte // valid until the next one is read
}

// readPacket reads one message. Memory grows with what comes, not with what is announced.
func readPacket(r *bufio.Reader, buf *bytes.Buffer) (packet, error) {
	head, err := r.Peek(5)
	if err != nil {
		if errors.Is(err, io.EOF) && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return packet{}, err
	}
	n, kind := binary.BigEndian.Uint32(head), head[4]
	if n == 0 || n > packetMax {
		return packet{}, fmt.Errorf("%w: %d bytes", errLength, n)
	}
	_, _ = r.Discard(5) // they are there
	if n == 1 {         // as nearly all are
		return packet{kind: kind}, nil
	}
	buf.Reset()
	buf.Grow(min(int(n), pieceFirst))
	if _, err := io.CopyN(buf, r, int64(n-1)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return packet{}, err
	}
	return packet{kind: kind, data: buf.Bytes()}, nil
}

// appendPacket adds a command to b.
func appendPacket(b []byte, kind byte, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)+1))
	return append(append(b, kind), data...)
}

// appendString adds a string with its NUL. NULs inside are left out: they would end it.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if s[i] != 0 {
			b = append(b, s[i])
		}
	}
	return append(b, 0)
}

// cutString takes a string that ends in NUL off the front.
func cutString(p []byte) (s string, rest []byte, err error) {
	i := bytes.IndexByte(p, 0)
	if i < 0 {
		return "", nil, errShort
	}
	return string(p[:i]), p[i+1:], nil
}

// cutNumber takes a number off the front.
func cutNumber(p []byte) (n uint32, rest []byte, err error) {
	if len(p) < 4 {
		return 0, nil, errShort
	}
	return binary.BigEndian.Uint32(p), p[4:], nil
}

// allStrings are the strings of a reply, each with its NUL; the last may lack it.
func allStrings(p []byte) []string {
	var list []string
	for len(p) > 0 {
		s, rest, err := cutString(p)
		if err != nil {
			return append(list, string(p))
		}
		list, p = append(list, s), rest
	}
	return list
}
