package mta

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"meta1/mta/listen"
)

// What a socket is for, besides those of sections.
const (
	forMetrics = "metrics"
	forControl = "control"
)

// wanted is a socket that is to be bound.
type wanted struct {
	listen.Socket
	owner any // *ServerSection, *ServiceSection, forMetrics, forControl
}

// sockets are bound listeners by what they are for.
type sockets struct {
	all   []net.Listener
	owner map[any][]net.Listener
}

// bind binds sockets; after an error, all that were bound are closed.
func (s *sockets) bind(want []wanted) error {
	if s.owner == nil {
		s.owner = map[any][]net.Listener{}
	}
	sockets := make([]listen.Socket, 0, len(want))
	for _, w := range want {
		sockets = append(sockets, w.Socket)
	}
	bound, err := listen.All(sockets)
	if err != nil {
		s.close()
		return exit(bindStatus(err), err)
	}
	s.all = append(s.all, bound...)
	for i, w := range want {
		s.owner[w.owner] = append(s.owner[w.owner], bound[i])
	}
	return nil
}

// bindStatus is the exit status for a socket that cannot be bound.
func bindStatus(err error) int {
	if errors.Is(err, fs.ErrPermission) {
		return ExNoPerm
	}
	return ExUnavailable
}

// close closes all; a second call does nothing.
func (s *sockets) close() {
	listen.Close(s.all)
	s.all = nil
}

// wantedSockets are all sockets of the configuration, those of TCP first: they can
// be bound before the main queue directory is made. dir is that directory, a the
// account that serves, nil for ours.
func (c *Config) wantedSockets(dir string, a *account) (tcp, unix []wanted, err error) {
	var all []wanted
	add := func(owner any, of *Common) error {
		for _, l := range of.Listen {
			s, err := l.socket(of.Section, dir, a)
			if err != nil {
				return err
			}
			all = append(all, wanted{s, owner})
		}
		return nil
	}
	for _, s := range c.Servers {
		if s.Of.StartAction == "wait" {
			continue
		}
		if err := add(s, &s.Of); err != nil {
			return nil, nil, err
		}
		for _, addr := range s.Server.DaemonAddress {
			d, err := daemonSocket(addr)
			if err != nil {
				return nil, nil, err
			}
			d.Section, d.Where = s.Of.Section, "daemon_address"
			all = append(all, wanted{d, s})
		}
	}
	for _, s := range c.Services {
		if err := add(s, &s.Of); err != nil {
			return nil, nil, err
		}
	}
	if c.Metrics.Present {
		all = append(all, wanted{c.Metrics.socket(), forMetrics})
	}
	if c.Queue.Control != "" {
		all = append(all, wanted{c.controlSocket(dir, a), forControl})
	}
	for _, w := range all {
		if w.Network == "unix" {
			unix = append(unix, w)
		} else {
			tcp = append(tcp, w)
		}
	}
	return tcp, unix, nil
}

func (m *MetricsConfig) socket() listen.Socket {
	return listen.Socket{Network: network(m.Address), Host: m.Address.String(), Port: uint16(m.Port), Section: "metrics", Where: m.Where}
}

func network(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

// controlSocket is open to the account that serves and to its group.
func (c *Config) controlSocket(dir string, a *account) listen.Socket {
	s := listen.Socket{Network: "unix", Path: c.controlPath(dir), Mode: 0o660, UID: -1, GID: -1, Section: "qmgr", Where: "option control_socket"}
	if a != nil {
		s.UID, s.GID = a.uid, a.gid
	}
	return s
}

// controlPath is the path of the control socket.
func (c *Config) controlPath(dir string) string { return below(dir, c.Queue.Control) }

// below is a path relative to a directory (README 3.6, case 2).
func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// socket is a listen_socket to bind.
func (l *ListenSocket) socket(section, dir string, a *account) (listen.Socket, error) {
	s := listen.Socket{Section: section, Where: "listen_socket at " + l.Where, UID: -1, GID: -1}
	switch {
	case l.Type == "unix":
		s.Network, s.Path, s.Mode = "unix", below(dir, l.Path), 0o777&^fs.FileMode(l.Umask)
		return s, l.own(&s, a)
	case l.Type == "inet6":
		s.Network = "tcp6"
	default:
		s.Network = "tcp4"
	}
	s.Port = uint16(l.Port)
	if l.Address.IsValid() {
		s.Host = l.Address.String()
	}
	return s, nil
}

// own sets the owner of a Unix socket.
func (l *ListenSocket) own(s *listen.Socket, a *account) error {
	if a != nil {
		s.UID, s.GID = a.uid, a.gid
	}
	if l.User != "" {
		u, err := lookupAccount(l.User, "")
		if err != nil {
			return exit(ExConfig, fmt.Errorf("%s: listen_socket of section %s: %w", l.Where, s.Section, err))
		}
		s.UID, s.GID = u.uid, u.gid
	}
	if l.Group != "" {
		g, err := lookupGroup(l.Group)
		if err != nil {
			return exit(ExConfig, fmt.Errorf("%s: listen_socket of section %s: %w", l.Where, s.Section, err))
		}
		s.GID = g
	}
	return nil
}

// daemonSocket reads one entry of daemon_address (README 8.5): host:port, where host is
// an IP address or empty for all of IPv4.
func daemonSocket(text string) (listen.Socket, error) {
	s := listen.Socket{Network: "tcp4", UID: -1, GID: -1}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return s, fmt.Errorf("daemon_address %q is not host:port", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return s, fmt.Errorf("daemon_address %q has no port number", text)
	}
	s.Port = uint16(n)
	if host == "" || host == "*" {
		return s, nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return s, fmt.Errorf("daemon_address %q has no IP address", text)
	}
	s.Network, s.Host = network(addr), host
	return s, nil
}
