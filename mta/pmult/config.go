package pmult

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"meta1/confparse/mailutils"
	"meta1/confparse/syntax"
	"meta1/pmilter"
	"meta1/server/milter"
)

// Program is the name under which files and blocks of a configuration are for us.
const Program = "pmult"

// DefaultFile is the configuration of mailfromd's programs.
const DefaultFile = "/etc/mailfromd.conf"

// Config is a configuration.
type Config struct {
	Listen  Address
	Metrics Address
	PidFile string
	Threads int // callbacks at a time; 0: no limit
	Servers int // connections of SMTP servers at a time
	Macros  [pmilter.Stages][]string
	Clients []Client
	Log     LogConfig
	Debug   Debug
	// PmilterDebug is the debug level of the pmilter side.
	PmilterDebug int
	User         string   // whose rights are taken; "" for those that we have
	Groups       []string // whose rights are kept beside
}

// Client is one filter.
type Client struct {
	Name     string
	Address  Address
	Timeouts milter.Timeouts
	Failure  milter.Failure
	Kept     int // idle connections
	Levels   clientLevels
}

// LogConfig says where and what is logged.
type LogConfig struct {
	Syslog    bool
	Facility  string
	Tag       string
	Level     slog.Level
	SessionID bool
}

// progressMax bounds how long a filter may prolong the end of a message by saying that it goes
// on. The manual knows no limit; that of meta1's sections milter is the same.
const progressMax = 15 * time.Minute

// defaults is a configuration without a statement.
func defaults() Config {
	return Config{Servers: 10, Log: LogConfig{Syslog: true, Facility: "mail", Tag: Program, Level: slog.LevelInfo, SessionID: true}}
}

// defaultClient is a client without a statement.
func defaultClient() Client {
	return Client{Failure: milter.Reconnect, Levels: allLevels, Timeouts: milter.Timeouts{
		Connect: 5 * time.Minute, Write: 10 * time.Second, Command: 10 * time.Second, Content: 10 * time.Second,
		End: 5 * time.Minute, Progress: progressMax,
	}}
}

// Source is where a configuration comes from.
type Source struct {
	File string   // "" for none
	Must bool     // it is an error if File is not there
	Set  []string // assignments of the option --set
	// Values are paths and values of other options, behind those of Set.
	Values [][2]string
	From   mailutils.Files // nil for the disk
}

// Loaded is a configuration, how it was read, and what is to be said of it.
type Loaded struct {
	Config
	Names    []string // files
	Warnings []syntax.Diagnostic
	Stmts    []*mailutils.Stmt
}

// Load reads a configuration. The error is a syntax.Errors, or one of opening the file.
func Load(s Source) (*Loaded, error) {
	if s.From == nil {
		s.From = mailutils.Disk{}
	}
	file := &mailutils.File{}
	if s.File != "" {
		var err error
		if file, err = mailutils.Load(s.From, s.File, Program); err != nil && (s.Must || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
	}
	for _, a := range s.Set {
		path, value, err := mailutils.SplitAssignment(a)
		if err == nil {
			err = file.Set(path, value)
		}
		if err != nil {
			return nil, syntax.Errors{{Severity: syntax.SeverityError, Message: "--set " + syntax.ShownWord(a) + ": " + err.Error()}}
		}
	}
	for _, v := range s.Values {
		if err := file.Set(v[0], v[1]); err != nil {
			return nil, err
		}
	}
	l := &Loaded{Config: defaults(), Names: file.Names, Stmts: file.Stmts}
	r := &reader{cfg: &l.Config, diags: &file.Diags}
	r.read(file.Stmts, statements(), "")
	r.whole(s.File)
	l.Warnings = file.Diags.Warnings
	return l, file.Err()
}
