// Package proxy reads the header by which a proxy tells whose connection it hands on: the
// PROXY protocol, versions 1 and 2 (https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt).
// The header stands before everything else, a TLS handshake included, and not an octet
// behind it is read.
//
// A header is believed only because of where it comes from: who calls Read has found out
// that the connection is one of a listed proxy.
package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// signature begins a header of version 2.
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	// fixed is the part of a header of version 2 that each has.
	fixed = 16
	// v1Max is the longest header of version 1 with CR LF.
	v1Max = 107
	// v1Least are the octets that a header of version 1 with addresses has at least.
	v1Least = len("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n")
	// v2Max bounds a header of version 2. Those that are sent have some hundred octets; the
	// protocol allows 64 KiB.
	v2Max = 4096
	// tlvsMax bounds the extensions in a header.
	tlvsMax = 64
	// textMax bounds the texts that are taken from them.
	textMax = 255
)

// Header is what a proxy says of a connection.
type Header struct {
	Version int
	// Local: the proxy speaks for itself, as for a check of our health. There are no addresses.
	Local bool
	// Source is the client, Destination what it connected to.
	Source, Destination netip.AddrPort
	// Authority is the server name of the client's TLS, "" if there is none.
	Authority string
	// UniqueID is the proxy's name for the connection.
	UniqueID string
	// Key is the value of KeyType.
	Key []byte
	// TLS is what the proxy says of the client's TLS, nil without.
	TLS *TLS
}

// TLS is the TLS that ended at the proxy.
type TLS struct {
	Version, Cipher string
	// CertName is the common name of the client's certificate, "" if it has sent none.
	CertName string
	// Verified: the proxy has verified the client's certificate.
	Verified bool
}

// KeyType is the type of the extension (TLV) that carries the key of the option client_key.
// The protocol leaves 0xE0 to 0xEF to applications.
const KeyType = 0xE0

// The types of extensions that are read (section 2.2 of the protocol).
const (
	typeAuthority = 0x02
	typeCRC32C    = 0x03
	typeUniqueID  = 0x05
	typeTLS       = 0x20
)

// Errors of Read, besides those of the connection. The others say what is wrong with the
// header.
var (
	// ErrNoHeader: what came is no header.
	ErrNoHeader = errors.New("no PROXY header")
	// ErrNoAddress: the header names no address of a client, or none that it can have.
	ErrNoAddress = errors.New("no address of a client in the PROXY header")
)

// Read reads a header, and nothing behind it. The caller sets the deadline.
func Read(r io.Reader) (Header, error) {
	b := make([]byte, 0, fixed+64)
	for {
		n, err := missing(b)
		if err != nil {
			return Header{}, err
		}
		if n == 0 {
			return Parse(b)
		}
		have := len(b)
		b = append(b, make([]byte, n)...)
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			return Header{}, fmt.Errorf("reading the PROXY header: %w", err)
		}
	}
}

// missing is the number of octets that are missing for sure to a header that begins with b:
// so many can be read without reading too far. 0: it is complete.
func missing(b []byte) (int, error) {
	switch {
	case len(b) < len(signature):
		if !strings.HasPrefix(signature, string(b)) && !strings.HasPrefix("PROXY ", string(b[:min(len(b), 6)])) {
			return 0, ErrNoHeader
		}
		return len(signature) - len(b), nil
	case string(b[:len(signature)]) == signature:
		if len(b) < fixed {
			return fixed - len(b), nil
		}
		n := int(binary.BigEndian.Uint16(b[14:]))
		if fixed+n > v2Max {
			return 0, fmt.Errorf("PROXY header of %d octets: too long", fixed+n)
		}
		return fixed + n - len(b), nil
	case string(b[:6]) != "PROXY ":
		return 0, ErrNoHeader
	case bytes.HasSuffix(b, []byte("\r\n")):
		return 0, nil
	case bytes.IndexByte(b, '\n') >= 0:
		return 0, errors.New("PROXY header of version 1 does not end in CR LF")
	case len(b) >= v1Max:
		return 0, errors.New("PROXY header of version 1 is too long")
	case string(b[6:9]) == "TCP" && len(b) < v1Least:
		return v1Least - len(b), nil
	case b[len(b)-1] == '\r':
		return 1, nil
	}
	// At least one octet and LF, or CR LF, is missing: but after CR only LF may follow.
	return 1, nil
}

// Parse reads a whole header.
func Parse(b []byte) (Header, error) {
	if len(b) >= fixed && string(b[:len(signature)]) == signature {
		return parseV2(b)
	}
	return parseV1(b)
}

// parseV1 reads "PROXY TCP4 192.0.2.1 198.51.100.1 4711 25" (section 2.1).
func parseV1(b []byte) (Header, error) {
	h := Header{Version: 1}
	line, ok := strings.CutSuffix(string(b), "\r\n")
	if !ok || len(b) > v1Max || !strings.HasPrefix(line, "PROXY ") {
		return h, ErrNoHeader
	}
	words := strings.Split(line, " ")
	if words[1] == "UNKNOWN" {
		return h, ErrNoAddress
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return h, errors.New("PROXY header of version 1: wrong syntax")
	}
	var err error
	is4 := words[1] == "TCP4"
	if h.Source, err = endV1(words[2], words[4], is4); err == nil {
		h.Destination, err = endV1(words[3], words[5], is4)
	}
	if err != nil {
		return h, err
	}
	return h, h.check()
}

