package maps

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// CreateOptions say how Create makes a map.
type CreateOptions struct {
	// Type is "hash" or "cdb"; "" chooses cdb for a name that ends with ".cdb", else hash.
	Type string
	// CaseSensitive keeps the keys as they are. Otherwise they become lower case.
	CaseSensitive bool
	// Verbatim keeps a colon at the end of a key. Otherwise it is removed, as the
	// form "key: value" of aliases wants it, unless the word before it is a tag of
	// the access map or of qmgr_conf, whose keys may end that way ("oci: 5").
	Verbatim bool
	// Source is the name of the input in messages.
	Source string
}

// Created says what Create made.
type Created struct {
	Entries int
	Bytes   int64
}

// Create makes the map file path from its text form (README 3.9.3; ReadSource), or
// from the output of Berkeley DB's db_dump. Nothing is written if any line is bad;
// otherwise the file is written under another name, synced and renamed, so that
// readers see the old map or the new one. An existing file's mode is kept.
func Create(path string, in io.Reader, o CreateOptions) (Created, error) {
	if o.Type == "" {
		o.Type = "hash"
		if strings.HasSuffix(path, ".cdb") {
			o.Type = "cdb"
		}
	}
	if o.Source == "" {
		o.Source = "input"
	}
	var b interface {
		add(Entry) error
		finish() ([]byte, error)
	}
	switch o.Type {
	case "hash":
		b = newHashBuilder(o.Source, o.CaseSensitive)
	case "cdb":
		b = newCDBBuilder()
	default:
		return Created{}, fmt.Errorf("cannot create a map of type %q, only hash and cdb", o.Type)
	}
	n := 0
	err := readAnySource(in, o.Source, func(e Entry) error {
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
	return Created{Entries: n, Bytes: int64(len(data))}, writeFile(path, data)
}

// key gives the key as it is stored.
func (o *CreateOptions) key(key string) string {
	if !o.Verbatim && len(key) > 1 && strings.HasSuffix(key, ":") && !isTag(key[:len(key)-1]) {
		key = key[:len(key)-1]
	}
	if o.CaseSensitive {
		return key
	}
	return Lower(key)
}

// isTag recognises the tags of README 3.8.1 and 3.9.3.
func isTag(word string) bool {
	switch Lower(word) {
	case "oci", "ocm", "ocr", "octo", "icr", "icl", "icm", "icc",
		"smtpc_conf_rcpt_domain", "smtpc_conf_cltaddr", "smtpc_conf_mail", "smtpc_session_conf", "smtpc_rcpt_conf",
		"from", "to", "cltaddr", "cltname", "cltresolve", "mxbadip", "certissuer", "certsubject", "protectedrcpt",
		"smtps_session_conf", "smtps_se_conf", "smtps_rcpt_conf", "ehlo":
		return true
	}
	return false
}

// readAnySource reads text, or the output of db_dump if it begins like that.
func readAnySource(in io.Reader, name string, each func(Entry) error) error {
	r := bufio.NewReaderSize(in, 64<<10)
	if start, _ := r.Peek(len(dumpBegin)); string(start) == dumpBegin {
		return readDump(r, name, each)
	}
	return ReadSource(r, name, each)
}

// writeFile puts data in the place of path in one step, durably.
func writeFile(path string, data []byte) error {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("creating map: %w", err)
	}
	if err := errors.Join(fill(f, data, mode), f.Close()); err != nil {
		return fmt.Errorf("writing map: %w", errors.Join(err, os.Remove(f.Name())))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing map: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(dir)
}

func fill(f *os.File, data []byte, mode os.FileMode) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing the map's folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing the map's folder: %w", err)
	}
	return nil
}

// fileMap is a map with all its entries in one file.
type fileMap interface {
	Map
	Each(func(key, value []byte) error) error
}

func openCreated(path string) (fileMap, error) {
	data, err := readMap(path)
	if err != nil {
		return nil, err
	}
	var m fileMap
	if strings.HasPrefix(string(data[:min(8, len(data))]), hashMagic) || berkeley(data) != "" {
		m, err = newHash(data)
	} else {
		m, err = newCDB(data, true)
	}
	if err != nil {
		return nil, fmt.Errorf("opening map %s: %w", path, err)
	}
	return m, nil
}

// Dump prints a hash or cdb map in its text form, in the order in which it was made.
func Dump(path string, out io.Writer) error {
	m, err := openCreated(path)
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

// Query looks one key up in a hash or cdb map. In a cdb map, which does not say how
// it was made, the key is tried as it is and then in lower case.
func Query(path, key string) (value string, found bool, err error) {
	m, err := openCreated(path)
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
