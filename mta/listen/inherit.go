package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstInherited is the first descriptor that systemd passes (sd_listen_fds(3)).
const firstInherited = 3

// inheritedMax bounds how many are taken.
const inheritedMax = 1000

// Inherited are the listening sockets with which the process was started: systemd's socket
// activation. nil is none. It is for one goroutine.
type Inherited struct{ left []net.Listener }

// Inherit takes the sockets that systemd passes to this process by LISTEN_FDS and LISTEN_PID; nil
// if it passes none. It may be called once, before the process opens files of its own. The
// sockets are not passed on to programs that are started.
func Inherit(getenv func(string) string, pid int) (*Inherited, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) || getenv("LISTEN_FDS") == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > inheritedMax {
		return nil, fmt.Errorf("LISTEN_FDS is %.20q, not a number of sockets", getenv("LISTEN_FDS"))
	}
	in := &Inherited{}
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socket "+strconv.Itoa(fd))
		l, err := net.FileListener(f) // a copy of the descriptor
		_ = f.Close()
		if err != nil {
			Close(in.left)
			return nil, fmt.Errorf("descriptor %d, which LISTEN_FDS passes, is no listening socket: %w", fd, err)
		}
		in.left = append(in.left, l)
	}
	return in, nil
}

// Take gives the socket that a configuration asks for, nil if it was not passed.
func (in *Inherited) Take(s Socket) net.Listener {
	if in == nil {
		return nil
	}
	for i, l := range in.left {
		if s.is(l.Addr()) {
			in.left = append(in.left[:i:i], in.left[i+1:]...)
			return l
		}
	}
	return nil
}

// Unused is an error if a socket was passed that nobody has taken: connections to it would
// wait for ever. It closes them.
func (in *Inherited) Unused() error {
	if in == nil || len(in.left) == 0 {
		return nil
	}
	names := make([]string, len(in.left))
	for i, l := range in.left {
		names[i] = l.Addr().String()
	}
	Close(in.left)
	in.left = nil
	return errors.New("systemd passes sockets that no section of the configuration listens on: " + strings.Join(names, ", "))
}

// is reports whether an address is that of the socket.
func (s Socket) is(addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.UnixAddr:
		return s.Network == "unix" && a.Name == s.Path
	case *net.TCPAddr:
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || s.Network == "unix" || a.Port != int(s.Port) {
			return false
		}
		if ip = ip.Unmap(); ip.IsUnspecified() {
			return ip.Is4() == (s.Network == "tcp4") && (s.Host == "" || s.host().IsUnspecified())
		}
		return ip == s.host()
	}
	return false
}
