package sevenbit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

// TestConvert: what can be said in 7 bits is, and nothing is made up for the rest. The
// lines end with LF here.
func TestConvert(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"ASCII stays as it is", "A: b\nContent-Transfer-Encoding: 8bit\n\nc\n", "A: b\nContent-Transfer-Encoding: 8bit\n\nc\n"},
		{
			"text", "MIME-Version: 1.0\nContent-Type: text/plain;\n charset=utf-8\ncontent-transfer-encoding: 8BIT\nA: b\n\ncafé =\n",
			"MIME-Version: 1.0\nContent-Type: text/plain;\n charset=utf-8\nA: b\nContent-Transfer-Encoding: quoted-printable\n\ncaf=C3=A9 =3D\n",
		},
		{
			"text without MIME", "A: b\n\ncaf\xe9\n",
			"A: b\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\ncaf=E9\n",
		},
		{
			"no header", "\ncafé",
			"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\ncaf=C3=A9",
		},
		{
			"other data", "MIME-Version: 1.0\nContent-Type: image/x\nContent-Transfer-Encoding: binary\n\n\xff\xfe",
			"MIME-Version: 1.0\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\n//4=\n",
		},
		{
			"parts", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"x y\"\nContent-Transfer-Encoding: 8bit\n\npreämble\n--x y\n\né\n--x yz\n--x y \nContent-Type: text/html\n\nascii\n\n--x y\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n<b>é</b>\n--x y--\nepilögue\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"x y\"\nContent-Transfer-Encoding: 7bit\n\npre??mble\n--x y\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A9\n--x yz\n--x y \nContent-Type: text/html\n\nascii\n\n--x y\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<b>=C3=A9</b>\n--x y--\nepil??gue\n",
		},
		{
			"parts without an end", "Mime-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\né\n",
			"Mime-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: 7bit\n\n--x\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A9\n",
		},
		{
			"a message in a message", "MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nA: b\n\né\n",
			"MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nA: b\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A9\n",
		},
		{"8 bits in the header", "Subject: café\n\nx\n", ""},
		{"8 bits in the header of a part", "Content-Type: multipart/mixed; boundary=x\n\n--x\nA: é\n\nb\n--x--\n", ""},
		{"8 bits in base64", "Content-Transfer-Encoding: base64\n\né\n", ""},
		{"an unknown encoding", "Content-Transfer-Encoding: x-uuencode\n\né\n", ""},
		{"a broken type", "Content-Type: multipart/mixed; boundary\n\né\n", ""},
		{"no boundary", "Content-Type: multipart/mixed\n\né\n", ""},
		{"part of a message", "Content-Type: message/partial; id=x\n\né\n", ""},
		{"too deep", strings.Repeat("Content-Type: message/rfc822\n\n", depthMax+2) + "\né\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, want := strings.ReplaceAll(c.in, "\n", "\r\n"), strings.ReplaceAll(c.want, "\n", "\r\n")
			got, ok := Convert([]byte(in))
			if ok != (want != "") || ok && string(got) != want {
				t.Fatalf("got %v\n%s", ok, got)
			}
			if ok && !sameLeaves(t, []byte(in), got) {
				t.Error("it does not say the same any more")
			}
		})
	}
}

// leaf is a part that is not made of parts, decoded.
type leaf struct {
	kind string
	body string
}

// leaves reads a message as a mail program would.
func leaves(t *testing.T, content []byte, depth int) (list []leaf) {
	t.Helper()
	header, body := splitHeader(content)
	h, _ := textproto.NewReader(bufioReader(header)).ReadMIMEHeader()
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case err != nil:
		kind = "text/plain"
	case depth > 2*depthMax:
		t.Fatal("too deep")
	case kind == "message/rfc822":
		return leaves(t, body, depth+1)
	case strings.HasPrefix(kind, "multipart/"):
		for r := multipart.NewReader(bytes.NewReader(body), params["boundary"]); ; {
			p, err := r.NextRawPart()
			if err != nil {
				return list
			}
			b, _ := io.ReadAll(p) // what stands before a missing end
			var head bytes.Buffer
			for name, values := range p.Header {
				for _, v := range values {
					head.WriteString(name + ": " + v + "\r\n")
				}
			}
			list = append(list, leaves(t, append(append(head.Bytes(), "\r\n"...), b...), depth+1)...)
		}
	}
	var r io.Reader = bytes.NewReader(body)
	switch strings.ToLower(h.Get("Content-Transfer-Encoding")) {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		b = body
	}
	return append(list, leaf{kind, string(b)})
}

func bufioReader(header []byte) *bufio.Reader {
	return bufio.NewReader(bytes.NewReader(append(bytes.Clone(header), "\r\n"...)))
}

// sameLeaves reports whether two messages have the same parts.
func sameLeaves(t *testing.T, a, b []byte) bool {
	t.Helper()
	return slices.Equal(leaves(t, a, 0), leaves(t, b, 0))
}

// FuzzConvert: whatever the message, what comes out is 7-bit, no larger than it can be,
// and not touched again.
func FuzzConvert(f *testing.F) {
	f.Add([]byte("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\né\r\n--x--\r\n"))
	f.Add([]byte("Content-Type: message/rfc822\r\n\r\nContent-Type: image/x\r\n\r\n\xff"))
	f.Add([]byte("Content-Type: multipart/x; boundary=\"--\"\r\n\r\n----\r\n----\r\né----\r\n------\r\né"))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, ok := Convert(content)
		if !ok {
			return
		}
		if !isASCII(got) {
			t.Fatalf("8 bits in %q", got)
		}
		if len(got) > 4*len(content)+200*(depthMax+2)*(1+bytes.Count(content, []byte("\r\n"))) {
			t.Fatalf("%d bytes out of %d", len(got), len(content))
		}
		if again, ok := Convert(got); !ok || !bytes.Equal(again, got) {
			t.Fatalf("changed again to %q", again)
		}
	})
}
