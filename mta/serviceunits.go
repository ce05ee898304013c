package mta

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"meta1/mta/account"
	"meta1/mta/exit"
	"meta1/mta/logfmt"
	"meta1/mta/service"
	"meta1/mta/settings"
	"meta1/mta/supervise"
)

// serviceUnits are the units of the service sections.
func (m *mta) serviceUnits() ([]supervise.Unit, error) {
	m.services, m.programs = map[string]*ServiceSection{}, map[string]*runs{}
	m.serviceMetrics = service.NewMetrics(m.hub.own)
	programs, err := programs(m.conf, m.dir, m.setup.Executable, m.account)
	if err != nil {
		return nil, err
	}
	var all []supervise.Unit
	for i, s := range m.conf.Services {
		log, err := m.logs.logger(s.Of.Section, &s.Of)
		if err != nil {
			return nil, err
		}
		now := &runs{programs[i], service.Action(s.Of.StartAction), m.sockets.of(s.Of.Section), m.starter, log}
		units, err := m.unitsOf(m.conf, s, now)
		if err != nil {
			return nil, exit.With(exit.Config, err)
		}
		m.programs[s.Of.Section] = now
		for _, u := range units {
			m.services[u.Name] = s
		}
		all = append(all, units...)
	}
	m.serviceMetrics.Keep(m.conf.ServiceNames())
	return all, nil
}

// runs is what a service runs.
type runs struct {
	program   service.Program
	action    service.Action
	listeners []net.Listener
	starter   service.Starter
	log       *slog.Logger
}

// unitsOf are the units of one service.
func (m *mta) unitsOf(c *Config, s *ServiceSection, r *runs) ([]supervise.Unit, error) {
	units, err := service.Units(service.Config{
		Program: r.program, Action: r.action, Listeners: r.listeners, Policy: s.Of.Policy(), Processes: s.Of.ProcessesMin,
	}, service.Deps{Starter: r.starter, Log: r.log, Metrics: m.serviceMetrics, Output: func(id int) (*os.File, error) {
		return logfmt.Append(filepath.Join(settings.Below(m.dir, m.current().conf.LogDirectory), s.Of.OutputName(id)))
	}})
	for i := range units {
		units[i].RestartDependencies = c.Dependencies(&s.Of)
	}
	return units, err
}

// programs are the programs of all services. executable is our own binary, a the
// account that serves, nil for ours.
func programs(c *Config, dir, executable string, a *account.Account) ([]service.Program, error) {
	var programs []service.Program
	for _, s := range c.Services {
		p := programOf(&s.Of, dir, executable)
		p.Output = c.LogDirectory != ""
		if err := runProgramAs(&s.Of, &p, a); err != nil {
			return nil, exit.With(exit.Config, fmt.Errorf("section %s: %w", s.Of.Section, err))
		}
		programs = append(programs, p)
	}
	return programs, nil
}

func programOf(c *Common, dir, executable string) service.Program {
	p := service.Program{
		Service: c.Section, Path: settings.Below(dir, c.Path), Args: c.Argv(), PassID: c.PassID, UID: -1,
		Dir: settings.Below(dir, c.WorkingDirectory), Max: c.ProcessesMax,
		Connected: c.StartAction == string(service.Accept),
	}
	if c.Path == settings.OwnProgram {
		p.Path = executable
	}
	if c.PassFDSocket != "" {
		p.PassFD = settings.Below(dir, c.PassFDSocket)
	}
	return p
}

// runProgramAs sets the account of a program. Without root there is only our own.
func runProgramAs(c *Common, p *service.Program, a *account.Account) error {
	if a == nil && os.Geteuid() != 0 {
		return nil
	}
	if c.User != "" {
		u, err := account.Lookup(c.User, c.Group)
		if err != nil {
			return err
		}
		a = u
	}
	if a != nil {
		p.UID, p.GID, p.Groups = a.UID, a.GID, a.Groups
	}
	return nil
}

// needMonitor says whether a program runs under an account other than a, so that it
// takes root to start it.
func needMonitor(programs []service.Program, a *account.Account) bool {
	for _, p := range programs {
		if p.UID != a.UID || p.GID != a.GID {
			return true
		}
	}
	return false
}
