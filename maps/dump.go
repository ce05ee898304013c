package maps

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// dumpBegin is how the output of db_dump begins.
const dumpBegin = "VERSION="

// readDump reads the output of db_dump or db_dump -p of a Berkeley DB hash or btree
// file, so that MeTA1's maps can be taken over without their text.
func readDump(in *bufio.Reader, file string, each func(Entry) error) error {
	d := dumpReader{in: in, file: file}
	if err := d.header(); err != nil {
		return err
	}
	for {
		key, end, err := d.item()
		if err != nil || end {
			return err
		}
		line := d.line
		value, end, err := d.item()
		if err != nil {
			return err
		}
		if end {
			return d.fail(errors.New("a key has no value"))
		}
		if _, _, err = checkEntry(key, value); err == nil {
			err = each(Entry{Key: key, Value: value, Line: line})
		}
		if err != nil {
			return &LineError{file, line, err}
		}
	}
}

type dumpReader struct {
	in    *bufio.Reader
	file  string
	line  int
	print bool // format=print instead of bytevalue
}

func (d *dumpReader) fail(err error) error { return &LineError{d.file, d.line, err} }

func (d *dumpReader) next() (string, error) {
	var b []byte
	d.line++
	for {
		part, err := d.in.ReadSlice('\n')
		b = append(b, part...)
		if len(b) > 2*maxEntry {
			return "", d.fail(errors.New("line is too long"))
		}
		if err == io.EOF {
			return "", d.fail(errors.New("the output of db_dump is not complete"))
		}
		if err == nil {
			return strings.TrimRight(string(b), "\r\n"), nil
		}
		if err != bufio.ErrBufferFull {
			return "", fmt.Errorf("reading %s: %w", d.file, err)
		}
	}
}

func (d *dumpReader) header() error {
	for {
		text, err := d.next()
		if err != nil {
			return err
		}
		switch name, value, _ := strings.Cut(text, "="); {
		case name == "HEADER":
			return nil
		case name == "format":
			d.print = value == "print"
		case name == "type" && value != "hash" && value != "btree":
			return d.fail(fmt.Errorf("database is of type %q, must be hash or btree", value))
		}
	}
}

// item reads one key or value; end reports the end of the data. Some programs store
// the NUL that ends a C string: it is removed.
func (d *dumpReader) item() (item string, end bool, err error) {
	text, err := d.next()
	if err != nil || text == "DATA=END" {
		return "", true, err
	}
	if !strings.HasPrefix(text, " ") {
		return "", false, d.fail(errors.New("line does not begin with a space"))
	}
	var raw []byte
	if d.print {
		raw, err = unescapeDump(text[1:])
	} else {
		raw, err = hex.DecodeString(text[1:])
	}
	if err != nil {
		return "", false, d.fail(fmt.Errorf("cannot be decoded: %w", err))
	}
	return strings.TrimSuffix(string(raw), "\x00"), false, nil
}

// unescapeDump reads \\ and \xx with two hexadecimal digits.
func unescapeDump(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\':
			b = append(b, s[i])
		case i+1 < len(s) && s[i+1] == '\\':
			b = append(b, '\\')
			i++
		case i+2 < len(s):
			c, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return nil, err
			}
			b = append(b, c...)
			i += 2
		default:
			return nil, errors.New("escape without its end")
		}
	}
	return b, nil
}
