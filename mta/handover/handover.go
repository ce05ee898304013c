// Package handover is the dialogue by which a running meta1 hands its work over to a new process: the
// listening sockets first, and the spool when it has closed it (docs/upgrade.md).
//
//	running process                         new process
//	                 offer, with sockets ->
//	                                        reads its configuration, drops its privileges
//	                 <- prepared
//	ends its sessions, closes the spool
//	                 yours ->
//	                                        locks and opens the spool, serves
//	                 <- ready
//	tells systemd    done ->
//	ends                                    is alone
//
// Instead of prepared and ready the new process may say failed and end. The running process then takes
// the spool up again, and so it does when the new one ends without a word or says nothing in time. If
// the running process ends before it has said done, the new one goes on alone: the lock of the
// spool, which the system takes from a process that ends, says when.
package handover

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta1/mta/msg"
)

// Protocol is the version of the dialogue. Other versions are refused.
const Protocol = 1

// Variable is the environment variable with which the new process is started; its value is that of Protocol.
// FD is then the descriptor of its end of the dialogue.
const (
	Variable = "META1_HANDOVER"
	FD       = 3
)

// Step says what a message is.
type Step string

// The steps; see the package comment.
const (
	Offer    Step = "offer"
	Prepared Step = "prepared"
	Yours    Step = "yours"
	Ready    Step = "ready"
	Done     Step = "done"
	Failed   Step = "failed"
)

// Message is one message of the dialogue.
type Message struct {
	Step     Step   `json:"step"`
	Protocol int    `json:"protocol"`
	Version  string `json:"version,omitempty"` // of meta1: Offer and Prepared
	PID      int    `json:"pid,omitempty"`     // Offer and Prepared
	Spool    string `json:"spool,omitempty"`   // Offer and Prepared: the main queue directory
	// Sockets are those whose descriptors come with an Offer, in their order; More says that another
	// Offer follows with more of them.
	Sockets []Socket `json:"sockets,omitempty"`
	More    bool     `json:"more,omitempty"`
	// Throttles are the limits that an operator has set: Yours.
	Throttles []msg.Throttle `json:"throttles,omitempty"`
	Error     string         `json:"error,omitempty"` // Failed
}

// Socket tells of a socket what its descriptor does not.
type Socket struct {
	// Unlink: whoever ends last removes the path of this Unix socket. Those of systemd stay.
	Unlink bool `json:"unlink,omitempty"`
}

const (
	// messageMax bounds a message in bytes, socketsOnce the sockets of one, and socketsMax those of all.
	messageMax  = 1 << 20
	socketsOnce = 64
	socketsMax  = 1000
)

// ErrGone says that the other process has ended, or has closed the dialogue.
var ErrGone = errors.New("the other process has ended")

// Link is one end of a dialogue. It is for one goroutine, but for Close.
type Link struct{ conn *net.UnixConn }

// Pair makes a dialogue: one end for this process, and one for the new one, which the caller closes when
// that is started.
func Pair() (ours *Link, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "handover")
	if ours, err = newLink(os.NewFile(uintptr(fds[0]), "handover")); err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Started gives the dialogue with which this process was started, nil if it was started in another way. It
// may be called once, before the process opens files of its own.
func Started(getenv func(string) string) (*Link, error) {
	version := getenv(Variable)
	if version == "" {
		return nil, nil
	}
	l, err := newLink(os.NewFile(FD, "handover"))
	if err != nil {
		return nil, fmt.Errorf("%s is set, but descriptor %d is no socket: %w", Variable, FD, err)
	}
	if version != strconv.Itoa(Protocol) {
		err := fmt.Errorf("the running process hands over by protocol %.10q and this version by %d: restart meta1 instead", version, Protocol)
		l.Fail(err)
		l.Close()
		return nil, err
	}
	return l, nil
}

func newLink(f *os.File) (*Link, error) {
	defer f.Close()
	c, err := net.FileConn(f) // a copy, which is not passed on to programs
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("it is no Unix socket")
	}
	return &Link{conn: conn}, nil
}

// Close ends the dialogue. A waiting Receive of the other process gets ErrGone.
func (l *Link) Close() { _ = l.conn.Close() }

// sendTime bounds how long a process that does not read can hold up a message.
const sendTime = 10 * time.Second

// Send sends a message without sockets.
func (l *Link) Send(m Message) error { return l.send(m, nil) }

