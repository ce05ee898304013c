package maps

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// CreateOptions say how Create makes a map.
type CreateOptions struct {
	// CaseSensitive keeps the keys as they are. Otherwise they become lower case.
	CaseSensitive bool
	// Verbatim keeps a colon at the end of a key. Otherwise one is removed, as the form
	// "key: value" of aliases wants it; a lookup of a key with a colon finds it all the
	// same ("cltaddr:" of the access map).
	Verbatim bool
	// Source is the name of the input in messages.
	Source string
	// Check, if not nil, is asked about each entry as it stands in the source; its error
	// is one of the line.
	Check func(Entry) error

	folders folders // nil: the operating system's
}

// Created says what Create made.
type Created struct {
	Entries int
	Bytes   int64
}

// Create makes the map file path, a cdb file, from its text form (README 3.9.3;
// ReadSource), or from the output of Berkeley DB's db_dump. Nothing is written if any
// line is bad; otherwise the file is written under another name, synced and renamed, so
// that readers see the old map or the new one. An existing file's mode is kept.
func Create(path string, in io.Reader, o CreateOptions) (Created, error) {
	source := cmp.Or(o.Source, "input")
	b := newCDBBuilder(source, o.CaseSensitive)
	n := 0
	err := readAnySource(in, source, func(e Entry) error {
		if o.Check != nil {
			if err := o.Check(e); err != nil {
				return err
			}
		}
		n++
		e.Key = o.key(e.Key)
		return b.add(e)
	})
	if err != nil {
		return Created{}, err
	}
	data, err := b.finish()
	if err != nil {
		return Created{}, err
	}
	return Created{Entries: n, Bytes: int64(len(data))}, writeFile(o.folders, path, data)
}

// key gives the key as it is stored.
func (o *CreateOptions) key(key string) string {
	if bare, ok := withoutColon(key); ok && !o.Verbatim {
		key = bare
	}
	if o.CaseSensitive {
		return key
	}
	return Lower(key)
}

// withoutColon removes one colon at the end of a key that has more than that.
func withoutColon[T string | []byte](key T) (bare T, ok bool) {
	if n := len(key) - 1; n > 0 && key[n] == ':' {
		return key[:n], true
	}
	return key, false
}

// readAnySource reads text, or the output of db_dump if it begins like that.
func readAnySource(in io.Reader, name string, each func(Entry) error) error {
	r := bufio.NewReaderSize(in, 64<<10)
	if start, _ := r.Peek(len(dumpBegin)); string(start) == dumpBegin {
		return readDump(r, name, each)
	}
	return ReadSource(r, name, each)
}

// Dump prints a hash or cdb map in its text form, in the order in which it was made.
func Dump(path string, out io.Writer) error {
	m, err := OpenCDB(path, true)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 64<<10)
	err = m.Each(func(key, value []byte) error {
		w.Write(key)
		w.WriteByte('\t')
		w.Write(value)
		return w.WriteByte('\n')
	})
	if err != nil {
		return fmt.Errorf("printing map %s: %w", path, err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing map: %w", err)
	}
	return nil
}

// Query looks one key up in a hash or cdb map. In a map that does not say how it was
// made the key is tried as it is and then in lower case.
func Query(path, key string) (value string, found bool, err error) {
	m, err := OpenCDB(path, true)
	if err != nil {
		return "", false, err
	}
	for _, k := range []string{key, Lower(key)} {
		switch value, r := m.Lookup(context.Background(), k); r {
		case OK:
			return value, true, nil
		case NotFound:
		default:
			return "", false, fmt.Errorf("looking up in map %s: %s", path, value)
		}
	}
	return "", false, nil
}

// EachEntry calls f for every entry of a map file: of cdb if its type is hash or cdb,
// else of text. In a text file an entry has a line and its key stands as it is written.
// An error of f ends the reading of a cdb file, and is one of its line in a text file,
// as in ReadSource.
func EachEntry(path, typ string, f func(Entry) error) error {
	if typ == "hash" || typ == "cdb" {
		m, err := OpenCDB(path, true)
		if err != nil {
			return err
		}
		return m.Each(func(key, value []byte) error { return f(Entry{Key: string(key), Value: string(value)}) })
	}
	text, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening map: %w", err)
	}
	defer text.Close()
	return ReadSource(text, path, f)
}

// TypeOf is the type of a map file that is not declared: hash for a name that ends in
// .db, cdb for .cdb, else text.
func TypeOf(path string) string {
	switch filepath.Ext(path) {
	case ".db":
		return "hash"
	case ".cdb":
		return "cdb"
	}
	return "text"
}
