package mta

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"meta1/mta/account"
	"meta1/mta/exit"
	"meta1/mta/listen"
	"meta1/mta/settings"
	"meta1/mta/verify"
)

// What a socket is for, besides those of sections.
const (
	forMetrics = "metrics"
	forControl = "control"
	forHTTP    = settings.ForHTTP
)

// wanted is a socket that is to be bound.
type wanted struct {
	listen.Socket
	owner  string // the section that it is for, as in Common.Section, or forMetrics, forControl, forHTTP
	option string // what asks for it, for confparse.Result.Diagnose
}

// sockets are bound listeners and what they are for. Their set changes with a reload.
type sockets struct {
	inherited *listen.Inherited // what systemd or another meta1 has passed and nobody has taken yet

	mu  sync.Mutex // guards all
	all []bound
}

// bound is a listener, what it was bound for, and the account that has bound it; nil for ours.
type bound struct {
	listen.Passed
	want wanted
	by   *account.Account
}

// list are all that are bound.
func (s *sockets) list() []bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// of are those of a section.
func (s *sockets) of(owner string) []net.Listener {
	var list []net.Listener
	for _, b := range s.list() {
		if b.want.owner == owner {
			list = append(list, b.Listener)
		}
	}
	return list
}

// set puts others in the place of all.
func (s *sockets) set(all []bound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = all
}

// give closes the sockets of a section that was given up. Those that we can bind again a reload does.
func (s *sockets) give(owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(slices.Clone(s.all), func(b bound) bool {
		if b.want.owner != owner {
			return false
		}
		_ = b.Close()
		return b.Unlink && (b.want.Network == "unix" || b.want.Port == 0 || b.want.Port >= 1024)
	})
}

// bind binds sockets with the rights of an account; nil for ours. As root, it then gives
// those to their owners that have another one. After an error, all that were bound are closed.
func (s *sockets) bind(want []wanted, by *account.Account) error {
	fresh, err := bindAll(want, by, s.inherited)
	s.set(append(s.list(), fresh...))
	if err != nil {
		s.close()
		return exit.With(bindStatus(err), err)
	}
	return nil
}

// bindAll is bind for sockets that nobody serves yet. Those that were passed are taken from inherited, which may be nil.
// After an error it returns what was bound so far.
func bindAll(want []wanted, by *account.Account, inherited *listen.Inherited) (all []bound, err error) {
	sockets := make([]listen.Socket, 0, len(want))
	passed := want
	want = nil
	for _, w := range passed {
		if l, ok := inherited.Take(w.Socket); ok { // its owner and mode are the business of who has bound it
			all = append(all, bound{l, w, nil})
			continue
		}
		want, sockets = append(want, w), append(sockets, w.Socket)
	}
	var listeners []net.Listener
	err = by.Do(func() (err error) {
		listeners, err = listen.All(sockets)
		return inherited.Explain(err)
	})
	for i, l := range listeners {
		all = append(all, bound{listen.Passed{Listener: l, Unlink: true}, want[i], by})
	}
	from := os.Geteuid()
	if by != nil {
		from = by.UID
	}
	for i := 0; i < len(listeners) && err == nil; i++ {
		err = listen.Give(sockets[i], from)
	}
	if by != nil && errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w (others than root may write its folder, so user %s binds it)", err, by.Name)
	}
	return all, err
}

// bindUnix binds sockets of Unix: root those in folders that nobody else may write, and the
// account that serves (nil: we) the others, since whoever may write there could put a link
// in the place of a folder or of the socket.
func (s *sockets) bindUnix(want []wanted, a *account.Account) error {
	var byRoot, byAccount []wanted
	for _, w := range want {
		if a != nil && verify.OnlyRoot(filepath.Dir(w.Path)) == nil {
			byRoot = append(byRoot, w)
		} else {
			byAccount = append(byAccount, w)
		}
	}
	if err := s.bind(byRoot, nil); err != nil {
		return err
	}
	return s.bind(byAccount, a)
}

// bindStatus is the exit status for a socket that cannot be bound. The units of systemd start meta1 again after exit.TempFail, and
// not after the others, which last until somebody does something.
func bindStatus(err error) int {
	if errors.Is(err, fs.ErrPermission) {
		return exit.NoPerm
	}
	// An address may come after the start of the network, and memory and descriptors when others have ended.
	for _, passing := range []error{syscall.EADDRNOTAVAIL, syscall.ENFILE, syscall.EMFILE, syscall.ENOMEM, syscall.ENOBUFS} {
		if errors.Is(err, passing) {
			return exit.TempFail
		}
	}
	return exit.Unavailable
}

