package maps

import (
	"context"
	"fmt"
	"io"
)

// Text is a map in memory that was read from a flat text file (README 3.9.2, item
// 9a). A colon at the end of a key does not count: that of "key: value" in aliases, and
// that of a tag without more in the access map.
type Text struct {
	entries       map[string]textValue
	file          string
	caseSensitive bool
}

type textValue struct {
	value string
	line  int
}

// OpenText reads the flat text file at path.
func OpenText(path string, caseSensitive bool) (*Text, error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening map: %w", err)
	}
	defer f.Close()
	return ReadText(f, path, caseSensitive)
}

// ReadText reads a flat text map from in. A key that stands twice is an error.
func ReadText(in io.Reader, file string, caseSensitive bool) (*Text, error) {
	t := &Text{entries: map[string]textValue{}, file: file, caseSensitive: caseSensitive}
	if err := ReadSource(in, file, t.add); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Text) add(e Entry) error {
	key, _ := withoutColon(t.fold(e.Key))
	if old, ok := t.entries[key]; ok {
		return fmt.Errorf("key %q is already in line %d", key, old.line)
	}
	t.entries[key] = textValue{e.Value, e.Line}
	return nil
}

func (t *Text) fold(key string) string {
	if t.caseSensitive {
		return key
	}
	return Lower(key)
}

// Lookup implements Map.
func (t *Text) Lookup(_ context.Context, key string) (string, Result) {
	bare, _ := withoutColon(t.fold(key))
	v, ok := t.entries[bare]
	if !ok {
		return "", NotFound
	}
	return v.value, OK
}

func (t *Text) lookupBytes(key []byte) (string, Result) {
	if !t.caseSensitive {
		key = lowerBytes(key)
	}
	bare, _ := withoutColon(key)
	v, ok := t.entries[string(bare)]
	if !ok {
		return "", NotFound
	}
	return v.value, OK
}

// Blocking implements Map: everything is in memory.
func (t *Text) Blocking() bool { return false }
