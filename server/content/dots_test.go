package content

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// plainScan is the meaning of DotScanner, byte by byte: what the content is, where
// the data end (-1 if they do not), and whether the message is to be refused.
func plainScan(in []byte) (out []byte, end int, bare bool) {
	lineStart := true
	for i := 0; i < len(in); i++ {
		rest := string(in[i:])
		if lineStart && strings.HasPrefix(rest, ".\r\n") {
			return out, i + 3, bare
		}
		if lineStart && rest[0] == '.' {
			lineStart = false
			continue
		}
		if strings.HasPrefix(rest, "\r\n") {
			out = append(out, "\r\n"...)
			lineStart = true
			i++
			continue
		}
		if rest[0] == '\r' || rest[0] == '\n' {
			bare = true
		}
		out = append(out, rest[0])
		lineStart = false
	}
	return out, -1, bare
}

// scanned is what became of a message.
type scanned struct {
	out    []byte
	end    int
	refuse smtp.Reply
	shape  msg.Shape
}

// scanChunks runs a DotScanner over in, cut into chunks of the given sizes, which
// are used in turn.
func scanChunks(in []byte, sizes ...int) scanned {
	body := New(Config{Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: 1 << 30})
	d := body.Dots(0)
	given, used := 0, 0
	for i := 0; ; i++ {
		n, end := d.Scan(in[used:given])
		used += n
		if end {
			return scanned{body.mem, used, body.failed, body.shape}
		}
		if given == len(in) {
			return scanned{body.mem, -1, body.failed, body.shape}
		}
		given = min(len(in), given+sizes[i%len(sizes)])
	}
}

func checkScan(t *testing.T, in []byte, sizes ...int) {
	t.Helper()
	out, end, bare := plainScan(in)
	got := scanChunks(in, sizes...)
	if got.end != end {
		t.Fatalf("%q in %v: end %d, want %d", in, sizes, got.end, end)
	}
	if end < 0 {
		return // what is left over may still have to be decided
	}
	if refused := !got.refuse.IsZero(); refused != bare {
		t.Fatalf("%q in %v: refusal %v, want %v", in, sizes, got.refuse, bare)
	}
	if !bare && !bytes.Equal(got.out, out) {
		t.Fatalf("%q in %v: content %q, want %q", in, sizes, got.out, out)
	}
	if !bare {
		checkShape(t, got.shape, out)
	}
}

// checkShape checks what is said of content against the content. The next host would be told lines of the content as
// commands if NoDots were wrong.
func checkShape(t *testing.T, s msg.Shape, content []byte) {
	t.Helper()
	if s.NoDots && (bytes.HasPrefix(content, []byte(".")) || bytes.Contains(content, []byte("\r\n."))) {
		t.Errorf("%q is said to have no line with a dot first", content)
	}
	if ascii := !slices.ContainsFunc(content, func(c byte) bool { return c >= 0x80 }); s.ASCII != ascii {
		t.Errorf("%q: ASCII is %v", content, s.ASCII)
	}
}

// TestShape checks what is said of content that was changed on its way.
func TestShape(t *testing.T) {
	for _, topFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("text on top first %v", topFirst), func(t *testing.T) { testShape(t, topFirst) })
	}
}

func testShape(t *testing.T, topFirst bool) {
	for _, tt := range []struct {
		name           string
		nul, top, head string
		data           string
		noDots         bool
	}{
		{name: "plain", data: "a: b\r\n\r\nc.d\r\n", noDots: true},
		{name: "dot", data: "a: b\r\n\r\n..c\r\n"},
		{name: "end of the data behind a NUL", nul: StripNUL, data: "a: b\r\n\r\n\x00.\r\nMAIL\r\n"},
		{name: "NUL", nul: AcceptNUL, data: "a: b\r\n\r\n\x00.\r\nMAIL\r\n", noDots: true},
		{name: "a dot on top", top: "A: b\r\n.\r\n", data: "a: b\r\n\r\nc\r\n"},
		{name: "a dot first", top: ".A: b\r\n", data: "a: b\r\n\r\nc\r\n"},
		{name: "8 bit on top", top: "A: \xe9\r\n", data: "a: b\r\n\r\nc\r\n", noDots: true},
		{name: "8 bit", data: "a: b\r\n\r\nc\xe9\r\n", noDots: true},
		{name: "header", head: "A: b\r\n", data: "a: b\r\n\r\nc\r\n", noDots: true},
		{name: "header with a dot", head: "A: b\r\n.c\r\n", data: "a: b\r\n\r\nc\r\n"},
		{name: "header with 8 bit", head: "A: \xe9\r\n", data: "a: b\r\n\r\nc\r\n", noDots: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := New(Config{
				Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: 1 << 20, NUL: tt.nul,
			})
			var scan DotScanner
			if topFirst { // in either order
				body.Begin([]byte(tt.top), 0)
				scan = body.Dots(0)
			} else {
				scan = body.Dots(0)
				body.Begin([]byte(tt.top), 0)
			}
			scan.Scan([]byte(tt.data + ".\r\n"))
			if tt.head != "" {
				body.SetHead(int64(len(tt.top)), []byte(tt.head))
			}
			kept, r := body.Finish(&msg.Envelope{})
			if !r.IsZero() {
				t.Fatal(r)
			}
			checkShape(t, body.shape, kept)
			if body.shape.NoDots != tt.noDots {
				t.Errorf("NoDots is %v", body.shape.NoDots)
			}
		})
	}
}

