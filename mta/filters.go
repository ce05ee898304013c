package mta

import (
	"slices"

	"meta1/mta/control"
	"meta1/server"
)

// filtering are the sections milter and policy_service of a section smtps. Paths of sockets
// are relative to the main queue directory.
func (m *mta) filtering(c *server.Config) server.Filtering {
	f := server.Filtering{Milters: slices.Clone(c.Milters), PolicyServices: slices.Clone(c.PolicyServices)}
	for i := range f.Milters {
		if path := &f.Milters[i].Socket.Path; *path != "" {
			*path = below(m.dir, *path)
		}
	}
	for i := range f.PolicyServices {
		if path := &f.PolicyServices[i].Socket.Path; *path != "" {
			*path = below(m.dir, *path)
		}
	}
	return f
}

// runningServer is a section smtps: what the last reload made of its filters, and its instance.
type runningServer struct {
	filters  server.Filtering
	instance *server.Server // nil: none was started yet
}

// setServer notes the instance of a section smtps, which serves from now on, and gives it the
// filters of the last reload, if there was one.
func (m *mta) setServer(section string, s *server.Server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.running[section]
	r.instance = s
	s.Refilter(r.filters)
}

// reloadFilters gives the sections smtps the milters and policy services of a new
// configuration, if all else of the reload has worked: a configuration that took effect by half
// might let mail pass that its new filters were to stop. Nothing here can fail.
func (m *mta) reloadFilters(c *Config, report *control.ReloadReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range c.Servers {
		r := m.running[s.Of.Section]
		if r == nil {
			continue // that the section is new is told
		}
		now := m.filtering(&s.Server)
		present := len(now.Milters)+len(now.PolicyServices)+len(r.filters.Milters)+len(r.filters.PolicyServices) > 0
		switch {
		case !present:
			continue
		case len(report.Errors) > 0:
			report.Errors = append(report.Errors, s.Of.Section+": milters and policy services stay as they are because of the errors before")
			continue
		}
		r.filters = now
		if r.instance != nil {
			r.instance.Refilter(now)
		}
		report.Reloaded = append(report.Reloaded, s.Of.Section+" milters and policy services")
	}
}
