package mta

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"meta1/confparse"
	"meta1/mta/listen"
)

// privilegedWhy is why a socket has to wait for a restart that only root may bind.
const privilegedWhy = "a port below 1024 takes root's rights, and no process of meta1 has them any more"

// prepareSockets binds the sockets that were not there. Those that stay, whatever section they are for from now on, are
// not touched, so that nobody who connects is refused.
func (p *reloading) prepareSockets() {
	tcp, unix, err := wantedSockets(p.conf, p.dir, p.account)
	if err != nil {
		p.fail(err)
		return
	}
	left := p.sockets.list()
	want := append(tcp, unix...)
	next := make([]bound, len(want))
	for _, sameOwner := range []bool{true, false} {
		for i, w := range want {
			if next[i].Listener != nil {
				continue
			}
			j := slices.IndexFunc(left, func(b bound) bool {
				return b.want.Same(w.Socket) && (b.want.owner == w.owner || !sameOwner && w.Port != 0)
			})
			if j >= 0 {
				next[i] = left[j]
				left = slices.Delete(left, j, j+1)
			}
		}
	}
	privileged := map[string]bool{}
	for i, w := range want {
		if next[i].Listener != nil {
			p.fail(p.adjust(&next[i], w))
			continue
		}
		b, err := bindNew(w)
		if errors.Is(err, errPrivileged) && hasServer(p.now.conf, w.owner) && hasServer(p.conf, w.owner) {
			privileged[w.owner] = true
			continue
		}
		if err != nil {
			p.fail(inUseByUs(err, w.Socket, left))
			continue
		}
		p.discards = append(p.discards, func() { _ = b.Close() })
		next[i] = b
	}
	next = slices.DeleteFunc(next, func(b bound) bool { return b.Listener == nil })
	if len(privileged) > 0 {
		next, left = p.keepSockets(privileged, next, left)
	}
	for _, b := range left {
		if !b.Unlink {
			p.fail(fmt.Errorf("systemd passes the socket %s, on which no section would listen any more: take it out of the socket unit and restart meta1", b.Addr()))
		}
	}
	p.bound = next
	p.moveSockets(next, left)
}

var errPrivileged = errors.New("only root may bind it")

// bindNew binds a socket with the rights of the account that serves: the monitor, which may be root, binds nothing after
// the start (docs/reload.md).
func bindNew(w wanted) (bound, error) {
	all, err := bindAll([]wanted{w}, nil, nil)
	if err == nil {
		return all[0], nil
	}
	closeBound(all)
	if w.Network != "unix" && errors.Is(err, fs.ErrPermission) {
		err = errors.Join(errPrivileged, err)
	}
	return bound{}, err
}

func closeBound(all []bound) {
	for _, b := range all {
		_ = b.Close()
	}
}

// inUseByUs adds to the error of a socket that one of ours, which would go, is in its way.
func inUseByUs(err error, s listen.Socket, left []bound) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	for _, b := range left {
		if b.want.Overlaps(s) {
			return fmt.Errorf("%w (it is meta1's own socket %s of section %s, which can be closed only after this one is open: take it out of the configuration and reload before this one is added)",
				err, b.Addr(), b.want.owner)
		}
	}
	return err
}

// adjust gives a socket that stays what it is for now. The owner and the mode of a Unix socket are those of the new
// configuration from now on, and the old ones again if the reload fails.
func (p *reloading) adjust(b *bound, w wanted) error {
	was := b.want
	b.want = w
	if w.Network != "unix" || !b.Unlink {
		return nil
	}
	if was.UID != w.UID || was.GID != w.GID {
		if err := os.Lchown(w.Path, w.UID, w.GID); err != nil {
			return fmt.Errorf("changing the owner of %s: %w", w.Path, err)
		}
		p.discards = append(p.discards, func() { _ = os.Lchown(w.Path, was.UID, was.GID) })
	}
	if was.Mode != w.Mode {
		if err := os.Chmod(w.Path, w.Mode); err != nil {
			return fmt.Errorf("changing the mode: %w", err)
		}
		p.discards = append(p.discards, func() { _ = os.Chmod(w.Path, was.Mode) })
	}
	return nil
}

// keepSockets leaves some servers the sockets that they have, since they cannot have those that they should, and tells of
// it.
func (p *reloading) keepSockets(servers map[string]bool, next, left []bound) (kept, gone []bound) {
	for _, b := range next {
		was := p.sockets.list()
		if i := slices.IndexFunc(was, func(o bound) bool { return o.Listener == b.Listener }); i >= 0 && servers[was[i].want.owner] {
			b = was[i]
		} else if servers[b.want.owner] {
			if i < 0 {
				_ = b.Close()
				continue
			}
			b = was[i]
		}
		kept = append(kept, b)
	}
	for _, b := range left {
		if servers[b.want.owner] {
			kept = append(kept, b)
		} else {
			gone = append(gone, b)
		}
	}
	for _, s := range p.conf.Servers {
		i := slices.IndexFunc(p.now.conf.Servers, func(was *ServerSection) bool { return was.Of.Section == s.Of.Section })
		if !servers[s.Of.Section] || i < 0 {
			continue
		}
		was := p.now.conf.Servers[i]
		s.Of.Listen, s.Server.DaemonAddress = was.Of.Listen, was.Server.DaemonAddress
		p.result.KeepIn(p.now.result, s.Of.Section, "listen_socket", "daemon_address")
		p.changed = slices.DeleteFunc(p.changed, func(c confparse.Change) bool {
			rest, is := strings.CutPrefix(c.Option, s.Of.Section+"/")
			if !is || !strings.HasPrefix(rest, "listen_socket") && rest != "daemon_address" {
				return false
			}
			c.Reload, c.Why = confparse.Restart, privilegedWhy
			p.pending = append(p.pending, c)
			return true
		})
	}
	return kept, gone
}

// moveSockets has everybody serve the sockets that are for them from the commit on. gone are those that nobody
// serves then; they are closed last.
func (p *reloading) moveSockets(next, gone []bound) {
	m := p.mta
	was := m.sockets.list()
	var moves []func()
	for name, instance := range m.modules.servers {
		has := func(list []bound, b bound) bool {
			return slices.ContainsFunc(list, func(o bound) bool { return o.Listener == b.Listener && o.want.owner == name })
		}
		var opened []net.Listener
		var closed []net.Addr
		for _, b := range next {
			if b.want.owner != name || has(was, b) {
				continue
			}
			l, err := copyListener(b.Listener)
			if err != nil {
				p.fail(fmt.Errorf("copying the socket %s: %w", b.Addr(), err))
				continue
			}
			opened = append(opened, l)
			p.discards = append(p.discards, func() { _ = l.Close() })
		}
		for _, b := range was {
			if b.want.owner == name && !has(next, b) {
				closed = append(closed, b.Addr())
			}
		}
		if len(opened)+len(closed) > 0 {
			moves = append(moves, func() { instance.Listen(opened, closed) })
		}
	}
	p.step("", func() {
		m.sockets.set(next)
		for _, move := range moves {
			move()
		}
		m.moveDoors()
	}, nil)
	p.gone = gone
}
