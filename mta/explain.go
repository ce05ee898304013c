package mta

import (
	"context"

	"meta1/mta/dryrun"
	"meta1/mta/explain"
)

// Explain tries a dialogue with the running modules.
func (m *mta) Explain(ctx context.Context, q explain.Question) (*explain.Report, error) {
	now := m.current()
	return dryrun.Running{
		Conf: now.conf, Result: now.result, Dir: m.dir, Hostname: m.hostname, Version: m.setup.Version, Ports: m.ports, TLS: m.tlsOfServer,
	}.Explain(ctx, q)
}
