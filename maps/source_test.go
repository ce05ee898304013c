package maps

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestReadSource(t *testing.T) {
	const text = "# comment\n\nkey value\nlong\tone\n  two\n\tthree  \nCASE Value\r\n\"a b\"@c d\nlast x"
	var got []Entry
	err := ReadSource(strings.NewReader(text), "f", func(e Entry) error { got = append(got, e); return nil })
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{{"key", "value", 3}, {"long", "one two three", 4}, {"CASE", "Value", 7}, {`"a b"@c`, "d", 8}, {"last", "x", 9}}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestReadSourceErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a b\nkey\n":                `f:2: key "key" has no value`,
		"  a b\n":                   "f:1: line begins with white space",
		"a b\nk\x00 v\n":            "f:2: entry \"k\\x00\" contains a NUL byte",
		"\"a b\n":                   "f:1: key \"\\\"a\" has a quote without its end",
		"x y\nx z\n":                `f:2: key "x" is already in line 1`,
		"X y\nx z\n":                `f:2: key "x" is already in line 1`,
		strings.Repeat("bad\n", 50): "too many errors",
	} {
		_, err := ReadText(strings.NewReader(text), "f", false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
	_, err := ReadText(strings.NewReader("bad1\nbad2\n"), "f", false)
	var le *LineError
	if !errors.As(err, &le) || le.Line != 1 || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("both lines should be reported: %v", err)
	}
}

func TestTextCase(t *testing.T) {
	const text = "User Value\n"
	folded, _ := ReadText(strings.NewReader(text), "f", false)
	exact, _ := ReadText(strings.NewReader(text), "f", true)
	for _, c := range []struct {
		m    Map
		key  string
		want Result
	}{
		{folded, "user", OK},
		{folded, "USER", OK},
		{folded, "other", NotFound},
		{exact, "User", OK},
		{exact, "user", NotFound},
	} {
		v, r := c.m.Lookup(context.Background(), c.key)
		if r != c.want || r == OK && v != "Value" {
			t.Errorf("%s: %q %v, want %v", c.key, v, r, c.want)
		}
	}
}

func FuzzReadSource(f *testing.F) {
	for _, s := range []string{"a b\n", "a b\n c\n", "#x\n", "\"a\\\" b\"@c d", "a\tb\r\n", "\x00", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ReadSource(strings.NewReader(text), "f", func(e Entry) error {
			if e.Key == "" || e.Value == "" || e.Line < 1 || strings.ContainsAny(e.Value, "\n") {
				t.Errorf("bad entry %+v", e)
			}
			return nil
		})
	})
}