// TestSmuggling tries each way to write line ends around a dot, in all cuttings:
// only CR LF "." CR LF ends the data.
func TestSmuggling(t *testing.T) {
	ends := []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\r", "\r\n\n", "\x00\r\n", " \r\n", ""}
	for _, before := range ends {
		for _, after := range ends {
			for _, dots := range []string{".", "..", ". ", ""} {
				head := "text" + before + dots + after
				in := head + "MAIL FROM:<a@b>\r\n.\r\nNOOP\r\n"
				checkScan(t, []byte(in), len(in))
				checkScan(t, []byte(in), 1)
				for cut := 1; cut < len(in); cut++ {
					checkScan(t, []byte(in), cut, len(in))
				}
				early := scanChunks([]byte(in), 3).end <= len(head)
				if want := strings.Contains(head, "\r\n.\r\n"); early != want {
					t.Errorf("%q: end of data %v, want %v", head, early, want)
				}
			}
		}
	}
}

func TestDotScan(t *testing.T) {
	tests := []struct{ name, in, out string }{
		{"empty", ".\r\n", ""},
		{"line", "a\r\n.\r\n", "a\r\n"},
		{"stuffed", "..\r\n.a\r\n...\r\n.\r\n", ".\r\na\r\n..\r\n"},
		{"dot inside", "a.\r\nb.c\r\n.\r\n", "a.\r\nb.c\r\n"},
		{"rest is left", "a\r\n.\r\nQUIT\r\n", "a\r\n"},
		{"nul and 8 bit", "\x00\xff\r\n.\r\n", "\x00\xff\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for size := 1; size <= len(tt.in); size++ {
				got := scanChunks([]byte(tt.in), size)
				if string(got.out) != tt.out || !got.refuse.IsZero() {
					t.Fatalf("in pieces of %d: %q, %v", size, got.out, got.refuse)
				}
			}
		})
	}
}

// TestDotScanProgress checks that at most two bytes are left over, so that the
// buffer cannot fill up without an end.
func TestDotScanProgress(t *testing.T) {
	for _, in := range []string{"a", "\r", ".", ".\r", "a\r", "a\r\n.", "a\r\n.\r", "\r\r", "..", ".\r\r"} {
		d := New(Config{Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: 100}).Dots(0)
		n, end := d.Scan([]byte(in))
		if end || len(in)-n > 2 {
			t.Errorf("%q: took %d, end %v", in, n, end)
		}
	}
}

func TestLongLine(t *testing.T) {
	for _, tt := range []struct {
		in     string
		refuse bool
	}{
		{"12345\r\n.\r\n", false},
		{"123456\r\n.\r\n", true},
		{"a\r\n12345\r\n12345\r\n.\r\n", false},
		{"123456", true},
		{".12345\r\n.\r\n", false},
	} {
		for size := 1; size <= len(tt.in); size++ {
			body := New(Config{Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: 1 << 20})
			d := body.Dots(5)
			in := []byte(tt.in)
			for given, used, end := 0, 0, false; !end && given < len(in); {
				given = min(len(in), given+size)
				var n int
				n, end = d.Scan(in[used:given])
				used += n
			}
			if got := !body.failed.IsZero(); got != tt.refuse {
				t.Errorf("%q in pieces of %d: %v", tt.in, size, body.failed)
			}
		}
	}
}

// FuzzDotScan compares the scanner with its plain form in two cuttings.
func FuzzDotScan(f *testing.F) {
	for _, s := range []string{".\r\n", "a\r\n..b\r\n.\r\n", "a\n.\r\n.\r\n", "\r\n.\r\r\n.\r\n", "a\r.\r\n\r\n.\r\n"} {
		f.Add([]byte(s), uint8(1), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, a, b uint8) {
		checkScan(t, in, int(a)+1, int(b)+1)
		checkScan(t, in, len(in)+1)
	})
}
