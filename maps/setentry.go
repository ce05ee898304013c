package maps

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// ErrNoEntry says that there is no entry to remove.
var ErrNoEntry = errors.New("no such entry")

// SetEntry gives a key a value in the flat text file of a map, or removes it if value is
// "". Comments and other entries stay as they are; an entry that continues on further lines
// is replaced whole, a new one goes to the end. The file is replaced in one step, durably,
// and keeps its mode and owner; two calls at a time do not lose an entry. It must exist.
// Keys are compared as a map does that is not case sensitive.
func SetEntry(path, key, value string) error {
	if strings.ContainsAny(key, "\x00\r\n") || strings.ContainsAny(value, "\x00\r\n") {
		return errors.New("an entry has one line")
	}
	line := key + "\t" + value
	if k, v, err := SplitEntry(line); value != "" && (err != nil || k == "" || k != key || v != value || key[0] == '#') {
		return errors.New("the entry cannot stand in a text file: the key has white space, or the value begins or ends with some")
	}
	f, err := lockFile(path)
	if err != nil {
		return err
	}
	defer f.Close() // and with it the lock
	old, err := io.ReadAll(io.LimitReader(f, maxTextFile+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading map: %w", err)
	case len(old) > maxTextFile:
		return fmt.Errorf("reading map: %s is larger than %d bytes", path, maxTextFile)
	}
	text, found := replaceEntry(old, key, value)
	if !found && value == "" {
		return fmt.Errorf("%s: %w %q", path, ErrNoEntry, key)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading map: %w", err)
	}
	return writeFile(keepOwner{info: info}, path, text)
}

// maxTextFile bounds a file that SetEntry changes, in bytes.
const maxTextFile = 256 << 20

// replaceEntry gives the text with the entry replaced, removed, or added.
func replaceEntry(old []byte, key, value string) (text []byte, found bool) {
	entry := key + "\t" + value + "\n"
	in := bufio.NewReader(bytes.NewReader(old))
	mine := false // the line read last belongs to the entry
	for {
		line, err := in.ReadString('\n')
		bare := strings.TrimRight(line, "\r\n")
		blank := strings.Trim(bare, " \t") == "" || bare[0] == '#'
		switch {
		case blank: // ends no entry: a line may still continue it
			text = append(text, line...)
		case bare[0] == ' ' || bare[0] == '\t':
			if !mine {
				text = append(text, line...)
			}
		default:
			if mine = isEntry(bare, key); !mine {
				text = append(text, line...)
			} else if !found && value != "" {
				text = append(text, entry...)
			}
			found = found || mine
		}
		if err != nil {
			break
		}
	}
	if !found && value != "" {
		if n := len(text); n > 0 && text[n-1] != '\n' {
			text = append(text, '\n')
		}
		text = append(text, entry...)
	}
	return text, found
}

// isEntry reports whether a line begins the entry of a key.
func isEntry(line, key string) bool {
	k, _, err := SplitEntry(line)
	if err != nil {
		return false
	}
	bare, _ := withoutColon(k)
	want, _ := withoutColon(key)
	return Lower(bare) == Lower(want)
}

// lockFile opens a file and waits for its lock. A file that another process has replaced
// meanwhile is opened anew.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := OpenFile(path)
		if err != nil {
			return nil, fmt.Errorf("opening map: %w", err)
		}
		if err := lock(f); err != nil {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
		}
		held, errHeld := f.Stat()
		now, err := os.Stat(path)
		if err == nil && errHeld == nil && os.SameFile(held, now) {
			return f, nil
		}
		if err := errors.Join(err, errHeld, f.Close()); err != nil {
			return nil, fmt.Errorf("opening map: %w", err)
		}
	}
}

func lock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// keepOwner are the operating system's calls; a new file gets the owner of the old one, so
// that who could read it still can.
type keepOwner struct {
	realFolders
	info os.FileInfo // of the old file
}

func (k keepOwner) CreateTemp(dir, pattern string) (newFile, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	if owner, ok := k.info.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return nil, errors.Join(fmt.Errorf("giving it to the owner of the old file: %w", err), f.Close(), os.Remove(f.Name()))
		}
	}
	return f, nil
}
