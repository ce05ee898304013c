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

// Inherited are the listening sockets with which the process was started, by systemd's socket
// activation or by the meta1 whose place it takes. nil is none. It is for one goroutine.
type Inherited struct {
	left []Passed
	// handed: they come from another meta1, whose configuration may have been another one.
	handed bool
}

// Passed is a socket that another process has bound.
type Passed struct {
	net.Listener
	// Unlink: its path is ours to remove at the end, as that of a Unix socket which we have bound.
	Unlink bool
}

// Handed are the sockets of the meta1 whose place this process takes.
func Handed(sockets []Passed) *Inherited { return &Inherited{left: sockets, handed: true} }

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
			in.Close()
			return nil, fmt.Errorf("descriptor %d, which LISTEN_FDS passes, is no listening socket: %w", fd, err)
		}
		in.left = append(in.left, Passed{Listener: l})
	}
	return in, nil
}

// Close closes what nobody has taken; the path of a Unix socket that is ours to remove goes, too. in may be nil.
func (in *Inherited) Close() {
	if in == nil {
		return
	}
	for _, l := range in.left {
		l.KeepPath(!l.Unlink)
		_ = l.Close()
	}
	in.left = nil
}

// KeepPath says whether Close leaves the path of a Unix socket.
func (p Passed) KeepPath(keep bool) {
	if u, ok := p.Listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(!keep)
	}
}

// Take gives the socket that a configuration asks for; ok is false if it was not passed.
func (in *Inherited) Take(s Socket) (l Passed, ok bool) {
	if in == nil {
		return Passed{}, false
	}
	for i, l := range in.left {
		if s.is(l.Addr()) {
			in.left = append(in.left[:i:i], in.left[i+1:]...)
			return l, true
		}
	}
	return Passed{}, false
}

// Unused is an error if systemd has passed a socket that nobody has taken: connections to it would
// wait for ever. It closes them. Those of another meta1 stay until Close: it may need them again.
func (in *Inherited) Unused() error {
	names := in.untaken()
	if names == "" {
		return nil
	}
	in.Close()
	return errors.New("systemd passes sockets that no section of the configuration listens on: " + names)
}

// Explain adds to the error of a socket that could not be bound which ones systemd has passed instead, if any is left: most
// likely the unit and the configuration name different ones. in may be nil.
func (in *Inherited) Explain(err error) error {
	if names := in.untaken(); err != nil && names != "" {
		return fmt.Errorf("%w; systemd passes other sockets: %s (ListenStream in the socket unit and listen_socket in the configuration must agree)", err, names)
	}
	return err
}

// untaken names those that systemd has passed and nobody has taken.
func (in *Inherited) untaken() string {
	if in == nil || in.handed {
		return ""
	}
	names := make([]string, len(in.left))
	for i, l := range in.left {
		names[i] = l.Addr().String()
	}
	return strings.Join(names, ", ")
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
