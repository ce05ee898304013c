package mta

import (
	"net"
	"os"
	"strings"
)

// notifySystemd tells systemd of a change of state, such as READY=1, if it started
// us and wants to know (sd_notify(3)). That it fails has no consequences.
func notifySystemd(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") { // the abstract name space
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
