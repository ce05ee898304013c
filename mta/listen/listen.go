// Package listen binds the sockets on which meta1 and the services listen
// (README 3.7, item 2), all of them or none, and says clearly why one cannot be bound.
//
// A Unix socket is bound, and one that was left behind removed, by path. Root does that
// only in folders that nobody else may write; elsewhere the caller takes the rights of the
// account that may, see Give for what then is left to root.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Socket is one socket to bind.
type Socket struct {
	Network string // tcp4, tcp6 or unix
	Host    string // address of tcp4 and tcp6; "" for all
	Port    uint16
	Path    string // of unix
	Mode    fs.FileMode
	// UID and GID are the owner of a Unix socket, to whom Give gives it; -1 for the
	// account that binds.
	UID, GID int
	// Section and Where are the section and the place in the configuration that ask
	// for the socket, for messages: "smtps" and "meta1.conf:12".
	Section, Where string
}

// Address is the address as it is shown: "127.0.0.1:25" or the path.
func (s Socket) Address() string {
	if s.Network == "unix" {
		return s.Path
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port)))
}

// Overlaps reports whether two sockets cannot both be bound. Port 0 is another port each
// time; a socket of IPv6 takes no connections of IPv4.
func (s Socket) Overlaps(other Socket) bool {
	if s.Network != other.Network {
		return false
	}
	if s.Network == "unix" {
		return filepath.Clean(s.Path) == filepath.Clean(other.Path)
	}
	a, b := s.host(), other.host()
	return s.Port != 0 && s.Port == other.Port && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// Same reports whether two sockets are bound to the same address or path.
func (s Socket) Same(other Socket) bool {
	if s.Network != other.Network {
		return false
	}
	if s.Network == "unix" {
		return s.Path == other.Path
	}
	return s.Port == other.Port && s.host() == other.host()
}

// host is the address; that of all addresses is unspecified.
func (s Socket) host() netip.Addr {
	if addr, err := netip.ParseAddr(s.Host); err == nil {
		return addr
	}
	return netip.IPv6Unspecified()
}

// Error says why a socket could not be bound.
type Error struct {
	Socket Socket
	Err    error
}

// Error names the socket, the option that asks for it, and a reason to act on.
func (e *Error) Error() string {
	text := e.Socket.Section + ": cannot listen on " + e.Socket.Address()
	if e.Socket.Where != "" {
		text += " (" + e.Socket.Where + ")"
	}
	return text + ": " + e.reason()
}

func (e *Error) reason() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return "address already in use: another program listens there"
	case errors.Is(e.Err, fs.ErrPermission) && e.Socket.Network != "unix" && e.Socket.Port < 1024:
		return "permission denied: a port below 1024 needs root or CAP_NET_BIND_SERVICE"
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return "no interface of this host has the address"
	}
	var call *os.SyscallError
	var op *net.OpError
	var path *fs.PathError
	switch {
	case errors.As(e.Err, &call):
		return call.Err.Error()
	case errors.As(e.Err, &op):
		return op.Err.Error()
	case errors.As(e.Err, &path):
		return path.Err.Error()
	default:
		return e.Err.Error()
	}
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// All binds the sockets in their order. After an error, an *Error, none is bound.
func All(sockets []Socket) ([]net.Listener, error) {
	bound := make([]net.Listener, 0, len(sockets))
	for _, s := range sockets {
		l, err := Bind(s)
		if err != nil {
			Close(bound)
			return nil, err
		}
		bound = append(bound, l)
	}
	return bound, nil
}

// Close closes all listeners; the path of a Unix socket is removed.
func Close(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// Bind binds one socket. Its error is an *Error.
func Bind(s Socket) (net.Listener, error) {
	bind := bindTCP
	if s.Network == "unix" {
		bind = bindUnix
	}
	l, err := bind(s)
	if err != nil {
		return nil, &Error{Socket: s, Err: err}
	}
	return l, nil
}

// bindTCP binds a plain TCP socket: a multipath one, Go's default, costs CPU on each
// read and write and brings mail nothing.
func bindTCP(s Socket) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), s.Network, s.Address())
}

// maxPath is what fits into a struct sockaddr_un on every system we build for.
const maxPath = 103

func bindUnix(s Socket) (net.Listener, error) {
	if len(s.Path) > maxPath {
		return nil, fmt.Errorf("the path has %d bytes, a Unix socket allows %d", len(s.Path), maxPath)
	}
	if err := s.removeStale(); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", s.Path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(s.Path, s.Mode); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("changing the mode: %w", err)
	}
	return l, nil
}

// Give gives a bound Unix socket to its owner and its group. from is the account that
// has bound it. Nothing but a socket of that account changes its owner, whatever stands
// at the path by now. Its error is an *Error.
func Give(s Socket, from int) error {
	if s.Network != "unix" || s.UID == -1 && s.GID == -1 {
		return nil
	}
	if err := give(s, from); err != nil {
		return &Error{Socket: s, Err: fmt.Errorf("changing its owner: %w", err)}
	}
	return nil
}

// has reports whether the socket is to have this owner and group.
func (s Socket) has(uid, gid uint32) bool {
	return (s.UID == -1 || int64(s.UID) == int64(uid)) && (s.GID == -1 || int64(s.GID) == int64(gid))
}

// owned says why a file is no socket that an account has bound.
func owned(mode uint32, links uint64, owner uint32, by int) error {
	switch {
	case mode&syscall.S_IFMT != syscall.S_IFSOCK:
		return errors.New("it is not a socket any more")
	case int64(owner) != int64(by) || links != 1:
		return errors.New("it is not the socket that was bound")
	}
	return nil
}

// removeStale removes a socket that an ended process left behind. A socket
// that somebody serves, and anything but a socket, is an error.
func (s Socket) removeStale() error {
	info, err := os.Lstat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is not a socket")
	}
	c, err := net.DialTimeout("unix", s.Path, time.Second)
	if err == nil {
		_ = c.Close()
		return syscall.EADDRINUSE
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	// One that we gave away and may not use ourselves can only be one that we left behind.
	given := ok && s.UID != -1 && s.has(st.Uid, st.Gid) && errors.Is(err, syscall.EACCES)
	if !given && !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("asking who listens there: %w", err)
	}
	return os.Remove(s.Path)
}
