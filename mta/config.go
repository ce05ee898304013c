package mta

import (
	"meta1/mta/settings"
)

// What a configuration has, see package settings.
type (
	Config         = settings.Config
	Common         = settings.Common
	ServerSection  = settings.ServerSection
	ServiceSection = settings.ServiceSection
)
