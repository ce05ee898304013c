package settings

import (
	"meta1/mta/service"
	"meta1/mta/supervise"
)

// Policy is the restart policy of a section.
func (c *Common) Policy() supervise.Policy {
	p := supervise.DefaultPolicy()
	switch {
	case c.FailureMax >= 0:
		return p.WithMax(c.FailureMax)
	case c.StartAction == string(service.Accept):
		return p.WithMax(0)
	default:
		return p
	}
}

// Dependencies are the units that restart_dependencies name.
func (c *Config) Dependencies(of *Common) []string {
	var units []string
	for _, d := range of.RestartDependencies {
		switch {
		case d == "smtps":
			for _, s := range c.Servers {
				units = append(units, s.Of.Section)
			}
		case len(c.serviceUnitNames(d)) > 0:
			units = append(units, c.serviceUnitNames(d)...)
		default:
			units = append(units, d)
		}
	}
	return units
}

// serviceUnitNames are the units of a service section; none if it is no service.
func (c *Config) serviceUnitNames(section string) []string {
	for _, s := range c.Services {
		if s.Of.Section == section {
			return service.UnitNames(section, service.Action(s.Of.StartAction), s.Of.ProcessesMin)
		}
	}
	return nil
}

// ServiceNames are the paths of the sections of services.
func (c *Config) ServiceNames() (names []string) {
	for _, s := range c.Services {
		names = append(names, s.Of.Section)
	}
	return names
}
