package service

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The dialogue with the monitor: frames over a stream socket. A frame is four
// bytes of length, most significant first, and a JSON object; descriptors travel
// with its first byte.

// frame is a message in either direction.
type frame struct {
	Op       op
	Seq      uint64    // of a question, and of its answer
	Programs []Program `json:",omitempty"` // opTable
	Config   string    `json:",omitempty"` // opTable: the configuration file
	Service  string    `json:",omitempty"` // opStart
	ID       int       `json:",omitempty"` // opStart
	PID      int       `json:",omitempty"` // opSignal, opStarted, opEnded
	Signal   int       `json:",omitempty"` // opSignal
	Status   int       `json:",omitempty"` // opEnded
	Path     string    `json:",omitempty"` // opRead
	Stamp    string    `json:",omitempty"` // opRead: the one that is known, and that of the content
	Content  []byte    `json:",omitempty"` // opRead, in the answer
	Error    string    `json:",omitempty"` // opStarted, opTable, opRead
}

// op is the kind of a frame.
type op string

const (
	opTable   op = "table"   // to the monitor, once; answered with the same op
	opStart   op = "start"   // to the monitor, with the sockets; answered with opStarted
	opSignal  op = "signal"  // to the monitor; no answer
	opRead    op = "read"    // to the monitor: a file that only root may read; answered with the same op
	opStarted op = "started" // from the monitor
	opEnded   op = "ended"   // from the monitor: a process ended
)

const (
	// maxFrame bounds a frame: a table of many services fits well, and so does a file of
	// maxRead bytes in base64.
	maxFrame = 1 << 20
	// maxRead bounds a file that the monitor reads: a key with its chain has 10 KB.
	maxRead = 512 << 10
	// maxFiles bounds the descriptors of a frame.
	maxFiles = 64
)

// link is one end of the dialogue. Any goroutine may write; one reads.
type link struct {
	conn *net.UnixConn
	mu   sync.Mutex // serialises writes
}

func (l *link) write(f frame, files []*os.File) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if len(b) > maxFrame || len(files) > maxFiles {
		return fmt.Errorf("a request of %d bytes and %d sockets is too large", len(b), len(files))
	}
	b = append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _, err := l.conn.WriteMsgUnix(b, rights(files), nil)
	if err != nil {
		return err
	}
	_, err = l.conn.Write(b[n:])
	return err
}

// read gives the next frame; the caller closes the files.
func (l *link) read() (f frame, files []*os.File, err error) {
	var head [4]byte
	if files, err = l.readHead(head[:]); err != nil {
		return f, nil, err
	}
	if err := l.readBody(binary.BigEndian.Uint32(head[:]), &f); err != nil {
		closeAll(files)
		return f, nil, err
	}
	return f, files, nil
}

func (l *link) readBody(size uint32, f *frame) error {
	if size > maxFrame {
		return fmt.Errorf("a frame of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(l.conn, b); err != nil {
		return err
	}
	return json.Unmarshal(b, f)
}

// readHead reads the length, and the descriptors that came with it.
func (l *link) readHead(head []byte) (files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	for len(head) > 0 {
		n, oobn, _, _, err := l.conn.ReadMsgUnix(head, oob)
		if err == nil && n == 0 && oobn == 0 {
			err = io.EOF
		}
		if err == nil {
			var more []*os.File
			more, err = received(oob[:oobn])
			files = append(files, more...)
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		head = head[n:]
	}
	return files, nil
}

// received unpacks descriptors.
func received(oob []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			closeAll(files)
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "socket"))
		}
	}
	return files, nil
}

// errGone says that the other side has ended.
var errGone = errors.New("the monitor process has ended")
