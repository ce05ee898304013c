package logfmt

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
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

// SyslogOptions are the options of openlog(3) that may be given, without LOG_. perror
// prints to the Writer as well; the others are accepted and mean nothing here: every
// line has the process id, the connection is opened at the first line, and nothing is
// ever written to the console.
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
	// syslogLine is the longest line in bytes: RFC 3164 allows 1,024 in all, and daemons
	// of today take 8 KiB; what is longer is cut.
	syslogLine = 8 << 10
	// syslogRetry is how long a syslog daemon that is gone is left alone.
	syslogRetry = time.Second
)

// Syslog is a Sink that sends each line to the syslog daemon of this host
// (RFC 3164, without the host name, as syslog(3) does), with the process id and the
// time at which it was logged; log/syslog would give lines that had to wait for the daemon
// the time at which they were sent. Put never waits, except at most a
// second with a line of FATAL: a megabyte of lines waits for a daemon that is slow or is
// being started again, and what comes then is dropped and counted.
type Syslog struct {
	outbox
	conf     SyslogConfig
	facility int
	tag      string // "ident[pid]: "
	perror   bool
	daemon   net.Conn      // nil: not connected; used by send alone
	stopped  chan struct{} // closed when Run ends: the daemon is not waited for any more
}

// NewSyslog makes a sink. It fails if the facility or an option is not known.
func NewSyslog(c SyslogConfig) (*Syslog, error) {
	s := &Syslog{conf: c, facility: -1, tag: c.Ident + "[" + strconv.Itoa(os.Getpid()) + "]: ", stopped: make(chan struct{})}
	loss := lossLine(Options{NoTime: true})
	s.write, s.loss = s.send, func(n uint64) []byte { return s.packet(slog.LevelWarn, time.Now(), loss(n)) }
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
	for _, o := range c.Options {
		if !slices.Contains(SyslogOptions(), o) {
			return nil, fmt.Errorf("%q is not an option of openlog(3)", o)
		}
		s.perror = s.perror || o == "perror" && c.Stderr != nil
	}
	return s, nil
}

// Put takes a line.
func (s *Syslog) Put(level slog.Level, line []byte) {
	if s.perror {
		s.conf.Stderr.Put(level, line)
	}
	s.outbox.Put(level, s.packet(level, time.Now(), line))
}

// packet is a line as it is sent, with a line feed that is not.
func (s *Syslog) packet(level slog.Level, now time.Time, line []byte) []byte {
	b := make([]byte, 0, len(line)+len(s.tag)+24)
	b = append(strconv.AppendInt(append(b, '<'), int64(s.facility<<3|priority(level)), 10), '>')
	b = now.AppendFormat(b, time.Stamp)
	b = append(append(append(b, ' '), s.tag...), bytes.TrimSuffix(line, []byte("\n"))...)
	return append(b[:min(len(b), syslogLine)], '\n')
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

// Run sends lines until ctx ends, and then those that wait, for at most a second. It has
// to be kept by a goroutine group. Before it, lines are sent at once.
func (s *Syslog) Run(ctx context.Context) error {
	err := s.outbox.Run(ctx)
	close(s.stopped)
	return err
}

// send sends lines one by one. A daemon that is gone is waited for.
func (s *Syslog) send(b batch) (lost int) {
	start := 0
	for i, m := range b.lines {
		line := b.text[start : m.end-1]
		start = m.end
		for !s.sendOne(line) {
			select {
			case <-s.stopped:
				return len(b.lines) - i
			case <-time.After(syslogRetry):
			}
		}
	}
	return 0
}

// sendOne sends a line, over a new connection if the daemon was started again.
func (s *Syslog) sendOne(line []byte) bool {
	for range 2 {
		if s.daemon == nil {
			s.daemon = s.dial()
		}
		if s.daemon == nil {
			return false
		}
		_ = s.daemon.SetWriteDeadline(time.Now().Add(syslogRetry))
		if _, err := s.daemon.Write(line); err == nil {
			return true
		}
		_ = s.daemon.Close()
		s.daemon = nil
	}
	return false
}

// dial connects to the daemon; nil if it is not there.
func (s *Syslog) dial() net.Conn {
	paths := []string{s.conf.Socket}
	if s.conf.Socket == "" {
		paths = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}
	}
	for _, path := range paths {
		if conn, err := net.Dial("unixgram", path); err == nil {
			return conn
		}
	}
	return nil
}
