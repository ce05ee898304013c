package mta

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"meta1/mta/account"
	"meta1/mta/logfmt"
	"meta1/mta/service"
	"meta1/mta/supervise"
)

// serviceUnits are the units of the service sections.
func (m *mta) serviceUnits() ([]supervise.Unit, error) {
	m.services, m.programs = map[string]*ServiceSection{}, map[string]*runs{}
	m.serviceMetrics = service.NewMetrics(m.hub.own)
	programs, err := m.conf.programs(m.dir, m.setup.Executable, m.account)
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
			return nil, exit(ExConfig, err)
		}
		m.programs[s.Of.Section] = now
		for _, u := range units {
			m.services[u.Name] = s
		}
		all = append(all, units...)
	}
	m.serviceMetrics.Keep(m.conf.serviceNames())
	return all, nil
}

// serviceNames are the paths of the sections of services.
func (c *Config) serviceNames() (names []string) {
	for _, s := range c.Services {
		names = append(names, s.Of.Section)
	}
	return names
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
		Program: r.program, Action: r.action, Listeners: r.listeners, Policy: s.Of.policy(), Processes: s.Of.ProcessesMin,
	}, service.Deps{Starter: r.starter, Log: r.log, Metrics: m.serviceMetrics, Output: func(id int) (*os.File, error) {
		return logfmt.Append(filepath.Join(below(m.dir, m.current().conf.LogDirectory), s.Of.outputName(id)))
	}})
	for i := range units {
		units[i].RestartDependencies = c.dependencies(&s.Of)
	}
	return units, err
}

// programs are the programs of all services. executable is our own binary, a the
// account that serves, nil for ours.
func (c *Config) programs(dir, executable string, a *account.Account) ([]service.Program, error) {
	var programs []service.Program
	for _, s := range c.Services {
		p := s.Of.program(dir, executable)
		p.Output = c.LogDirectory != ""
		if err := s.Of.runAs(&p, a); err != nil {
			return nil, exit(ExConfig, fmt.Errorf("section %s: %w", s.Of.Section, err))
		}
		programs = append(programs, p)
	}
	return programs, nil
}

func (c *Common) program(dir, executable string) service.Program {
	p := service.Program{
		Service: c.Section, Path: below(dir, c.Path), Args: c.argv(), PassID: c.PassID, UID: -1,
		Dir: below(dir, c.WorkingDirectory), Max: c.ProcessesMax,
		Connected: c.StartAction == string(service.Accept),
	}
	if c.Path == ownProgram {
		p.Path = executable
	}
	if c.PassFDSocket != "" {
		p.PassFD = below(dir, c.PassFDSocket)
	}
	return p
}

// runAs sets the account of a program. Without root there is only our own.
func (c *Common) runAs(p *service.Program, a *account.Account) error {
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
