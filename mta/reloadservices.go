package mta

import (
	"reflect"
	"slices"
	"strings"

	"meta1/confparse"
	"meta1/mta/service"
	"meta1/mta/supervise"
)

// Why a service has to wait for a restart.
const (
	otherAccountWhy = "only root may start a program for another account than that of meta1, and what does so with root's rights starts no others than those of the start"
	landlockWhy     = "with landlock meta1 starts no program itself, and what does starts no others than those of the start"
)

// compareServices leaves those services as they are whose program nobody may start before a restart, and tells why.
func (p *reloading) compareServices() {
	programs, err := programs(p.conf, p.dir, p.setup.Executable, p.account)
	if err != nil {
		p.fail(err)
		return
	}
	var services []*ServiceSection
	for i, s := range p.conf.Services {
		name := s.Of.Section
		was, why := p.programs[name], p.cannotStart(&programs[i])
		if why == "" || was != nil && was.action == service.Action(s.Of.StartAction) && was.runs(programs[i]) {
			services = append(services, s)
			continue
		}
		if was != nil {
			services = append(services, p.keepService(s))
		} else {
			p.result.KeepIn(p.now.result, "", name)
		}
		p.changed = slices.DeleteFunc(p.changed, func(c confparse.Change) bool {
			option, is := strings.CutPrefix(c.Option, name)
			if !is || option != "" && option[0] != '/' || logsOnly(option) {
				return false
			}
			c.Reload, c.Why = confparse.Restart, why
			p.pending = append(p.pending, c)
			return true
		})
	}
	p.conf.Services = services
}

// logsOnly reports whether an option of a service, with a slash in front, says how meta1 logs about it.
func logsOnly(option string) bool {
	return option == "/log_level" || option == "/log" || strings.HasPrefix(option, "/log/")
}

// keepService is a service as it runs, which logs as the new configuration says.
func (p *reloading) keepService(s *ServiceSection) *ServiceSection {
	i := slices.IndexFunc(p.now.conf.Services, func(was *ServiceSection) bool { return was.Of.Section == s.Of.Section })
	now := *p.now.conf.Services[i]
	now.Of.LogLevel, now.Of.Log = s.Of.LogLevel, s.Of.Log
	var names []string
	for _, o := range s.Of.Options(true) {
		if !logsOnly("/" + o.Name) {
			names = append(names, o.Name)
		}
	}
	p.result.KeepIn(p.now.result, s.Of.Section, names...)
	return &now
}

// cannotStart is why this process may not start a program; "" if it may.
func (m *mta) cannotStart(p *service.Program) string {
	switch {
	case m.conf.Landlock:
		return landlockWhy
	case m.account != nil && (p.UID != m.account.UID || p.GID != m.account.GID):
		return otherAccountWhy
	}
	return ""
}

// runs reports whether it is this program that runs. Where it prints to is decided when it is started.
func (r *runs) runs(p service.Program) bool {
	p.Output = r.program.Output
	return reflect.DeepEqual(r.program, p)
}

// prepareServices are the units of the services from the commit on. Those whose program, action or sockets differ, and those that
// were given up, are started anew.
func (p *reloading) prepareServices() (units []supervise.Unit) {
	m := p.mta
	programs, err := programs(p.conf, p.dir, p.setup.Executable, p.account)
	if err != nil {
		p.fail(err)
		return nil
	}
	next, sections := map[string]*runs{}, map[string]*ServiceSection{}
	all := sockets{all: p.bound}
	for i, s := range p.conf.Services {
		name := s.Of.Section
		was := p.programs[name]
		now := &runs{programs[i], service.Action(s.Of.StartAction), all.of(name), nil, nil}
		changed := was == nil || !was.runs(now.program) || was.action != now.action || !slices.Equal(was.listeners, now.listeners)
		if was == nil {
			log, keep, err := p.logs.prepareLogger(p.sinks, name, &s.Of)
			if err != nil {
				p.fail(inSection(name, err))
				continue
			}
			now.log = log
			p.step("", keep, nil)
		} else {
			now.log, now.starter = was.log, was.starter
		}
		if was == nil || !was.runs(now.program) {
			program := now.program
			if m.account != nil {
				program.UID = -1 // ours by now
			}
			now.starter = m.local.Only(program)
		} else {
			now.program = was.program
		}
		made, err := m.unitsOf(p.conf, s, now)
		if err != nil {
			p.fail(inSection(name, err))
			continue
		}
		next[name] = now
		for _, u := range made {
			sections[u.Name] = s
			if changed || p.gaveUp(u.Name) {
				p.renewed = append(p.renewed, u.Name)
			}
		}
		if changed {
			p.reloaded = append(p.reloaded, name)
		}
		units = append(units, made...)
	}
	p.step("", func() {
		m.programs = next
		m.serviceMetrics.Keep(p.conf.ServiceNames())
		m.mu.Lock()
		defer m.mu.Unlock()
		m.services = sections
	}, nil)
	return units
}

// gaveUp reports whether a unit was given up.
func (m *mta) gaveUp(unit string) bool {
	return slices.ContainsFunc(m.tree.Status(), func(s supervise.Status) bool { return s.Name == unit && s.State == supervise.Failed })
}
