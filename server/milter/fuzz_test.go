package milter

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// FuzzReplies reads what a filter may send: no reply is larger than its bound, and no change
// can end a header, or its own field.
func FuzzReplies(f *testing.F) {
	for _, p := range [][]byte{
		packetOf(repAddHeader, "A\x00b\nc\x00"), packetOf(repInsertHeader, "\x00\x00\x00\x01A\x00b\x00"), packetOf(repChangeHeader, "\xff\xff\xff\xffA\x00\x00"),
		packetOf(repReplyCode, "550-5.7.1 a%%\r\n550 5.7.1 b\x00"), packetOf(repAddRcptArgs, "<a@b>\x00X=1\x00"), packetOf(repQuarantine, "x\x00"),
		{0xff, 0xff, 0xff, 0xff, 'c'},
		packetOf(repContinue, ""),
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, buf := bufio.NewReader(bytes.NewReader(in)), bytes.Buffer{}
		for {
			p, err := readPacket(r, &buf)
			if err != nil {
				return
			}
			if len(p.data) >= packetMax {
				t.Fatalf("%d bytes", len(p.data))
			}
			if v, ok, err := p.verdict(); ok && err == nil && !v.Reply.IsZero() {
				if wire := string(v.Reply.AppendWire(nil)); strings.Count(wire, "\r\n") != len(v.Reply.Lines) || strings.ContainsAny(v.Reply.Text(), "\r\n\x00") || v.Reply.Code < 400 || v.Reply.Code > 599 {
					t.Fatalf("reply %q", wire)
				}
			}
			_, known := needed[p.kind]
			if !known || p.kind == repBody || p.kind == repQuarantine {
				continue
			}
			ch, err := parseChange(p, false)
			if err != nil || ch.Kind > ChangeHeader {
				continue
			}
			fields, _ := Apply(nil, []Change{ch})
			text := AppendHeader(nil, fields)
			back, empty, _, err := ReadHeader(bufio.NewReader(bytes.NewReader(append(text, "\r\n"...))), 1<<22)
			if err != nil || !empty || len(back) != len(fields) {
				t.Fatalf("%+v became %q, which is %d fields", ch, text, len(back))
			}
		}
	})
}

// FuzzReadHeader: a header that was read is written as it came.
func FuzzReadHeader(f *testing.F) {
	for _, s := range []string{"", "\r\n", "A: b\r\n c\r\n\r\nd", " x\r\n", "A: b", "From x\r\nA: b\r\n\r\n", "A : b\r\n\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Count(s, "\n") != strings.Count(s, "\r\n") {
			return // the server refuses it
		}
		fields, empty, size, err := ReadHeader(bufio.NewReaderSize(strings.NewReader(s), 16), 1000)
		if err != nil {
			if len(s) <= 1000 {
				t.Fatal(err)
			}
			return
		}
		text := string(AppendHeader(nil, fields))
		if empty {
			text += "\r\n"
		}
		if size > len(s) || text != s[:size] && (text != s[:size]+"\r\n" || empty) {
			t.Fatalf("%q became %q, size %d", s, text, size)
		}
	})
}
