package sevenbit

import (
	"bytes"
	"strings"
	"testing"
)

// TestBinary: what came as any octets goes on in lines and says the same; nothing is made up
// for what cannot.
func TestBinary(t *testing.T) {
	const head = "MIME-Version: 1.0\r\n"
	long := strings.Repeat("x", lineLimit+1)
	for _, c := range []struct{ name, in, lines, ascii string }{
		{"lines stay as they are", head + "\r\na\r\n", head + "\r\na\r\n", ""},
		{"the word alone changes nothing", head + "\r\nBinary.\r\n", head + "\r\nBinary.\r\n", ""},
		{
			"data", head + "Content-Type: image/x\r\nContent-Transfer-Encoding: BINARY\r\n\r\n\x00\r\n.\r\n\n.\n",
			head + "Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAA0KLg0KCi4K\r\n", "",
		},
		{
			"text with LF alone", head + "Content-Transfer-Encoding: binary\r\n\r\na\n.\nb\r\n",
			head + "Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=0A.=0Ab=0D=0A=\r\n", "",
		},
		{
			"text without its last line end", head + "Content-Type: text/html\r\nContent-Transfer-Encoding: binary\r\n\r\n<p>",
			head + "Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>=\r\n", "",
		},
		{
			"data without its last line end", head + "Content-Type: image/x\r\n\r\nx",
			head + "Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n", "",
		},
		{
			"8-bit lines that are said to be binary", head + "Content-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\r\n",
			head + "Content-Type: image/x\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xff\r\n",
			head + "Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\n/w0K\r\n",
		},
		{
			"parts", head + "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\nno\x00body\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\né\r\n--b\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\r\x00\r\n--b--\r\n",
			head + "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\né\r\n--b\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nDQA=\r\n\r\n--b--\r\n",
			head + "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9\r\n--b\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nDQA=\r\n\r\n--b--\r\n",
		},
		{
			"parts that have lines", head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\na\r\n--b--\r\n",
			head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: 7bit\r\n\r\na\r\n--b--\r\n", "",
		},
		{
			"base64 with LF alone", head + "Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAA0K\nLg0KCi4K",
			head + "Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAA0KLg0KCi4K\r\n", "",
		},
		{"a long line", head + "Content-Type: image/x\r\n\r\n" + long + "\r\n", head + "Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + string(Base64([]byte(long+"\r\n"))), ""},
		{"a header with LF alone", "A: b\n.\r\n\r\nx\r\n", "-", "-"},
		{"a header with NUL", "A: \x00\r\n\r\nx\r\n", "-", "-"},
		{"a header with a long line", "A: " + long + "\r\n\r\nx\r\n", "-", "-"},
		{"a header without an end", "A: b\r\n\n.\r\nx", "-", "-"},
		{"quoted-printable with LF alone", "Content-Transfer-Encoding: quoted-printable\r\n\r\na\nb\r\n", "-", "-"},
		{"base64 that is none", "Content-Transfer-Encoding: base64\r\n\r\n\x00\r\n", "-", "-"},
		{"no boundary", "Content-Type: multipart/mixed\r\n\r\na\nb\r\n", "-", "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.ascii == "" {
				c.ascii = c.lines
			}
			for want, convert := range map[string]func([]byte) ([]byte, bool){"lines " + c.lines: BinaryToLines, "ascii " + c.ascii: BinaryToASCII} {
				form, want, _ := strings.Cut(want, " ")
				got, ok := convert([]byte(c.in))
				if ok != (want != "-") || ok && string(got) != want {
					t.Fatalf("%s: got %v\n%q, want\n%q", form, ok, got, want)
				}
				if ok && !sameLeaves(t, []byte(c.in), got) {
					t.Errorf("%s: it does not say the same any more", form)
				}
			}
		})
	}
}

// FuzzBinary: whatever the message, what comes out goes by DATA without a change and without
// an end in its middle, is no larger than it can be, and is not touched again.
func FuzzBinary(f *testing.F) {
	for _, s := range []string{
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n\x00\r\n.\r\n--x--\r\n",
		"Content-Type: message/rfc822\r\n\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\n.\n",
		"Content-Transfer-Encoding: base64\r\n\r\nAA0K\nLg0K",
		"Content-Type: multipart/x; boundary=\"--\"\r\nContent-Transfer-Encoding: binary\r\n\r\n----\r\n----\r\n\r----\r\n------\r\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, eightBit := range []bool{true, false} {
			convert := BinaryToASCII
			if eightBit {
				convert = BinaryToLines
			}
			got, ok := convert(content)
			if !ok {
				continue
			}
			if rest := bytes.ReplaceAll(got, []byte("\r\n"), nil); bytes.ContainsAny(rest, "\r\n\x00") || !eightBit && !isASCII(got) {
				t.Fatalf("%q became %q", content, got)
			}
			if len(got) > 0 && !bytes.HasSuffix(got, []byte("\r\n")) {
				t.Fatalf("%q became %q", content, got)
			}
			if len(got) > 4*len(content)+200*(depthMax+2)*(1+bytes.Count(content, []byte("\r\n"))) {
				t.Fatalf("%d bytes out of %d", len(got), len(content))
			}
			if again, ok := convert(got); !ok || !bytes.Equal(again, got) {
				t.Fatalf("%q changed again to %q", got, again)
			}
		}
	})
}
