package mta

import (
	"io/fs"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/tlsconf"
	"meta1/resolver/srs"
)

// srsSection is the section srs of the configuration in confparse.Result.
const srsSection = "smar/srs"

// loadSRS reads the secrets of section srs. It is called before the privileges are dropped, after loadTLS.
func (m *mta) loadSRS() error {
	r, err := srs.New(m.conf.Resolver.SRS, m.tlsFiles, nil)
	if err != nil {
		return exit.With(exit.Config, err)
	}
	m.srs = r
	return nil
}

// verifySRS reads the secrets of section srs.
func verifySRS(c *Config, result *confparse.Result, files tlsconf.Files) confparse.Errors {
	if !c.Resolver.SRS.Present {
		return nil
	}
	world := func(path string) bool {
		mode, err := modeOf(path)
		return err == nil && mode&fs.FileMode(0o004) != 0
	}
	if err := srs.Check(c.Resolver.SRS, files, world); err != nil {
		return confparse.Errors{result.Diagnose(confparse.SeverityError, srsSection+"/secret_file", "%v", err)}
	}
	return nil
}
