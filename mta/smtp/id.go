package smtp

import (
	"fmt"
	"strconv"
	"strings"
)

// ID names a session or a transaction of the SMTP server (README 10.3): a
// 64-bit counter that never repeats in one spool, and the number of the server
// section (option id) that took the mail. It is comparable and may be a map key.
type ID struct {
	Counter uint64
	Process uint8
}

// idLen is the length of a printed ID: "S", 16 digits and 2 digits.
const idLen = 19

const upperHex = "0123456789ABCDEF"

// String prints the ID as README 10.3 does, for example S00000000407CE49200.
func (id ID) String() string { return string(id.Append(make([]byte, 0, idLen))) }

// Append adds the printed form of the ID to b.
func (id ID) Append(b []byte) []byte {
	b = append(b, 'S')
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, upperHex[id.Counter>>shift&15])
	}
	return append(b, upperHex[id.Process>>4], upperHex[id.Process&15])
}

// IsZero reports whether the ID names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Shard is the CDB directory of the transaction, 0 to 15: the last digit of the
// counter (README 2.4.1).
func (id ID) Shard() int { return int(id.Counter & 15) }

// ParseID reads the printed form. It accepts nothing else, so that an ID that
// came from outside can safely become a file name.
func ParseID(s string) (ID, error) {
	if len(s) != idLen || s[0] != 'S' {
		return ID{}, fmt.Errorf("%q is not a transaction id such as S00000000407CE49200", s)
	}
	for i := 1; i < idLen; i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return ID{}, fmt.Errorf("%q is not a transaction id: %q is not an upper-case hexadecimal digit", s, c)
		}
	}
	counter, err := strconv.ParseUint(s[1:17], 16, 64)
	if err != nil {
		return ID{}, err
	}
	process, err := strconv.ParseUint(s[17:], 16, 8)
	if err != nil {
		return ID{}, err
	}
	return ID{Counter: counter, Process: uint8(process)}, nil
}

// rcptDigits are the 64 digits of recipient indexes. They begin with 0 because
// README 10.3 writes the first recipient as ...-000000.
const rcptDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/"

// RcptID prints a recipient identifier (README 10.3): the transaction, a hyphen,
// and the index as six base64 digits.
func RcptID(ta ID, index int) string {
	b := append(ta.Append(make([]byte, 0, idLen+7)), '-')
	for shift := 30; shift >= 0; shift -= 6 {
		b = append(b, rcptDigits[index>>shift&63])
	}
	return string(b)
}

// ParseRcptID reads what RcptID printed.
func ParseRcptID(s string) (ta ID, index int, err error) {
	if len(s) != idLen+7 || s[idLen] != '-' {
		return ID{}, 0, fmt.Errorf("%q is not a recipient id such as S00000000407CE49200-000000", s)
	}
	if ta, err = ParseID(s[:idLen]); err != nil {
		return ID{}, 0, err
	}
	for _, c := range []byte(s[idLen+1:]) {
		d := strings.IndexByte(rcptDigits, c)
		if d < 0 {
			return ID{}, 0, fmt.Errorf("%q is not a recipient id: %q is no digit", s, c)
		}
		index = index<<6 | d
	}
	return ta, index, nil
}
