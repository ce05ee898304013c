package mta

import (
	"context"

	"meta1/mta/maildrop"
	"meta1/mta/settings"
	"meta1/mta/supervise"
)

// dropConfig is what the section says. dir is the main queue directory.
func dropConfig(d *settings.DropConfig, dir string) maildrop.Config {
	return maildrop.Config{Dir: settings.Below(dir, d.Directory), Access: maildrop.Access(d.Access), Interval: d.Interval, SizeMax: d.SizeMax}
}

// makeDrop makes what takes mail from the maildrop. It outlives the modules.
func (m *mta) makeDrop() {
	m.drop = maildrop.New(maildrop.Deps{
		Config: dropConfig(&m.conf.Drop, m.dir), Hostname: m.hostname,
		Ports: m.ports, Content: &m.content, Sign: m.signedOwn, Log: m.log, Metrics: m.hub.own,
	})
}

// serveDrop takes mail from the maildrop when everything is up: a start that fails leaves no directory behind.
func (m *mta) serveDrop(side *supervise.Group) {
	m.serveBeside(side, "the maildrop failed", func(ctx context.Context) error {
		select {
		case <-m.hand.isReady:
			return m.drop.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
}
