package logfmt

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// facilities are the names of syslog(3) and their numbers (RFC 3164, section 4.1.1).
var facilities = [...]struct {
	name string
	code int
}{
	{"kern", 0},
	{"user", 1},
	{"mail", 2},
	{"daemon", 3},
	{"auth", 4},
	{"syslog", 5},
	{"lpr", 6},
	{"news", 7},
	{"uucp", 8},
	{"cron", 9},
	{"authpriv", 10},
	{"ftp", 11},
	{"local0", 16},
	{"local1", 17},
	{"local2", 18},
	{"local3", 19},
	{"local4", 20},
	{"local5", 21},
	{"local6", 22},
	{"local7", 23},
}

// Facilities are the names that SyslogConfig.Facility may have.
func Facilities() []string {
	names := make([]string, 0, len(facilities))
	for _, f := range facilities {
		names = append(names, f.name)
	}
	return names
}

// SyslogOptions are the options of openlog(3) that may be given, without LOG_.
// pid adds the process id and perror prints to the Writer as well; the others are
// accepted and mean nothing here: the connection is opened at the first line
// and nothing is ever written to the console.
func SyslogOptions() []string { return []string{"pid", "perror", "ndelay", "odelay", "cons", "nowait"} }

// SyslogConfig is where and how a Syslog logs.
type SyslogConfig struct {
	Facility string   // one of Facilities; "" means mail
	Ident    string   // the tag in front of each line
	Options  []string // of SyslogOptions
	// Socket is the Unix datagram socket of the syslog daemon; "" means the
	// system's: /dev/log, /var/run/syslog or /var/run/log.
	Socket string
	// Stderr also gets each line if the options name perror.
	Stderr Sink
}

const (
	// syslogQueue is how many lines wait for a slow syslog daemon; more are dropped.
	syslogQueue = 4096
	// syslogLine is the longest line in bytes: RFC 3164 allows 1,024 in all, and daemons
	// of today take 8 KiB; what is longer is cut.
	syslogLine = 8 << 10
	// syslogRetry is how long a syslog daemon that is gone is left alone.
	syslogRetry = time.Second
)

// Syslog is a Sink that sends each line to the syslog daemon of this host
// (RFC 3164, without the host name, as syslog(3) does). Put never waits: lines
// beyond 4,096 waiting ones, and those of a time without daemon, are dropped and
// counted. Run must run for anything to be sent.
type Syslog struct {
	conf     SyslogConfig
	facility int
	tag      string // "ident[pid]: "
	perror   bool
	lines    chan []byte
	dropped  atomic.Uint64
}

// NewSyslog makes a sink. It fails if the facility or an option is not known.
func NewSyslog(c SyslogConfig) (*Syslog, error) {
	s := &Syslog{conf: c, facility: -1, lines: make(chan []byte, syslogQueue)}
	if c.Facility == "" {
		c.Facility = "mail"
	}
	for _, f := range facilities {
		if strings.EqualFold(f.name, c.Facility) {
			s.facility = f.code
		}
	}
	if s.facility < 0 {
		return nil, fmt.Errorf("%q is not a facility of syslog(3)", c.Facility)
	}
	s.tag = c.Ident
	for _, o := range c.Options {
		switch {
		case !slices.Contains(SyslogOptions(), o):
			return nil, fmt.Errorf("%q is not an option of openlog(3)", o)
		case o == "pid":
			s.tag = c.Ident + "[" + strconv.Itoa(os.Getpid()) + "]"
		case o == "perror":
			s.perror = c.Stderr != nil
		}
	}
	s.tag += ": "
	return s, nil
}

// Put takes a line.
func (s *Syslog) Put(level slog.Level, line []byte) {
	if s.perror {
		s.conf.Stderr.Put(level, line)
	}
	select {
	case s.lines <- s.packet(level, time.Now(), line):
	default:
		s.dropped.Add(1)
	}
}

// packet is a line as it is sent.
func (s *Syslog) packet(level slog.Level, now time.Time, line []byte) []byte {
	b := make([]byte, 0, len(line)+len(s.tag)+24)
	b = append(strconv.AppendInt(append(b, '<'), int64(s.facility<<3|priority(level)), 10), '>')
	b = now.AppendFormat(b, time.Stamp)
	b = append(append(append(b, ' '), s.tag...), line[:max(0, len(line)-1)]...)
	return b[:min(len(b), syslogLine)]
}

// priority is the severity of syslog(3).
func priority(l slog.Level) int {
	switch {
	case l >= LevelFatal:
		return 2 // LOG_CRIT
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= LevelNotice:
		return 5
	case l >= slog.LevelInfo:
		return 6
	default:
		return 7
	}
}

// Dropped is the number of lines that were not sent.
func (s *Syslog) Dropped() uint64 { return s.dropped.Load() }

// Run sends the lines until ctx ends, and then those that wait, for at most a
// second. It has to be kept by a goroutine group.
func (s *Syslog) Run(ctx context.Context) error {
	c := syslogConn{socket: s.conf.Socket}
	defer c.close()
	for {
		select {
		case line := <-s.lines:
			s.send(&c, line)
		case <-ctx.Done():
			s.drain(&c)
			return nil
		}
	}
}

func (s *Syslog) drain(c *syslogConn) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		select {
		case line := <-s.lines:
			s.send(c, line)
		default:
			return
		}
	}
}

func (s *Syslog) send(c *syslogConn, line []byte) {
	if !c.write(line) {
		s.dropped.Add(1)
	}
}

// syslogConn is the connection to a daemon that may come and go.
type syslogConn struct {
	socket string
	conn   net.Conn
	retry  time.Time // do not connect before
}

// write sends a line, over a new connection if the daemon was started again.
func (c *syslogConn) write(line []byte) bool {
	for range 2 {
		if c.conn == nil && !c.dial() {
			return false
		}
		_ = c.conn.SetWriteDeadline(time.Now().Add(syslogRetry))
		if _, err := c.conn.Write(line); err == nil {
			return true
		}
		c.close()
	}
	return false
}

func (c *syslogConn) dial() bool {
	if time.Now().Before(c.retry) {
		return false
	}
	paths := []string{c.socket}
	if c.socket == "" {
		paths = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}
	}
	for _, path := range paths {
		if conn, err := net.Dial("unixgram", path); err == nil {
			c.conn = conn
			return true
		}
	}
	c.retry = time.Now().Add(syslogRetry)
	return false
}

func (c *syslogConn) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
