package maildrop

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"meta1/mta/smtp"
)

// The names of files.
const (
	prefixNew  = "new."
	prefixMail = "mail."
	prefixBad  = "bad."
)

const (
	// EntriesMax is how many messages Waiting lists.
	EntriesMax = 10_000
	// RcptsMax is how many recipients a message may have.
	RcptsMax = 50_000
	// headMax bounds the line of the envelope, in bytes.
	headMax = 32 << 20
	// SizeMax is the largest content, in bytes: what meta1 sendmail reads at most, and what it adds.
	SizeMax = 101 << 20
)

const version = 1

// Message is a message that waits.
type Message struct {
	Sender  string    `json:"sender"` // "" is the null sender
	Rcpts   []string  `json:"rcpts"`
	Notify  string    `json:"notify,omitempty"` // the DSN parameters of RFC 3461, as they are sent
	Ret     string    `json:"ret,omitempty"`
	EnvID   string    `json:"envid,omitempty"`
	VERP    bool      `json:"verp,omitempty"` // the sender of each copy names its recipient
	Time    time.Time `json:"time"`           // when it was left, as its writer says
	Content []byte    `json:"-"`              // with CRLF

	// Owner is the user id of who left it, as the kernel says; ID is the name of its file without the prefix.
	Owner uint32 `json:"-"`
	ID    string `json:"-"`
	Size  int    `json:"-"` // of the content, of Waiting
}

type head struct {
	Version int `json:"meta1_maildrop"`
	Size    int `json:"size"`
	*Message
}

// errBad wraps what is wrong with a file that will never be a message.
var errBad = errors.New("not a message")

// encode is a message as it is stored: a line of JSON, the content, and a line with the checksum of both.
func encode(m *Message) ([]byte, error) {
	h, err := json.Marshal(head{version, len(m.Content), m})
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(h)+len(m.Content)+80)
	return seal(append(append(append(b, h...), '\n'), m.Content...)), nil
}

// seal adds the line with the checksum.
func seal(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(hex.AppendEncode(append(b, "\nsha256 "...), sum[:]), '\n')
}

// decode reads what encode has made. The error wraps errBad.
func decode(b []byte) (*Message, error) {
	bad := func(what string) (*Message, error) { return nil, fmt.Errorf("%w: %s", errBad, what) }
	const tail = len("\nsha256 ") + 2*sha256.Size + 1
	if len(b) < tail {
		return bad("it is too short")
	}
	body, end := b[:len(b)-tail], b[len(b)-tail:]
	sum := sha256.Sum256(body)
	if string(end) != "\nsha256 "+hex.EncodeToString(sum[:])+"\n" {
		return bad("its checksum is wrong")
	}
	line, content, ok := bytes.Cut(body, []byte{'\n'})
	if !ok || len(line) > headMax {
		return bad("it has no envelope")
	}
	h := head{Message: &Message{}}
	if err := json.Unmarshal(line, &h); err != nil {
		return bad("its envelope cannot be read")
	}
	switch {
	case h.Version != version:
		return bad(fmt.Sprintf("its version is %d", h.Version))
	case h.Message == nil || h.Size != len(content):
		return bad("its size is wrong")
	}
	h.Content = content
	if _, err := h.envelope(); err != nil {
		return bad(err.Error())
	}
	if len(content) > 0 && !bytes.HasSuffix(content, []byte("\r\n")) || bytes.Count(content, []byte{'\n'}) != bytes.Count(content, []byte("\r\n")) ||
		bytes.Count(content, []byte{'\r'}) != bytes.Count(content, []byte("\r\n")) {
		return bad("a line does not end in CRLF")
	}
	return h.Message, nil
}

// Drop leaves a message in the directory, durably. It may be called by any user; an error that wraps fs.ErrNotExist or
// fs.ErrPermission says that there is no maildrop for this user.
func Drop(dir string, m *Message) (id string, err error) {
	if _, err := m.envelope(); err != nil {
		return "", err
	}
	b, err := encode(m)
	if err != nil {
		return "", err
	}
	id = rand.Text()
	name := filepath.Join(dir, prefixNew+id)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return "", fmt.Errorf("making a file in the maildrop: %w", err)
	}
	defer f.Close()
	if err := write(f, b); err != nil {
		_ = os.Remove(name)
		return "", fmt.Errorf("writing to the maildrop: %w", err)
	}
	if err := os.Rename(name, filepath.Join(dir, prefixMail+id)); err != nil {
		_ = os.Remove(name)
		return "", fmt.Errorf("writing to the maildrop: %w", err)
	}
	// The directory cannot be opened by who may not list it.
	if err := syncAll(f); err != nil {
		return "", fmt.Errorf("syncing the maildrop: %w", err)
	}
	return id, nil
}

// write writes and syncs a file that its group may read, whatever the umask is.
func write(f *os.File, b []byte) error {
	_, err := f.Write(b)
	if err == nil {
		err = f.Chmod(0o640)
	}
	if err == nil {
		err = f.Sync()
	}
	return err
}

// load reads a file of the directory. An error that wraps errBad says that it will never be a message.
func load(path string, sizeMax int64) (*Message, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, err
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO):
			return nil, fmt.Errorf("%w: %w", errBad, err)
		}
		return nil, err // such as too many open files
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: it is no file", errBad)
	case !ok || st.Nlink != 1:
		return nil, fmt.Errorf("%w: it has a second name (hard link)", errBad)
	case info.Size() > sizeMax+headMax:
		return nil, fmt.Errorf("%w: it has %d bytes", errBad, info.Size())
	}
	b, err := io.ReadAll(io.LimitReader(f, info.Size()+1))
	if err != nil {
		return nil, fmt.Errorf("reading it: %w", err)
	}
	m, err := decode(b)
	if err != nil {
		return nil, err
	}
	if int64(len(m.Content)) > sizeMax {
		return nil, fmt.Errorf("%w: its content has %d bytes", errBad, len(m.Content))
	}
	m.Owner, m.ID = st.Uid, strings.TrimPrefix(filepath.Base(path), prefixMail)
	return m, nil
}

// envelope are the paths of a message. utf8 says that one of them is not ASCII.
func (m *Message) envelope() (e envelope, err error) {
	if m.Sender != "" {
		if e.from, err = path(m.Sender); err != nil {
			return e, fmt.Errorf("bad sender: %w", err)
		}
	}
	if len(m.Rcpts) == 0 || len(m.Rcpts) > RcptsMax {
		return e, fmt.Errorf("it has %d recipients", len(m.Rcpts))
	}
	e.utf8 = !isASCII(m.Sender)
	for _, r := range m.Rcpts {
		p, err := path(r)
		if err != nil {
			return e, fmt.Errorf("bad recipient: %w", err)
		}
		e.rcpts, e.utf8 = append(e.rcpts, p), e.utf8 || !isASCII(r)
	}
	for _, c := range []struct {
		value string
		parse func(string) (string, error)
	}{{m.Notify, smtp.ParseNotify}, {m.Ret, smtp.ParseRet}, {m.EnvID, smtp.ParseEnvID}} {
		if c.value == "" {
			continue
		}
		if again, err := c.parse(c.value); err != nil || again != c.value {
			return e, errors.New("bad parameter of RFC 3461")
		}
	}
	return e, nil
}

type envelope struct {
	from  smtp.Path
	rcpts []smtp.Path
	utf8  bool
}

func path(addr string) (smtp.Path, error) {
	if isASCII(addr) {
		return smtp.ParseMailbox(addr, smtp.ASCII)
	}
	return smtp.ParseMailbox(addr, smtp.UTF8)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
