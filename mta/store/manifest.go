package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"meta1/mta/vfs"
)

// Manifest is what Pebble's manifest says of a store's files.
type Manifest struct {
	// Tables are the tables on disk that belong to the store, by number.
	Tables map[uint64]Table
	// FirstLog is the number of the oldest log whose records are not all in tables, 0 in a
	// store that is being made.
	FirstLog uint64
}

// Table is one table on disk.
type Table struct {
	Size         int64
	Lower, Upper []byte // first and last key
}

// The tags of a manifest's records that concern us (Pebble, internal/manifest).
const (
	tagComparator   = 1
	tagLogNumber    = 2
	tagNextFile     = 3
	tagLastSequence = 4
	tagDeletedFile  = 6
	tagPrevLog      = 9
	tagNewFile2     = 100
	tagNewFile4     = 103

	customEnd       = 1
	customNotIgnore = 64

	keyTrailer = 8 // behind each key: sequence number and kind
	tagsMax    = 1 << 20
)

// ReadManifest reads the manifest of the store in dir. It fails if the manifest is
// missing, or not readable to its end, or not known to its end: then it must not be
// relied on at all. A last record that was torn by a crash is none.
func ReadManifest(fsys vfs.FS, dir string) (*Manifest, error) {
	name, err := atomicfs.ReadMarker(fsys.Pebble(), dir, "manifest")
	if err != nil {
		return nil, fmt.Errorf("finding the manifest: %w", err)
	}
	if name == "" {
		return nil, errors.New("the marker that names the manifest is missing")
	}
	if digits, ok := strings.CutPrefix(name, "MANIFEST-"); !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return nil, fmt.Errorf("the marker of the manifest names %q", name)
	}
	f, err := fsys.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("opening the manifest: %w", err)
	}
	defer f.Close() // it was only read
	m := &Manifest{Tables: map[uint64]Table{}}
	if err := readRecords(f, m.apply); err != nil {
		return nil, fmt.Errorf("the manifest %s: %w", name, err)
	}
	return m, nil
}

// readRecords calls f for each record of a manifest. Everything behind an invalid
// chunk must be invalid too: then it was torn by a crash.
func readRecords(r io.Reader, f func([]byte) error) error {
	block := make([]byte, BlockLen)
	var record []byte
	bad := int64(-1)
	for base := int64(0); ; base += BlockLen {
		n, err := io.ReadFull(r, block)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		for at := 0; at+plainHeader <= n; {
			c, ok := manifestChunk(block[at:n])
			if !ok {
				if bad < 0 {
					bad = base + int64(at)
				}
				at++
				continue
			}
			if bad >= 0 {
				return fmt.Errorf("it is damaged at byte %d", bad)
			}
			at += c.Len
			if c.Part == Full || c.Part == First {
				record = record[:0]
			}
			record = append(record, c.Payload...)
			if c.Part == Full || c.Part == Last {
				if err := f(record); err != nil {
					return err
				}
			}
		}
		if err != nil {
			return nil
		}
		// The rest of a block that is too short for a header is zero.
		if bad >= base+BlockLen-plainHeader {
			bad = -1
		}
	}
}

// apply applies one record.
func (m *Manifest) apply(b []byte) error {
	d := tagDecoder{b: b}
	for range tagsMax {
		if len(d.b) == 0 {
			return nil
		}
		switch tag := d.uvarint(); tag {
		case tagComparator:
			d.bytes()
		case tagLogNumber:
			m.FirstLog = d.uvarint()
		case tagNextFile, tagLastSequence, tagPrevLog:
			d.uvarint()
		case tagDeletedFile:
			d.uvarint() // level
			delete(m.Tables, d.uvarint())
		case tagNewFile2, tagNewFile4:
			d.uvarint() // level
			number := d.uvarint()
			m.Tables[number] = d.table(tag == tagNewFile4)
		default:
			return fmt.Errorf("%w: it has a record of kind %d", errUnknown, tag)
		}
		if d.bad {
			return errors.New("a record of it is cut short")
		}
	}
	return errors.New("a record of it is too long")
}

// tagDecoder takes values off the front of b. The first failure sticks.
type tagDecoder struct {
	b   []byte
	bad bool
}

func (d *tagDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *tagDecoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// key reads a key and drops its trailer.
func (d *tagDecoder) key() []byte {
	k := d.bytes()
	if len(k) < keyTrailer {
		d.bad = true
		return nil
	}
	return append([]byte(nil), k[:len(k)-keyTrailer]...)
}

func (d *tagDecoder) table(custom bool) Table {
	t := Table{Size: int64(d.uvarint())}
	t.Lower, t.Upper = d.key(), d.key()
	d.uvarint() // sequence numbers
	d.uvarint()
	for custom && !d.bad {
		tag := d.uvarint()
		if tag == customEnd {
			break
		}
		d.bad = d.bad || tag&customNotIgnore != 0
		d.bytes()
	}
	return t
}

// checkManifest looks for damage that Pebble takes for a crash, after which it would remove
// tables: a manifest that cannot be read to its end. A store that was opened to the end
// also has a log whose records are not all in tables, if only an empty one. Whether there
// is a manifest at all is Pebble's to say.
func checkManifest(fsys vfs.FS, dir, logs string, used, opened bool) error {
	if !used && !hasTables(fsys, dir) {
		return nil
	}
	m, err := ReadManifest(fsys, dir)
	if err != nil || !opened {
		return err
	}
	names, err := fsys.List(logs)
	if err != nil {
		return fmt.Errorf("listing the logs in %s: %w", logs, err)
	}
	for _, name := range names {
		if number, ok := LogNumber(name); ok && number >= m.FirstLog {
			return nil
		}
	}
	return fmt.Errorf("the newest log is missing in %s", logs)
}

// LogNumber is the number of a log by its name.
func LogNumber(name string) (uint64, bool) { return fileNumber(name, ".log") }

// TableNumber is the number of a table by its name.
func TableNumber(name string) (uint64, bool) { return fileNumber(name, ".sst") }

func fileNumber(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil
}
