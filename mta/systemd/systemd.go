// Package systemd tells systemd of this process's changes of state and that it is alive, if systemd has started it.
package systemd

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifyTime bounds how long systemd may take to take a message.
const notifyTime = time.Second

// Notify tells systemd of a change of state, such as READY=1, if it started
// us and wants to know: the environment variable NOTIFY_SOCKET says so (sd_notify(3)). That it fails has no consequences.
// It takes a second at most.
func Notify(state string) {
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

// WatchdogInterval is how long systemd waits for a sign of life before it starts us again
// (WatchdogSec, sd_watchdog_enabled(3)); 0 if it does not wait for the process
// with this id. getenv is that of the process, and an interval of more than a day is none.
func WatchdogInterval(getenv func(string) string, pid int) time.Duration {
	if of := getenv("WATCHDOG_PID"); of != "" && of != strconv.Itoa(pid) {
		return 0
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}