// Fail sends that this process cannot go on. That it fails has no consequences: the other one notices the end.
func (l *Link) Fail(err error) { _ = l.Send(Message{Step: Failed, Error: err.Error()}) }

// SendOffer sends an offer with all sockets, as many messages as that takes. The listeners must be those of
// package net, and stay as they are.
func (l *Link) SendOffer(m Message, listeners []net.Listener, about []Socket) error {
	if len(listeners) > socketsMax {
		return fmt.Errorf("%d sockets are too many to hand over: %d is the most", len(listeners), socketsMax)
	}
	m.Step = Offer
	for {
		n := min(len(listeners), socketsOnce)
		m.Sockets, m.More = about[:n], n < len(listeners)
		if err := l.send(m, listeners[:n]); err != nil {
			return err
		}
		if listeners, about = listeners[n:], about[n:]; len(listeners) == 0 {
			return nil
		}
	}
}

func (l *Link) send(m Message, listeners []net.Listener) error {
	m.Protocol = Protocol
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > messageMax {
		return fmt.Errorf("a message of %d bytes is too large", len(b))
	}
	b = append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	_ = l.conn.SetWriteDeadline(time.Now().Add(sendTime))
	return withDescriptors(listeners, nil, func(fds []int) error {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		n, _, err := l.conn.WriteMsgUnix(b, rights, nil)
		if err == nil {
			_, err = l.conn.Write(b[n:])
		}
		return gone(err)
	})
}

// withDescriptors calls f with the descriptors of the listeners, which are open as long as it runs. It does not use
// File, whose descriptor would make the socket a blocking one, for this process too.
func withDescriptors(listeners []net.Listener, fds []int, f func([]int) error) error {
	if len(listeners) == 0 {
		return f(fds)
	}
	l, ok := listeners[0].(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T cannot be handed over", listeners[0])
	}
	c, err := l.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) { err = withDescriptors(listeners[1:], append(fds, int(fd)), f) })
	return errors.Join(cerr, err)
}

// gone says ErrGone for the errors of a dialogue that the other side has ended.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return ErrGone
	}
	return err
}

// Receive waits for the next message until ctx ends. The sockets that come with it are the caller's.
func (l *Link) Receive(ctx context.Context) (m Message, listeners []net.Listener, err error) {
	_ = l.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	m, listeners, err = l.receive()
	if ended := context.Cause(ctx); err != nil && ended != nil {
		err = ended
	}
	if err == nil && len(m.Sockets) != len(listeners) {
		err = fmt.Errorf("%d sockets were announced, and %d came", len(m.Sockets), len(listeners))
	}
	if err != nil {
		closeAll(listeners)
		return m, nil, err
	}
	return m, listeners, nil
}

func (l *Link) receive() (m Message, listeners []net.Listener, err error) {
	var head [4]byte
	listeners, err = l.receiveHead(head[:])
	if err != nil {
		return m, listeners, gone(err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > messageMax {
		return m, listeners, fmt.Errorf("a message of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(l.conn, b); err != nil {
		return m, listeners, gone(err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, listeners, fmt.Errorf("reading a message of the handover: %w", err)
	}
	if m.Protocol != Protocol {
		return m, listeners, fmt.Errorf("the other process hands over by protocol %d and this one by %d", m.Protocol, Protocol)
	}
	return m, listeners, nil
}

// receiveHead reads the length of a message, and the sockets that come with its first byte.
func (l *Link) receiveHead(head []byte) (listeners []net.Listener, err error) {
	oob := make([]byte, unix.CmsgSpace(4*socketsOnce))
	for len(head) > 0 {
		n, oobn, _, _, err := l.conn.ReadMsgUnix(head, oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			return listeners, err
		}
		if listeners, err = unpack(oob[:oobn], listeners); err != nil {
			return listeners, err
		}
		head = head[n:]
	}
	return listeners, nil
}

// unpack makes listeners of the descriptors of a message.
func unpack(oob []byte, listeners []net.Listener) ([]net.Listener, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return listeners, err
	}
	var failed error
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return listeners, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			f := os.NewFile(uintptr(fd), "socket")
			l, err := net.FileListener(f) // a copy
			_ = f.Close()
			if err != nil {
				failed = fmt.Errorf("a descriptor that was handed over is no listening socket: %w", err)
				continue
			}
			listeners = append(listeners, l)
		}
	}
	return listeners, failed
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}
