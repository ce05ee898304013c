package server

import (
	"cmp"
	"net"
	"strconv"
	"time"

	"meta1/confparse"
	"meta1/server/milter"
	"meta1/server/pmilter"
)

// Milter is one section milter: a mail filter that speaks Sendmail's protocol.
type Milter struct {
	Name     string
	Socket   Socket
	Timeouts milter.Timeouts
	Flags    MilterFlags
	Version  int
	Kept     int
	Macros   [milter.MacroStages][]string
}

// MilterFlags say what becomes of a client when a filter fails. Of several the strictest counts.
type MilterFlags struct {
	Abort, AcceptButReconnect, Tempfail, Reject, Quarantine bool
}

// failure is the strictest flag that is set, and how many are.
func (f *MilterFlags) failure() (how milter.Failure, n int) {
	for _, w := range []struct {
		set bool
		how milter.Failure
	}{
		{f.AcceptButReconnect, milter.Reconnect},
		{f.Quarantine, milter.Quarantine},
		{f.Tempfail, milter.Tempfail},
		{f.Reject, milter.Reject},
		{f.Abort, milter.AbortSession},
	} {
		if w.set {
			how = w.how
			n++
		}
	}
	return how, n
}

// config is the filter as its package wants it.
func (m *Milter) config() milter.Config {
	how, _ := m.Flags.failure()
	c := milter.Config{
		Name: m.Name, Network: "unix", Address: m.Socket.Path, Failure: how,
		Version: uint32(m.Version), Kept: m.Kept, Macros: m.Macros, Timeouts: m.Timeouts,
	}
	if m.Socket.Type == "inet" {
		c.Network, c.Address = "tcp", net.JoinHostPort(m.Socket.Address.String(), strconv.Itoa(m.Socket.Port))
	}
	t := &c.Timeouts
	t.Connect = cmp.Or(t.Connect, 30*time.Second)
	t.Command = cmp.Or(t.Command, 30*time.Second)
	t.Content = cmp.Or(t.Content, 5*time.Minute)
	t.Progress = cmp.Or(t.Progress, 15*time.Minute)
	return c
}

// macroStages are the options with the macros of a stage, in the order of the dialogue.
var macroStages = []struct {
	name  string
	stage milter.Stage
}{
	{"macros_connect", milter.StageConnect},
	{"macros_helo", milter.StageHelo},
	{"macros_mail", milter.StageMail},
	{"macros_rcpt", milter.StageRcpt},
	{"macros_data", milter.StageData},
	{"macros_eoh", milter.StageEOH},
	{"macros_eom", milter.StageEOM},
}