// endV1 is one end of a connection.
func endV1(addr, port string, is4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != is4 || a.Zone() != "" {
		return netip.AddrPort{}, errors.New("PROXY header of version 1: wrong address")
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, errors.New("PROXY header of version 1: wrong port")
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

// parseV2 reads the binary header (section 2.2).
func parseV2(b []byte) (Header, error) {
	h := Header{Version: 2}
	rest := b[fixed:]
	if len(rest) != int(binary.BigEndian.Uint16(b[14:])) {
		return h, errors.New("PROXY header of version 2: wrong length")
	}
	if b[12]>>4 != 2 {
		return h, fmt.Errorf("PROXY header: unknown version %d", b[12]>>4)
	}
	switch b[12] & 15 {
	case 0:
		h.Local = true
	case 1:
	default:
		return h, fmt.Errorf("PROXY header: unknown command %d", b[12]&15)
	}
	size := 0
	switch family := b[13] >> 4; family {
	case 0: // UNSPEC
	case 1:
		size = 4
	case 2:
		size = 16
	case 3: // Unix sockets
		size = 108 - 2 // without ports
	default:
		return h, fmt.Errorf("PROXY header: unknown address family %d", family)
	}
	block := 0
	if size > 0 {
		block = 2*size + 4
	}
	if len(rest) < block {
		return h, errors.New("PROXY header of version 2: addresses are cut off")
	}
	if err := h.extensions(b, rest[block:]); err != nil {
		return h, err
	}
	if h.Local {
		return h, nil // whatever the addresses are
	}
	if b[13] != 0x11 && b[13] != 0x21 { // TCP over IPv4 and IPv6
		return h, ErrNoAddress
	}
	h.Source = endV2(rest[:size], rest[2*size:])
	h.Destination = endV2(rest[size:2*size], rest[2*size+2:])
	return h, h.check()
}

func endV2(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr) // it has the length of one
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// check refuses a source that no client can have.
func (h *Header) check() error {
	a := h.Source.Addr()
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%w: %v", ErrNoAddress, a)
	}
	return nil
}

// extensions reads the extensions (TLVs) behind the addresses. all is the whole header.
func (h *Header) extensions(all, rest []byte) error {
	seen := map[byte]bool{}
	return each(rest, func(kind byte, value []byte) error {
		switch kind {
		case typeAuthority, typeCRC32C, typeUniqueID, typeTLS, KeyType:
			if seen[kind] {
				return fmt.Errorf("PROXY header: extension %#x stands twice", kind)
			}
			seen[kind] = true
		}
		switch kind {
		case typeCRC32C:
			return checkSum(all, value)
		case typeAuthority:
			h.Authority = text(value)
		case typeUniqueID:
			h.UniqueID = text(value)
		case typeTLS:
			return h.tls(value)
		case KeyType:
			h.Key = bytes.Clone(value)
		}
		return nil
	})
}

// each calls f for each extension.
func each(b []byte, f func(kind byte, value []byte) error) error {
	for n := 0; len(b) > 0; n++ {
		if n == tlvsMax {
			return errors.New("PROXY header: too many extensions")
		}
		if len(b) < 3 || len(b)-3 < int(binary.BigEndian.Uint16(b[1:])) {
			return errors.New("PROXY header: an extension is cut off")
		}
		end := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if err := f(b[0], b[3:end]); err != nil {
			return err
		}
		b = b[end:]
	}
	return nil
}

// checkSum checks the CRC32C of a header (section 2.2.3). value lies in all.
func checkSum(all, value []byte) error {
	if len(value) != 4 {
		return errors.New("PROXY header: wrong length of the checksum")
	}
	want := binary.BigEndian.Uint32(value)
	zeroed := bytes.Clone(all)
	at := cap(all) - cap(value) // value is a part of all
	copy(zeroed[at:], []byte{0, 0, 0, 0})
	if got := crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli)); got != want {
		return errors.New("PROXY header: wrong checksum")
	}
	return nil
}

// What the first octet of the extension for TLS says (section 2.2.6).
const (
	tlsUsed     = 1
	tlsCertConn = 2
	tlsCertSess = 4
)

// tls reads what the proxy says of the client's TLS.
func (h *Header) tls(value []byte) error {
	if len(value) < 5 {
		return errors.New("PROXY header: the extension for TLS is cut off")
	}
	if value[0]&tlsUsed == 0 {
		return nil
	}
	t := &TLS{Verified: value[0]&(tlsCertConn|tlsCertSess) != 0 && binary.BigEndian.Uint32(value[1:]) == 0}
	h.TLS = t
	return each(value[5:], func(kind byte, value []byte) error {
		switch kind {
		case 0x21:
			t.Version = text(value)
		case 0x22:
			t.CertName = text(value)
		case 0x23:
			t.Cipher = text(value)
		}
		return nil
	})
}

// text is a text of bounded length; who prints it escapes it.
func text(b []byte) string { return string(b[:min(len(b), textMax)]) }
