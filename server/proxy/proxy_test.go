package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// v2 makes a header of version 2. A checksum of zeros is filled in.
func v2(command, family byte, block string, tlvs ...string) string {
	body := block + strings.Join(tlvs, "")
	b := []byte(signature)
	b = append(b, 0x20|command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, body...)
	if i := bytes.Index(b, []byte("\x03\x00\x04\x00\x00\x00\x00")); i >= 0 {
		binary.BigEndian.PutUint32(b[i+3:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	return string(b)
}

func tlv(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

const (
	block4 = "\xc0\x00\x02\x01\xc6\x33\x64\x01\x12\x67\x00\x19"
	block6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x12\x67\x00\x19"
)

var (
	from4, to4 = netip.MustParseAddrPort("192.0.2.1:4711"), netip.MustParseAddrPort("198.51.100.1:25")
	from6, to6 = netip.MustParseAddrPort("[2001:db8::1]:4711"), netip.MustParseAddrPort("[2001:db8::2]:25")
)

// TestRead: good headers, with what follows left unread, whatever pieces they come in.
func TestRead(t *testing.T) {
	ssl := func(client byte, verify string) string {
		return tlv(0x20, string(client)+verify+tlv(0x21, "TLSv1.3")+tlv(0x22, "joe")+tlv(0x23, "AES"))
	}
	for _, tt := range []struct {
		name, in string
		want     Header
	}{
		{"v1 IPv4", "PROXY TCP4 192.0.2.1 198.51.100.1 4711 25\r\n", Header{Version: 1, Source: from4, Destination: to4}},
		{"v1 shortest", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Header{Version: 1, Source: netip.MustParseAddrPort("1.1.1.1:1"), Destination: netip.MustParseAddrPort("2.2.2.2:2")}},
		{"v1 IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 4711 25\r\n", Header{Version: 1, Source: from6, Destination: to6}},
		{
			"v1 longest", "PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 2001:0db8:0000:0000:0000:0000:0000:0002 65535 65535\r\n",
			Header{Version: 1, Source: netip.MustParseAddrPort("[2001:db8::1]:65535"), Destination: netip.MustParseAddrPort("[2001:db8::2]:65535")},
		},
		{"v2 IPv4", v2(1, 0x11, block4), Header{Version: 2, Source: from4, Destination: to4}},
		{"v2 IPv6", v2(1, 0x21, block6), Header{Version: 2, Source: from6, Destination: to6}},
		{"v2 IPv4 in IPv6", v2(1, 0x21, strings.Repeat("\x00", 10)+"\xff\xff\xc0\x00\x02\x01"+block6[16:]), Header{Version: 2, Source: from4, Destination: to6}},
		{"v2 local", v2(0, 0, ""), Header{Version: 2, Local: true}},
		{"v2 local with addresses", v2(0, 0x11, block4), Header{Version: 2, Local: true}},
		{"v2 local by a Unix socket", v2(0, 0x31, strings.Repeat("\x00", 216)), Header{Version: 2, Local: true}},
		{"v2 unknown extension", v2(1, 0x11, block4, tlv(0x04, "\x00\x00"), tlv(0xEF, "x")), Header{Version: 2, Source: from4, Destination: to4}},
		{"v2 checksum", v2(1, 0x11, block4, tlv(0x03, "\x00\x00\x00\x00")), Header{Version: 2, Source: from4, Destination: to4}},
		{
			"v2 texts", v2(1, 0x11, block4, tlv(0x02, "mx.example.org"), tlv(0x05, "17"), tlv(0xE0, "secret")),
			Header{Version: 2, Source: from4, Destination: to4, Authority: "mx.example.org", UniqueID: "17", Key: []byte("secret")},
		},
		{
			"v2 TLS with certificate", v2(1, 0x11, block4, ssl(3, "\x00\x00\x00\x00")),
			Header{Version: 2, Source: from4, Destination: to4, TLS: &TLS{Version: "TLSv1.3", Cipher: "AES", CertName: "joe", Verified: true}},
		},
		{
			"v2 TLS, certificate not verified", v2(1, 0x11, block4, ssl(3, "\x00\x00\x00\x01")),
			Header{Version: 2, Source: from4, Destination: to4, TLS: &TLS{Version: "TLSv1.3", Cipher: "AES", CertName: "joe"}},
		},
		{
			"v2 TLS without certificate", v2(1, 0x11, block4, ssl(1, "\x00\x00\x00\x00")),
			Header{Version: 2, Source: from4, Destination: to4, TLS: &TLS{Version: "TLSv1.3", Cipher: "AES", CertName: "joe"}},
		},
		{"v2 no TLS", v2(1, 0x11, block4, ssl(0, "\x00\x00\x00\x00")), Header{Version: 2, Source: from4, Destination: to4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const behind = "\x16\x03\x01 or EHLO client\r\n"
			for _, oneByOne := range []bool{false, true} {
				r := io.Reader(strings.NewReader(tt.in + behind))
				if oneByOne {
					r = iotest.OneByteReader(r)
				}
				h, err := Read(r)
				if err != nil || !reflect.DeepEqual(h, tt.want) {
					t.Fatalf("%+v, %v; want %+v", h, err, tt.want)
				}
				if rest, _ := io.ReadAll(r); string(rest) != behind {
					t.Errorf("%q is left", rest)
				}
			}
			for n := range len(tt.in) {
				if _, err := Read(strings.NewReader(tt.in[:n])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("cut off after %d octets: %v", n, err)
				}
			}
		})
	}
}

// TestReadBad: what is refused, and that no more is read than is needed for it.
func TestReadBad(t *testing.T) {
	many := strings.Repeat(tlv(0x04, ""), tlvsMax+1)
	for _, tt := range []struct {
		name, in, want string
	}{
		{"SMTP", "EHLO client.example.org\r\n", "no PROXY header"},
		{"short SMTP", "QUIT\r\nEHLO x\r\n", "no PROXY header"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaa", "no PROXY header"},
		{"nearly", "PROXYTCP4 192.0.2.1 198.51.100.1 4711 25\r\n", "no PROXY header"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", "no address"},
		{"v1 unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", "no address"},
		{"v1 other protocol", "PROXY UDP4 192.0.2.1 198.51.100.1 4711 25\r\n", "wrong syntax"},
		{"v1 family", "PROXY TCP4 2001:db8::1 2001:db8::2 4711 25\r\n", "wrong address"},
		{"v1 family 6", "PROXY TCP6 192.0.2.1 198.51.100.1 4711 25\r\n", "wrong address"},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 2001:db8::2 4711 25\r\n", "wrong address"},
		{"v1 port", "PROXY TCP4 192.0.2.1 198.51.100.1 65536 25\r\n", "wrong port"},
		{"v1 port with zero", "PROXY TCP4 192.0.2.1 198.51.100.1 04711 25\r\n", "wrong port"},
		{"v1 no port", "PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n", "wrong syntax"},
		{"v1 empty word", "PROXY TCP4 192.0.2.1 198.51.100.1  4711 25\r\n", "wrong syntax"},
		{"v1 bare LF", "PROXY TCP4 192.0.2.1 198.51.100.1 4711 25\nEHLO x\r\n", "CR LF"},
		{"v1 too long", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", "too long"},
		{"v1 any address", "PROXY TCP4 0.0.0.0 198.51.100.1 4711 25\r\n", "no address"},
		{"v1 group", "PROXY TCP4 224.0.0.1 198.51.100.1 4711 25\r\n", "no address"},
		{"v2 version", signature + "\x11\x11\x00\x0c" + block4, "unknown version"},
		{"v2 command", v2(2, 0x11, block4), "unknown command"},
		{"v2 family", v2(1, 0x41, block4), "unknown address family"},
		{"v2 unspecified", v2(1, 0, ""), "no address"},
		{"v2 UDP", v2(1, 0x12, block4), "no address"},
		{"v2 Unix", v2(1, 0x31, strings.Repeat("\x00", 216)), "no address"},
		{"v2 any address", v2(1, 0x11, "\x00\x00\x00\x00"+block4[4:]), "no address"},
		{"v2 cut off", v2(1, 0x11, block4[:11]), "cut off"},
		{"v2 extension cut off", v2(1, 0x11, block4, "\x02\x00"), "cut off"},
		{"v2 value cut off", v2(1, 0x11, block4, "\x02\x00\x05abcd"), "cut off"},
		{"v2 TLS cut off", v2(1, 0x11, block4, tlv(0x20, "\x01\x00\x00\x00")), "cut off"},
		{"v2 in TLS cut off", v2(1, 0x11, block4, tlv(0x20, "\x01\x00\x00\x00\x00\x21\x00\x05abcd")), "cut off"},
		{"v2 wrong checksum", v2(1, 0x11, block4, tlv(0x03, "\x00\x00\x00\x01")), "wrong checksum"},
		{"v2 short checksum", v2(1, 0x11, block4, tlv(0x03, "\x00\x00")), "length of the checksum"},
		{"v2 local, wrong checksum", v2(0, 0, "", tlv(0x03, "\x00\x00\x00\x01")), "wrong checksum"},
		{"v2 twice", v2(1, 0x11, block4, tlv(0xE0, "a"), tlv(0xE0, "b")), "stands twice"},
		{"v2 many", v2(1, 0x11, block4, many), "too many"},
		{"v2 too long", v2(1, 0x11, block4, tlv(0x04, strings.Repeat("x", v2Max))), "too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := strings.NewReader(tt.in + strings.Repeat("x", 5000))
			_, err := Read(r)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %s", err, tt.want)
			}
			if read := len(tt.in) + 5000 - r.Len(); read > len(tt.in) {
				t.Errorf("%d octets were read of %d", read, len(tt.in))
			}
		})
	}
}

// FuzzRead: whatever comes, nothing behind the header is read, and a header that is taken has
// an address that a client can have.
func FuzzRead(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.1 4711 25\r\nEHLO"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(1, 0x11, block4, tlv(0x03, "\x00\x00\x00\x00"), tlv(0x02, "a")) + "EHLO"))
	f.Add([]byte(v2(1, 0x21, block6, tlv(0x20, "\x01\x00\x00\x00\x00"+tlv(0x21, "TLSv1.3")))))
	f.Add([]byte(v2(0, 0, "")))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		h, err := Read(r)
		used := in[:len(in)-r.Len()]
		if len(used) > v2Max {
			t.Fatalf("%d octets were read", len(used))
		}
		if err != nil {
			return
		}
		again, err := Parse(used)
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%q: %+v, and by itself %+v, %v", used, h, again, err)
		}
		a := h.Source.Addr()
		if !h.Local && (!a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6()) {
			t.Fatalf("%q: source %v", used, a)
		}
		if len(h.Authority) > textMax || len(h.UniqueID) > textMax {
			t.Fatal("a text is too long")
		}
	})
}