// newMilter makes the table of one section milter.
func (c *Config) newMilter(name string) *confparse.Table {
	m := &Milter{Name: name}
	f, t := &m.Flags, &m.Timeouts
	socket := m.Socket.table("The milter.", false)
	for i := range socket.Options {
		o := &socket.Options[i]
		o.Readme, o.Reload = "own", confparse.NewSessions
		switch o.Name {
		case "type":
			o.Required = true
			o.Doc = "inet: address and port say where the milter listens. unix: path does."
		case "path":
			o.Doc = "Path of the socket, relative to the main queue directory. The account of meta1 must be able to connect to it."
		}
	}
	socket.Check = func(r *confparse.Report) { m.Socket.check(r) }
	own := func(o confparse.Option) confparse.Option { o.Readme = "own"; return o }
	table := &confparse.Table{
		Done: func() { c.Milters = append(c.Milters, *m) },
		Check: func(r *confparse.Report) {
			if _, n := f.failure(); n > 1 {
				r.Warnf("", "milter %s: of the flags abort, reject, tempfail, quarantine and accept_but_reconnect the first that is set counts", name)
			}
			if name == pmilter.Name {
				r.Errorf("", "a section milter cannot have the name %q: it is that of the policy milter in logs and metrics", name)
			}
			for i := range c.Milters {
				if c.Milters[i].Name == name {
					r.Errorf("", "there are two sections milter with the name %q", name)
				}
			}
		},
		Options: []confparse.Option{
			{Name: "socket", Kind: confparse.KindSection, Required: true, Readme: "own", Sub: socket, Doc: "Where the milter listens."},
			{
				Name: "timeout", Type: confparse.Time, Unit: "s", Default: "30", Min: "1", Max: "1h", Readme: "own", Into: &t.Command,
				Doc: "How long to wait for the reply to a command. Default as Postfix's milter_command_timeout.",
			},
			{
				Name: "connect_timeout", Type: confparse.Time, Unit: "s", Default: "30", Min: "1", Max: "1h", Readme: "own", Into: &t.Connect,
				Doc: "How long connecting and negotiating may take. Default as Postfix's milter_connect_timeout.",
			},
			{
				Name: "content_timeout", Type: confparse.Time, Unit: "s", Default: "5m", Min: "1", Max: "1h", Readme: "own", Into: &t.Content,
				Doc: "How long to wait for the reply to a piece of a message and to its end. Default as Postfix's milter_content_timeout.",
			},
			{
				Name: "progress_max", Type: confparse.Time, Unit: "s", Default: "15m", Min: "1", Max: "1d", Readme: "own", Into: &t.Progress,
				Doc: "How long a milter may prolong these waits in all by saying that it goes on. The default is ours: clients wait for ten minutes (RFC 5321, 4.5.3.2.6), some for longer.",
			},
			{
				Name: "protocol", Type: confparse.Int, Default: "6", Min: "2", Max: "6", Readme: "own", Into: &m.Version,
				Doc: "Highest version of the protocol that is offered. Milters take an older one by themselves; a few old ones must be told.",
			},
			{
				Name: "connections_kept", Type: confparse.Int, Unit: "entries", Default: "0", Min: "0", Max: "1000", Readme: "own", Into: &m.Kept,
				Doc: "Idle connections that are kept for the next session, for a minute at most; 0 for a new one for each session. Only a milter that knows the command for it (SMFIC_QUIT_NC of version 6) takes another session on a connection: mailfromd does, many with libmilter do not.",
			},
			own(flagRow("abort", "", "If the milter fails, end the session with 421.", &f.Abort)),
			own(flagRow("accept_but_reconnect", "", "If the milter fails, go on without it, and connect anew for the next session. Without any flag that is so, too, but a milter to which no connection can be made is left alone for ten seconds.", &f.AcceptButReconnect)),
			own(flagRow("tempfail", "", "If the milter fails, refuse mail for now with 451.", &f.Tempfail)),
			own(flagRow("reject", "", "If the milter fails, refuse mail for good with 550.", &f.Reject)),
			own(flagRow("quarantine", "", "If the milter fails, accept mail and hold it in the queue until it is released.", &f.Quarantine)),
		},
	}
	for _, s := range macroStages {
		table.Options = append(table.Options, confparse.Option{
			Name: s.name, Type: confparse.List, Readme: "own", Into: &m.Macros[s.stage],
			Doc: "Macros for milters that do not ask for some themselves, at the stage " + s.stage.String() + "; without it the usual ones. docs/milters.md lists them.",
		})
	}
	for i := range table.Options {
		table.Options[i].Reload = confparse.NewSessions
	}
	return table
}

// check finds what does not fit the type of a socket.
func (s *Socket) check(r *confparse.Report) {
	switch {
	case s.Type == "unix" && s.Path == "":
		r.Errorf("", "a socket of type unix needs a path")
	case s.Type == "unix" && (s.Address.IsValid() || s.Port != 0):
		r.Errorf("", "a socket of type unix has no address and no port")
	case s.Type == "inet" && (!s.Address.IsValid() || s.Port == 0):
		r.Errorf("", "a socket of type inet needs an address and a port")
	case s.Type == "inet" && s.Path != "":
		r.Errorf("", "a socket of type inet has no path")
	}
}
