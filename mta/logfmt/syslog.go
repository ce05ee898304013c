package logfmt

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
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

// The protocols of a Syslog.
const (
	ProtocolSyslog  = "syslog"   // as syslog(3) does: RFC 3164
	ProtocolRFC5424 = "rfc5424"  // with the fields as structured data
	ProtocolJournal = "journald" // systemd's own, with a field of the journal for each one
)

// Protocols are the words that SyslogConfig.Protocol may be.
func Protocols() []string { return []string{ProtocolSyslog, ProtocolRFC5424, ProtocolJournal} }

// SyslogConfig is where and how a Syslog logs.
type SyslogConfig struct {
	Facility string   // one of Facilities; "" means mail
	Ident    string   // the tag in front of each line
	Options  []string // of SyslogOptions
	Protocol string   // one of Protocols; "" means syslog
	// Hostname is in each line of RFC 5424; "" means the host's own.
	Hostname string
	// Server is who takes the lines: "udp:HOST:PORT", "tcp:HOST:PORT", or the path of a Unix datagram
	// socket, also as "unix:PATH". "" means the socket of this host's daemon: /dev/log, /var/run/syslog or
	// /var/run/log, with ProtocolJournal /run/systemd/journal/socket.
	Server string
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

// Syslog is a Sink that sends each line to a syslog daemon or to systemd's journal. The handlers that use it
// print text without the time (Options.NoTime); with ProtocolSyslog JSON, too. Each line has the process id
// and the time at which it was logged; log/syslog would give lines that had to wait for the daemon
// the time at which they were sent. Put never waits, except at most a
// second with a line of FATAL: a megabyte of lines waits for a daemon that is slow or is
// being started again, and what comes then is dropped and counted.
type Syslog struct {
	outbox
	conf    SyslogConfig
	pack    packer
	perror  bool
	to      daemon
	stopped chan struct{} // closed when Run ends: the daemon is not waited for any more
}

// NewSyslog makes a sink. It fails if a word of the configuration is not known. It does not connect.
func NewSyslog(c SyslogConfig) (*Syslog, error) {
	s := &Syslog{conf: c, stopped: make(chan struct{})}
	var err error
	if s.to.where, err = c.places(); err != nil {
		return nil, err
	}
	facility, err := c.facility()
	if err != nil {
		return nil, err
	}
	s.pack = newPacker(c, facility)
	loss := lossLine(Options{NoTime: true})
	s.write, s.loss = s.send, func(n uint64) []byte { return s.packet(slog.LevelWarn, time.Now(), loss(n)) }
	for _, o := range c.Options {
		if !slices.Contains(SyslogOptions(), o) {
			return nil, fmt.Errorf("%q is not an option of openlog(3)", o)
		}
		s.perror = s.perror || o == "perror" && c.Stderr != nil
	}
	return s, nil
}

// facility is the number of the facility.
func (c *SyslogConfig) facility() (int, error) {
	name := cmp.Or(c.Facility, "mail")
	for _, f := range facilities {
		if strings.EqualFold(f.name, name) {
			return f.code, nil
		}
	}
	return 0, fmt.Errorf("%q is not a facility of syslog(3)", name)
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
	b := make([]byte, 0, 2*len(line)+256)
	return append(s.pack(b, priority(level), now, bytes.TrimSuffix(line, []byte("\n"))), '\n')
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
		for !s.to.send(line) {
			select {
			case <-s.stopped:
				return len(b.lines) - i
			case <-time.After(syslogRetry):
			}
		}
	}
	return 0
}
