package mta

import (
	"net"
	"os"
	"strings"
	"time"
)

// notifyTime bounds how long systemd may take to take a message.
const notifyTime = time.Second

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
	_ = c.SetWriteDeadline(time.Now().Add(notifyTime)) // one that does not listen keeps nothing up
	_, _ = c.Write([]byte(state))
}
