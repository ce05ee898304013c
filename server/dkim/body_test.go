package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// canonicalBody is the body by the words of RFC 6376 section 3.4.3 and 3.4.4, whole in memory.
func canonicalBody(c Canon, body string) string {
	lines := strings.Split(body, "\r\n")
	if c == Relaxed {
		for i, l := range lines {
			var b strings.Builder
			for j, word := range strings.FieldsFunc(l, func(r rune) bool { return r == ' ' || r == '\t' }) {
				if j > 0 || l[0] == ' ' || l[0] == '\t' {
					b.WriteByte(' ')
				}
				b.WriteString(word)
			}
			lines[i] = b.String()
		}
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 && c == Relaxed {
		return ""
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

func bodySum(c Canon, pieces ...string) string {
	b := NewBodyHash(c)
	for _, p := range pieces {
		_, _ = b.Write([]byte(p))
	}
	return base64.StdEncoding.EncodeToString(b.Sum())
}

func TestBodyExamples(t *testing.T) {
	for _, c := range []struct {
		canon      Canon
		body, hash string
	}{
		// RFC 6376 section 3.4.3 and 3.4.4.
		{Simple, "", "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="},
		{Relaxed, "", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
		// RFC 6376 appendix A.2, RFC 8463 appendix A.3.
		{Simple, "Hi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n", "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="},
		{Relaxed, "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n", "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="},
	} {
		if got := bodySum(c.canon, c.body); got != c.hash {
			t.Errorf("%s of %q: %s, want %s", c.canon, c.body, got, c.hash)
		}
	}
	// RFC 6376 section 3.4.5, example 1 and 2.
	for c, want := range map[Canon]string{Relaxed: " C\r\nD E\r\n", Simple: " C \r\nD \t E\r\n"} {
		sum := sha256.Sum256([]byte(want))
		if got := bodySum(c, " C \r\nD \t E\r\n\r\n\r\n"); got != base64.StdEncoding.EncodeToString(sum[:]) {
			t.Errorf("%s: %s", c, got)
		}
	}
}

// TestBodyPieces: whatever the pieces, the hash is that of the canonical body.
func TestBodyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.SampledFrom([]string{
			"\r\n", "\r", "\n", " ", "\t", "x", "word", "\r\n\r\n", strings.Repeat("\r\n", 600), strings.Repeat("long", 700), "",
		})).Draw(t, "pieces")
		for _, c := range []Canon{Simple, Relaxed} {
			sum := sha256.Sum256([]byte(canonicalBody(c, strings.Join(pieces, ""))))
			if got := bodySum(c, pieces...); got != base64.StdEncoding.EncodeToString(sum[:]) {
				t.Errorf("%s of %q is another", c, pieces)
			}
		}
	})
}

func TestHeaderExamples(t *testing.T) {
	in := []byte("A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n")
	h, err := ParseHeader(in)
	if err != nil || len(h) != 2 {
		t.Fatalf("%v, %v", h, err)
	}
	for c, want := range map[Canon]string{Relaxed: "a:X\r\nb:Y Z\r\n", Simple: "A: X\r\nB : Y\t\r\n\tZ  \r\n"} { // RFC 6376 section 3.4.5
		var b []byte
		for _, f := range h {
			b = AppendCanonical(b, c, f.Raw)
		}
		if string(b) != want {
			t.Errorf("%s: %q", c, b)
		}
	}
	for in, want := range map[string]int{"": 0, "\r\n": 0, "a:": 1, "a: b\r\n c": 1, " a: b\r\n": -1, "no field\r\n": -1, ": x\r\n": -1, "a\x01: x\r\n": -1, "a: b\r\n\r\nc: d": 1} {
		h, err := ParseHeader([]byte(in))
		if err != nil && want >= 0 || err == nil && len(h) != want {
			t.Errorf("%q: %d fields, %v", in, len(h), err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("A: X\r\nB : Y\t\r\n\tZ  \r\n\r\nbody"))
	f.Add([]byte("\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := ParseHeader(in)
		if err != nil {
			return
		}
		var all []byte
		for _, x := range h {
			all = append(all, x.Raw...)
			if c := AppendCanonical(nil, Relaxed, x.Raw); !bytes.HasSuffix(c, []byte("\r\n")) || bytes.Count(c, []byte("\r\n")) != 1 {
				t.Fatalf("%q is in canonical form %q", x.Raw, c)
			}
		}
		if !bytes.HasPrefix(in, bytes.TrimSuffix(all, []byte("\r\n"))) {
			t.Fatalf("%q has the fields %q", in, all)
		}
	})
}

func BenchmarkBody(b *testing.B) {
	body := []byte(strings.Repeat("Some words of a line, as mail has them, up to its end.\r\n", 600))
	for _, c := range []Canon{Simple, Relaxed} {
		b.Run(string(c), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				h := NewBodyHash(c)
				_, _ = h.Write(body)
				h.Sum()
			}
		})
	}
}
