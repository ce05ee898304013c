package logfmt

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// JournalSocket is where systemd's journal takes entries.
const JournalSocket = "/run/systemd/journal/socket"

// place is where a daemon takes lines.
type place struct{ network, address string }

// daemon sends packets to one of several places, over a connection that is made when there is something to
// send, and made anew when the daemon has been started again. One goroutine uses it.
type daemon struct {
	where []place
	conn  net.Conn // nil: not connected
	at    place    // of conn
}

// CheckServer says what is wrong with SyslogConfig.Server for a protocol.
func CheckServer(protocol, server string) error {
	_, err := (&SyslogConfig{Protocol: protocol, Server: server}).places()
	return err
}

// places are where the daemon may be, the likeliest first.
func (c *SyslogConfig) places() ([]place, error) {
	switch kind, rest, _ := strings.Cut(c.Server, ":"); {
	case c.Server == "" && c.Protocol == ProtocolJournal:
		return []place{{"unixgram", JournalSocket}}, nil
	case c.Server == "":
		return []place{{"unixgram", "/dev/log"}, {"unixgram", "/var/run/syslog"}, {"unixgram", "/var/run/log"}}, nil
	case strings.HasPrefix(c.Server, "/"):
		return []place{{"unixgram", c.Server}}, nil
	case kind == "unix" && strings.HasPrefix(rest, "/"):
		return []place{{"unixgram", rest}}, nil
	case kind != "udp" && kind != "tcp":
		return nil, fmt.Errorf("%q is neither udp:HOST:PORT nor tcp:HOST:PORT nor the absolute path of a socket", c.Server)
	case c.Protocol == ProtocolJournal:
		return nil, fmt.Errorf("%q: the journal takes entries at a Unix socket only", c.Server)
	default:
		host, port, err := net.SplitHostPort(rest)
		if n, e := strconv.ParseUint(port, 10, 16); err == nil && (e != nil || n == 0) {
			err = fmt.Errorf("%q is no port", port)
		}
		if err == nil && host == "" {
			err = errors.New("there is no host")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", c.Server, err)
		}
		return []place{{kind, rest}}, nil
	}
}

// send sends a packet, over a new connection if the daemon was started again.
func (d *daemon) send(packet []byte) bool {
	for range 2 {
		if d.conn != nil && d.at.network == "tcp" && hungUp(d.conn) {
			d.close()
		}
		if d.conn == nil {
			d.dial()
		}
		if d.conn == nil {
			return false
		}
		err := d.write(packet)
		if err == nil {
			return true
		}
		d.close()
	}
	return false
}

// write writes a packet in the way of the connection.
func (d *daemon) write(packet []byte) error {
	_ = d.conn.SetWriteDeadline(time.Now().Add(syslogRetry))
	if d.at.network == "tcp" { // RFC 6587, section 3.4.1: octet counting
		packet = append(append(strconv.AppendInt(nil, int64(len(packet)), 10), ' '), packet...)
	}
	_, err := d.conn.Write(packet)
	if unix, ok := d.conn.(*net.UnixConn); ok && (errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS)) {
		return writeLarge(unix, packet)
	}
	return err
}

func (d *daemon) close() {
	_ = d.conn.Close() // what it took is out of our hands
	d.conn = nil
}

// dial connects to the daemon. conn stays nil if it is not there.
func (d *daemon) dial() {
	dialer := net.Dialer{Timeout: syslogRetry}
	for _, p := range d.where {
		if conn, err := dialer.Dial(p.network, p.address); err == nil {
			d.conn, d.at = conn, p
			return
		}
	}
}

// hungUp reports whether the other side has closed the connection. What is written then would be taken by the
// system and be lost. Nobody may say anything on it, so what comes is the end.
func hungUp(conn net.Conn) bool {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, err := syscall.Read(int(fd), b[:])
		gone = n == 0 && err == nil || err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
		return true // it does not wait
	})
	return gone || err != nil
}
