package mta

import (
	"slices"

	"meta1/mta/settings"
	"meta1/server"
)

// filtering are the sections milter and policy_service of a section smtps. Paths of sockets
// are relative to the main queue directory.
func (m *mta) filtering(c *server.Config) server.Filtering {
	f := server.Filtering{Milters: slices.Clone(c.Milters), PolicyServices: slices.Clone(c.PolicyServices)}
	for i := range f.Milters {
		if path := &f.Milters[i].Socket.Path; *path != "" {
			*path = settings.Below(m.dir, *path)
		}
	}
	for i := range f.PolicyServices {
		if path := &f.PolicyServices[i].Socket.Path; *path != "" {
			*path = settings.Below(m.dir, *path)
		}
	}
	return f
}
