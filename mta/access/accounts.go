package access

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"

	"meta1/mta/account"
)

// peer is the process at the other end of a Unix socket, as the kernel tells.
type peer struct {
	uid, gid int
	groups   []int // further ones, where the kernel tells them
}

// errNoPeers says that the system does not tell who is at the other end.
var errNoPeers = errors.New("this system does not tell the account of a peer")

// KnowsPeers reports whether this system tells the account at the other end of a Unix socket.
// Without it the permissions of the socket decide alone.
const KnowsPeers = knowsPeers

// Local is the door of the Unix socket: root and the account that serves may change, and so
// may the configured users and members of groups; others may read, or nothing.
func (c *Config) Local() Door {
	own := os.Geteuid() // of the account that serves by the time of the first request
	return func(r *http.Request) Who {
		conn, ok := connOf(r.Context()).(*net.UnixConn)
		if !ok {
			return refused(http.StatusForbidden, "?", "not a Unix socket")
		}
		p, err := peerOf(conn)
		switch {
		case errors.Is(err, errNoPeers):
			return Who{Level: Change, Name: "local"}
		case err != nil:
			return refused(http.StatusForbidden, "?", "the account of the peer is not known: "+err.Error())
		}
		return c.judge(p, own)
	}
}

// judge decides about a peer. own is the account that serves.
func (c *Config) judge(p peer, own int) Who {
	name := "uid " + strconv.Itoa(p.uid)
	if p.uid == 0 || p.uid == own {
		return Who{Level: Change, Name: name}
	}
	names := []string{strconv.Itoa(p.uid)}
	gids := append([]int{p.gid}, p.groups...)
	if u, err := user.LookupId(names[0]); err == nil {
		name = u.Username
		names = append(names, u.Username)
		ids, _ := u.GroupIds() // those of the process are known either way
		for _, id := range ids {
			if gid, err := strconv.Atoi(id); err == nil {
				gids = append(gids, gid)
			}
		}
	}
	switch {
	case named(c.Users, names) || member(c.Groups, gids):
		return Who{Level: Change, Name: name}
	case named(c.ReadUsers, names) || member(c.ReadGroups, gids):
		return Who{Level: Read, Name: name}
	}
	return refused(http.StatusForbidden, name, fmt.Sprintf(
		"user %s may not use the control socket: it is for root, the account that serves, and the users and groups of section control", name))
}

func named(list, names []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return slices.Contains(names, s) })
}

// member reports whether one of the groups of a list, by name or number, is among some numbers.
func member(list []string, gids []int) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		gid, err := account.Group(s)
		return err == nil && slices.Contains(gids, gid)
	})
}

// Shared reports whether somebody besides root and the account that serves may use the Unix
// socket, so that it must be open to all accounts, of which the door lets some in.
func (c *Config) Shared() bool {
	return knowsPeers && len(c.Users)+len(c.Groups)+len(c.ReadUsers)+len(c.ReadGroups) > 0
}