// close closes all, each with the rights of who has bound it, since the path of a Unix
// metricsSocket is removed. A second call does nothing.
func (s *sockets) close() {
	for _, l := range s.list() {
		_ = l.by.Do(l.Close)
	}
	s.set(nil)
}

// wantedSockets are all sockets of the configuration, those of TCP first: they can
// be bound before the main queue directory is made. dir is that directory, a the
// account that serves, nil for ours.
func wantedSockets(c *Config, dir string, a *account.Account) (tcp, unix []wanted, err error) {
	var all []wanted
	add := func(of *Common) error {
		for i, l := range of.Listen {
			s, err := listenSocket(&l, of.Section, dir, a)
			if err != nil {
				return err
			}
			all = append(all, wanted{s, of.Section, fmt.Sprintf("%s/listen_socket#%d", of.Section, i+1)})
		}
		return nil
	}
	for _, s := range c.Servers {
		if err := add(&s.Of); err != nil {
			return nil, nil, err
		}
		for _, addr := range s.Server.DaemonAddress {
			d, err := settings.DaemonSocket(addr)
			if err != nil {
				return nil, nil, err
			}
			d.Section, d.Where = s.Of.Section, "daemon_address"
			all = append(all, wanted{d, s.Of.Section, s.Of.Section + "/daemon_address"})
		}
	}
	for _, s := range c.Services {
		if err := add(&s.Of); err != nil {
			return nil, nil, err
		}
	}
	if c.Metrics.Present {
		all = append(all, wanted{metricsSocket(&c.Metrics), forMetrics, "metrics/port"})
	}
	if h := &c.Control.HTTP; h.Present {
		s := listen.Socket{Network: settings.Network(h.Address), Host: h.Address.String(), Port: uint16(h.Port), Section: forHTTP, Where: h.Where}
		all = append(all, wanted{s, forHTTP, "control/http/port"})
	}
	if c.Queue.Control != "" {
		all = append(all, wanted{controlSocket(c, dir, a), forControl, "qmgr/control_socket"})
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

func metricsSocket(m *settings.MetricsConfig) listen.Socket {
	return listen.Socket{Network: settings.Network(m.Address), Host: m.Address.String(), Port: uint16(m.Port), Section: "metrics", Where: m.Where}
}

// controlSocket is open to the account that serves and to its group, or to all if package access
// lets in whom the configuration names.
func controlSocket(c *Config, dir string, a *account.Account) listen.Socket {
	s := listen.Socket{Network: "unix", Path: c.ControlPath(dir), Mode: 0o660, UID: -1, GID: -1, Section: "qmgr", Where: "option control_socket"}
	if a != nil {
		s.UID, s.GID = a.UID, a.GID
	}
	if c.Control.Shared() {
		s.Mode = 0o666
	}
	return s
}

// metricsSocket is a listen_socket to bind.
func listenSocket(l *settings.ListenSocket, section, dir string, a *account.Account) (listen.Socket, error) {
	s := listen.Socket{Section: section, Where: "listen_socket at " + l.Where, UID: -1, GID: -1}
	switch {
	case l.Type == "unix":
		s.Network, s.Path, s.Mode = "unix", settings.Below(dir, l.Path), 0o777&^fs.FileMode(l.Umask)
		return s, ownSocket(l, &s, a)
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

// ownSocket sets the owner of a Unix socket.
func ownSocket(l *settings.ListenSocket, s *listen.Socket, a *account.Account) error {
	if a != nil {
		s.UID, s.GID = a.UID, a.GID
	}
	if l.User != "" {
		u, err := account.Lookup(l.User, "")
		if err != nil {
			return exit.With(exit.Config, fmt.Errorf("%s: listen_socket of section %s: %w", l.Where, s.Section, err))
		}
		s.UID, s.GID = u.UID, u.GID
	}
	if l.Group != "" {
		g, err := account.Group(l.Group)
		if err != nil {
			return exit.With(exit.Config, fmt.Errorf("%s: listen_socket of section %s: %w", l.Where, s.Section, err))
		}
		s.GID = g
	}
	return nil
}
