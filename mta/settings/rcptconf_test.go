package settings

import (
	"testing"

	"meta1/maps"
	"meta1/queue/conf"
)

func TestRcptConfSteps(t *testing.T) {
	for _, c := range []struct {
		conf conf.SMTPCConfig
		want maps.Steps
	}{
		{conf.SMTPCConfig{RcptConfFlags: []string{"domain"}}, 0},
		{conf.SMTPCConfig{LookupRcptConf: true, RcptConfFlags: []string{"domain", "dot"}}, maps.Domain | maps.Dot},
		{conf.SMTPCConfig{LookupRcptConf: true, RcptConfFlags: []string{"full_address", "no_star"}}, maps.FullAddress},
	} {
		if got := RcptConfSteps(&c.conf); got != c.want {
			t.Errorf("%+v: steps %b, want %b", c.conf, got, c.want)
		}
	}
}
